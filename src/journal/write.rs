//! What a write does to the tables. All of it happens inside the transaction of the writer.

use super::entry::{Head, open_outcome, seal_fact, seal_outcome, seal_request};
use super::file::{FACTS, HEADS, IDS, OUTCOMES, REQUESTS};
use super::index::{Index, Place};
use super::record::{Admission, JournalError, OpId, Outcome, Record};
use super::store::{Fail, Site, read_head};
use redb::{ReadableTable, Table, WriteTransaction};
use secrecy::{ExposeSecret, SecretSlice};
use tracing::warn;

/// Largest head of an entry: identity, method, reply address.
const MAX_HEAD: usize = 64 << 10;
const SENT: &str = "journal.sent";
/// A clock beyond this (the year 2255) is not believed.
const CLOCK_LIMIT: f64 = 9e9;

/// A write asked for. May be applied again when its transaction failed.
#[derive(Debug)]
pub(super) enum Write {
    Accept(Box<Record>),
    Step(OpId, String),
    Finish(OpId, Box<Outcome>),
    Answered(OpId),
    Put(String, Vec<u8>),
    PutSealed(String, SecretSlice<u8>),
    NextSent(f64),
}

impl Write {
    /// How it appears in the name of an abort point, and whose operation it is.
    pub(super) fn step(&self) -> Option<(&OpId, &str)> {
        match self {
            Write::Accept(record) => Some((&record.id, "accept")),
            Write::Step(id, step) => Some((id, step)),
            Write::Finish(id, _) => Some((id, "finish")),
            Write::Answered(id) => Some((id, "answered")),
            Write::Put(..) | Write::PutSealed(..) | Write::NextSent(_) => None,
        }
    }
}

/// What a write answers.
#[derive(Debug)]
pub(super) enum Reply {
    Done,
    Admission(Admission),
    Sent(f64),
}

