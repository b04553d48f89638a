//! Large objects: what is whole is there, what is not is not.

use super::{absent, bytes, kind, name, proves, read, send, write};
use crate::storage::{Meta, StorageErrorKind, Store};
use bytes::Bytes;
use datastore_api::Change;
use std::sync::Arc;
use std::time::Duration;

/// None, one byte, one part, a byte more, exactly two parts.
pub(super) async fn sizes(store: &dyn Store) {
    let name = name("sizes/blob");
    let part = store.begin(&name, Some(1)).await.unwrap().part_bytes(0);
    for length in [0, 1, part, part + 1, 2 * part] {
        let body = bytes(4, length);
        let receipt = write(store, &name, &body).await;
        proves(store, &receipt, &name, length);
        let listed = store.list(name.as_str()).await.unwrap();
        assert_eq!(listed.len(), 1, "visible at once, and its pieces are not");
        assert_eq!(listed[0].bytes, length as u64);
        assert!(read(store, &name).await == body, "{length} bytes");
    }
    // A last part without bytes.
    let upload = store.begin(&name, None).await.unwrap();
    upload.part(0, Bytes::new()).await.unwrap();
    proves(store, &upload.finish(&Meta::new()).await.unwrap(), &name, 0);
    assert!(read(store, &name).await.is_empty());
}

/// Several tasks at once, the last part first, one of them twice.
pub(super) async fn parts_in_any_order(store: &Arc<dyn Store>) {
    let name = name("order/blob");
    let upload = store.begin(&name, None).await.unwrap();
    let part = upload.part_bytes(0);
    let body = bytes(5, 5 * part + 1234);
    let parts: Vec<Bytes> = (0..6).map(|i| body.slice(i * part..body.len().min((i + 1) * part))).collect();
    upload.part(2, parts[2].clone()).await.unwrap();
    let sent = [5u32, 4, 0, 3, 2, 1].map(|index| upload.part(index, parts[index as usize].clone()));
    for done in futures_util::future::join_all(sent).await {
        done.unwrap();
    }
    absent(store.as_ref(), &name).await;
    let receipt = upload.finish(&Meta::new()).await.unwrap();
    proves(store.as_ref(), &receipt, &name, body.len());
    assert!(read(store.as_ref(), &name).await == body);
    let stat = store.stat(&name).await.unwrap().unwrap();
    assert_eq!(stat.bytes, body.len() as u64);
    assert_eq!(store.delete(&name).await.unwrap(), Change::Done);
    absent(store.as_ref(), &name).await;
}

/// The old object stays readable until the new one is whole; nothing of it stays afterwards.
pub(super) async fn replaced(store: &dyn Store) {
    let name = name("replaced/blob");
    let part = store.begin(&name, None).await.unwrap().part_bytes(0);
    let (old, new) = (bytes(6, 2 * part + 9), bytes(7, part + 3));
    write(store, &name, &old).await;
    let upload = store.begin(&name, None).await.unwrap();
    send(upload.as_ref(), &new).await;
    assert!(read(store, &name).await == old, "the old one until the new one is whole");
    upload.finish(&Meta::new()).await.unwrap();
    assert!(read(store, &name).await == new);
    assert_eq!(store.list("replaced/").await.unwrap().len(), 1);
    store.delete(&name).await.unwrap();
    absent(store, &name).await;
}

pub(super) async fn aborted(store: &dyn Store) {
    let (fresh, kept) = (name("aborted/fresh"), name("aborted/kept"));
    let part = store.begin(&kept, None).await.unwrap().part_bytes(0);
    let old = bytes(8, 100);
    write(store, &kept, &old).await;
    for name in [&fresh, &kept] {
        let upload = store.begin(name, None).await.unwrap();
        send(upload.as_ref(), &bytes(9, part + 5)).await;
        upload.abort().await;
        upload.abort().await;
    }
    absent(store, &fresh).await;
    assert!(read(store, &kept).await == old, "what was there before stays");
    store.begin(&fresh, None).await.unwrap().abort().await;
    absent(store, &fresh).await;
}

/// As a crash leaves it: nothing to see, and swept when it is old enough.
pub(super) async fn dropped(store: &dyn Store) {
    let name = name("dropped/blob");
    let upload = store.begin(&name, None).await.unwrap();
    let part = upload.part_bytes(0);
    send(upload.as_ref(), &bytes(10, part + 5)).await;
    absent(store, &name).await;
    assert_eq!(
        store.sweep(Duration::from_secs(3600)).await.unwrap(),
        0,
        "an upload under way is no left-over"
    );
    drop(upload);
    absent(store, &name).await;
    store.sweep(Duration::ZERO).await.unwrap();
    absent(store, &name).await;
    let body = bytes(11, part + 6);
    write(store, &name, &body).await;
    assert!(read(store, &name).await == body, "the name can be used again");
    store.delete(&name).await.unwrap();
}

/// What the caller did wrong is never an object.
pub(super) async fn refused(store: &dyn Store) {
    let name = name("refused/blob");
    let upload = store.begin(&name, None).await.unwrap();
    let part = upload.part_bytes(0);
    let long = upload.part(0, bytes(12, part + 1)).await;
    assert_eq!(kind(long), StorageErrorKind::Invalid, "a part longer than it may be");
    upload.abort().await;
    for (case, parts) in [
        ("a gap", [(0, part), (2, 10)]),
        ("a short part in the middle", [(0, part - 1), (1, part)]),
    ] {
        let upload = store.begin(&name, None).await.unwrap();
        for (index, length) in parts {
            upload.part(index, bytes(13, length)).await.unwrap();
        }
        let done = upload.finish(&Meta::new()).await.map(drop);
        assert_eq!(kind(done), StorageErrorKind::Invalid, "{case}");
        absent(store, &name).await;
        upload.abort().await;
        absent(store, &name).await;
    }
}

/// Two at once: one of them wins, as a whole.
pub(super) async fn writers_of_one_name(store: &dyn Store) {
    let name = name("writers/blob");
    let (one, two) = (
        store.begin(&name, None).await.unwrap(),
        store.begin(&name, None).await.unwrap(),
    );
    let part = one.part_bytes(0);
    let bodies = [bytes(14, part + 50), bytes(15, part + 20)];
    tokio::join!(send(one.as_ref(), &bodies[0]), send(two.as_ref(), &bodies[1]));
    let meta = Meta::new();
    let (first, second) = tokio::join!(one.finish(&meta), two.finish(&meta));
    assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    let found = read(store, &name).await;
    assert!(
        bodies.iter().any(|body| *body == found),
        "{} bytes of two objects",
        found.len()
    );
    assert_eq!(store.list("writers/").await.unwrap().len(), 1);
}
