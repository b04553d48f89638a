//! The source's side: until when its door may stand open.

use super::{Moment, Terms};
use std::collections::VecDeque;
use std::time::Duration;

/// Pings that are remembered; at five a second more than any lease.
const REMEMBERED: usize = 256;

/// What goes out, to the replica and the witness alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Its number.
    pub seq: u64,
    /// Whether the replica may from now on take silence for a reason to promote.
    pub arms: bool,
    /// The announced absence that is over.
    pub ends_hold: Option<u64>,
}

/// The lease of a source.
///
/// ```text
///  new ──> closed ──echo──> leased ──time──> closed        inherited: what the door in the kernel still has counts as leased
///  alone ──> open ──first echo──> leased                   nobody that could promote has ever been armed by us
/// ```
#[derive(Debug, Clone)]
pub struct SourceLease {
    terms: Terms,
    until: Option<Moment>,
    alone: bool,
    /// An absence was announced, and our door stands open for longer than a lease.
    holding: bool,
    ends_hold: Option<u64>,
    sent: VecDeque<(u64, Moment)>,
    next: u64,
}

impl SourceLease {
    /// A source that begins, or begins anew: `inherited` is what its door in the kernel still has, nothing if it is closed. A door
    /// that stood open through a restart of the agent thus stays open, and one that closed needs an echo.
    #[must_use]
    pub fn new(terms: Terms, now: Moment, inherited: Option<Duration>) -> Self {
        Self {
            terms,
            until: inherited.map(|left| now + left),
            alone: false,
            holding: inherited.is_some_and(|left| left > terms.lease),
            ends_hold: None,
            sent: VecDeque::new(),
            next: 0,
        }
    }

    /// A source that nobody can take over from: its generation is new, and no replica has been armed in it. It needs no echo until
    /// it gets the first one. [`is_alone`](Self::is_alone) may be kept on disk and be believed after a restart.
    #[must_use]
    pub fn alone(terms: Terms) -> Self {
        Self {
            alone: true,
            ..Self::new(terms, Moment::ZERO, None)
        }
    }

    /// Whether the source still needs no echo. What is kept on disk must be taken back before the next ping is sent.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// The same with pings numbered from here: an echo that comes late to another lease is none of this one's.
    #[must_use]
    pub fn numbered_from(mut self, first: u64) -> Self {
        self.next = first;
        self
    }

    /// A ping that is about to be sent. The same one may go to several, by several ways.
    pub fn ping(&mut self, now: Moment) -> Ping {
        let seq = self.next;
        self.next += 1;
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((seq, now));
        Ping {
            seq,
            arms: !self.alone && !self.holding,
            ends_hold: self.ends_hold,
        }
    }

    /// A ping came back; `hold` is the announced absence that the replica still reckons with, if it said so. A ping that is unknown,
    /// or too old to be good for anything, changes nothing.
    pub fn echoed(&mut self, seq: u64, hold: Option<u64>, now: Moment) {
        let Some((_, sent)) = self.sent.iter().find(|(number, _)| *number == seq) else {
            return;
        };
        let end = *sent + self.terms.lease;
        if end <= now {
            return;
        }
        if self.alone || self.holding {
            // From now on a plain lease, so that the pings that follow may arm the replica.
            self.until = Some(end);
            (self.alone, self.holding) = (false, false);
        } else {
            self.extend(end);
        }
        self.ends_hold = hold.or(self.ends_hold);
    }

    /// A connection to the replica, begun at `started`, was refused by its kernel: its agent does not run, and must hear from us
    /// again before it can promote. That is as good as an echo, but only while the lease never ended: after an end it may have
    /// promoted before it died.
    pub fn refused(&mut self, started: Moment, now: Moment) {
        if self.is_valid(now) && !self.alone {
            self.extend(started + self.terms.lease);
        }
    }

    /// Before the agent stops in order: the replica noted, in its answer to what was sent at `sent`, that we are back `within`, or
    /// its kernel `refused` the connection begun then. The door may stand open for that time, unless this returns false. No echo
    /// is to be counted after this.
    pub fn announced(&mut self, sent: Moment, within: Duration, refused: bool, now: Moment) -> bool {
        if refused && !self.is_valid(now) {
            return false;
        }
        self.extend(sent + within);
        self.holding = true;
        true
    }

    /// How long the door may stand open from now on; `None`: it must be closed. A source that is alone renews as if each moment
    /// had an echo, so that a hung agent's door closes too.
    #[must_use]
    pub fn remaining(&self, now: Moment) -> Option<Duration> {
        let left = self
            .until
            .and_then(|until| until.checked_sub(now))
            .filter(|left| !left.is_zero());
        if self.alone {
            return left.max(Some(self.terms.lease));
        }
        left
    }

    fn is_valid(&self, now: Moment) -> bool {
        self.remaining(now).is_some()
    }

    fn extend(&mut self, end: Moment) {
        self.until = self.until.max(Some(end));
    }
}
