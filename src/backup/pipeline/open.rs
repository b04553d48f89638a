//! A blob in a storage becomes the driver's stream again, and every byte of it is proved.

use super::cipher::Opener;
use super::cut::{Back, Empty, buffers};
use super::progress::Meter;
use super::unpack::{self, MAX_WINDOW_LOG, Outlet, Plain, Wanted};
use super::{Progress, be_nice};
use crate::backup::keys::Keys;
use crate::backup::{BackupError, Manifest, Method};
use crate::storage::{ObjectName, StorageError, StorageErrorKind, Store};
use bytes::{Buf, BufMut, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// Bytes read from the storage at once, and how many such pieces are read ahead.
const PIECE: usize = 512 << 10;
const AHEAD: usize = 6;
/// Plain chunks on their way to the reader.
const CHUNKS: usize = 4;

/// How patient reading is.
#[derive(Debug, Clone, Copy)]
pub struct ReadSettings {
    /// How often a broken read is taken up again, over the whole blob.
    pub reconnects: u32,
    /// How long nothing may come from the storage before the read counts as broken.
    pub stall: Duration,
    /// How long it waits before the first of them; each further one in a row waits twice as long, up to 30 s.
    pub pause: Duration,
}

impl Default for ReadSettings {
    fn default() -> Self {
        Self {
            reconnects: 20,
            stall: Duration::from_secs(60),
            pause: Duration::from_millis(500),
        }
    }
}

/// What is known of the bytes read so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is more to come, and nothing is proved.
    Reading,
    /// All of it was read, and it is what was stored: sizes, digests, seals and the end mark.
    Good,
    /// It is not; [`Opened::error`] tells.
    Bad,
}

/// The driver's stream. Its end (a read of zero bytes) comes only after everything is proved; whatever is wrong is an error instead.
///
/// Who stops reading before the end has proved nothing: call [`Opened::finish`].
pub struct Opened {
    chunk: Bytes,
    chunks: mpsc::Receiver<Plain>,
    back: Back,
    end: Option<Result<(), Arc<BackupError>>>,
    shared: Arc<Shared>,
}

/// Why it ended, by whoever found out first.
struct Shared {
    blob: String,
    error: OnceLock<Arc<BackupError>>,
}

impl Shared {
    /// The first reason counts: what follows from it is noise.
    fn fail(&self, error: BackupError) {
        let _ = self.error.set(Arc::new(error));
    }

    fn fail_io(&self, doing: &'static str, source: io::Error) {
        self.fail(if source.kind() == io::ErrorKind::InvalidData {
            BackupError::Damaged {
                blob: self.blob.clone(),
                how: source.to_string(),
            }
        } else {
            BackupError::Pack { doing, source }
        });
    }
}

/// Opens a backup's blob. The key, the blob's being there and its size are checked before this answers, so before anything is touched.
///
/// # Errors
/// `NoKey`, `WrongKey`, `Damaged` (absent, or of another size), `Invalid` (a manifest that asks for what is not allowed), `Storage`.
pub async fn open(
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    keys: &Keys,
    settings: ReadSettings,
    progress: watch::Sender<Progress>,
) -> Result<Opened, BackupError> {
    let (opened, fetch) = begin(store.as_ref(), manifest, keys, settings, progress).await?;
    let store = Arc::clone(store);
    tokio::spawn(async move { fetch.run(store.as_ref()).await });
    Ok(opened)
}

/// Reads a blob to its end as a restore would, and throws the stream away.
pub(super) async fn prove(store: &dyn Store, manifest: &Manifest, keys: &Keys) -> Result<(), BackupError> {
    let nobody = watch::Sender::new(Progress::default());
    let (opened, fetch) = begin(store, manifest, keys, ReadSettings::default(), nobody).await?;
    let ((), end) = tokio::join!(fetch.run(store), opened.finish());
    end.map_err(|error| match Arc::try_unwrap(error) {
        Ok(error) => error,
        Err(shared) => BackupError::Damaged {
            blob: manifest.blob.clone(),
            how: datastore_api::chain(&*shared),
        },
    })
}

