//! How long the parts of an upload are.

/// Length of a part where nothing asks for more.
pub const PART_BYTES: usize = 8 << 20;
/// Parts of one length, before they begin to grow.
const FLAT: u32 = 6_000;
/// So many parts more make a part longer by the first one's length.
const STEP: u32 = 100;

/// Lengths of parts in a store that takes 10,000 of them. All have one length, which some stores insist on, up to the number of
/// bytes that was expected; then they grow, so that an object may become many times larger than expected and no upload fails for
/// the number of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartPlan {
    base: usize,
}

impl PartPlan {
    /// The most parts that the plan is made for.
    pub const MOST: u32 = 10_000;

    /// For an object of at most `expected` bytes; `least` is the length of a part in a small object.
    #[must_use]
    pub fn new(least: usize, expected: Option<u64>) -> Self {
        let needed = expected.unwrap_or(0).div_ceil(u64::from(FLAT)).next_multiple_of(1 << 20);
        Self {
            base: usize::try_from(needed).unwrap_or(usize::MAX).max(least),
        }
    }

    /// Length of the part of this index.
    #[must_use]
    pub fn part_bytes(&self, index: u32) -> usize {
        let grown = index.checked_sub(FLAT).map_or(0, |behind| behind / STEP + 1);
        self.base.saturating_mul(grown as usize + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_one_length_up_to_what_was_expected_and_never_become_too_many() {
        let gib = 1u64 << 30;
        for expected in [None, Some(0), Some(gib), Some(50 * gib), Some(700 * gib), Some(20_000 * gib)] {
            let plan = PartPlan::new(PART_BYTES, expected);
            let first = plan.part_bytes(0);
            let flat: u64 = (0..FLAT).map(|index| plan.part_bytes(index) as u64).sum();
            assert_eq!(flat, first as u64 * u64::from(FLAT));
            assert!(flat >= expected.unwrap_or(0), "{expected:?}");
            let all: u64 = (0..PartPlan::MOST).map(|index| plan.part_bytes(index) as u64).sum();
            assert!(all > 600 * gib && all > 10 * expected.unwrap_or(0), "{expected:?}: {all}");
        }
        assert_eq!(PartPlan::new(PART_BYTES, Some(40 * gib)).part_bytes(0), PART_BYTES);
    }
}
