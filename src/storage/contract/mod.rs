//! The suite that every store passes against its real peer.
//!
//! Owns: the cases, and [`Proxy`], a way over the loopback that breaks when it is told to. Uses: only the traits. Never does:
//! know a store.
//!
//! A store's test opens an empty place and calls [`run`]; where a peer is on the network it opens the same place once more
//! through a [`Proxy`] and calls [`faults`]. Every case has names of its own, so that one place serves all.

#![allow(clippy::unwrap_used, reason = "a case that cannot go on says so")]

mod basics;
mod faults;
mod proxy;
mod uploads;

pub use faults::faults;
pub use proxy::Proxy;

use super::{Meta, ObjectName, Receipt, StorageError, StorageErrorKind, Store, Upload};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Runs all cases.
///
/// # Panics
/// With the case and what is wrong.
pub async fn run(store: Arc<dyn Store>) {
    let s = store.as_ref();
    s.check().await.expect("the place can be used");
    s.check().await.expect("the place can be used twice");
    assert_eq!(s.list("").await.unwrap(), [], "the suite begins with an empty place");
    basics::names(s);
    basics::small_objects(s).await;
    basics::absent_objects(s).await;
    basics::lists(s).await;
    basics::offsets(s).await;
    uploads::sizes(s).await;
    uploads::parts_in_any_order(&store).await;
    uploads::replaced(s).await;
    uploads::aborted(s).await;
    uploads::dropped(s).await;
    uploads::refused(s).await;
    uploads::writers_of_one_name(s).await;
    for left in s.list("").await.unwrap() {
        s.delete(&left.name).await.unwrap();
    }
    assert_eq!(s.list("").await.unwrap(), [], "everything can be deleted");
    assert_eq!(s.sweep(Duration::ZERO).await.unwrap(), 0, "nothing is left to sweep");
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// Bytes that look random, the same for the same seed, and no piece of them repeats.
fn bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out.into()
}

/// The whole of an object.
async fn read(store: &dyn Store, name: &ObjectName) -> Vec<u8> {
    let (stat, mut body) = store.get(name).await.unwrap();
    let mut all = Vec::new();
    body.read_to_end(&mut all).await.unwrap();
    assert_eq!(stat.bytes, all.len() as u64, "{name}: length told and length read");
    all
}

async fn absent(store: &dyn Store, name: &ObjectName) {
    assert_eq!(store.stat(name).await.unwrap(), None, "{name} must not be there");
    let listed = store.list(name.as_str()).await.unwrap();
    assert_eq!(listed, [], "{name} must not be listed");
}

fn kind<T>(done: Result<T, StorageError>) -> StorageErrorKind {
    done.err().expect("an error was expected").kind
}

/// Sends `body` in parts, one after the other, without finishing.
async fn send(upload: &dyn Upload, body: &Bytes) {
    let (mut at, mut index) = (0, 0);
    while at < body.len() {
        let end = body.len().min(at + upload.part_bytes(index));
        upload.part(index, body.slice(at..end)).await.unwrap();
        (at, index) = (end, index + 1);
    }
}

async fn write(store: &dyn Store, name: &ObjectName, body: &Bytes) -> Receipt {
    let upload = store.begin(name, None).await.unwrap();
    send(upload.as_ref(), body).await;
    upload.finish(&Meta::new()).await.unwrap()
}

fn proves(store: &dyn Store, receipt: &Receipt, name: &ObjectName, length: usize) {
    assert_eq!(receipt.bytes, length as u64, "{name}");
    assert_eq!(receipt.location, store.location(name));
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fits = receipt.checksum.len() == 32 && receipt.checksum.bytes().all(hex);
    assert!(
        fits,
        "32 hex digits go into the control plane's database: {}",
        receipt.checksum
    );
}