/// The tables of one transaction.
pub(super) struct Tables<'t> {
    heads: Table<'t, u64, &'static [u8]>,
    requests: Table<'t, u64, &'static [u8]>,
    outcomes: Table<'t, u64, &'static [u8]>,
    ids: Table<'t, &'static str, u64>,
    facts: Table<'t, &'static str, &'static [u8]>,
    /// Whether anything was changed, so that a commit is worth an fsync.
    pub(super) dirty: bool,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Fail> {
        Ok(Self {
            heads: transaction.open_table(HEADS)?,
            requests: transaction.open_table(REQUESTS)?,
            outcomes: transaction.open_table(OUTCOMES)?,
            ids: transaction.open_table(IDS)?,
            facts: transaction.open_table(FACTS)?,
            dirty: false,
        })
    }

    /// Does it. Refuses before it changes anything; after a fault the transaction and the index are thrown away.
    pub(super) fn apply(&mut self, write: &Write, index: &mut Index, site: &Site) -> Result<Reply, Fail> {
        match write {
            Write::Accept(record) => self.accept(record, index, site).map(Reply::Admission),
            Write::Step(id, step) => self.step(id, step).map(|()| Reply::Done),
            Write::Finish(id, outcome) => self.finish(id, outcome, index, site).map(|()| Reply::Done),
            Write::Answered(id) => self.answered(id, index).map(|()| Reply::Done),
            Write::Put(key, value) => self.put(key, value).map(|()| Reply::Done),
            Write::PutSealed(key, value) => {
                let sealed = seal_fact(&site.keys, key, value.expose_secret())?;
                self.put(key, &sealed).map(|()| Reply::Done)
            }
            Write::NextSent(now) => self.next_sent(*now).map(Reply::Sent),
        }
    }

    fn accept(&mut self, record: &Record, index: &mut Index, site: &Site) -> Result<Admission, Fail> {
        let id = record.id.0.as_str();
        let known = self.ids.get(id)?.map(|n| n.value());
        if let Some(number) = known {
            if !self.head(number)?.finished {
                return Ok(Admission::Running);
            }
            let sealed = self.outcomes.get(number)?;
            let outcome = sealed.and_then(|sealed| open_outcome(&site.keys, id, sealed.value()));
            let lost = || JournalError::Sealed { id: id.to_owned() };
            return Ok(Admission::Finished(outcome.ok_or_else(lost)?));
        }
        let request = seal_request(&site.keys, record)?;
        site.check_space(request.len())?;
        let head = Head::new(record, request.len());
        let bytes = write_head(&head)?;
        if bytes.len() > MAX_HEAD {
            let (what, size, limit) = ("id, method and reply address", bytes.len(), MAX_HEAD);
            return Err(JournalError::TooLarge { what, size, limit }.into());
        }
        let (unfinished, taken) = (index.unfinished().len(), index.unfinished().bytes());
        if unfinished >= super::MAX_UNFINISHED || (unfinished > 0 && taken + head.bytes() > super::MAX_UNFINISHED_BYTES) {
            return Err(JournalError::Full {
                unfinished,
                bytes: taken,
            }
            .into());
        }
        let number = index.next;
        self.heads.insert(number, bytes.as_slice())?;
        self.requests.insert(number, request.as_slice())?;
        self.ids.insert(id, number)?;
        self.dirty = true;
        index.set(number, Place::Unfinished, head.bytes());
        Ok(Admission::New)
    }

    fn step(&mut self, id: &OpId, step: &str) -> Result<(), Fail> {
        let (number, mut head) = self.find(id)?;
        if head.finished || head.steps.iter().any(|done| done == step) {
            return Ok(());
        }
        head.steps.push(step.to_owned());
        self.store(number, &head)
    }

    fn finish(&mut self, id: &OpId, outcome: &Outcome, index: &mut Index, site: &Site) -> Result<(), Fail> {
        let (number, mut head) = self.find(id)?;
        if head.finished {
            return Ok(());
        }
        let sealed = seal_outcome(&site.keys, &id.0, outcome)?;
        site.check_space(sealed.len())?;
        head.finished = true;
        head.outcome_bytes = sealed.len() as u64;
        self.outcomes.insert(number, sealed.as_slice())?;
        if head.reply.is_null() {
            return self.close(number, head, index);
        }
        self.store(number, &head)?;
        index.set(number, Place::Unanswered, head.bytes());
        self.prune(index)
    }

    fn answered(&mut self, id: &OpId, index: &mut Index) -> Result<(), Fail> {
        let (number, mut head) = self.find(id)?;
        if head.answered {
            return Ok(());
        }
        if head.finished {
            return self.close(number, head, index);
        }
        // Nobody waits any more, but it still runs.
        head.reply = serde_json::Value::Null;
        self.store(number, &head)
    }

    /// Finished and answered: arguments and context are not needed any more.
    fn close(&mut self, number: u64, mut head: Head, index: &mut Index) -> Result<(), Fail> {
        head.answered = true;
        head.request_bytes = 0;
        self.requests.remove(number)?;
        self.store(number, &head)?;
        index.set(number, Place::Closed, head.bytes());
        self.prune(index)
    }

    fn prune(&mut self, index: &mut Index) -> Result<(), Fail> {
        while let Some(number) = index.surplus(super::KEEP_FINISHED, super::KEEP_FINISHED_BYTES) {
            let head = self.head(number)?;
            if !head.answered {
                warn!(id = head.id, method = head.method, "an answer that nobody took is dropped");
            }
            self.ids.remove(head.id.as_str())?;
            self.heads.remove(number)?;
            self.requests.remove(number)?;
            self.outcomes.remove(number)?;
            index.remove(number);
        }
        Ok(())
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Fail> {
        if value.len() > super::MAX_FACT {
            let (what, size, limit) = ("a fact", value.len(), super::MAX_FACT);
            return Err(JournalError::TooLarge { what, size, limit }.into());
        }
        self.facts.insert(key, value)?;
        self.dirty = true;
        Ok(())
    }

    fn next_sent(&mut self, now: f64) -> Result<f64, Fail> {
        let last = self
            .facts
            .get(SENT)?
            .and_then(|v| Some(f64::from_le_bytes(v.value().try_into().ok()?)));
        let sent = later(now, last.unwrap_or(0.0));
        self.facts.insert(SENT, sent.to_le_bytes().as_slice())?;
        self.dirty = true;
        Ok(sent)
    }

    fn find(&self, id: &OpId) -> Result<(u64, Head), Fail> {
        let number = self.ids.get(id.0.as_str())?.map(|n| n.value());
        let number = number.ok_or_else(|| JournalError::Unknown(id.0.clone()))?;
        Ok((number, self.head(number)?))
    }

    /// Method of an operation, for the name of an abort point.
    pub(super) fn method(&self, id: &OpId) -> Option<String> {
        self.find(id).ok().map(|(_, head)| head.method)
    }

    fn head(&self, number: u64) -> Result<Head, Fail> {
        let bytes = self.heads.get(number)?;
        read_head(number, bytes.as_ref().map(|v| v.value()))
    }

    fn store(&mut self, number: u64, head: &Head) -> Result<(), Fail> {
        self.heads.insert(number, write_head(head)?.as_slice())?;
        self.dirty = true;
        Ok(())
    }
}

fn write_head(head: &Head) -> Result<Vec<u8>, JournalError> {
    head.write().map_err(|source| JournalError::Write {
        doing: "an entry as JSON",
        source: source.into(),
    })
}

/// The later of `now` and 1 ms after `last`, seconds in whole microseconds: how time stamps of messages grow.
#[must_use]
pub fn later(now: f64, last: f64) -> f64 {
    let least = last + 0.001;
    let sent = if now.is_finite() && now > least && now < CLOCK_LIMIT {
        now
    } else {
        least
    };
    (sent * 1e6).round() / 1e6
}