async fn begin(
    store: &dyn Store,
    manifest: &Manifest,
    keys: &Keys,
    settings: ReadSettings,
    progress: watch::Sender<Progress>,
) -> Result<(Opened, Fetch), BackupError> {
    let compression = manifest.compression;
    if compression.method == Method::Zstd && !(10..=MAX_WINDOW_LOG).contains(&compression.window_log) {
        return Err(BackupError::Invalid(format!(
            "the backup {} asks for a window of 2^{} bytes to be unpacked; at most 2^{MAX_WINDOW_LOG} are given",
            manifest.id, compression.window_log
        )));
    }
    let opener = match &manifest.encryption {
        Some(said) => {
            let with = keys.find(&said.key_id)?.open(&manifest.id, said)?;
            let opener = Opener::new(&manifest.id, said.scheme, &with);
            Some(opener.map_err(|source| BackupError::Pack {
                doing: "open the sealed backup",
                source,
            })?)
        }
        None => None,
    };
    let name = ObjectName::new(&*manifest.blob)?;
    let damaged = |how: String| BackupError::Damaged {
        blob: manifest.blob.clone(),
        how,
    };
    let stat = store
        .stat(&name)
        .await?
        .ok_or_else(|| damaged(format!("it is not in {}", store.place())))?;
    if stat.bytes != manifest.stored_bytes {
        return Err(damaged(format!(
            "it has {} bytes, its manifest says {}",
            stat.bytes, manifest.stored_bytes
        )));
    }
    let wanted = Wanted {
        compression,
        plain_bytes: manifest.plain_bytes,
        stored_bytes: manifest.stored_bytes,
        plain_digest: manifest.plain_digest,
        stored_digest: manifest.stored_digest,
    };
    let shared = Arc::new(Shared {
        blob: manifest.blob.clone(),
        error: OnceLock::new(),
    });

    let (pieces_back, pieces_empty) = buffers(AHEAD);
    let (pieces, input) = mpsc::channel(AHEAD + 1);
    let (back, empty) = buffers(CHUNKS);
    let (out, chunks) = mpsc::channel(CHUNKS + 1);
    let mut outlet = Outlet::new(wanted, empty, out);
    let seen = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("backup-unpack".into())
        .spawn(move || {
            be_nice();
            // The outlet is closed after the reason is known: who reads asks for it then.
            if let Err(error) = unpack::run(input, &pieces_back, wanted, opener, &mut outlet)
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                seen.fail_io("unpack the backup", error);
            }
        })
        .map_err(|source| BackupError::Pack {
            doing: "start the thread that unpacks",
            source,
        })?;
    let fetch = Fetch {
        location: store.location(&name),
        name,
        settings,
        wanted,
        progress,
        shared: Arc::clone(&shared),
        empty: pieces_empty,
        pieces,
    };
    let opened = Opened {
        chunk: Bytes::new(),
        chunks,
        back,
        end: None,
        shared,
    };
    Ok((opened, fetch))
}

impl Opened {
    /// What is known of the bytes read so far.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.end {
            None => Verdict::Reading,
            Some(Ok(())) => Verdict::Good,
            Some(Err(_)) => Verdict::Bad,
        }
    }

    /// What is wrong. To be asked when the reader of the stream failed: its own error may be a mere consequence.
    #[must_use]
    pub fn error(&self) -> Option<Arc<BackupError>> {
        self.shared.error.get().cloned()
    }

    /// Reads what the consumer left unread. `Ok` only if all of the blob is proved.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn finish(mut self) -> Result<(), Arc<BackupError>> {
        loop {
            if let Some(end) = &self.end {
                return end.clone();
            }
            let next = self.chunks.recv().await;
            self.arrived(next);
        }
    }

    fn arrived(&mut self, next: Option<Plain>) {
        match next {
            Some(Plain::Bytes(chunk)) => {
                let done = std::mem::replace(&mut self.chunk, chunk);
                self.back.put(done);
            }
            Some(Plain::Good) => self.end = Some(Ok(())),
            None => {
                let gone = || BackupError::Damaged {
                    blob: self.shared.blob.clone(),
                    how: "reading it ended without a word".into(),
                };
                self.end = Some(Err(self.shared.error.get_or_init(|| Arc::new(gone())).clone()));
            }
        }
    }
}

