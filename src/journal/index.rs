//! What the writer keeps in memory about the entries: where each stands and how much it takes.

use std::collections::BTreeMap;

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Unfinished,
    Unanswered,
    Closed,
}

/// Entries by their number (order of arrival), with their sizes in bytes.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) next: u64,
    unfinished: Shelf,
    unanswered: Shelf,
    closed: Shelf,
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    entries: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Shelf {
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn insert(&mut self, number: u64, bytes: u64) {
        self.remove(number);
        self.entries.insert(number, bytes);
        self.bytes += bytes;
    }

    fn remove(&mut self, number: u64) {
        self.bytes -= self.entries.remove(&number).unwrap_or(0);
    }

    fn oldest(&self) -> Option<u64> {
        self.entries.keys().next().copied()
    }
}

impl Index {
    /// Puts an entry at its place, from wherever it was.
    pub(super) fn set(&mut self, number: u64, place: Place, bytes: u64) {
        self.remove(number);
        self.next = self.next.max(number + 1);
        match place {
            Place::Unfinished => self.unfinished.insert(number, bytes),
            Place::Unanswered => self.unanswered.insert(number, bytes),
            Place::Closed => self.closed.insert(number, bytes),
        }
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.unfinished.remove(number);
        self.unanswered.remove(number);
        self.closed.remove(number);
    }

    pub(super) fn unfinished(&self) -> &Shelf {
        &self.unfinished
    }

    pub(super) fn unanswered(&self) -> &Shelf {
        &self.unanswered
    }

    /// The finished entry to drop next, if the limits are passed: closed ones first, then the oldest that nobody took the
    /// answer of.
    pub(super) fn surplus(&self, keep: usize, keep_bytes: u64) -> Option<u64> {
        if self.closed.len() > keep || (self.closed.bytes > keep_bytes && self.closed.len() > 1) {
            return self.closed.oldest();
        }
        if self.unanswered.len() > keep || (self.unanswered.bytes > keep_bytes && self.unanswered.len() > 1) {
            return self.unanswered.oldest();
        }
        None
    }
}
