//! Ships the log as the server writes it.
//!
//! ```text
//! Off ──on──► Starting: the last object of the store says where ──► Current ◄──► Shipping
//!                  ▲                                                    │
//!                  └── the log does not go on from there: next timeline ┘      any error: Failing, tried again from the store's end
//! ```
//!
//! Nothing is remembered but what is in the store, and nothing is buffered but one piece: while the store is away, the server's own files
//! are the queue.

use super::join::{Joiner, Owned, put};
use super::segment::Began;
use super::shelf::{Piece, Shelf};
use super::status::{LogState, LogStatus, Settings, WhenFull, now};
use crate::backup::BackupError;
use datastore_api::{Beginning, Datastore, DriverError, ErrorKind, LogBreak, LogCursor, LogRead, LogReader, Logs, Stretch};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Pauses after errors, from and to.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Between two looks at what the server keeps for us.
const GUARD: Duration = Duration::from_secs(30);
/// Who is behind for so long makes the server keep its log.
const HOLD: Duration = Duration::from_secs(60);

/// Ships one server's log.
pub struct Shipper {
    /// The server.
    pub datastore: Arc<dyn Datastore>,
    /// The store.
    pub shelf: Arc<Shelf>,
    /// Whose log it is: the guest's id.
    pub guest: String,
    /// How.
    pub settings: Settings,
}

/// What was read and is not in the store yet.
struct Pending {
    stretch: Stretch,
    bytes: Vec<u8>,
    next: LogCursor,
    read_at: u64,
}

/// Where the store's log ends.
struct End {
    timeline: u64,
    began: Began,
    cursor: LogCursor,
    tail: Vec<Piece>,
}

