//! The role machine under random operations: alone (`one`), and two of them over a network that loses, delays and repeats (`two`).
//!
//! The random numbers are our own and seeded, so that a failure comes again; a failing sequence is printed.

mod joint;
mod one;
mod steps;
mod two;

use super::*;

/// Random numbers by xorshift: fast in a debug build, the same in each run.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `n`.
    fn roll(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as usize) % n
    }
}
