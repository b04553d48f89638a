//! Not faster than allowed.

use super::pressure::Governor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longest sleep before somebody is asked whether it still matters.
const STEP: Duration = Duration::from_millis(50);
/// What may be made up for after a pause.
const BURST: Duration = Duration::from_millis(200);

/// Holds a thread to a rate: a fixed one, one that gives way to the database, or the lower of the two.
pub(super) struct Throttle<'a> {
    fixed: Option<u64>,
    governor: Option<Governor>,
    /// When the bytes taken so far are paid for.
    paid: Instant,
    /// Bytes a second it is held to now, for people; 0: not held.
    shown: &'a AtomicU64,
}

impl<'a> Throttle<'a> {
    pub(super) fn new(fixed: Option<u64>, governor: Option<Governor>, shown: &'a AtomicU64) -> Self {
        Self {
            fixed,
            governor,
            paid: Instant::now(),
            shown,
        }
    }

    /// Waits until `bytes` more may be taken, or until `gone` says that nobody wants them.
    pub(super) fn take(&mut self, bytes: usize, gone: impl Fn() -> bool) {
        let governed = self.governor.as_mut().and_then(|governor| governor.rate(bytes as u64));
        let rate = match (self.fixed, governed) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.shown.store(rate.unwrap_or(0), Ordering::Relaxed);
        let Some(rate) = rate else { return };
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(self.paid);
        self.paid = self.paid.max(earliest) + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        while !gone() {
            let left = self.paid.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(STEP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_given_up_when_nobody_waits() {
        let shown = AtomicU64::new(0);
        let mut throttle = Throttle::new(Some(1_000_000), None, &shown);
        let begun = Instant::now();
        for _ in 0..6 {
            throttle.take(100_000, || false);
        }
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_millis(350) && took < Duration::from_secs(20),
            "{took:?}"
        );
        assert_eq!(shown.load(Ordering::Relaxed), 1_000_000);
        throttle.take(usize::MAX >> 20, || true);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
