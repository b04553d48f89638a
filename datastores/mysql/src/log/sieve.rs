//! What of a log is applied: transactions that the data lack, up to where the replay stops. Pure.

use super::event::{Format, Header, kind, statement};
use super::walk::{Marks, Open, Seen, Walker, advance};
use datastore_api::{DriverError, ErrorKind, Feed, Mark, Until};
use std::collections::BTreeSet;

/// Takes stretches in order and lets through what is to be applied.
#[derive(Debug)]
pub(super) struct Sieve {
    until: Until,
    /// What the data have, with what was let through.
    pub have: Marks,
    /// Domains of which it is known that nothing is missing before the next transaction.
    joined: BTreeSet<u32>,
    walker: Walker,
    /// Whether the transaction that is open is let through.
    keeps: bool,
    /// Where the last stretch ended.
    at: Option<(String, u64)>,
    /// It has come to where it stops.
    pub reached: bool,
    /// Transactions that were let through.
    pub count: u64,
    /// When the last of them was made.
    pub last_time: Option<u64>,
    /// Statements that switch events off were among them.
    pub switches_events_off: bool,
}

enum Verdict {
    Keep,
    Leave,
    Stop,
}

impl Sieve {
    /// For data that have these transactions. `WrongData` if they are beyond the target already.
    pub fn new(have: Marks, until: Until) -> Result<Self, DriverError> {
        let mut reached = false;
        if let Until::Including(target) | Until::Before(target) = until
            && let Some(mark) = have.get(&target.domain)
        {
            let is_beyond = mark.number > target.number
                || (mark.number == target.number && (mark.writer != target.writer || matches!(until, Until::Before(_))));
            if is_beyond {
                let text = format!(
                    "the data are at {} already, which is not before {}",
                    shown(*mark),
                    shown(target)
                );
                return Err(wrong(text));
            }
            reached = *mark == target;
        }
        Ok(Self {
            until,
            have,
            joined: BTreeSet::new(),
            walker: Walker::default(),
            keeps: false,
            at: None,
            reached,
            count: 0,
            last_time: None,
            switches_events_off: false,
        })
    }

    /// Adds what is let through to `out`.
    pub fn pass(&mut self, feed: &Feed, format: &Format, out: &mut Vec<u8>) -> Result<(), DriverError> {
        self.join(feed)?;
        let mut rest = feed.bytes.as_slice();
        while !rest.is_empty() && !self.reached {
            let at = feed.stretch.to - rest.len() as u64;
            let place = || format!("{} at {at}", feed.stretch.file);
            let header = Header::read(rest).map_err(|bad| damaged(format!("{}: {bad}", place())))?;
            let cut = header.and_then(|header| Some((header, rest.split_at_checked(header.length)?)));
            let Some((header, (event, after))) = cut else {
                return Err(damaged(format!("{}: half an event", place())));
            };
            if !format.fits(event) {
                return Err(damaged(format!("{}: an event with a wrong checksum", place())));
            }
            if header.kind == kind::INCIDENT {
                let text = format!("the log says that the server lost transactions there: {}", place());
                return Err(DriverError::new(ErrorKind::Failed, text));
            }
            let was = self.walker;
            let seen = self.walker.see(format, &header, event);
            match seen.map_err(|bad| damaged(format!("{}: {bad}", place())))? {
                Seen::Between => {}
                Seen::Begins(open) => {
                    if let Some(before) = was.open() {
                        self.end(before);
                    }
                    match self.judge(open, feed)? {
                        Verdict::Keep => self.keeps = true,
                        Verdict::Leave => self.keeps = false,
                        Verdict::Stop => {
                            self.reached = true;
                            return Ok(());
                        }
                    }
                    self.let_through(event, out);
                }
                Seen::Inside => self.keep(&header, format, event, out),
                Seen::Ends(open) => {
                    self.keep(&header, format, event, out);
                    if let Some(open) = open {
                        self.end(open);
                    }
                }
            }
            rest = after;
        }
        self.at = Some((feed.stretch.file.clone(), feed.stretch.to));
        Ok(())
    }

