//! From events to transactions: where one begins and ends, and what a stretch of a log has in it. Pure.

use super::event::{Bad, Format, Gtid, Header, kind, list, statement};
use datastore_api::{Mark, Run, push_run};
use std::collections::BTreeMap;

/// The last transaction of each domain.
pub(super) type Marks = BTreeMap<u32, Mark>;

/// Adds a transaction.
pub(super) fn advance(marks: &mut Marks, mark: Mark) {
    let last = marks.entry(mark.domain).or_insert(mark);
    if last.number <= mark.number {
        *last = mark;
    }
}

/// A transaction that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    pub gtid: Gtid,
    pub time: u32,
}

/// What an event does to the transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is between transactions and part of none.
    Between,
    /// It begins one.
    Begins(Open),
    /// It is in the middle of one.
    Inside,
    /// It ends one. `None`: nobody saw it begin.
    Ends(Option<Open>),
}

/// Follows transactions from event to event.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Walker {
    open: Option<Option<Open>>,
}

impl Walker {
    /// In the middle of a transaction whose beginning was not seen, or between two.
    pub fn new(inside: bool) -> Self {
        Self {
            open: inside.then_some(None),
        }
    }

    /// Whether a transaction is open.
    pub fn is_inside(&self) -> bool {
        self.open.is_some()
    }

    /// In the middle of this transaction.
    pub fn within(open: Option<Open>, inside: bool) -> Self {
        Self {
            open: inside.then_some(open),
        }
    }

    /// The transaction that is open, if its beginning was seen.
    pub fn open(&self) -> Option<Open> {
        self.open.flatten()
    }

    /// Takes the next event, whole.
    pub fn see(&mut self, format: &Format, header: &Header, event: &[u8]) -> Result<Seen, Bad> {
        if header.kind == kind::GTID {
            let open = Open {
                gtid: Gtid::read(event)?,
                time: header.time,
            };
            self.open = Some(Some(open));
            return Ok(Seen::Begins(open));
        }
        let Some(open) = self.open else { return Ok(Seen::Between) };
        if is_part_only(header.kind) {
            return Ok(Seen::Inside);
        }
        let ends = match header.kind {
            kind::XID | kind::XA_PREPARE => true,
            // Who did not see its beginning has a transaction of several events before it: one of one statement is never cut.
            _ if open.is_some_and(|open| open.gtid.is_standalone) => true,
            kind::QUERY => is_end(statement(format.body(event))),
            kind::STOP | kind::ROTATE | kind::FORMAT | kind::GTID_LIST => {
                return Err(Bad("a transaction without an end".into()));
            }
            _ => false,
        };
        if ends {
            self.open = None;
            return Ok(Seen::Ends(open));
        }
        Ok(Seen::Inside)
    }
}

/// Events that always have another one after them in their transaction.
fn is_part_only(kind: u8) -> bool {
    matches!(
        kind,
        kind::INTVAR | kind::RAND | kind::USER_VAR | kind::TABLE_MAP | kind::ANNOTATE | kind::BEGIN_LOAD | kind::APPEND_BLOCK
    )
}

fn is_end(statement: &[u8]) -> bool {
    let is = |word: &[u8]| statement.eq_ignore_ascii_case(word);
    let begins = |words: &[u8]| {
        statement
            .get(..words.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(words))
    };
    is(b"COMMIT") || is(b"ROLLBACK") || begins(b"XA COMMIT ") || begins(b"XA ROLLBACK ")
}

/// What was found in some bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Walked {
    /// Bytes up to the end of the last transaction that is whole.
    pub border: usize,
    /// Bytes of whole events.
    pub events: usize,
    /// Length of the event behind them, of which not all is there; 0: not even that is known.
    pub next: usize,
    /// The transactions that end before the border.
    pub runs: Vec<Run>,
    /// How many.
    pub transactions: u64,
    /// When the first and the newest were made.
    pub times: Option<(u64, u64)>,
    /// The file says that it ends.
    pub ends_file: bool,
    /// Why the walk ended early.
    pub bad: Option<Bad>,
}

impl Walked {
    /// Walks the whole events in these bytes. `marks` is advanced by the transactions that end in them, `walker` by all events.
    pub fn over(bytes: &[u8], format: &Format, walker: &mut Walker, marks: &mut Marks) -> Self {
        let mut walked = Self::default();
        loop {
            let rest = bytes.get(walked.events..).unwrap_or_default();
            let header = match Header::read(rest) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(bad) => {
                    walked.bad = Some(bad);
                    break;
                }
            };
            let Some(event) = rest.get(..header.length) else {
                walked.next = header.length;
                break;
            };
            if let Err(bad) = walked.take(&header, event, format, walker, marks) {
                walked.bad = Some(bad);
                break;
            }
        }
        walked
    }

    fn take(
        &mut self,
        header: &Header,
        event: &[u8],
        format: &Format,
        walker: &mut Walker,
        marks: &mut Marks,
    ) -> Result<(), Bad> {
        if !format.fits(event) {
            return Err(Bad("an event with a wrong checksum".into()));
        }
        let before = walker.open;
        let seen = walker.see(format, header, event)?;
        if let (Seen::Begins(_), Some(open)) = (seen, before) {
            // What ends in a way that is not known here ends at the latest where the next one begins.
            self.count(open, marks);
            self.border = self.events;
        }
        self.events += event.len();
        match seen {
            Seen::Between => self.border = self.events,
            Seen::Ends(open) => {
                self.count(open, marks);
                self.border = self.events;
            }
            Seen::Begins(_) | Seen::Inside => {}
        }
        self.ends_file |= matches!(header.kind, kind::STOP | kind::ROTATE);
        Ok(())
    }

    fn count(&mut self, open: Option<Open>, marks: &mut Marks) {
        self.transactions += 1;
        let Some(Open {
            gtid: Gtid { mark, .. },
            time,
        }) = open
        else {
            return;
        };
        advance(marks, mark);
        let Mark { domain, writer, number } = mark;
        push_run(
            &mut self.runs,
            Run {
                domain,
                writer,
                first: number,
                last: number,
            },
        );
        let time = u64::from(time);
        let (first, newest) = self.times.unwrap_or((time, time));
        self.times = Some((first, newest.max(time)));
    }
}

/// The marks a file begins with: the last of each domain in its list.
pub(super) fn listed(event: &[u8]) -> Result<Marks, Bad> {
    let mut marks = Marks::new();
    for mark in list(event)? {
        advance(&mut marks, mark);
    }
    Ok(marks)
}

#[cfg(test)]
mod tests;
