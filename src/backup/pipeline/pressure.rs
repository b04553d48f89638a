//! Giving way to the database: the rate goes down while it is short of something, and up again slowly.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is decided.
const EVERY: Duration = Duration::from_millis(250);
/// What the rate is multiplied with under pressure, and without.
const DOWN: f64 = 0.7;
const UP: f64 = 1.1;
/// Below this part of the limit there is room.
const ROOM: f64 = 0.8;

/// How pressed the database is: 1.0 is the most that is allowed, `None` unknown. Called from a thread a few times a second; must not wait.
pub type Probe = Arc<dyn Fn() -> Option<f64> + Send + Sync>;

/// How to give way.
#[derive(Clone)]
pub struct Adaptive {
    /// Part of the time in which somebody may wait for the resource (the kernel's pressure stall information), 0 to 1.
    pub limit: f64,
    /// Pressure files: of the database's control group, or of the whole machine. One that is not there does not count.
    pub files: Vec<PathBuf>,
    /// What the database itself says (the time a small statement takes); counts beside the files.
    pub probe: Option<Probe>,
    /// Bytes a second it never goes below.
    pub floor: u64,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            limit: 0.3,
            files: vec!["/proc/pressure/io".into(), "/proc/pressure/cpu".into()],
            probe: None,
            floor: 8 << 20,
        }
    }
}

impl fmt::Debug for Adaptive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adaptive")
            .field("limit", &self.limit)
            .field("files", &self.files)
            .field("probe", &self.probe.is_some())
            .field("floor", &self.floor)
            .finish()
    }
}

/// Decides the rate.
pub(super) struct Governor {
    how: Adaptive,
    /// Microseconds somebody waited, per file, when it was last read.
    waited: Vec<Option<u64>>,
    decided: Instant,
    bytes: u64,
    rate: Option<f64>,
}

impl Governor {
    pub(super) fn new(how: Adaptive) -> Self {
        let waited = how.files.iter().map(waited).collect();
        Self {
            how,
            waited,
            decided: Instant::now(),
            bytes: 0,
            rate: None,
        }
    }

    /// Bytes a second to hold to now, `None` for no limit; `bytes` more are about to be taken.
    pub(super) fn rate(&mut self, bytes: u64) -> Option<u64> {
        self.bytes += bytes;
        let step = self.decided.elapsed();
        if step >= EVERY {
            let load = self.load(step);
            let measured = self.bytes as f64 / step.as_secs_f64();
            self.rate = decide(self.rate, measured, load, self.how.floor as f64);
            (self.decided, self.bytes) = (Instant::now(), 0);
        }
        self.rate.map(|rate| rate as u64)
    }

    /// The worst of all that is known; 1.0 is the limit.
    fn load(&mut self, step: Duration) -> f64 {
        let mut load: f64 = 0.0;
        for (file, before) in self.how.files.iter().zip(&mut self.waited) {
            let now = waited(file);
            if let (Some(now), Some(before)) = (now, *before) {
                let part = now.saturating_sub(before) as f64 / step.as_micros().max(1) as f64;
                load = load.max(part / self.how.limit.max(0.01));
            }
            *before = now;
        }
        load.max(self.how.probe.as_ref().and_then(|probe| probe()).unwrap_or(0.0))
    }
}

/// The next rate. Without pressure for long enough it is no limit any more.
fn decide(rate: Option<f64>, measured: f64, load: f64, floor: f64) -> Option<f64> {
    if load > 1.0 {
        return Some((rate.unwrap_or(measured).min(measured) * DOWN).max(floor));
    }
    let rate = rate?;
    if load > ROOM {
        return Some(rate);
    }
    let next = rate * UP;
    (next <= measured.max(floor) * 4.0).then_some(next)
}

/// Microseconds in which somebody waited, since the machine was started.
fn waited(file: &PathBuf) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    some.split("total=").nth(1)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_under_pressure_and_comes_back() {
        let floor = 10.0;
        let mut rate = decide(None, 1000.0, 0.5, floor);
        assert_eq!(rate, None);
        rate = decide(rate, 1000.0, 2.0, floor);
        assert_eq!(rate, Some(700.0));
        for _ in 0..50 {
            rate = decide(rate, rate.unwrap(), 2.0, floor);
        }
        assert_eq!(rate, Some(floor));
        assert_eq!(decide(rate, floor, 0.9, floor), rate, "near the limit nothing moves");
        for _ in 0..100 {
            // The tool cannot do more than 1000.
            rate = decide(rate, rate.unwrap_or(1000.0).min(1000.0), 0.1, floor);
        }
        assert_eq!(rate, None);
    }

    #[test]
    fn pressure_is_read_from_a_file_and_asked_of_a_probe() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |total: u64| {
            let text =
                format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n");
            fs::write(file.path(), text).unwrap();
        };
        write(1_000_000);
        let mut governor = Governor::new(Adaptive {
            limit: 0.5,
            files: vec![file.path().to_owned(), "/nonexistent".into()],
            probe: Some(Arc::new(|| Some(0.25))),
            floor: 1,
        });
        write(1_400_000);
        let load = governor.load(Duration::from_secs(1));
        assert!((load - 0.8).abs() < 0.01, "{load}");
        let load = governor.load(Duration::from_secs(1));
        assert!((load - 0.25).abs() < 0.01, "{load}");
    }
}
