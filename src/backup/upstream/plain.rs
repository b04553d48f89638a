//! The tool's own stream out of an object of upstream's.

use super::Found;
use super::openssl::Decrypted;
use crate::backup::BackupError;
use crate::backup::pipeline::Progress;
use crate::storage::{StorageError, Store};
use bytes::{Buf, Bytes};
use datastore_api::Secret;
use flate2::read::MultiGzDecoder;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::io::SyncIoBridge;

/// Plain bytes handed on at once, and how many such pieces wait.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;
/// How gzip begins.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];

/// The stream. It ends only after the object was read to its end and everything in it fits; otherwise it fails.
pub struct PlainStream {
    pieces: mpsc::Receiver<Result<Bytes, BackupError>>,
    piece: Bytes,
    end: Option<Result<(), Arc<BackupError>>>,
    plain: u64,
    stored: Arc<AtomicU64>,
    total: u64,
    progress: watch::Sender<Progress>,
}

/// Opens what [`super::find`] found. `key` is `backup_aes_cbc_key`.
///
/// # Errors
/// `Invalid` for an encrypted one without a key; `Damaged` if it was replaced since it was found; `Storage`. What is found while
/// reading is an error of the stream: wrong key, damage, an early end.
pub async fn open(
    store: &Arc<dyn Store>,
    found: &Found,
    key: Option<&Secret>,
    progress: &watch::Sender<Progress>,
) -> Result<PlainStream, BackupError> {
    let key = match (found.is_encrypted(), key) {
        (false, _) => None,
        (true, Some(key)) => Some(key.clone()),
        (true, None) => {
            let what = format!(
                "the backup {} is encrypted, and backup_aes_cbc_key is not set",
                found.location
            );
            return Err(BackupError::Invalid(what));
        }
    };
    let (stat, body) = store.get(&found.name).await?;
    if stat.checksum != found.checksum || stat.bytes != found.stored_bytes {
        return Err(BackupError::Damaged {
            blob: found.location.clone(),
            how: "it was replaced meanwhile".to_owned(),
        });
    }
    let stored = Arc::new(AtomicU64::new(0));
    let counted = Counted {
        body: SyncIoBridge::new(tokio::io::BufReader::with_capacity(PIECE, body)),
        read: Arc::clone(&stored),
    };
    let (packed, blob) = (found.is_packed(), found.location.clone());
    let (out, pieces) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = unpack(counted, packed, key.as_ref(), &out) {
            // Nobody reads any more: nothing to say.
            let _ = out.blocking_send(Err(meaning(error, blob)));
        }
    });
    Ok(PlainStream {
        pieces,
        piece: Bytes::new(),
        end: None,
        plain: 0,
        stored,
        total: found.stored_bytes,
        progress: progress.clone(),
    })
}

/// A store's error says where and what; what we find is damage.
fn meaning(error: io::Error, blob: String) -> BackupError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StorageError>());
    match (inner, error.kind()) {
        (Some(inner), _) => BackupError::Storage(inner.clone()),
        (None, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof) => BackupError::Damaged {
            blob,
            how: error.to_string(),
        },
        (None, _) => BackupError::Pack {
            doing: "read the backup",
            source: error,
        },
    }
}

impl PlainStream {
    /// What is wrong. To be asked when the reader of the stream failed: its own error may be a mere consequence.
    #[must_use]
    pub fn error(&self) -> Option<Arc<BackupError>> {
        self.end.as_ref().and_then(|end| end.as_ref().err().cloned())
    }

    /// Reads what the consumer left unread. `Ok` only if all of the object is good.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn finish(mut self) -> Result<(), Arc<BackupError>> {
        loop {
            if let Some(end) = self.end {
                return end;
            }
            let next = self.pieces.recv().await;
            self.arrived(next);
        }
    }

    fn arrived(&mut self, next: Option<Result<Bytes, BackupError>>) {
        match next {
            Some(Ok(piece)) if piece.is_empty() => self.end = Some(Ok(())),
            Some(Ok(piece)) => {
                self.plain += piece.len() as u64;
                self.piece = piece;
            }
            Some(Err(error)) => self.end = Some(Err(Arc::new(error))),
            None => {
                let source = io::Error::other("the thread that reads ended without a word");
                let doing = "read the backup";
                self.end = Some(Err(Arc::new(BackupError::Pack { doing, source })));
            }
        }
        let (plain, stored, done) = (
            self.plain,
            self.stored.load(Ordering::Relaxed),
            matches!(self.end, Some(Ok(()))),
        );
        let part = stored as f32 * 99.0 / self.total.max(1) as f32;
        self.progress.send_modify(|now| {
            (now.plain_bytes, now.stored_bytes, now.done) = (plain, stored, done);
            now.percent = Some(if done { 100.0 } else { part.min(99.0) });
        });
    }
}

/// Counts what is read of the object.
struct Counted<R> {
    body: SyncIoBridge<R>,
    read: Arc<AtomicU64>,
}

impl<R: AsyncRead + Unpin> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(buf)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

type Pieces = mpsc::Sender<Result<Bytes, BackupError>>;

fn unpack(from: impl Read, packed: bool, key: Option<&Secret>, out: &Pieces) -> io::Result<()> {
    let Some(key) = key else { return loosen(from, packed, out) };
    let gzip: fn(&[u8]) -> bool = |first| first.starts_with(&GZIP);
    let known: fn(&[u8]) -> bool = |first| first.starts_with(&GZIP) || first.starts_with(b"XBSTCK01") || first.is_ascii();
    loosen(Decrypted::new(from, key, if packed { gzip } else { known })?, packed, out)
}

/// Unpacks what is packed, by name and by how it begins.
fn loosen(mut from: impl Read, packed: bool, out: &Pieces) -> io::Result<()> {
    let mut first = [0; GZIP.len()];
    let mut there = 0;
    while there < first.len() {
        match from.read(&mut first[there..])? {
            0 => break,
            more => there += more,
        }
    }
    let is_gzip = first[..there] == GZIP;
    let whole = Read::chain(&first[..there], &mut from);
    match (is_gzip, packed) {
        (true, _) => pass(MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, whole)), out),
        (false, false) => pass(whole, out),
        (false, true) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not packed by gzip, though its name says so",
        )),
    }
}

fn pass(mut from: impl Read, out: &Pieces) -> io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        // The last piece is handed on before an error behind it.
        let end = from.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let more = piece.len() == PIECE;
        if !piece.is_empty() && out.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
        end?;
        if !more {
            // An empty piece is the end: a channel that merely closes is none.
            let _ = out.blocking_send(Ok(Bytes::new()));
            return Ok(());
        }
    }
}

impl AsyncRead for PlainStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match &self.end {
                Some(Ok(())) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Arc::clone(error)))),
                None => {
                    let next = ready!(self.pieces.poll_recv(cx));
                    self.arrived(next);
                }
            }
        }
        let now = self.piece.len().min(buf.remaining());
        buf.put_slice(&self.piece[..now]);
        self.piece.advance(now);
        Poll::Ready(Ok(()))
    }
}
