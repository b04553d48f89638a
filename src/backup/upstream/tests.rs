//! What can be wrong with an object that has no manifest. Upstream's own code is in `tests/upstream_format.rs`.

use super::*;
use crate::backup::pipeline::Progress;
use crate::storage::{self, Access, Meta, Place, Settings};
use bytes::Bytes;
use datastore_api::Secret;
use flate2::write::GzEncoder;
use std::io::Write;
use std::process::Stdio;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

const ID: &str = "7b1e0c2a-9a7b-4f3d-8b11-6f8b5f0a1d22";

struct Folder {
    _dir: tempfile::TempDir,
    store: Arc<dyn Store>,
}

fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        place: Place::parse(&format!("file://{}", dir.path().display())).unwrap(),
        ..Settings::default()
    };
    let store = storage::open(&settings, &Access::default()).unwrap();
    Folder { _dir: dir, store }
}

impl Folder {
    async fn read(&self, name: &str, body: Vec<u8>, key: Option<&str>) -> Result<Vec<u8>, String> {
        let name = ObjectName::new(name).unwrap();
        self.store.check().await.unwrap();
        self.store.put(&name, Bytes::from(body), &Meta::new()).await.unwrap();
        let stat = self.store.stat(&name).await.unwrap().unwrap();
        let location = self.store.location(&name);
        let found = match find(&self.store, &name, &location, &ID.parse().unwrap()).await.unwrap() {
            Some((manifest, found)) => {
                assert!(is_foreign(&manifest) && manifest.format == Format::Upstream && manifest.kind == Kind::Full);
                found
            }
            None => Found {
                checksum: stat.checksum.clone(),
                stored_bytes: stat.bytes,
                location,
                name,
            },
        };
        let key = key.map(|key| Secret::from(key.to_owned()));
        let (progress, told) = watch::channel(Progress::default());
        let mut stream = open(&self.store, &found, key.as_ref(), &progress)
            .await
            .map_err(|e| e.to_string())?;
        let mut all = Vec::new();
        if let Err(error) = stream.read_to_end(&mut all).await {
            assert!(stream.error().is_some() && !told.borrow().done);
            return Err(error.to_string());
        }
        stream.finish().await.unwrap();
        assert!(told.borrow().done && told.borrow().plain_bytes == all.len() as u64);
        Ok(all)
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(body).unwrap();
    packed.finish().unwrap()
}

/// Bytes that pack well and are longer than any buffer.
fn bytes() -> Vec<u8> {
    (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
}

/// By the tool itself. OpenSSL 3 still makes keys in all the old ways.
fn openssl(body: &[u8], ways: &[&str]) -> Vec<u8> {
    #[expect(clippy::disallowed_methods, reason = "the peer is a program")]
    let mut tool = std::process::Command::new("openssl")
        .args(["enc", "-aes-256-cbc", "-salt", "-pass", "pass:the old key"])
        .args(ways)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut input, body) = (tool.stdin.take().unwrap(), body.to_vec());
    let writer = std::thread::spawn(move || input.write_all(&body));
    let output = tool.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}

#[tokio::test]
async fn gzip_is_unpacked_and_must_be_whole() {
    let folder = folder();
    let plain = bytes();
    assert!(folder.read("a.xbstream.gz", gzip(&plain), None).await.unwrap() == plain);
    // Several members: what `pigz` and concatenation make.
    let members = [gzip(&plain[..1000]), gzip(&[]), gzip(&plain[1000..])].concat();
    assert!(folder.read("a.xbstream.gz", members, None).await.unwrap() == plain);
    // Packed without saying so, and not packed at all.
    assert!(folder.read("a.xbstream", gzip(&plain), None).await.unwrap() == plain);
    assert!(folder.read("a.xbstream", plain.clone(), None).await.unwrap() == plain);
    assert!(folder.read("a.xbstream", b"x".to_vec(), None).await.unwrap() == b"x");
    let whole = gzip(&plain);
    for cut in [1, 2, 5, 9, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        let error = folder.read("a.xbstream.gz", whole[..cut].to_vec(), None).await.unwrap_err();
        assert!(error.contains("a.xbstream.gz is damaged"), "{cut}: {error}");
    }
    for at in [0, whole.len() / 2, whole.len() - 6] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        let error = folder.read("a.xbstream.gz", flipped, None).await.unwrap_err();
        assert!(error.contains("is damaged"), "{at}: {error}");
    }
    let error = folder.read("a.xbstream.gz", plain, None).await.unwrap_err();
    assert!(error.contains("not packed by gzip"), "{error}");
}

#[tokio::test]
async fn encrypted_ones_of_every_era_are_read_with_the_key_and_only_with_it() {
    let folder = folder();
    let plain = bytes();
    for ways in [
        &["-md", "sha512", "-pbkdf2", "-iter", "10000"][..],
        &["-md", "sha256"],
        &["-md", "md5"],
    ] {
        for (name, body) in [
            ("a.xbstream.gz.enc", gzip(&plain)),
            ("a.gz.enc", gzip(b"SELECT 1;")),
            ("a.xbstream.enc", b"XBSTCK01 and more".to_vec()),
        ] {
            let sealed = openssl(&body, ways);
            assert!(sealed.starts_with(b"Salted__"));
            let wanted = if name == "a.xbstream.enc" {
                body
            } else {
                [&plain[..], b"SELECT 1;"][usize::from(name == "a.gz.enc")].to_vec()
            };
            assert!(
                folder.read(name, sealed.clone(), Some("the old key")).await.unwrap() == wanted,
                "{ways:?} {name}"
            );
            let error = folder.read(name, sealed.clone(), Some("another key")).await.unwrap_err();
            assert!(error.contains("backup_aes_cbc_key"), "{ways:?} {name}: {error}");
            assert!(!error.contains("another key"));
            let error = folder.read(name, sealed.clone(), None).await.unwrap_err();
            assert!(error.contains("backup_aes_cbc_key is not set"), "{error}");
            for cut in [7, 20, sealed.len() - 1, sealed.len() - 16] {
                let error = folder
                    .read(name, sealed[..cut].to_vec(), Some("the old key"))
                    .await
                    .unwrap_err();
                assert!(error.contains("is damaged"), "{cut}: {error}");
            }
        }
    }
    let error = folder.read("a.gz.enc", gzip(&plain), Some("the old key")).await.unwrap_err();
    assert!(error.contains("not encrypted by openssl"), "{error}");
}

#[test]
fn facts_are_taken_from_what_stands_beside_it() {
    let stat = |name: &str, meta: &[(&str, &str)]| Stat {
        name: ObjectName::new(name).unwrap(),
        bytes: 1,
        modified: None,
        checksum: None,
        meta: meta
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let maria = facts_of(&stat(
        "x.xbstream.gz",
        &[("datastore", "mariadb"), ("datastore_version", "10.11.8"), ("lsn", "77")],
    ));
    assert_eq!((maria.strategy.as_str(), maria.version.as_str()), ("mariabackup", "10.11.8"));
    assert_eq!(maria.to_lsn.as_deref(), Some("77"));
    let named = facts_of(&stat(
        "x.tar.gz",
        &[("datastore", "postgresql"), ("datastore_version", "16-jammy")],
    ));
    assert_eq!(
        (named.strategy.as_str(), named.version.as_str(), named.to_lsn),
        ("pg_basebackup", "", None)
    );
}
