//! Small objects, lists, reading from the middle.

use super::{absent, bytes, kind, name, proves, read, write};
use crate::storage::{Meta, StorageErrorKind, Store};
use bytes::Bytes;
use datastore_api::Change;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt;

/// A location leads back to the name, and no other text does.
pub(super) fn names(store: &dyn Store) {
    let long = "x".repeat(200);
    for text in ["a", "a/b/c.json", "4f-_.xbstream", &long] {
        let name = name(text);
        assert_eq!(store.name_at(&store.location(&name)), Some(name));
    }
    let root = store.location(&name("a"));
    let root = root.strip_suffix("/a").unwrap();
    let foreign = [
        "",
        "/",
        "/..",
        "/../a",
        "/a/../../b",
        "//etc/passwd",
        "/.a",
        "x/a",
        "/a b",
        "/a%2f..%2fb",
    ];
    for foreign in foreign {
        assert_eq!(store.name_at(&format!("{root}{foreign}")), None, "{foreign:?}");
    }
    for foreign in [
        "",
        "a",
        "file:///etc/passwd",
        "gopher://x/a",
        "https://elsewhere.example/v1/x/y/z",
    ] {
        assert_eq!(store.name_at(foreign), None, "{foreign:?}");
    }
    assert!(!store.place().is_empty() && !store.kind().is_empty());
}

pub(super) async fn small_objects(store: &dyn Store) {
    let meta = Meta::from([("datastore_version".to_owned(), "10.11".to_owned())]);
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    for (text, length) in [
        ("small/one.json", 300),
        ("small/empty", 0),
        (&long, 1),
        ("small/large.json", 600_000),
    ] {
        let (name, body) = (name(text), bytes(1, length));
        let receipt = store.put(&name, body.clone(), &meta).await.unwrap();
        proves(store, &receipt, &name, length);
        assert_eq!(read(store, &name).await, body, "{name}");
        let stat = store.stat(&name).await.unwrap().unwrap();
        assert_eq!((&stat.name, stat.bytes), (&name, length as u64));
        let age = SystemTime::now().duration_since(stat.modified.unwrap()).unwrap_or_default();
        assert!(age < Duration::from_secs(600), "{name} is {age:?} old");
    }
    // Replaced by less, at once and as a whole.
    let (name, body) = (name("small/one.json"), Bytes::from_static(b"{}"));
    store.put(&name, body.clone(), &Meta::new()).await.unwrap();
    assert_eq!(read(store, &name).await, body);
    assert_eq!(store.delete(&name).await.unwrap(), Change::Done);
    assert_eq!(store.delete(&name).await.unwrap(), Change::Unchanged);
    absent(store, &name).await;
}

pub(super) async fn absent_objects(store: &dyn Store) {
    for text in ["absent", "absent/in/a/folder"] {
        let name = name(text);
        absent(store, &name).await;
        assert_eq!(kind(store.get(&name).await.map(drop)), StorageErrorKind::NotFound);
        assert_eq!(kind(store.get_from(&name, 1).await.map(drop)), StorageErrorKind::NotFound);
        assert_eq!(store.delete(&name).await.unwrap(), Change::Unchanged);
    }
}

pub(super) async fn lists(store: &dyn Store) {
    let names = ["list/a", "list/a.json", "list/b/c", "list/b/d", "list/bb", "list-not"];
    for text in names {
        store.put(&name(text), bytes(2, text.len()), &Meta::new()).await.unwrap();
    }
    for (prefix, wanted) in [
        ("list/", &names[..5]),
        ("list/b", &names[2..5]),
        ("list/b/", &names[2..4]),
        ("list/a.", &names[1..2]),
        ("list/x", &[]),
        ("list-not", &names[5..]),
        ("../list", &[]),
    ] {
        let found = store.list(prefix).await.unwrap();
        let found: Vec<_> = found.iter().map(|stat| (stat.name.as_str(), stat.bytes)).collect();
        let wanted: Vec<_> = wanted.iter().map(|text| (*text, text.len() as u64)).collect();
        assert_eq!(found, wanted, "{prefix:?}");
    }
}

pub(super) async fn offsets(store: &dyn Store) {
    let name = name("offsets/blob");
    let part = store.begin(&name, None).await.unwrap().part_bytes(0);
    let body = bytes(3, 2 * part + 77);
    write(store, &name, &body).await;
    for offset in [0, 1, part - 1, part, part + 1, 2 * part, body.len() - 1, body.len()] {
        let mut all = Vec::new();
        let mut from = store.get_from(&name, offset as u64).await.unwrap();
        from.read_to_end(&mut all).await.unwrap();
        assert!(all == body[offset..], "from byte {offset}: {} bytes", all.len());
    }
    let behind = store.get_from(&name, body.len() as u64 + 1).await.map(drop);
    assert_eq!(kind(behind), StorageErrorKind::Invalid);
    // A reader may stop early.
    let (_, mut early) = store.get(&name).await.unwrap();
    early.read_exact(&mut [0; 10]).await.unwrap();
    drop(early);
    store.delete(&name).await.unwrap();
    absent(store, &name).await;
}
