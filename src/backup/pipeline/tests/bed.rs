//! What the tests have in common: a source that does as told, a folder, a backup taken and read back.

use super::faulty::{Faults, faulty};
use crate::backup::keys::Keys;
use crate::backup::pipeline::{Draft, PipelineSettings, Progress, ReadSettings, Source, open, take};
use crate::backup::{BackupError, BackupId, Format, Kind, Manifest};
use crate::storage::{Access, Meta, ObjectName, Place, Settings, Store, open_place};
use async_trait::async_trait;
use datastore_api::{DriverError, EngineFacts, ErrorKind};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes of a part in these tests.
pub(super) const PART: usize = 128 << 10;
/// Bytes of the stream that most tests take.
pub(super) const LENGTH: usize = 1_200_000;

/// Bytes that compress to about two thirds.
pub(super) fn data(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
        bytes.extend_from_slice(b"row,");
    }
    bytes.truncate(length);
    bytes
}

/// How a source ends.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum End {
    /// As it should.
    Well,
    /// Says that it failed, after the last byte: a tool's exit code, or its last word that is missing.
    Badly,
    /// Says that all is well after half of the bytes, and how many there should have been.
    Early,
    /// Writes one byte more than it says.
    Talkative,
    /// Never.
    Never,
}

/// A source that does as told.
pub(super) struct Scripted {
    pub(super) data: Arc<Vec<u8>>,
    pub(super) end: End,
}

#[async_trait]
impl Source for Scripted {
    type Facts = EngineFacts;

    async fn run(self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<(EngineFacts, u64), DriverError> {
        let failed = |e| DriverError::caused(ErrorKind::Unavailable, "could not write the stream", e);
        let length = self.data.len();
        let now = if self.end == End::Early { length / 2 } else { length };
        for piece in self.data[..now].chunks(70_001) {
            out.write_all(piece).await.map_err(failed)?;
        }
        match self.end {
            End::Badly => return Err(DriverError::new(ErrorKind::Failed, "the tool ended with exit code 1")),
            End::Never => std::future::pending::<()>().await,
            End::Talkative => out.write_all(b"!").await.map_err(failed)?,
            End::Well | End::Early => {}
        }
        out.shutdown().await.map_err(failed)?;
        let facts = EngineFacts {
            engine: "sim".into(),
            ..EngineFacts::default()
        };
        Ok((facts, length as u64))
    }
}

/// A folder with a backup in it, or about to be.
pub(super) struct Bed {
    pub(super) folder: TempDir,
    pub(super) id: BackupId,
    pub(super) data: Arc<Vec<u8>>,
    pub(super) end: End,
    pub(super) sealed: bool,
    pub(super) format: Format,
    pub(super) keys: Keys,
    pub(super) settings: PipelineSettings,
    pub(super) cancel: CancellationToken,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) read: ReadSettings,
}

pub(super) fn keys(name: &str, byte: u8) -> Keys {
    Keys::default().with_request(name, &hex::encode([byte; 32]).into()).unwrap()
}

impl Bed {
    pub(super) fn new(sealed: bool) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            id: BackupId::random().unwrap(),
            data: Arc::new(data(LENGTH, 7)),
            end: End::Well,
            sealed,
            format: Format::Native,
            keys: keys("k1", 1),
            settings: PipelineSettings {
                level: 1,
                ..PipelineSettings::default()
            },
            cancel: CancellationToken::new(),
            progress: watch::Sender::new(Progress::default()),
            read: ReadSettings {
                reconnects: 6,
                stall: Duration::from_millis(300),
                pause: Duration::from_millis(1),
            },
        }
    }

    pub(super) fn store(&self, faults: Faults) -> Arc<dyn Store> {
        let place = Place {
            kind: "file".into(),
            rest: self.folder.path().to_str().unwrap().into(),
        };
        let settings = Settings {
            part_bytes: PART,
            ..Settings::default()
        };
        faulty(open_place(&settings, &place, &Access::default()).unwrap(), faults)
    }

    pub(super) async fn take(&self, faults: Faults) -> Result<Manifest, BackupError> {
        let source = Scripted {
            data: Arc::clone(&self.data),
            end: self.end,
        };
        let draft = Draft {
            id: self.id.clone(),
            name: None,
            guest: "guest".into(),
            kind: Kind::Full,
            parent: None,
            format: self.format,
            extension: "stream",
            estimate: self.data.len() as u64,
            meta: &|_| Meta::new(),
            sealed: self.sealed,
        };
        let store = self.store(faults);
        take(
            source,
            store.as_ref(),
            draft,
            &self.keys,
            &self.settings,
            &self.progress,
            &self.cancel,
        )
        .await
    }

    /// Reads a backup as a restore does: manifest, then blob, all of it.
    pub(super) async fn restore(&self, faults: Faults) -> Result<Vec<u8>, String> {
        let text = |error: &(dyn std::error::Error + 'static)| datastore_api::chain(error);
        let store = self.store(faults);
        let name = ObjectName::new(self.id.manifest_name()).map_err(|e| text(&e))?;
        let (_, mut body) = store.get(&name).await.map_err(|e| text(&e))?;
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).await.map_err(|e| text(&e))?;
        let manifest = Manifest::decode_signed(&bytes, &self.id, &self.keys).map_err(|e| text(&e))?;
        let progress = watch::Sender::new(Progress::default());
        let opened = open(&store, &manifest, &self.keys, self.read, progress).await;
        let mut opened = opened.map_err(|e| text(&e))?;
        let mut plain = Vec::new();
        let read = opened.read_to_end(&mut plain).await;
        let why = opened.error();
        match (read, opened.finish().await) {
            (Ok(_), Ok(())) => Ok(plain),
            (Err(_), Ok(())) => panic!("a read failed and the end was good"),
            (Ok(_), Err(_)) => panic!("the stream ended as if it were good"),
            (Err(_), Err(error)) => {
                assert_eq!(why.unwrap().to_string(), error.to_string());
                Err(text(&*error))
            }
        }
    }

    /// Names of all files in the folder, unfinished ones too.
    pub(super) fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(super) fn blob(&self) -> PathBuf {
        let mut names = self.files();
        names.retain(|name| name.contains(".stream"));
        self.folder.path().join(&names[0])
    }

    pub(super) fn manifest(&self) -> PathBuf {
        self.folder.path().join(self.id.manifest_name())
    }

    /// Writes the manifest anew, signed with `keys`, changed.
    pub(super) fn doctor(&self, keys: &Keys, change: impl FnOnce(&mut Manifest)) {
        let path = self.manifest();
        let mut manifest = Manifest::decode(&fs::read(&path).unwrap(), &self.id).unwrap();
        change(&mut manifest);
        fs::write(path, manifest.encode(keys).unwrap()).unwrap();
    }

    /// Makes the manifest fit a blob that was changed, as who has the key could.
    pub(super) fn refit(&self) {
        let blob = fs::read(self.blob()).unwrap();
        self.doctor(&self.keys, |manifest| {
            manifest.stored_bytes = blob.len() as u64;
            manifest.stored_digest = blake3::hash(&blob).into();
        });
    }

    /// Changes a file.
    pub(super) fn edit(&self, path: &PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}
