//! The witness's side: whom it lets in, and what it promised.

use super::{Moment, Terms};
use std::collections::BTreeMap;
use std::time::Duration;

/// Pairs that one witness remembers; more are refused.
const MOST: usize = 1024;
/// In place of an attempt: a newer generation was seen, so the older one is over for good.
const NEWER_SEEN: u64 = 0;

/// Why a witness does not do as it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It began a moment ago and may have forgotten whom it let in.
    #[error("the witness has just started")]
    JustStarted {
        /// When to ask again.
        retry: Duration,
    },
    /// It promised the replica of this pair that it would let this generation in no more.
    #[error("the witness promised to let generation {generation} in no more")]
    Promised {
        /// The highest one it will not let in.
        generation: u64,
    },
    /// It knows a newer generation: the asker is no longer what it believes to be.
    #[error("the witness knows the newer generation {generation}")]
    Newer {
        /// The newer one.
        generation: u64,
    },
    /// The lease of an older generation is not over yet.
    #[error("the lease of generation {generation} is not over yet")]
    LeaseRuns {
        /// The older one.
        generation: u64,
        /// When to ask again.
        retry: Duration,
    },
    /// The witness hears the source well.
    #[error("the witness hears the source, {} ms ago", .ago.as_millis())]
    SourceLives {
        /// When it let it in last.
        ago: Duration,
    },
    /// There are too many pairs.
    #[error("the witness knows too many pairs")]
    Full,
}

/// What a witness must still know after a restart, of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    /// The highest generation it has let in.
    pub granted: Option<u64>,
    /// The highest generation it lets in no more, and the attempt this was promised for.
    pub promised: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    kept: Kept,
    granted_at: Option<Moment>,
}

/// What a witness knows. `K` names a pair.
#[derive(Debug, Clone)]
pub struct Grants<K> {
    terms: Terms,
    started: Moment,
    pairs: BTreeMap<K, Entry>,
}

impl<K: Ord + Clone> Grants<K> {
    /// A witness that starts now, with what it kept from before: nothing if it keeps nothing.
    #[must_use]
    pub fn new(terms: Terms, now: Moment, kept: impl IntoIterator<Item = (K, Kept)>) -> Self {
        let entry = |kept| Entry { kept, granted_at: None };
        Self {
            terms,
            started: now,
            pairs: kept.into_iter().map(|(pair, kept)| (pair, entry(kept))).collect(),
        }
    }

    /// What must be kept of a pair. To be on disk, if anything is, before an answer that changed it goes out.
    #[must_use]
    pub fn kept(&self, pair: &K) -> Kept {
        self.pairs.get(pair).map(|entry| entry.kept).unwrap_or_default()
    }

    /// All that must be kept.
    pub fn all_kept(&self) -> impl Iterator<Item = (&K, Kept)> {
        self.pairs.iter().map(|(pair, entry)| (pair, entry.kept))
    }

    /// A source of this generation asks to be let in for one lease.
    pub fn ping(&mut self, pair: &K, generation: u64, now: Moment) -> Result<(), Denied> {
        self.settled(now)?;
        let over = self.terms.surely_over();
        let entry = self.entry(pair)?;
        let (granted, at) = (entry.kept.granted.unwrap_or(0), entry.granted_at);
        if generation < granted {
            return Err(Denied::Newer { generation: granted });
        }
        if let Some((promised, _)) = entry.kept.promised
            && generation <= promised
        {
            return Err(Denied::Promised { generation: promised });
        }
        if generation > granted
            && let Some(retry) = at.and_then(|at| (at + over).checked_sub(now)).filter(|left| !left.is_zero())
        {
            // Somebody promoted: the older one is let in no more, and the newer one once the lease of the older is over.
            entry.kept.promised = Some((granted, NEWER_SEEN));
            return Err(Denied::LeaseRuns {
                generation: granted,
                retry,
            });
        }
        entry.kept.granted = Some(generation);
        entry.granted_at = Some(now);
        Ok(())
    }

    /// The replica, which hears the source of this generation no more, asks that it be let in no more. The answer is when it was let
    /// in last. If the witness hears the source, it is not given up, unless the asker insists.
    pub fn fence(
        &mut self,
        pair: &K,
        generation: u64,
        attempt: u64,
        insist: bool,
        now: Moment,
    ) -> Result<Option<Duration>, Denied> {
        self.settled(now)?;
        let lively = self.terms.lease / 2;
        let entry = self.entry(pair)?;
        if let Some(granted) = entry.kept.granted.filter(|granted| *granted > generation) {
            return Err(Denied::Newer { generation: granted });
        }
        let ago = entry.granted_at.map(|at| now.saturating_sub(at));
        if let Some(ago) = ago.filter(|ago| *ago < lively && !insist) {
            return Err(Denied::SourceLives { ago });
        }
        match entry.kept.promised {
            // A newer source that was seen says nothing about those that come after it.
            Some((promised, by)) if promised > generation || (promised == generation && by == NEWER_SEEN) => {
                return Err(Denied::Promised { generation: promised });
            }
            _ => entry.kept.promised = Some((generation, attempt)),
        }
        Ok(ago)
    }

    /// The replica has given that attempt up. Returns the attempt that a promise for this generation still stands for: a replica
    /// that has begun anew, or whose question was lost, learns so what else it has to give up.
    pub fn unfence(&mut self, pair: &K, generation: u64, attempt: u64) -> Option<u64> {
        let promised = &mut self.pairs.get_mut(pair)?.kept.promised;
        if *promised == Some((generation, attempt)) && attempt != NEWER_SEEN {
            *promised = None;
        }
        let standing = promised.filter(|(promised, by)| *promised == generation && *by != NEWER_SEEN);
        standing.map(|(_, by)| by)
    }

    /// A witness that forgets is silent until all it may have said has lost its force: a lease, and the use of a promise.
    fn settled(&self, now: Moment) -> Result<(), Denied> {
        let settled = self.started + self.terms.surely_over() * 2;
        match settled.checked_sub(now).filter(|left| !left.is_zero()) {
            Some(retry) => Err(Denied::JustStarted { retry }),
            None => Ok(()),
        }
    }

    fn entry(&mut self, pair: &K) -> Result<&mut Entry, Denied> {
        if !self.pairs.contains_key(pair) && self.pairs.len() >= MOST {
            return Err(Denied::Full);
        }
        Ok(self.pairs.entry(pair.clone()).or_default())
    }
}
