//! How often something took how long, in buckets that are there from the start.
//!
//! Invariant: to observe is two additions to atomics, without a lock; the count is the sum of the
//! buckets, so that a page made meanwhile is consistent in itself.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets, microseconds: from a cast within memory to a database that hangs.
pub const BOUNDS_MICROS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000, 60_000_000,
];

/// Durations by their size.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len()],
    /// Above all bounds.
    beyond: AtomicU64,
    sum_micros: AtomicU64,
}

/// What a histogram held when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// A bound in microseconds, and how many durations were at most that long.
    pub at_most: Vec<(u64, u64)>,
    /// All of them.
    pub count: u64,
    pub sum_micros: u64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets.get(bucket).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn observed(&self) -> Observed {
        let mut count = 0;
        let buckets = BOUNDS_MICROS.iter().zip(&self.buckets);
        let at_most = buckets
            .map(|(bound, bucket)| {
                count += bucket.load(Ordering::Relaxed);
                (*bound, count)
            })
            .collect();
        count += self.beyond.load(Ordering::Relaxed);
        Observed { at_most, count, sum_micros: self.sum_micros.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_each_bucket_that_it_is_not_longer_than() {
        let histogram = Histogram::default();

        for micros in [0, 100, 101, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }

        let observed = histogram.observed();
        assert_eq!(observed.at_most[..3], [(100, 2), (250, 3), (500, 3)]);
        assert_eq!(observed.at_most.last(), Some(&(60_000_000, 4)));
        assert_eq!((observed.count, observed.sum_micros), (5, 120_000_202));
    }

    #[test]
    fn the_bounds_grow() {
        assert!(BOUNDS_MICROS.is_sorted_by(|earlier, later| earlier < later));
    }
}
