//! What a backup is of.

use async_trait::async_trait;
use bytes::Bytes;
use datastore_api::{BackupKind, Backups, DriverError, EngineFacts, ErrorKind};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Something that writes a stream and knows at the end whether it was good. The end of the stream means nothing: only `Ok` does.
#[async_trait]
pub trait Source: Send {
    /// What it tells at the end.
    type Facts: Send;

    /// Writes it all. The answer: the facts, and how many bytes it wrote by its own count.
    async fn run(self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<(Self::Facts, u64), DriverError>;
}

/// A driver's backup.
pub struct DriverSource<'a> {
    /// The driver.
    pub backups: &'a dyn Backups,
    /// What to take.
    pub kind: &'a BackupKind,
}

#[async_trait]
impl Source for DriverSource<'_> {
    type Facts = EngineFacts;

    async fn run(self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<(EngineFacts, u64), DriverError> {
        let facts = self.backups.send_backup(self.kind, out).await?;
        let bytes = facts.stream_bytes;
        Ok((facts, bytes))
    }
}

/// Bytes that are there already (a piece of a log).
pub struct Bytewise(pub Bytes);

#[async_trait]
impl Source for Bytewise {
    type Facts = ();

    async fn run(self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<((), u64), DriverError> {
        out.write_all(&self.0)
            .await
            .map_err(|e| DriverError::caused(ErrorKind::Failed, "could not hand the bytes on", e))?;
        Ok(((), self.0.len() as u64))
    }
}