impl AsyncRead for Opened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let opened = &mut *self;
        while opened.chunk.is_empty() {
            match &opened.end {
                Some(Ok(())) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Arc::clone(error)))),
                None => {
                    let next = ready!(opened.chunks.poll_recv(cx));
                    opened.arrived(next);
                }
            }
        }
        let now = opened.chunk.len().min(buf.remaining());
        buf.put_slice(&opened.chunk[..now]);
        opened.chunk.advance(now);
        Poll::Ready(Ok(()))
    }
}

/// Reads the blob ahead of who unpacks it.
struct Fetch {
    name: ObjectName,
    location: String,
    settings: ReadSettings,
    wanted: Wanted,
    progress: watch::Sender<Progress>,
    shared: Arc<Shared>,
    empty: Empty,
    /// `None`: that was all.
    pieces: mpsc::Sender<Option<Bytes>>,
}

impl Fetch {
    async fn run(mut self, store: &dyn Store) {
        match self.all_of_it(store).await {
            // The end of the bytes; what they are worth is found behind.
            Ok(true) => {
                let _ = self.pieces.send(None).await;
            }
            Ok(false) => {}
            Err(error) => self.shared.fail(error),
        }
    }

    /// `false`: nobody wants more.
    async fn all_of_it(&mut self, store: &dyn Store) -> Result<bool, BackupError> {
        let total = self.wanted.stored_bytes;
        let progress = self.progress.clone();
        let mut meter = Meter::new(&progress, total);
        let (mut offset, mut broken, mut in_a_row) = (0u64, 0, 0);
        let mut body = None;
        while offset < total {
            let Some(mut piece) = self.empty.recv().await else {
                return Ok(false);
            };
            let want = PIECE.min(usize::try_from(total - offset).unwrap_or(PIECE));
            piece.reserve(want);
            // Read before the error counts, too.
            let mut failed = None;
            while piece.len() < want && failed.is_none() {
                let got = async {
                    let body = match &mut body {
                        Some(body) => body,
                        none => none.insert(store.get_from(&self.name, offset + piece.len() as u64).await?),
                    };
                    let room = want - piece.len();
                    let mut rest = (&mut piece).limit(room);
                    match timeout(self.settings.stall, body.read_buf(&mut rest)).await {
                        Ok(Ok(0)) => Err(self.broken("it ended early", None)),
                        Ok(Ok(_)) => Ok(()),
                        Ok(Err(error)) => Err(self.broken("the connection broke", Some(error))),
                        Err(_) => Err(self.broken("nothing came for too long", None)),
                    }
                };
                failed = got.await.err();
            }
            offset += piece.len() as u64;
            if !piece.is_empty() {
                in_a_row = 0;
            }
            if self.pieces.send(Some(piece.freeze())).await.is_err() {
                return Ok(false);
            }
            meter.at(offset, offset, None);
            if let Some(error) = failed {
                body = None;
                let hopeless = matches!(
                    error.kind,
                    StorageErrorKind::NotFound
                        | StorageErrorKind::Refused
                        | StorageErrorKind::Invalid
                        | StorageErrorKind::Corrupt
                );
                if hopeless || broken == self.settings.reconnects {
                    return Err(error.into());
                }
                sleep((self.settings.pause * 2u32.saturating_pow(in_a_row)).min(Duration::from_secs(30))).await;
                (broken, in_a_row) = (broken + 1, in_a_row + 1);
            }
        }
        meter.done();
        Ok(true)
    }

    fn broken(&self, what: &'static str, cause: Option<io::Error>) -> StorageError {
        // A store's own error comes as one of the system; what it thinks of it is kept.
        let inner = cause
            .as_ref()
            .and_then(|e| e.get_ref()?.downcast_ref::<StorageError>().cloned());
        if let Some(inner) = inner {
            return inner;
        }
        let error = StorageError::new(StorageErrorKind::Unreachable, "read", &self.location, what);
        match cause {
            Some(cause) => error.because(cause),
            None => error,
        }
    }
}
