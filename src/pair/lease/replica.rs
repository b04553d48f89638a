//! The replica's side: from when on silence is a reason to promote.

use super::{Moment, Terms};
use std::time::Duration;

/// How long an unanswered question to the witness is waited for before the next.
const FENCE_LIMIT: Duration = Duration::from_millis(500);

/// What a ping of a source is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Echo it.
    Echo {
        /// An attempt to promote that is given up by this; the witness must be told, until it has answered.
        abandoned: Option<u64>,
        /// The announced absence that is still reckoned with; goes with the echo.
        hold: Option<u64>,
    },
    /// Deny it: there is a newer generation than the sender's, or there will be in a moment.
    Denied {
        /// That generation.
        generation: u64,
    },
}

/// What a replica is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It has not heard the source since it began, so silence says nothing.
    Unarmed,
    /// Nothing before this moment.
    Wait(Moment),
    /// The source is silent: ask the witness, then say so by [`ReplicaWatch::fence_asked`].
    Fence,
    /// Nobody's door is open and the witness lets nobody else in: promote, after [`ReplicaWatch::commit`].
    Promote,
    /// It has committed.
    Committed,
}

#[derive(Debug, Clone, Copy)]
enum Fence {
    None,
    Asked {
        attempt: u64,
        at: Moment,
    },
    /// Usable from `due` until `end`: a witness that was restarted may have forgotten it then.
    Promised {
        attempt: u64,
        due: Moment,
        end: Moment,
    },
    Committed,
}

/// The watch of a replica over its source.
///
/// ```text
/// unarmed ──ping──> armed ──silence──> [fence asked ──promise──> rest of the lease] ──> promote ──commit──> committed
///                     ^──────────── any ping: the attempt is given up ────────────────────────┘      (denies all pings)
/// ```
#[derive(Debug, Clone)]
pub struct ReplicaWatch {
    terms: Terms,
    generation: u64,
    witness: bool,
    last_arrival: Option<Moment>,
    /// Until when the source is away on purpose, and the number of that absence.
    hold: Option<(Moment, u64)>,
    /// When [`step`](Self::step) was last called, and since when it has been called without a gap.
    stepped: Option<Moment>,
    awake_since: Option<Moment>,
    fence: Fence,
}

impl ReplicaWatch {
    /// A replica that begins in the generation it last knew. With a witness, silence alone is not enough.
    #[must_use]
    pub fn new(terms: Terms, generation: u64, witness: bool) -> Self {
        Self {
            terms,
            generation,
            witness,
            last_arrival: None,
            hold: None,
            stepped: None,
            awake_since: None,
            fence: Fence::None,
        }
    }

    /// The newest generation it knows of.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A ping arrived. A higher generation than ours becomes ours; the caller keeps it.
    pub fn heard(&mut self, now: Moment, generation: u64, arms: bool, ends_hold: Option<u64>) -> Heard {
        if self.denies(generation) {
            return self.denied();
        }
        if arms || self.last_arrival.is_some() {
            self.last_arrival = self.last_arrival.max(Some(now));
        }
        if self.hold.is_some_and(|(_, number)| Some(number) == ends_hold) {
            self.hold = None;
        }
        self.echo(generation)
    }

    /// The source will be away for a moment, on purpose, with its door open. `number` was never used before, by any process.
    /// [`Heard::Echo`] means that this was noted.
    pub fn away(&mut self, now: Moment, generation: u64, within: Duration, number: u64) -> Heard {
        if self.denies(generation) {
            return self.denied();
        }
        let until = now + self.terms.stretched(within);
        self.hold = self
            .hold
            .map_or(Some((until, number)), |(old, _)| Some((old.max(until), number)));
        self.echo(generation)
    }

    /// What to do now. To be called at least every quarter of a lease: after a longer gap this process itself was stopped, heard
    /// nothing because of that, and begins to listen anew.
    pub fn step(&mut self, now: Moment) -> Step {
        let gap = self.stepped.map(|last| now.saturating_sub(last));
        if gap.is_none_or(|gap| gap > self.terms.lease / 2) {
            self.awake_since = Some(now);
        }
        self.stepped = Some(now);
        let Some(last) = self.last_arrival else {
            return match self.fence {
                Fence::Committed => Step::Committed,
                _ => Step::Unarmed,
            };
        };
        let over = self.terms.surely_over();
        let due = Some(last + over)
            .max(self.hold.map(|(until, _)| until))
            .max(self.awake_since.map(|since| since + over))
            .unwrap_or_default();
        match self.fence {
            Fence::Committed => Step::Committed,
            _ if now < due => Step::Wait(due),
            _ if !self.witness => Step::Promote,
            Fence::None => Step::Fence,
            Fence::Asked { at, .. } if now < at + FENCE_LIMIT => Step::Wait(at + FENCE_LIMIT),
            Fence::Promised { due, .. } if now < due => Step::Wait(due),
            Fence::Promised { end, .. } if now < end => Step::Promote,
            Fence::Asked { .. } | Fence::Promised { .. } => Step::Fence,
        }
    }

    /// The witness is about to be asked. Returns the number of the attempt to ask with: `fresh`, not 0, never used before by any
    /// process, or the one that is being made already.
    pub fn fence_asked(&mut self, now: Moment, fresh: u64) -> u64 {
        let attempt = self.attempt().unwrap_or(fresh);
        if !matches!(self.fence, Fence::Committed) {
            self.fence = Fence::Asked { attempt, at: now };
        }
        attempt
    }

    /// The witness, asked at `asked`, promised; it had let the source in `granted_ago` before its answer. What it answers to an
    /// attempt that was given up counts nothing.
    pub fn fence_promised(&mut self, asked: Moment, now: Moment, attempt: u64, granted_ago: Option<Duration>) {
        if self.attempt() == Some(attempt) {
            let over = self.terms.surely_over();
            self.fence = Fence::Promised {
                attempt,
                due: now + granted_ago.map_or(Duration::ZERO, |ago| over.saturating_sub(ago)),
                end: asked + self.terms.lease * 2,
            };
        }
    }

    /// The decision, if it may still be taken at this moment: from now on all pings of older generations are denied. Returns the new
    /// generation, which must be on disk before anything is opened.
    pub fn commit(&mut self, now: Moment) -> Option<u64> {
        if self.step(now) != Step::Promote {
            return None;
        }
        self.fence = Fence::Committed;
        self.generation += 1;
        Some(self.generation)
    }

    /// Gives an attempt up. The witness must be told of the one that is returned, until it has answered.
    pub fn abandon(&mut self) -> Option<u64> {
        let attempt = self.attempt();
        if attempt.is_some() {
            self.fence = Fence::None;
        }
        attempt
    }

    /// The attempt that is being made.
    #[must_use]
    pub fn attempt(&self) -> Option<u64> {
        match self.fence {
            Fence::Asked { attempt, .. } | Fence::Promised { attempt, .. } => Some(attempt),
            Fence::None | Fence::Committed => None,
        }
    }

    fn denies(&self, generation: u64) -> bool {
        generation < self.generation || generation == self.generation && matches!(self.fence, Fence::Committed)
    }

    fn denied(&self) -> Heard {
        Heard::Denied {
            generation: self.generation,
        }
    }

    fn echo(&mut self, generation: u64) -> Heard {
        if generation > self.generation {
            self.fence = Fence::None;
        }
        self.generation = generation;
        Heard::Echo {
            abandoned: self.abandon(),
            hold: self.hold.map(|(_, number)| number),
        }
    }
}
