//! When to tell the neighbours: a burst, then ever more rarely, then once a minute for as long as the address is held.

use std::time::Duration;
use tokio::time::Instant;

/// After the first announcement, in milliseconds. The burst is over before a client's first retransmission (200 ms); the later
/// ones reach neighbours behind a switch that was still learning, or that lost the first.
const EARLY_MS: [u64; 8] = [5, 25, 100, 500, 1_000, 2_000, 5_000, 10_000];
const EVER_AFTER: Duration = Duration::from_mins(1);
/// From here on each announcement is followed by a probe: does anybody else have it after all?
const VERIFY_FROM: Duration = Duration::from_secs(1);

/// Where we are in the series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    begin: Instant,
    next: u32,
}

impl Rhythm {
    /// The first announcement was made at `now`.
    pub fn begun(now: Instant) -> Self {
        Self { begin: now, next: 0 }
    }

    /// When the next is due.
    pub fn due(&self) -> Instant {
        self.begin + offset(self.next)
    }

    /// One was made at `now`. What was missed meanwhile (a frozen process) is not made up for. Answers whether to probe too.
    pub fn made(&mut self, now: Instant) -> bool {
        let verify = offset(self.next) >= VERIFY_FROM;
        while self.due() <= now {
            self.next += 1;
        }
        verify
    }
}

fn offset(number: u32) -> Duration {
    let early = usize::try_from(number).ok().and_then(|at| EARLY_MS.get(at));
    early.map_or_else(
        || {
            let last = Duration::from_millis(EARLY_MS[EARLY_MS.len() - 1]);
            let beyond = number.saturating_sub(EARLY_MS.len() as u32 - 1);
            last.saturating_add(EVER_AFTER.saturating_mul(beyond))
        },
        |ms| Duration::from_millis(*ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_rarer_then_each_minute() {
        let begin = Instant::now();
        let mut rhythm = Rhythm::begun(begin);
        let mut seen = Vec::new();
        for _ in 0..11 {
            let due = rhythm.due();
            seen.push((due - begin).as_millis());
            let verify = rhythm.made(due);
            assert_eq!(verify, due - begin >= VERIFY_FROM);
        }
        assert_eq!(seen, [5, 25, 100, 500, 1_000, 2_000, 5_000, 10_000, 70_000, 130_000, 190_000]);
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let begin = Instant::now();
        let mut rhythm = Rhythm::begun(begin);
        rhythm.made(begin + Duration::from_secs(75));
        assert_eq!(rhythm.due() - begin, Duration::from_secs(130));
    }
}
