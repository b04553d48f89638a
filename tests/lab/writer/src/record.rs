//! What happened, a line each, and the sums.

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Times without an acknowledged write that are listed in the summary, microseconds.
const GAP: u64 = 20_000;

/// Microseconds of the monotonic clock.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000 + u64::try_from(time.tv_nsec).unwrap() / 1000
}

/// The file and the sums.
pub struct Record {
    file: BufWriter<File>,
    acknowledged: u64,
    duplicates: u64,
    last: u64,
    /// From when, how long.
    gaps: Vec<(u64, u64)>,
    longest: u64,
    /// Time from the good try to its answer, microseconds.
    latencies: Vec<u32>,
    errors: BTreeMap<String, u64>,
    servers: BTreeMap<u32, u64>,
}

impl Record {
    pub fn open(path: &Path) -> Self {
        Self {
            file: BufWriter::with_capacity(1 << 16, File::create(path).unwrap()),
            acknowledged: 0,
            duplicates: 0,
            last: now(),
            gaps: Vec::new(),
            longest: 0,
            latencies: Vec::new(),
            errors: BTreeMap::new(),
            servers: BTreeMap::new(),
        }
    }

    /// An id is acknowledged now.
    pub fn acknowledged(&mut self, id: u64, server: Option<u32>, sent: u64, first: u64, tries: u32) {
        let acked = now();
        let gap = acked - self.last;
        if gap > GAP {
            self.gaps.push((self.last, gap));
        }
        self.longest = self.longest.max(gap);
        self.last = acked;
        self.acknowledged += 1;
        let word = match server {
            Some(server) => {
                *self.servers.entry(server).or_default() += 1;
                self.latencies.push(u32::try_from(acked - sent).unwrap_or(u32::MAX));
                ""
            }
            None => {
                self.duplicates += 1;
                " dup"
            }
        };
        writeln!(
            self.file,
            "A {id} {} {sent} {acked} {first} {tries}{word}",
            server.unwrap_or_default()
        )
        .unwrap();
    }

    /// A try failed now.
    pub fn failed(&mut self, connection: usize, kind: &str) {
        writeln!(self.file, "E {} {connection} {kind}", now()).unwrap();
        *self.errors.entry(kind.to_owned()).or_default() += 1;
    }

    pub fn flush(&mut self) {
        self.file.flush().unwrap();
    }

    pub fn summary(&mut self) -> Value {
        self.flush();
        self.latencies.sort_unstable();
        let at = |part: f64| {
            let last = self.latencies.len().saturating_sub(1);
            let place = (last as f64 * part).round() as usize;
            self.latencies.get(place).map(|us| f64::from(*us) / 1000.0)
        };
        json!({
            "acknowledged": self.acknowledged,
            "duplicates": self.duplicates,
            "longest_gap_ms": self.longest as f64 / 1000.0,
            "gaps_ms": self.gaps.iter().map(|(from, long)| json!([from, *long as f64 / 1000.0])).collect::<Vec<_>>(),
            "latency_ms": {"p50": at(0.5), "p99": at(0.99), "max": at(1.0)},
            "errors": self.errors,
            "servers": self.servers,
        })
    }
}
