//! Reads the server's own log files as they grow. Following as a replica would need an account, a connection and a server that runs, and
//! would show the same bytes later; files are there even when the server has been killed.
//!
//! What is read is handed on as whole transactions only. A server that dies in the middle of one leaves its beginning at the end of the
//! file: that is no part of any history. A file whose list of earlier transactions does not fit what was read is another history.

use super::event::Gtid;
use super::event::HEADER;
use super::files::{FIRST, Files, Head, SEALED, seal};
use super::walk::{Marks, Open, Walked, Walker};
use async_trait::async_trait;
use datastore_api::{DriverError, LogBreak, LogCursor, LogRead, LogReader, Mark, Piece, Stretch};
use std::time::Duration;
use tokio::time::Instant;

/// How much is read at once when the end of a large transaction is looked for.
const STEP: usize = 1 << 20;
/// Bytes that make no sense are looked at again for this long: the server may just be writing them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Every so many looks that find nothing, the head of the file and the index are looked at, too.
const LOOKS: u32 = 5;

fn broken(why: LogBreak, text: impl Into<String>) -> LogRead {
    LogRead::Broken { why, text: text.into() }
}

/// The number at the end of a file's name.
fn number(name: &str) -> u64 {
    name.rsplit('.')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

/// Reads one file after the other.
pub(super) struct Reader {
    files: Files,
    file: String,
    head: Head,
    offset: u64,
    /// The last transactions before the offset.
    marks: Marks,
    /// The offset is in the middle of a transaction that is whole in the file.
    inside: bool,
    /// That transaction.
    open: Option<Open>,
    /// How far the end of a large transaction was looked for.
    ahead: Option<(u64, Walker)>,
    /// The last bytes before the offset.
    tail: Vec<u8>,
    /// The file has said that it ends.
    ended: bool,
    idle: u32,
    bad_since: Option<Instant>,
}

impl Reader {
    /// From the first event of a file.
    pub fn at_start(files: Files, file: String, head: Head) -> Self {
        Self {
            files,
            file,
            offset: FIRST,
            marks: head.list.clone(),
            head,
            inside: false,
            open: None,
            ahead: None,
            tail: Vec::new(),
            ended: false,
            idle: 0,
            bad_since: None,
        }
    }

    /// From a cursor. The inner error says why its bytes are not the ones that are there.
    pub async fn at(files: Files, cursor: &LogCursor) -> Result<Result<Self, (LogBreak, String)>, DriverError> {
        let file = &cursor.file;
        if !files.names().await?.contains(file) {
            return Ok(Err(gone(&files, file).await?));
        }
        let Some(head) = files.head(file).await? else {
            return Ok(Err((LogBreak::Reset, format!("{file} was begun anew"))));
        };
        if !cursor.seal.starts_with(&head.digest) {
            return Ok(Err((LogBreak::Reset, format!("{file} is another file than before"))));
        }
        let offset = cursor.offset.max(FIRST);
        match files.seal(file, &head, offset).await? {
            None => {
                let text = format!("{file} has fewer bytes than the {offset} that were read");
                Ok(Err((LogBreak::Truncated, text)))
            }
            Some(seal) if seal != cursor.seal => Ok(Err((
                LogBreak::Truncated,
                format!("{file} has other bytes before {offset} than were read"),
            ))),
            Some(_) => {
                let from = offset.saturating_sub(SEALED).max(FIRST);
                let length = usize::try_from(offset - from).unwrap_or_default();
                let tail = files.range(file, from, length).await?.unwrap_or_default();
                let mut reader = Self::at_start(files, file.clone(), head);
                reader.marks = cursor.before.iter().map(|mark| (mark.domain, *mark)).collect();
                (reader.offset, reader.inside, reader.tail) = (offset, cursor.inside, tail);
                reader.open = cursor.open.map(|(mark, time)| Open {
                    gtid: Gtid {
                        mark,
                        is_standalone: false,
                    },
                    time: u32::try_from(time).unwrap_or(u32::MAX),
                });
                Ok(Ok(reader))
            }
        }
    }

    /// Looks at the head again: `None` if it is still this file.
    async fn is_another(&self) -> Result<Option<LogRead>, DriverError> {
        let now = self.files.head(&self.file).await?;
        if now.is_some_and(|now| now.digest == self.head.digest) {
            return Ok(None);
        }
        let (why, text) = gone(&self.files, &self.file).await?;
        Ok(Some(broken(why, text)))
    }

    /// The next bytes; the outer `None`: the file is gone, the inner: it is shorter than what was read.
    async fn bytes(&self, limit: usize) -> Result<Option<Option<Vec<u8>>>, DriverError> {
        // One byte more before: the end of the file and a file that has been cut look the same otherwise.
        let read = self.files.range(&self.file, self.offset - 1, limit.saturating_add(1)).await?;
        Ok(read.map(|mut bytes| {
            (!bytes.is_empty()).then(|| {
                bytes.remove(0);
                bytes
            })
        }))
    }

    async fn read(&mut self, limit: usize) -> Result<LogRead, DriverError> {
        let Some(read) = self.bytes(limit).await? else {
            let (why, text) = gone(&self.files, &self.file).await?;
            return Ok(broken(why, text));
        };
        let Some(bytes) = read else {
            if let Some(broken) = self.is_another().await? {
                return Ok(broken);
            }
            let text = format!("{} has fewer bytes than the {} that were read", self.file, self.offset);
            return Ok(broken(LogBreak::Truncated, text));
        };
        let (mut walker, mut marks) = (Walker::within(self.open, self.inside), self.marks.clone());
        let mut walked = Walked::over(&bytes, &self.head.format, &mut walker, &mut marks);
        let is_full = bytes.len() >= limit;
        if walked.border > 0 {
            return self.emit(bytes, walked.border, None, marks, walked).await;
        }
        if is_full && walked.bad.is_none() && (self.inside || self.end_is_there().await?) {
            // A large transaction goes in parts, an event that is larger than the limit goes whole.
            let mut bytes = bytes;
            let mut end = walked.events;
            if end == 0 {
                let whole = self
                    .files
                    .range(&self.file, self.offset, walked.next)
                    .await?
                    .unwrap_or_default();
                (walker, marks) = (Walker::within(self.open, self.inside), self.marks.clone());
                walked = Walked::over(&whole, &self.head.format, &mut walker, &mut marks);
                (end, bytes) = (walked.events, whole);
            }
            if end > 0 {
                return self
                    .emit(bytes, end, Some(walker).filter(Walker::is_inside), marks, walked)
                    .await;
            }
        }
        if let Some(bad) = walked.bad {
            let since = *self.bad_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= PATIENCE {
                let at = self.offset + walked.events as u64;
                return Ok(broken(LogBreak::Damaged, format!("{} has {bad} at {at}", self.file)));
            }
        }
        Ok(LogRead::UpToDate)
    }

    async fn emit(
        &mut self,
        mut bytes: Vec<u8>,
        end: usize,
        ends_in: Option<Walker>,
        marks: Marks,
        walked: Walked,
    ) -> Result<LogRead, DriverError> {
        // After the bytes: if it is still this file now, they are this file's.
        if let Some(broken) = self.is_another().await? {
            return Ok(broken);
        }
        bytes.truncate(end);
        let ends_inside = ends_in.is_some();
        let stretch = Stretch {
            file: self.file.clone(),
            from: self.offset,
            to: self.offset + end as u64,
            before: self.marks.values().copied().collect(),
            after: marks.values().copied().collect(),
            runs: walked.runs,
            transactions: walked.transactions,
            times: walked.times,
            begins_inside: self.inside,
            ends_inside,
            head: self.head.format.text(),
        };
        (self.offset, self.marks, self.inside) = (stretch.to, marks, ends_inside);
        self.open = ends_in.and_then(|walker| walker.open());
        if !ends_inside {
            self.ahead = None;
        }
        let sealed = usize::try_from(SEALED).unwrap_or_default();
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(sealed)..]);
        self.tail.drain(..self.tail.len().saturating_sub(sealed));
        (self.ended, self.idle, self.bad_since) = (walked.ends_file, 0, None);
        let next = self.cursor();
        Ok(LogRead::Piece(Box::new(Piece { stretch, bytes, next })))
    }

    fn cursor(&self) -> LogCursor {
        LogCursor {
            file: self.file.clone(),
            offset: self.offset,
            before: self.marks.values().copied().collect(),
            inside: self.inside,
            open: self.open.map(|open| (open.gtid.mark, u64::from(open.time))),
            seal: seal(&self.head, &self.tail),
        }
    }

    /// Whether the transaction that begins at the offset ends in this file. What was looked at is not looked at again.
    async fn end_is_there(&mut self) -> Result<bool, DriverError> {
        let (mut at, mut walker) = self.ahead.take().unwrap_or((self.offset, Walker::new(false)));
        loop {
            let bytes = self.files.range(&self.file, at, STEP).await?.unwrap_or_default();
            let walked = Walked::over(&bytes, &self.head.format, &mut walker, &mut Marks::new());
            at += walked.events as u64;
            if walked.border > 0 {
                return Ok(true);
            }
            if walked.events == 0 && walked.next > STEP {
                // A large event is never the end of its transaction, but of one that is a single statement.
                let whole = self.files.range(&self.file, at, walked.next).await?.unwrap_or_default();
                let walked = Walked::over(&whole, &self.head.format, &mut walker, &mut Marks::new());
                at += walked.events as u64;
                if walked.border > 0 {
                    return Ok(true);
                }
                if walked.events > 0 {
                    continue;
                }
            }
            if walked.events == 0 {
                self.ahead = Some((at, walker));
                return Ok(false);
            }
        }
    }

    /// Goes to the next file if there is one. `None`: there is none, or it is not begun yet.
    async fn next_file(&mut self) -> Result<Option<LogRead>, DriverError> {
        let names = self.files.names().await?;
        let Some(at) = names.iter().position(|name| *name == self.file) else {
            let (why, text) = gone(&self.files, &self.file).await?;
            return Ok(Some(broken(why, text)));
        };
        let Some(next) = names.get(at + 1) else {
            return Ok(None);
        };
        let Some(head) = self.files.head(next).await? else {
            return Ok(None);
        };
        if let Some((why, text)) = differs(&self.marks, &head.list, next) {
            return Ok(Some(broken(why, text)));
        }
        let mut reader = Self::at_start(self.files.clone(), next.clone(), head);
        for (domain, mark) in &self.marks {
            reader.marks.entry(*domain).or_insert(*mark);
        }
        *self = reader;
        Ok(Some(LogRead::UpToDate))
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self, limit: usize) -> Result<LogRead, DriverError> {
        loop {
            let read = self.read(limit.max(HEADER)).await?;
            if read != LogRead::UpToDate {
                return Ok(read);
            }
            self.idle += 1;
            if !self.ended && !self.idle.is_multiple_of(LOOKS) {
                return Ok(LogRead::UpToDate);
            }
            if let Some(broken) = self.is_another().await? {
                return Ok(broken);
            }
            if !self.ended {
                // A server that was killed begins another file without a word in this one; it wrote nothing to it after that.
                if self.files.names().await?.last() == Some(&self.file) {
                    return Ok(LogRead::UpToDate);
                }
                let read = self.read(limit.max(HEADER)).await?;
                if read != LogRead::UpToDate {
                    return Ok(read);
                }
            }
            match self.next_file().await? {
                None => return Ok(LogRead::UpToDate),
                Some(LogRead::UpToDate) => {}
                Some(broken) => return Ok(broken),
            }
        }
    }
}

