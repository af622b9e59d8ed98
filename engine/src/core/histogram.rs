//! How long things took, in the buckets that metrics have.

/// Upper bounds of the buckets, in ns; one more bucket has none.
pub const BOUNDS_NS: [u64; 19] = {
    let us = [
        10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
        500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    ];
    let mut ns = [0; 19];
    let mut index = 0;
    while index < ns.len() {
        ns[index] = us[index] * 1_000;
        index += 1;
    }
    ns
};

/// Counts of durations by bucket, and their sum.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Histogram {
    /// By bucket, each for itself: not cumulative.
    pub counts: [u64; BOUNDS_NS.len() + 1],
    /// In ns.
    pub sum_ns: u64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, ns: u64) {
        // Most are short: the first bounds decide.
        let bucket = BOUNDS_NS.iter().position(|&bound| ns <= bound).unwrap_or(BOUNDS_NS.len());
        self.counts[bucket] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Counts what another histogram has counted.
    pub fn add(&mut self, other: &Histogram) {
        for (to, from) in self.counts.iter_mut().zip(other.counts) {
            *to += from;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_exceeds_all_to_the_last() {
        let mut histogram = Histogram::default();
        for ns in [0, 10_000, 10_001, 10_000_000_000, u64::MAX - 20_000_020_001] {
            histogram.record(ns);
        }
        assert_eq!(histogram.counts[..2], [2, 1]);
        assert_eq!(histogram.counts[18..], [1, 1]);
        histogram.record(u64::MAX);
        assert_eq!(histogram.sum_ns, u64::MAX);
    }
}
