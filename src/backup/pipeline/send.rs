//! A source's stream becomes a blob in a storage, or nothing does.

use super::cipher::{Sealer, faster};
use super::cut::{Cutter, Empty, buffers};
use super::pack::{self, Packed, Piece, Seen};
use super::pressure::Governor;
use super::progress::Meter;
use super::source::Source;
use super::throttle::Throttle;
use super::{CHUNK, PipelineSettings, Progress, be_nice};
use crate::backup::keys::Key;
use crate::backup::{BackupError, BackupId, Compression, Encryption, Format, Parts};
use crate::storage::{Meta, Receipt, StorageError, Upload};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Plain chunks on their way from the source to the thread.
const CHUNKS: usize = 4;
/// Most bytes of parts that are in memory, as far as the store's parts are short enough: one is filled and one is sent whatever they take.
const PARTS_MEMORY: usize = 20 << 20;
/// How often the figures are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long the thread may take to say why it took no more.
const WHY: Duration = Duration::from_secs(10);
/// How long the storage may take to forget an upload.
const ABORT: Duration = Duration::from_secs(60);

/// What to send, and how.
pub struct Plan<'a> {
    /// Which backup it is; the seal is bound to it.
    pub id: &'a BackupId,
    /// How.
    pub settings: &'a PipelineSettings,
    /// Whose format. Upstream's cannot be sealed.
    pub format: Format,
    /// What to seal it with.
    pub key: Option<&'a Key>,
    /// Bytes of the plain stream, about, for percents; 0: unknown.
    pub estimate: u64,
}

/// What was sent.
#[derive(Debug)]
pub struct Sent<F> {
    /// What the source told at its end.
    pub facts: F,
    /// The storage's word that it has all of it.
    pub receipt: Receipt,
    /// How it was packed.
    pub compression: Compression,
    /// How it was sealed.
    pub encryption: Option<Encryption>,
    /// Bytes of the source.
    pub plain_bytes: u64,
    /// Bytes of the blob.
    pub stored_bytes: u64,
    /// BLAKE3 of the source.
    pub plain_digest: crate::backup::Digest,
    /// BLAKE3 of the blob.
    pub stored_digest: crate::backup::Digest,
    /// How the blob was cut.
    pub parts: Parts,
}

/// Sends a source's whole stream to `upload` and finishes it. The order is the promise: the source has said `Ok`, then the last bytes are
/// packed, then each part is confirmed, then the upload is finished with what `meta` makes of the facts.
///
/// On any error, and when `cancel` is called, the upload is aborted. Dropped in the middle, it stays unfinished for the store's sweep.
pub async fn send<S: Source>(
    source: S,
    upload: &Arc<dyn Upload>,
    plan: &Plan<'_>,
    meta: &(dyn Fn(&S::Facts) -> Meta + Send + Sync),
    progress: &watch::Sender<Progress>,
    cancel: &CancellationToken,
) -> Result<Sent<S::Facts>, BackupError> {
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(BackupError::Cancelled),
        result = all_of_it(source, upload, plan, meta, progress) => result,
    };
    if result.is_err() && timeout(ABORT, upload.abort()).await.is_err() {
        warn!(backup_id = %plan.id, "the storage did not forget a broken upload in time, its sweep will");
    }
    result
}

async fn all_of_it<S: Source>(
    source: S,
    upload: &Arc<dyn Upload>,
    plan: &Plan<'_>,
    meta: &(dyn Fn(&S::Facts) -> Meta + Send + Sync),
    progress: &watch::Sender<Progress>,
) -> Result<Sent<S::Facts>, BackupError> {
    let compression = plan.settings.compression(plan.format);
    let (encryption, sealer) = match plan.key {
        Some(key) => {
            let scheme = plan.settings.scheme.unwrap_or_else(faster);
            let (said, with) = key.begin(plan.id, scheme)?;
            let sealer = Sealer::new(plan.id, scheme, &with).map_err(pack("seal the backup"))?;
            (Some(said), Some(sealer))
        }
        None => (None, None),
    };
    let affordable = PARTS_MEMORY / upload.part_bytes(0).max(1);
    let in_flight = plan.settings.parts_in_flight.min(affordable.saturating_sub(1)).max(1);
    let (parts_back, parts_empty) = buffers(in_flight + 1);
    let (full, mut parts) = mpsc::channel(in_flight + 1);
    let seen = Arc::new(Seen::default());
    let sizes = Arc::clone(upload);
    let cutter = Cutter::new(Box::new(move |index| sizes.part_bytes(index)), parts_empty, full);
    let (mut inlet, packing) = start(plan.settings, compression, sealer, cutter, &seen)?;

    let from_the_source = async {
        let (facts, said) = source.run(&mut inlet).await.map_err(BackupError::Engine)?;
        if said != inlet.taken {
            return Err(BackupError::Length { said, seen: inlet.taken });
        }
        inlet.end().await;
        Ok(facts)
    };
    let mut meter = Meter::new(progress, plan.estimate);
    let mut stored = 0;
    let to_the_storage = async {
        let mut flying = FuturesUnordered::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sent, mut more) = (0u32, true);
        while more || !flying.is_empty() {
            tokio::select! {
                part = parts.recv(), if more => match part {
                    Some(part) => {
                        flying.push(one_part(upload.as_ref(), sent, part));
                        sent += 1;
                    }
                    None => more = false,
                },
                Some(done) = flying.next() => {
                    let part: Bytes = done?;
                    stored += part.len() as u64;
                    parts_back.put(part);
                }
                _ = tick.tick() => {
                    let held = seen.held_to.load(Ordering::Relaxed);
                    meter.at(seen.plain.load(Ordering::Relaxed), stored, (held > 0).then_some(held));
                }
            }
        }
        Ok::<_, BackupError>(sent)
    };
    let joined = async { tokio::try_join!(from_the_source, to_the_storage) }.await;
    let (facts, sent) = match joined {
        Ok(both) => both,
        // A source that cannot write any more says so; why is known by who did not take it, and that ends as soon as both its sides are
        // gone.
        Err(BackupError::Engine(error)) => {
            drop((inlet, parts_back));
            return Err(match timeout(WHY, packing).await {
                Ok(Ok(Err(why))) => pack("pack the backup")(why),
                _ => BackupError::Engine(error),
            });
        }
        Err(error) => return Err(error),
    };
    let gone = || io::Error::other("the thread that packs ended without a word");
    let packed = packing.await.map_err(|_| gone()).and_then(|result| result);
    let packed = packed
        .and_then(|packed| packed.ok_or_else(gone))
        .map_err(pack("pack the backup"))?;
    if packed.cut.parts != sent || packed.cut.bytes != stored {
        let why = format!(
            "{} parts were cut and {sent} sent, {} bytes and {stored}",
            packed.cut.parts, packed.cut.bytes
        );
        return Err(pack("send the backup")(io::Error::other(why)));
    }
    let receipt = upload.finish(&meta(&facts)).await?;
    if receipt.bytes != stored {
        return Err(BackupError::Damaged {
            blob: receipt.location,
            how: format!("{stored} bytes were sent, and the storage has {}", receipt.bytes),
        });
    }
    meter.at(packed.plain_bytes, stored, None);
    meter.done();
    Ok(Sent {
        facts,
        receipt,
        compression,
        encryption,
        plain_bytes: packed.plain_bytes,
        stored_bytes: stored,
        plain_digest: packed.plain_digest.into(),
        stored_digest: packed.cut.digest.into(),
        parts: Parts {
            bytes: upload.part_bytes(0) as u64,
            count: sent,
        },
    })
}