/// Why a file that was read is not there any more.
async fn gone(files: &Files, file: &str) -> Result<(LogBreak, String), DriverError> {
    let names = files.names().await?;
    let is_purged = names.first().is_some_and(|first| number(first) > number(file));
    Ok(match is_purged {
        true => (LogBreak::Gap, format!("{file} was purged before all of it was read")),
        false => (
            LogBreak::Reset,
            format!("{file} is gone or another one: the log was begun anew"),
        ),
    })
}

/// Whether the list of a file tells another history than what was read before it.
fn differs(read: &Marks, list: &Marks, file: &str) -> Option<(LogBreak, String)> {
    let shown = |mark: &Mark| format!("{}-{}-{}", mark.domain, mark.writer, mark.number);
    for (domain, mark) in read {
        match list.get(domain) {
            Some(listed) if listed == mark => {}
            Some(listed) if listed.number > mark.number => {
                let text = format!("{file} goes on after {}, read was up to {}", shown(listed), shown(mark));
                return Some((LogBreak::Gap, text));
            }
            Some(listed) if listed.number < mark.number => {
                let text = format!(
                    "{file} goes on after {}: what was read after that, up to {}, was taken back",
                    shown(listed),
                    shown(mark)
                );
                return Some((LogBreak::Truncated, text));
            }
            Some(listed) => {
                let text = format!("{file} goes on after {}, read was {}", shown(listed), shown(mark));
                return Some((LogBreak::Reset, text));
            }
            None => return Some((LogBreak::Reset, format!("{file} knows nothing of {}", shown(mark)))),
        }
    }
    None
}
