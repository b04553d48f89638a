//! A way to the store that breaks: retried while that helps, an error otherwise, never half an object that looks whole.

use super::{Proxy, absent, bytes, name, proves, read, send, write};
use crate::storage::{Meta, Store};
use tokio::io::AsyncReadExt;

/// Runs the cases. `store` is reached through `proxy`, over plain TCP; `direct` is the same place without it.
///
/// # Panics
/// With the case and what is wrong.
pub async fn faults(store: &dyn Store, direct: &dyn Store, proxy: &Proxy) {
    broken_parts(store, direct, proxy).await;
    broken_reading(store, direct, proxy).await;
    broken_small_ones(store, direct, proxy).await;
}

/// Connections that break within a part, again and again: the part is sent again.
async fn broken_parts(store: &dyn Store, direct: &dyn Store, proxy: &Proxy) {
    let name = name("faults/parts");
    let upload = store.begin(&name, None).await.unwrap();
    let part = upload.part_bytes(0);
    let body = bytes(20, 2 * part + 11);
    proxy.break_sending(part / 2, 3);
    send(upload.as_ref(), &body).await;
    assert_eq!(proxy.broken(), 3, "the case is about broken connections");
    absent(direct, &name).await;
    // The answer of the last step is lost: what was done is not done wrong by doing it again.
    proxy.break_receiving(0, 1);
    let receipt = upload.finish(&Meta::new()).await.unwrap();
    assert_eq!(proxy.broken(), 1, "the case is about a lost answer");
    proves(direct, &receipt.clone(), &name, body.len());
    assert!(read(direct, &name).await == body);
}

/// A connection that breaks within a body: all of it or an error, and one can go on where it broke.
async fn broken_reading(store: &dyn Store, direct: &dyn Store, proxy: &Proxy) {
    let name = name("faults/reading");
    let part = direct.begin(&name, None).await.unwrap().part_bytes(0);
    let body = bytes(21, 2 * part);
    write(direct, &name, &body).await;
    proxy.break_receiving(part, 2);
    let (mut all, mut errors) = (Vec::new(), 0);
    let (stat, mut from) = store.get(&name).await.unwrap();
    while let Err(error) = from.read_to_end(&mut all).await {
        errors += 1;
        assert!(errors < 10, "{error}");
        from = store.get_from(&name, all.len() as u64).await.unwrap();
    }
    assert!(
        stat.bytes == body.len() as u64 && all == body,
        "{} bytes after {errors} errors",
        all.len()
    );
    assert!(proxy.broken() > 0, "the case is about broken connections");
}

async fn broken_small_ones(store: &dyn Store, direct: &dyn Store, proxy: &Proxy) {
    let (name, body) = (name("faults/small.json"), bytes(22, 40_000));
    for lost in [0, 1] {
        proxy.break_sending(lost * 20_000, 2);
        store.put(&name, body.clone(), &Meta::new()).await.unwrap();
        assert!(proxy.broken() > 0, "the case is about broken connections");
        assert_eq!(read(direct, &name).await, body);
    }
    proxy.break_receiving(0, 2);
    assert_eq!(store.stat(&name).await.unwrap().unwrap().bytes, body.len() as u64);
    proxy.break_receiving(0, 2);
    assert_eq!(store.list("faults/small").await.unwrap().len(), 1);
    proxy.break_receiving(0, 1);
    store.delete(&name).await.unwrap();
    absent(direct, &name).await;
}
