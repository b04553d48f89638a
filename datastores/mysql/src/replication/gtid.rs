//! Sets of global transaction ids, `domain-server-sequence`. Pure.
//!
//! The servers run in strict mode: in a domain sequence numbers only grow, whoever writes. So one id per domain says how far a server is
//! (a position), and one id per domain and server says whose transactions it has ever had (the state of its log).

use crate::errors::invalid;
use datastore_api::{DriverError, Mark, Position};
use std::collections::BTreeMap;
use std::fmt;

/// The highest sequence number of each server in each domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gtids(BTreeMap<(u32, u32), u64>);

impl Gtids {
    /// From the server's text form. `Invalid` if it is none.
    pub fn parse(text: &str) -> Result<Self, DriverError> {
        let mut gtids = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (domain, server, sequence) =
                one(word).ok_or_else(|| invalid(format!("'{}' is no list of transaction ids", text.escape_debug())))?;
            gtids.add(domain, server, sequence);
        }
        Ok(gtids)
    }

    fn add(&mut self, domain: u32, server: u32, sequence: u64) {
        let entry = self.0.entry((domain, server)).or_default();
        *entry = sequence.max(*entry);
    }

    /// With all of the other's.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for ((domain, server), sequence) in &other.0 {
            self.add(*domain, *server, *sequence);
        }
        self
    }

    /// Whether this transaction of this server is among them.
    pub fn has(&self, domain: u32, server: u32, sequence: u64) -> bool {
        self.0.get(&(domain, server)).is_some_and(|last| *last >= sequence)
    }

    /// The last one of each domain: server and sequence number.
    fn last(&self) -> BTreeMap<u32, (u32, u64)> {
        let mut last = BTreeMap::new();
        for ((domain, server), sequence) in &self.0 {
            let entry = last.entry(*domain).or_insert((*server, *sequence));
            if entry.1 < *sequence {
                *entry = (*server, *sequence);
            }
        }
        last
    }

    /// The highest sequence number of all.
    pub fn highest(&self) -> u64 {
        self.0.values().copied().max().unwrap_or_default()
    }

    /// As a position: one id per domain.
    pub fn position(&self) -> Position {
        let ids: Vec<String> = self
            .last()
            .iter()
            .map(|(domain, (server, sequence))| format!("{domain}-{server}-{sequence}"))
            .collect();
        Position(ids.join(","))
    }

    /// The last one of each domain.
    pub fn marks(&self) -> Vec<Mark> {
        let last = self.last().into_iter();
        last.map(|(domain, (writer, number))| Mark { domain, writer, number })
            .collect()
    }

    /// How many transactions of `want` are not here. Two different transactions with the last number of a domain count as one missing.
    pub fn missing(&self, want: &Self) -> u64 {
        let have = self.last();
        let lacks = want.last().into_iter().map(|(domain, (server, sequence))| {
            let (my_server, mine) = have.get(&domain).copied().unwrap_or_default();
            let has_it = self.0.get(&(domain, server)).is_some_and(|last| *last >= sequence);
            match sequence.checked_sub(mine) {
                Some(0) => u64::from(my_server != server && !has_it),
                Some(lack) => lack,
                None => 0,
            }
        });
        lacks.fold(0, u64::saturating_add)
    }

    /// Whether all of `want` is here.
    pub fn covers(&self, want: &Self) -> bool {
        self.missing(want) == 0
    }

    /// Transactions here that `source` never had, among those that servers accepted by `whose` wrote.
    ///
    /// A source whose data were copied from elsewhere knows nothing of servers that wrote only before the copy was taken. But whoever
    /// has a transaction has everything before it, so what comes before one that both have is no question.
    pub fn errant(&self, source: &Self, whose: impl Fn(u32) -> bool) -> Vec<String> {
        let mut ranges = Vec::new();
        for ((domain, server), last) in self.0.iter().filter(|((_, server), _)| whose(*server)) {
            match source.0.get(&(*domain, *server)) {
                Some(known) if known >= last => {}
                Some(known) if known + 1 < *last => {
                    ranges.push(format!("{domain}-{server}-{} to {domain}-{server}-{last}", known + 1));
                }
                Some(_) => ranges.push(format!("{domain}-{server}-{last}")),
                None if *last <= self.last_shared(source, *domain) => {}
                None => ranges.push(format!("up to {domain}-{server}-{last}")),
            }
        }
        ranges
    }

    /// The sequence number of the last transaction of a domain that both are known to have.
    fn last_shared(&self, other: &Self, domain: u32) -> u64 {
        let both = self.0.iter().filter(|((of, _), _)| *of == domain);
        let both = both.filter_map(|(key, mine)| other.0.get(key).map(|theirs| *mine.min(theirs)));
        both.max().unwrap_or_default()
    }
}

impl fmt::Display for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The server takes the last one of a domain in a list for the newest.
        let mut ids: Vec<_> = self
            .0
            .iter()
            .map(|((domain, server), sequence)| (*domain, *sequence, *server))
            .collect();
        ids.sort_unstable();
        for (index, (domain, sequence, server)) in ids.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{domain}-{server}-{sequence}")?;
        }
        Ok(())
    }
}

fn one(word: &str) -> Option<(u32, u32, u64)> {
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = word.split('-').collect();
    match parts.as_slice() {
        [domain, server, sequence] if parts.iter().all(digits) => {
            Some((domain.parse().ok()?, server.parse().ok()?, sequence.parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