impl Shipper {
    /// Ships while `on` says so; ends when its sender is dropped. `status` is told of each step.
    pub async fn run(self, mut on: watch::Receiver<bool>, status: watch::Sender<LogStatus>) {
        let mut pause = PAUSES.0;
        loop {
            status.send_modify(|status| status.state = LogState::Off);
            // A value outlives its sender.
            if on.has_changed().is_err() || on.wait_for(|on| *on).await.is_err() {
                return;
            }
            let begun = Instant::now();
            let shipped = tokio::select! {
                shipped = self.ship(&on, &status) => shipped,
                () = self.guard(&status) => Ok(()),
            };
            let Err(error) = shipped else {
                if let Ok(logs) = self.logs() {
                    let _ = logs.hold(None).await;
                }
                continue;
            };
            if begun.elapsed() > PAUSES.1 * 2 {
                pause = PAUSES.0;
            }
            let text = datastore_api::chain(&error);
            tracing::warn!(error = text, "the log could not be shipped: tried again");
            status.send_modify(|status| {
                status.state = LogState::Failing;
                status.error = Some(text);
                // What the server writes from now on waits, whether it was seen or not.
                status.waits_since.get_or_insert_with(now);
            });
            tokio::select! {
                () = sleep(pause) => {}
                ended = on.wait_for(|on| !*on) => if ended.is_err() { return },
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn logs(&self) -> Result<&dyn Logs, BackupError> {
        let none = || DriverError::new(ErrorKind::NotSupported, "the log of this datastore cannot be followed");
        self.datastore.logs().ok_or_else(|| BackupError::Engine(none()))
    }

    /// Until it is switched off.
    async fn ship(&self, on: &watch::Receiver<bool>, status: &watch::Sender<LogStatus>) -> Result<(), BackupError> {
        let logs = self.logs()?;
        status.send_modify(|status| status.state = LogState::Starting);
        let end = self.end().await?;
        let mut joiner = Joiner::new(Arc::clone(&self.shelf), Arc::clone(&self.datastore), self.settings.level);
        let (mut timeline, mut began, mut cursor) = (0, None, None);
        if let Some(end) = end {
            (timeline, began, cursor) = (end.timeline, Some(end.began), Some(end.cursor));
            for piece in end.tail {
                joiner.add(piece);
            }
        }
        loop {
            let (mut reader, beginning) = logs.follow(cursor.as_ref()).await.map_err(BackupError::Engine)?;
            if let Beginning::Anew { why, text } = beginning {
                timeline += 1;
                tracing::warn!(timeline, why = ?why, text, "the log goes on in another timeline");
                began = Some(Began { why, text });
            }
            let began = began.get_or_insert_with(|| Began {
                why: LogBreak::First,
                text: String::new(),
            });
            status.send_modify(|status| {
                status.timeline = timeline;
                status.began = Some(began.text.clone());
                status.error = None;
            });
            let on_line = Line {
                shipper: self,
                timeline,
                began,
                status,
            };
            if !on_line.follow(reader.as_mut(), &mut cursor, &mut joiner, on).await? {
                return Ok(());
            }
            sleep(self.settings.look).await;
        }
    }

    /// Where the store's log ends; `None` if there is none.
    async fn end(&self) -> Result<Option<End>, BackupError> {
        let names = self.shelf.names(&self.guest).await?;
        let Some(last) = names.last() else { return Ok(None) };
        let of_file = names
            .iter()
            .filter(|named| (named.timeline, &named.file) == (last.timeline, &last.file));
        let pieces: Vec<Piece> = stream::iter(of_file.cloned().collect::<Vec<_>>())
            .map(|named| async move {
                let header = self.shelf.header(&named).await?;
                Ok::<_, BackupError>(Piece { named, header })
            })
            .buffered(8)
            .try_collect()
            .await?;
        // The one that reaches furthest: a smaller one may have been joined into it and not removed yet.
        let Some(furthest) = pieces.iter().max_by_key(|piece| piece.named.to).cloned() else {
            return Ok(None);
        };
        let inside = |small: &Piece| {
            let around = |large: &Piece| {
                let (s, l) = (&small.named, &large.named);
                s != l && s.from >= l.from && s.to <= l.to
            };
            pieces.iter().any(around)
        };
        let tail = pieces.iter().filter(|piece| !inside(piece)).cloned().collect();
        Ok(Some(End {
            timeline: furthest.header.timeline,
            began: furthest.header.began.clone(),
            cursor: furthest.header.next.clone(),
            tail,
        }))
    }

    /// Looks that the server keeps what is not in the store, and that this does not fill its disk.
    async fn guard(&self, status: &watch::Sender<LogStatus>) {
        loop {
            sleep(GUARD).await;
            let Ok(logs) = self.logs() else { continue };
            let (behind, file) = {
                let status = status.borrow();
                (status.behind(), status.file.clone())
            };
            if let Err(error) = self.keep(logs, behind, &file).await {
                // A server that is away writes nothing.
                tracing::debug!(
                    error = datastore_api::chain(&error),
                    "it could not be looked after the server's log"
                );
            }
        }
    }

    async fn keep(&self, logs: &dyn Logs, behind: Duration, file: &str) -> Result<(), DriverError> {
        if behind < HOLD || file.is_empty() {
            logs.hold(None).await?;
            return Ok(());
        }
        let files = logs.files().await?;
        let waiting = files.iter().skip_while(|kept| kept.name != file);
        let bytes: u64 = waiting.map(|kept| kept.bytes).sum();
        if self.settings.budget > 0 && bytes > self.settings.budget && self.settings.when_full == WhenFull::DropLog {
            logs.hold(None).await?;
            if let Some(newest) = files.last() {
                tracing::error!(
                    bytes,
                    budget = self.settings.budget,
                    "log that was not shipped is dropped: recovery will have a gap"
                );
                logs.drop_before(&newest.name).await?;
            }
            return Ok(());
        }
        logs.hold(Some(file)).await?;
        Ok(())
    }
}

/// One timeline under way.
struct Line<'a> {
    shipper: &'a Shipper,
    timeline: u64,
    began: &'a Began,
    status: &'a watch::Sender<LogStatus>,
}

impl Line<'_> {
    /// Ships what the reader gives. `true`: the log does not go on from the cursor; `false`: it was switched off.
    async fn follow(
        &self,
        reader: &mut dyn LogReader,
        cursor: &mut Option<LogCursor>,
        joiner: &mut Joiner,
        on: &watch::Receiver<bool>,
    ) -> Result<bool, BackupError> {
        let settings = &self.shipper.settings;
        let mut pending: Option<Pending> = None;
        let mut shipped_at: Option<Instant> = None;
        loop {
            let is_off = !*on.borrow() || on.has_changed().is_err();
            let size = pending.as_ref().map_or(0, |pending| pending.bytes.len());
            let is_due = shipped_at.is_none_or(|at| at.elapsed() >= settings.gather) || size >= settings.piece || is_off;
            if is_due && pending.is_some() {
                self.put(&mut pending, cursor, joiner).await?;
                shipped_at = Some(Instant::now());
            }
            if is_off {
                return Ok(false);
            }
            match reader.next(settings.piece).await.map_err(BackupError::Engine)? {
                LogRead::Piece(piece) => {
                    self.status.send_if_modified(|status| {
                        status.state = LogState::Shipping;
                        let is_first = status.waits_since.is_none();
                        status.waits_since.get_or_insert_with(now);
                        is_first
                    });
                    let fits = pending.as_ref().is_some_and(|before| {
                        before.stretch.file == piece.stretch.file && before.bytes.len() + piece.bytes.len() <= 2 * settings.piece
                    });
                    if !fits && pending.is_some() {
                        self.put(&mut pending, cursor, joiner).await?;
                        shipped_at = Some(Instant::now());
                    }
                    pending = Some(match pending.take() {
                        None => Pending {
                            stretch: piece.stretch,
                            bytes: piece.bytes,
                            next: piece.next,
                            read_at: now(),
                        },
                        Some(mut before) => {
                            before.stretch = before.stretch.and(&piece.stretch);
                            before.bytes.extend(piece.bytes);
                            (before.next, before.read_at) = (piece.next, now());
                            before
                        }
                    });
                }
                LogRead::UpToDate => {
                    if pending.is_none() {
                        self.status.send_if_modified(|status| {
                            let is_new = status.state != LogState::Current;
                            (status.state, status.current_at, status.waits_since) = (LogState::Current, Some(now()), None);
                            is_new
                        });
                    }
                    joiner.work().await;
                    let gather = shipped_at.map_or(Duration::ZERO, |at| settings.gather.saturating_sub(at.elapsed()));
                    let pause = if pending.is_some() {
                        gather.min(settings.look)
                    } else {
                        settings.look
                    };
                    let mut on = on.clone();
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = on.wait_for(|on| !*on) => {}
                    }
                }
                LogRead::Broken { why, text } => {
                    if pending.is_some() {
                        self.put(&mut pending, cursor, joiner).await?;
                    }
                    tracing::warn!(why = ?why, text, "the log does not go on");
                    if why == LogBreak::Damaged {
                        let error = DriverError::new(ErrorKind::Failed, text);
                        return Err(BackupError::Engine(error));
                    }
                    return Ok(true);
                }
            }
        }
    }

    /// Ships one object. It stays pending until the store has it.
    async fn put(
        &self,
        pending: &mut Option<Pending>,
        cursor: &mut Option<LogCursor>,
        joiner: &mut Joiner,
    ) -> Result<(), BackupError> {
        let Some(Pending {
            stretch,
            bytes,
            next,
            read_at,
        }) = pending.take()
        else {
            return Ok(());
        };
        let length = bytes.len() as u64;
        let draft = Owned {
            guest: self.shipper.guest.clone(),
            timeline: self.timeline,
            began: self.began.clone(),
            stretch,
            read_at,
            next: next.clone(),
        };
        let piece = put(&self.shipper.shelf, draft, bytes, self.shipper.settings.level).await?;
        let position = self.shipper.logs()?.position(&next.before).0;
        self.status.send_modify(|status| {
            (status.file, status.offset, status.position) = (next.file.clone(), next.offset, position);
            (status.waits_since, status.error) = (None, None);
            status.objects += 1;
            status.bytes += length;
        });
        *cursor = Some(next);
        joiner.add(piece);
        Ok(())
    }
}
