//! Times in buckets of equal relative width, so that a percentile of a hundred million of them costs
//! no memory.
//!
//! Invariant: a percentile is never below the true one, and less than 1.6 % above it.

/// Buckets of one power of two: the relative width is 1 in 64.
const PER_OCTAVE: u64 = 64;
const PER_OCTAVE_BITS: u32 = PER_OCTAVE.trailing_zeros();
/// Enough for every `u64`.
const BUCKETS: usize = (PER_OCTAVE as usize) * (64 - PER_OCTAVE_BITS as usize + 1);

/// How often each time, in microseconds, was seen.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), count: 0, max: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, micros: u64) {
        self.counts[bucket(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    /// The time, in microseconds, which this share (0 to 1) of all did not exceed; 0 without any.
    pub fn at(&self, share: f64) -> u64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest(bucket).min(self.max);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < PER_OCTAVE {
        return value as usize;
    }
    let shift = value.ilog2() - PER_OCTAVE_BITS;
    // The leading bit of `value >> shift` is the one of PER_OCTAVE.
    (u64::from(shift) * PER_OCTAVE + (value >> shift)) as usize
}

/// The highest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PER_OCTAVE {
        return bucket;
    }
    let shift = bucket / PER_OCTAVE - 1;
    let lead = bucket - shift * PER_OCTAVE;
    (((u128::from(lead) + 1) << shift) - 1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_known_times_are_exact_where_they_are_small() {
        let mut times = Histogram::default();
        (1..=50).for_each(|micros| times.record(micros));

        assert_eq!((times.at(0.5), times.at(0.99), times.at(1.0)), (25, 50, 50));
        assert_eq!(times.count, 50);
    }

    #[test]
    fn a_percentile_is_never_below_the_true_one_and_at_most_a_64th_above() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut time = || {
            let octave = random.u32(1..40);
            random.u64(..1 << octave)
        };
        let mut all: Vec<u64> = (0..20_000).map(|_| time()).collect();
        let mut times = Histogram::default();
        all.iter().for_each(|&micros| times.record(micros));
        all.sort_unstable();

        for share in [0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let truth = all[((all.len() as f64 * share).ceil() as usize).max(1) - 1];
            let found = times.at(share);
            assert!(found >= truth && found <= truth + truth / 64, "{share}: {found}, {truth}");
        }
    }

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_follow_each_other() {
        for value in [0, 1, 63, 64, 65, 127, 128, 1 << 40, u64::MAX] {
            assert!(highest(bucket(value)) >= value);
            assert!(bucket(value) == 0 || highest(bucket(value) - 1) < value, "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn nothing_has_percentiles_of_zero() {
        assert_eq!(Histogram::default().at(0.99), 0);
    }

    #[test]
    fn sums_of_histograms_count_everything() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(10);
        other.record(1_000);

        one.add(&other);

        assert_eq!((one.count, one.at(0.5), one.max()), (2, 10, 1_000));
    }
}
