//! The suite, and what is of a folder alone.

use super::*;
use crate::storage::{Access, Place, contract};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

fn store_at(root: &Path, part_bytes: usize) -> Arc<dyn Store> {
    let settings = Settings {
        place: Place::parse(&format!("file://{}", root.display())).unwrap(),
        part_bytes,
        ..Settings::default()
    };
    crate::storage::open(&settings, &Access::default()).unwrap()
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

async fn put(store: &dyn Store, text: &str) -> Result<Receipt, StorageError> {
    store.put(&name(text), Bytes::from_static(b"x"), &Meta::new()).await
}

fn files(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_folder_passes_the_suite() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("backups");
    contract::run(store_at(&root, 64 << 10)).await;
    for (path, mode) in [(root.clone(), 0o700), (root.join("small"), 0o700)] {
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o7777,
            mode,
            "{}",
            path.display()
        );
    }
    put(store_at(&root, 1).as_ref(), "x").await.unwrap();
    assert_eq!(root.join("x").metadata().unwrap().permissions().mode() & 0o7777, 0o600);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_an_error_and_is_not_made() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("mount/backups");
    let store = store_at(&root, 1024);
    for kind in [
        store.check().await.unwrap_err().kind,
        store.list("").await.unwrap_err().kind,
        store.begin(&name("a"), None).await.err().unwrap().kind,
        store.stat(&name("a")).await.unwrap_err().kind,
        store.get(&name("a")).await.err().unwrap().kind,
        store.sweep(Duration::ZERO).await.unwrap_err().kind,
        put(store.as_ref(), "a").await.unwrap_err().kind,
    ] {
        assert_eq!(kind, StorageErrorKind::Unreachable);
    }
    assert!(!dir.path().join("mount").exists());
    // The last folder alone is made, by `check` and by nothing else.
    std::fs::create_dir(dir.path().join("mount")).unwrap();
    assert_eq!(
        put(store.as_ref(), "a").await.unwrap_err().kind,
        StorageErrorKind::Unreachable
    );
    store.check().await.unwrap();
    put(store.as_ref(), "a").await.unwrap();
}

#[tokio::test]
async fn a_folder_that_is_exchanged_under_an_upload_fails_it() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("backups");
    let store = store_at(&root, 1024);
    store.check().await.unwrap();
    let upload = store.begin(&name("a"), None).await.unwrap();
    upload.part(0, Bytes::from_static(b"abc")).await.unwrap();
    let old = dir.path().join("old");
    std::fs::rename(&root, &old).unwrap();
    std::fs::create_dir(&root).unwrap();
    let error = upload.finish(&Meta::new()).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unreachable, "{error}");
    assert!(files(&root).is_empty() && files(&old).is_empty());
}

#[tokio::test]
async fn what_was_given_up_cannot_be_finished() {
    let dir = TempDir::new().unwrap();
    let store = store_at(dir.path(), 1024);
    let upload = store.begin(&name("a"), None).await.unwrap();
    upload.part(0, Bytes::from_static(b"abc")).await.unwrap();
    upload.abort().await;
    assert!(upload.finish(&Meta::new()).await.is_err());
    assert!(files(dir.path()).is_empty());
}

#[tokio::test]
async fn no_link_leads_out_of_the_folder() {
    let dir = TempDir::new().unwrap();
    let (root, outside) = (dir.path().join("backups"), dir.path().join("outside"));
    let store = store_at(&root, 1024);
    store.check().await.unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "s").unwrap();
    symlink(&outside, root.join("folder")).unwrap();
    symlink(outside.join("secret"), root.join("link")).unwrap();
    for text in ["folder/secret", "folder/new", "link"] {
        assert_eq!(
            store.get(&name(text)).await.err().unwrap().kind,
            StorageErrorKind::Invalid,
            "{text}"
        );
    }
    assert_eq!(
        put(store.as_ref(), "folder/new").await.unwrap_err().kind,
        StorageErrorKind::Invalid
    );
    assert_eq!(store.stat(&name("link")).await.unwrap(), None);
    assert_eq!(store.list("").await.unwrap(), []);
    // A link in the place of an object is replaced, not followed.
    put(store.as_ref(), "link").await.unwrap();
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"s");
    assert_eq!(files(&outside), ["secret"]);
}

#[tokio::test]
async fn an_unfinished_file_is_never_an_object_and_is_swept_by_age() {
    let dir = TempDir::new().unwrap();
    let store = store_at(dir.path(), 1024);
    for left in [".a.part-0123456789abcdef", ".notes", ".b.part-1", "c.part-0123456789abcdef"] {
        std::fs::write(dir.path().join(left), "x").unwrap();
    }
    let listed = store.list("").await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(store.sweep(Duration::from_secs(60)).await.unwrap(), 0);
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(files(dir.path()), [".b.part-1", ".notes", "c.part-0123456789abcdef"]);
    drop(store.begin(&name("d"), None).await.unwrap());
    let gone = async {
        while files(dir.path()).len() > 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

#[tokio::test]
async fn a_file_that_becomes_short_while_it_is_read_is_an_error() {
    let dir = TempDir::new().unwrap();
    let store = store_at(dir.path(), 1024);
    let body = Bytes::from(vec![7; 10 << 20]);
    store.put(&name("a"), body, &Meta::new()).await.unwrap();
    let (_, mut from) = store.get(&name("a")).await.unwrap();
    from.read_exact(&mut [0; 100]).await.unwrap();
    std::fs::File::options()
        .write(true)
        .open(dir.path().join("a"))
        .unwrap()
        .set_len(5 << 20)
        .unwrap();
    let error = from.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    assert_eq!(
        store.get_from(&name("a"), 6 << 20).await.err().unwrap().kind,
        StorageErrorKind::Invalid
    );
}

#[tokio::test]
async fn a_full_file_system_is_told_as_such() {
    // Every write to it fails like that, and it is a folder's neighbour in no way; so the error alone is looked at.
    let full = std::fs::write("/dev/full", "x").unwrap_err();
    let error = StorageError::io("write", "file:///srv/a", full);
    assert_eq!((error.kind, error.is_transient()), (StorageErrorKind::NoSpace, false));
}
