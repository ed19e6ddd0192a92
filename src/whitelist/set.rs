//! The list of users whose events are kept: a Bloom filter that rejects, an exact set that
//! confirms.
//!
//! Place in the pipeline: what `WhitelistFilter` asks for every candidate. Invariants: a list never
//! changes, a new one replaces it as a whole; who is listed is always found; with the exact set
//! nobody else is.
//!
//! In memory an exact set alone would be as fast; the Bloom filter is what lets the exact list stay
//! out of the way (`exact = false`) when it is very long. It is sized for the list when it is built
//! and never grows: one that grew from a small size would let four times as many strangers pass.

use std::fmt;

use ahash::HashSet;
use growable_bloom_filter::{GrowableBloom, GrowableBloomBuilder};

use crate::{config::WhitelistConfig, event::Address};

/// Share of the configured false-positive rate that a filter is built for. The library promises the
/// rate on average; a list should keep it in every case.
const RATE_MARGIN: f64 = 0.5;

/// Whose events are kept.
pub struct Whitelist {
    kind: Kind,
}

enum Kind {
    All,
    Listed {
        bloom: GrowableBloom,
        /// `None`: what passes the Bloom filter counts as listed.
        exact: Option<HashSet<Address>>,
        len: usize,
    },
}

/// What a list says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Listed,
    /// Rejected by the Bloom filter.
    Rejected,
    /// Passed the Bloom filter, but is not on the list.
    FalsePositive,
}

impl Whitelist {
    /// Keeps everything, events without a user too.
    pub fn all() -> Self {
        Self { kind: Kind::All }
    }

    /// Builds the list of these addresses; an empty one keeps nobody.
    pub fn build(addresses: HashSet<Address>, config: &WhitelistConfig) -> Self {
        let len = addresses.len();
        let mut bloom = GrowableBloomBuilder::new()
            .estimated_insertions(len.max(config.min_capacity).max(1))
            .desired_error_ratio(config.false_positive_rate * RATE_MARGIN)
            .build();
        for address in &addresses {
            bloom.insert(address);
        }
        let exact = config.exact.then_some(addresses);
        Self { kind: Kind::Listed { bloom, exact, len } }
    }

    #[inline]
    pub fn contains(&self, address: &Address) -> Verdict {
        match &self.kind {
            Kind::All => Verdict::Listed,
            Kind::Listed { bloom, .. } if !bloom.contains(address) => Verdict::Rejected,
            Kind::Listed { exact: Some(exact), .. } if !exact.contains(address) => {
                Verdict::FalsePositive
            }
            Kind::Listed { .. } => Verdict::Listed,
        }
    }

    pub fn is_all(&self) -> bool {
        matches!(self.kind, Kind::All)
    }

    /// Number of listed addresses; `None`: everybody.
    pub fn size(&self) -> Option<usize> {
        match &self.kind {
            Kind::All => None,
            Kind::Listed { len, .. } => Some(*len),
        }
    }

    /// The addresses, where they are kept.
    pub fn exact(&self) -> Option<&HashSet<Address>> {
        match &self.kind {
            Kind::Listed { exact, .. } => exact.as_ref(),
            Kind::All => None,
        }
    }
}

impl fmt::Debug for Whitelist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size() {
            None => f.write_str("Whitelist(all)"),
            Some(len) => write!(f, "Whitelist({len} addresses)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(false_positive_rate: f64, exact: bool) -> WhitelistConfig {
        WhitelistConfig { false_positive_rate, exact, min_capacity: 100, ..Default::default() }
    }

    fn random(count: usize, seed: u64) -> HashSet<Address> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..count).map(|_| Address(std::array::from_fn(|_| random.u8(..)))).collect()
    }

    proptest! {
        #[test]
        fn who_was_listed_is_found_and_nobody_else(listed in prop::collection::hash_set(any::<[u8; 20]>(), 0..300), others in prop::collection::vec(any::<[u8; 20]>(), 0..50)) {
            let addresses: HashSet<_> = listed.iter().copied().map(Address).collect();
            let list = Whitelist::build(addresses, &config(0.5, true));

            prop_assert!(listed.iter().all(|address| list.contains(&Address(*address)) == Verdict::Listed));
            for other in others {
                prop_assert_eq!(list.contains(&Address(other)) == Verdict::Listed, listed.contains(&other));
            }
        }
    }

    // H23
    #[test]
    fn false_positives_stay_below_the_configured_rate() {
        for (count, rate) in [(1_000, 0.01), (20_000, 0.01), (20_000, 0.001), (50, 0.01)] {
            let listed = random(count, 1);
            let list = Whitelist::build(listed.clone(), &config(rate, true));

            let strangers = random(100_000, 2);
            let passed = strangers
                .iter()
                .filter(|stranger| list.contains(stranger) == Verdict::FalsePositive)
                .count();

            assert!(listed.iter().all(|address| list.contains(address) == Verdict::Listed));
            assert!((passed as f64) < rate * 100_000.0, "{passed} of 100,000 at {rate}");
        }
    }

    // H24
    #[test]
    fn without_the_exact_set_a_false_positive_counts_as_listed() {
        let list = Whitelist::build(random(20_000, 1), &config(0.5, false));

        let verdicts: Vec<_> = random(1_000, 2).iter().map(|other| list.contains(other)).collect();

        assert!(verdicts.contains(&Verdict::Listed));
        assert!(!verdicts.contains(&Verdict::FalsePositive));
        assert_eq!(list.size(), Some(20_000));
    }

    #[test]
    fn an_empty_list_keeps_nobody() {
        let list = Whitelist::build(HashSet::default(), &config(0.01, true));

        assert!(random(1_000, 3).iter().all(|other| list.contains(other) != Verdict::Listed));
    }
}
