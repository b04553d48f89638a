//! How far a stream is.

use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often watchers are told.
const EVERY: Duration = Duration::from_millis(500);
/// How quickly the rate forgets, about.
const MEMORY: Duration = Duration::from_secs(5);

/// How far a backup or a restore is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Bytes of the plain stream so far.
    pub plain_bytes: u64,
    /// Bytes that the storage has confirmed (a restore: that came from it).
    pub stored_bytes: u64,
    /// Bytes of the plain stream in all, about; 0: unknown.
    pub estimate: u64,
    /// Plain bytes a second, of the last seconds.
    pub rate: u64,
    /// Part of the whole, 0 to 100; below 100 until the end is known to be good. `None`: unknown.
    pub percent: Option<f32>,
    /// Seconds to go, about.
    pub eta: Option<u64>,
    /// Seconds since it began.
    pub seconds: u64,
    /// Bytes a second it is held to now; `None`: as fast as it can.
    pub held_to: Option<u64>,
    /// Whether all of it is done and good.
    pub done: bool,
}

/// Counts, and tells who watches.
pub(super) struct Meter<'a> {
    watchers: &'a watch::Sender<Progress>,
    now: Progress,
    begun: Instant,
    told: Instant,
    plain_then: u64,
    rate: f64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(watchers: &'a watch::Sender<Progress>, estimate: u64) -> Self {
        let now = Progress {
            estimate,
            ..Progress::default()
        };
        watchers.send_replace(now);
        let begun = Instant::now();
        Self {
            watchers,
            now,
            begun,
            told: begun,
            plain_then: 0,
            rate: 0.0,
        }
    }

    /// Takes the figures; tells them if it is time.
    pub(super) fn at(&mut self, plain_bytes: u64, stored_bytes: u64, held_to: Option<u64>) {
        (self.now.plain_bytes, self.now.stored_bytes, self.now.held_to) = (plain_bytes, stored_bytes, held_to);
        if self.told.elapsed() >= EVERY {
            self.tell();
        }
    }

    /// The end, and it was good.
    pub(super) fn done(&mut self) {
        self.now.done = true;
        self.tell();
    }

    fn tell(&mut self) {
        let step = self.told.elapsed().as_secs_f64().max(0.001);
        let rate = (self.now.plain_bytes - self.plain_then.min(self.now.plain_bytes)) as f64 / step;
        let weight = if self.rate == 0.0 {
            1.0
        } else {
            (step / MEMORY.as_secs_f64()).min(1.0)
        };
        self.rate += (rate - self.rate) * weight;
        (self.told, self.plain_then) = (Instant::now(), self.now.plain_bytes);

        let now = &mut self.now;
        now.seconds = self.begun.elapsed().as_secs();
        now.rate = self.rate as u64;
        (now.percent, now.eta) = (None, None);
        if now.done {
            (now.percent, now.eta) = (Some(100.0), Some(0));
        } else if now.estimate > 0 {
            let part = now.plain_bytes as f64 / now.estimate as f64;
            now.percent = Some((part * 100.0).min(99.0) as f32);
            let left = now.estimate.saturating_sub(now.plain_bytes) as f64;
            now.eta = (self.rate >= 1.0).then(|| (left / self.rate).ceil() as u64);
        }
        self.watchers.send_replace(*now);
    }
}