async fn one_part(upload: &dyn Upload, index: u32, part: Bytes) -> Result<Bytes, StorageError> {
    upload.part(index, part.clone()).await.map(|()| part)
}

fn pack(doing: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    move |source| BackupError::Pack { doing, source }
}

/// How the packing ended.
type Packing = oneshot::Receiver<io::Result<Option<Packed>>>;

/// Starts the thread. It ends by itself when either side of it goes away.
fn start(
    settings: &PipelineSettings,
    compression: Compression,
    sealer: Option<Sealer>,
    cutter: Cutter,
    seen: &Arc<Seen>,
) -> Result<(Inlet, Packing), BackupError> {
    let (back, empty) = buffers(CHUNKS);
    let (chunks, input) = mpsc::channel(CHUNKS + 1);
    let (ended, packing) = oneshot::channel();
    let (seen, fixed, threads) = (Arc::clone(seen), settings.rate, settings.threads);
    let governor = settings.adaptive.clone().map(Governor::new);
    std::thread::Builder::new()
        .name("backup-pack".into())
        .spawn(move || {
            be_nice();
            let throttle = Throttle::new(fixed, governor, &seen.held_to);
            let result = pack::run(input, &back, throttle, &seen, (compression, threads), sealer, cutter);
            // Nobody listens if the backup was given up.
            let _ = ended.send(result);
        })
        .map_err(pack("start the thread that packs"))?;
    let inlet = Inlet {
        chunk: None,
        empty,
        chunks: Some(chunks),
        taken: 0,
    };
    Ok((inlet, packing))
}

/// What the source writes into.
struct Inlet {
    chunk: Option<BytesMut>,
    empty: Empty,
    /// `None`: shut down.
    chunks: Option<mpsc::Sender<Piece>>,
    taken: u64,
}

impl Inlet {
    /// Hands a chunk on. There is always room: there are no more chunks than places for them.
    fn hand_on(&mut self) -> io::Result<()> {
        let Some(chunk) = self.chunk.take() else { return Ok(()) };
        let chunks = self.chunks.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        chunks
            .try_send(Piece::Bytes(chunk.freeze()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The source was good to its end. If nobody hears it, the thread has said why.
    async fn end(&mut self) {
        if self.hand_on().is_ok()
            && let Some(chunks) = self.chunks.take()
        {
            let _ = chunks.send(Piece::End).await;
        }
        self.chunks = None;
    }
}

impl AsyncWrite for Inlet {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inlet = &mut *self;
        if inlet.chunks.is_none() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let chunk = match &mut inlet.chunk {
            Some(chunk) => chunk,
            none => match inlet.empty.poll_recv(cx) {
                Poll::Ready(Some(mut chunk)) => {
                    chunk.reserve(CHUNK);
                    none.insert(chunk)
                }
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Pending => return Poll::Pending,
            },
        };
        let now = bytes.len().min(CHUNK - chunk.len());
        chunk.extend_from_slice(&bytes[..now]);
        if chunk.len() == CHUNK {
            inlet.hand_on()?;
        }
        inlet.taken += now as u64;
        Poll::Ready(Ok(now))
    }

    /// Small writes are gathered; nobody downstream is waiting for the last byte before the end.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The end of the writing is not the end of the source: that is its `Ok`.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