    /// Whether this stretch may follow what came before.
    fn join(&mut self, feed: &Feed) -> Result<(), DriverError> {
        let stretch = &feed.stretch;
        let bytes = stretch.to.checked_sub(stretch.from);
        if bytes != Some(feed.bytes.len() as u64) {
            let text = format!("a stretch of {} has {} bytes, not {bytes:?}", stretch.file, feed.bytes.len());
            return Err(damaged(text));
        }
        let goes_on = self.at == Some((stretch.file.clone(), stretch.from));
        if (self.walker.is_inside() || stretch.begins_inside) && !goes_on {
            let text = format!(
                "{} at {} is the middle of a transaction of which the beginning did not come",
                stretch.file, stretch.from
            );
            return Err(wrong(text));
        }
        for mark in &stretch.before {
            self.joined.insert(mark.domain);
            let had = self.have.get(&mark.domain);
            if had.is_none_or(|had| had.number < mark.number) {
                let had = had.map_or("nothing of its domain".to_owned(), |had| shown(*had));
                let text = format!(
                    "the log goes on after {}, the data have {had}: transactions are missing",
                    shown(*mark)
                );
                return Err(wrong(text));
            }
        }
        Ok(())
    }

    fn judge(&mut self, open: Open, feed: &Feed) -> Result<Verdict, DriverError> {
        let mark = open.gtid.mark;
        if let Some(had) = self.have.get(&mark.domain) {
            if mark.number == had.number && mark.writer != had.writer {
                let text = format!(
                    "the data have {} where the log has {}: another history",
                    shown(*had),
                    shown(mark)
                );
                return Err(wrong(text));
            }
            if mark.number <= had.number {
                return Ok(Verdict::Leave);
            }
            if !self.joined.contains(&mark.domain) && mark.number > had.number + 1 {
                let text = format!(
                    "the log goes on with {}, the data have {}: transactions are missing",
                    shown(mark),
                    shown(*had)
                );
                return Err(wrong(text));
            }
        }
        let good = feed.good_to.iter().find(|good| good.domain == mark.domain);
        if good.is_some_and(|good| mark.number > good.number) {
            return Ok(Verdict::Leave);
        }
        match self.until {
            Until::Time(time) if u64::from(open.time) >= time => return Ok(Verdict::Stop),
            Until::Before(target) if mark == target => return Ok(Verdict::Stop),
            Until::Before(target) | Until::Including(target) if target.domain == mark.domain => {
                let is_other = mark.number == target.number && mark.writer != target.writer;
                if is_other || mark.number > target.number {
                    let text = format!("{} is not in the log: it has {} there", shown(target), shown(mark));
                    return Err(wrong(text));
                }
            }
            _ => {}
        }
        self.joined.insert(mark.domain);
        Ok(Verdict::Keep)
    }

    fn keep(&mut self, header: &Header, format: &Format, event: &[u8], out: &mut Vec<u8>) {
        if !self.keeps {
            return;
        }
        if header.kind == kind::QUERY {
            let text = statement(format.body(event)).to_ascii_lowercase();
            let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
            self.switches_events_off |= has(b"event") && has(b"disable");
        }
        self.let_through(event, out);
    }

    fn let_through(&self, event: &[u8], out: &mut Vec<u8>) {
        if self.keeps {
            out.extend_from_slice(event);
        }
    }

    fn end(&mut self, open: Open) {
        if !std::mem::take(&mut self.keeps) {
            return;
        }
        let mark = open.gtid.mark;
        advance(&mut self.have, mark);
        self.count += 1;
        self.last_time = Some(u64::from(open.time));
        self.reached |= self.until == Until::Including(mark);
    }

    /// `WrongData` unless it has come to where it was to stop.
    pub fn check_end(&self) -> Result<(), DriverError> {
        if self.walker.is_inside() && self.keeps {
            return Err(wrong("the log ends in the middle of a transaction".to_owned()));
        }
        match self.until {
            Until::Including(target) | Until::Before(target) if !self.reached => {
                Err(wrong(format!("the log ended before {} came", shown(target))))
            }
            _ => Ok(()),
        }
    }
}

/// As the server writes it.
pub(super) fn shown(mark: Mark) -> String {
    format!("{}-{}-{}", mark.domain, mark.writer, mark.number)
}

fn wrong(text: String) -> DriverError {
    DriverError::new(ErrorKind::WrongData, text)
}

fn damaged(text: String) -> DriverError {
    DriverError::new(ErrorKind::Failed, format!("the log is damaged: {text}"))
}

#[cfg(test)]
mod tests;
