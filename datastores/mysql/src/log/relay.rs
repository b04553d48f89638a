//! The relay logs that a replay is made of: in the data directory of the restored server, which is not running yet.

use super::event::{Format, MAGIC};
use crate::errors;
use datastore_api::{DriverError, FileMode, Host, Owner};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Their name before the dot. It is told to the server, too.
pub(super) const NAME: &str = "replay";
/// Where the first event is.
pub(super) const FIRST: usize = MAGIC.len();
/// How much is kept in memory before it is written.
const CHUNK: usize = 8 << 20;

/// Writes them.
pub(super) struct Relay {
    host: Arc<dyn Host>,
    folder: PathBuf,
    mode: FileMode,
    /// The files so far.
    names: Vec<String>,
    /// Which of the source's files the last one is of, and its beginning.
    of: Option<(String, Vec<u8>)>,
    /// What is not written yet.
    pub buffer: Vec<u8>,
    begun: bool,
    /// Bytes written.
    bytes: u64,
}

impl Relay {
    /// In this folder, for this user.
    pub fn new(host: Arc<dyn Host>, folder: &Path, user: &str) -> Self {
        Self {
            host,
            folder: folder.to_owned(),
            mode: FileMode {
                mode: 0o660,
                owner: Some(Owner { user: user.to_owned() }),
            },
            names: Vec::new(),
            of: None,
            buffer: Vec::new(),
            begun: false,
            bytes: 0,
        }
    }

    /// What follows is of this file of the source.
    pub async fn begin(&mut self, file: &str, format: &Format) -> Result<(), DriverError> {
        let of = (file.to_owned(), format.bytes.clone());
        if self.of.as_ref() == Some(&of) {
            return Ok(());
        }
        self.flush().await?;
        self.of = Some(of);
        self.names.push(format!("{NAME}.{:06}", self.names.len() + 1));
        self.begun = false;
        self.buffer.extend_from_slice(MAGIC);
        self.buffer.extend_from_slice(&format.bytes);
        self.buffer.extend(format.rotate_to(file));
        Ok(())
    }

    /// Writes what has come together, if it is much.
    pub async fn write(&mut self) -> Result<(), DriverError> {
        if self.buffer.len() >= CHUNK {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Writes what is left, and the list of the files. Answers the first one; `None` if there is none.
    pub async fn finish(&mut self) -> Result<Option<String>, DriverError> {
        self.flush().await?;
        let index: String = self.names.iter().map(|name| format!("./{name}\n")).collect();
        let path = self.folder.join(format!("{NAME}.index"));
        let written = self.host.write_atomic(&path, index.as_bytes(), &self.mode).await;
        written.map_err(|error| errors::file("write", &path, error))?;
        Ok(self.names.first().cloned())
    }

    async fn flush(&mut self) -> Result<(), DriverError> {
        let Some(name) = self.names.last().filter(|_| !self.buffer.is_empty()) else {
            return Ok(());
        };
        let path = self.folder.join(name);
        let bytes = std::mem::take(&mut self.buffer);
        self.bytes += bytes.len() as u64;
        let written = match self.begun {
            true => self.host.append(&path, bytes).await.map(drop),
            false => self.host.write_atomic(&path, &bytes, &self.mode).await.map(drop),
        };
        self.begun = true;
        written.map_err(|error| errors::file("write", &path, error))
    }
}
