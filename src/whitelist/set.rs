//! The list of users whose events are kept: a Bloom filter that rejects, exact lists that confirm.
//!
//! Place in the pipeline: what `WhitelistFilter` asks for every candidate. Invariants: a list never
//! changes, a new one replaces it as a whole; who is listed is always found; with the exact lists
//! nobody else is.
//!
//! There is one Bloom filter for all sources and one exact list for each. The Bloom filter is what
//! lets the exact lists stay out of the way, in a file. It has room for some more addresses than it
//! was built for and is built anew when that is used up: one that grew from a small size would let
//! four times as many strangers pass. Who leaves the list may stay in the filter until then.

use std::{fmt, sync::Arc};

use growable_bloom_filter::{GrowableBloom, GrowableBloomBuilder};
use xxhash_rust::xxh3::Xxh3Default;

use super::{change::ListMark, list::AddressList, union::Union};
use crate::{config::WhitelistConfig, event::Address};

/// Share of the configured false-positive rate that a filter is built for. The library promises the
/// rate on average; a list should keep it in every case.
const RATE_MARGIN: f64 = 0.5;

/// A filter has room for its list and one part in so many more.
const SPARE: usize = 8;

/// Whose events are kept.
pub struct Whitelist {
    kind: Kind,
}

enum Kind {
    All,
    Listed(Listed),
}

struct Listed {
    bloom: Arc<Bloom>,
    /// One of each source.
    lists: Vec<AddressList>,
    /// Whether what passes the Bloom filter is confirmed by the lists.
    exact: bool,
    /// Addresses of all lists together, each counted once.
    len: usize,
}

#[derive(Clone)]
struct Bloom {
    filter: GrowableBloom,
    /// Addresses put in; those that have left the list are still counted.
    used: usize,
    capacity: usize,
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

    /// Unites the lists of all sources; empty ones keep nobody.
    pub fn build(lists: Vec<AddressList>, config: &WhitelistConfig) -> Self {
        let most: usize = lists.iter().map(AddressList::len).sum();
        let mut bloom = Bloom::new(most, config);
        let mut len = 0;
        for (address, _) in Union::of(&lists) {
            bloom.insert(&address);
            len += 1;
        }
        Self { kind: Kind::Listed(Listed { bloom: bloom.into(), lists, exact: config.exact, len }) }
    }

    /// The list after a change: `added` are new to all lists together, and `removed` addresses are
    /// on none of them any more.
    pub fn changed(
        &self,
        lists: Vec<AddressList>,
        added: &[Address],
        removed: usize,
        config: &WhitelistConfig,
    ) -> Self {
        let Kind::Listed(old) = &self.kind else { return Self::build(lists, config) };
        let has_room = old.bloom.used + added.len() <= old.bloom.capacity;
        // Without the exact lists, who stays in the filter stays listed.
        if !has_room || (removed > 0 && !old.exact) {
            return Self::build(lists, config);
        }
        let mut bloom = old.bloom.clone();
        if !added.is_empty() {
            let bloom = Arc::make_mut(&mut bloom);
            added.iter().for_each(|address| bloom.insert(address));
        }
        let len = old.len + added.len() - removed;
        Self { kind: Kind::Listed(Listed { bloom, lists, exact: old.exact, len }) }
    }

    #[inline]
    pub fn contains(&self, address: &Address) -> Verdict {
        match &self.kind {
            Kind::All => Verdict::Listed,
            Kind::Listed(listed) if !listed.bloom.filter.contains(address) => Verdict::Rejected,
            Kind::Listed(listed) if listed.exact && !listed.holds(address) => {
                Verdict::FalsePositive
            }
            Kind::Listed(_) => Verdict::Listed,
        }
    }

    pub fn is_all(&self) -> bool {
        matches!(self.kind, Kind::All)
    }

    /// The same for the same addresses, whatever sources they come from. Walks over all of them.
    pub fn digest(&self) -> u64 {
        match &self.kind {
            Kind::All => 0,
            Kind::Listed(listed) => mark_of(&listed.lists).digest,
        }
    }

    /// Tells it from others. Walks over all addresses.
    pub fn mark(&self) -> ListMark {
        ListMark { digest: self.digest(), size: self.size().map(|size| size as u64) }
    }

    /// Number of listed addresses; `None`: everybody.
    pub fn size(&self) -> Option<usize> {
        match &self.kind {
            Kind::All => None,
            Kind::Listed(listed) => Some(listed.len),
        }
    }
}

/// Tells some lists together from others.
pub fn mark_of<'l>(lists: impl IntoIterator<Item = &'l AddressList>) -> ListMark {
    let (mut digest, mut size) = (Xxh3Default::new(), 0);
    for (address, _) in Union::of(lists) {
        digest.update(&address.0);
        size += 1;
    }
    ListMark { digest: digest.digest(), size: Some(size) }
}

impl Listed {
    fn holds(&self, address: &Address) -> bool {
        self.lists.iter().any(|list| list.contains(address))
    }
}

impl Bloom {
    fn new(len: usize, config: &WhitelistConfig) -> Self {
        let capacity = (len + len / SPARE).max(config.min_capacity).max(1);
        let filter = GrowableBloomBuilder::new()
            .estimated_insertions(capacity)
            .desired_error_ratio(config.false_positive_rate * RATE_MARGIN)
            .build();
        Self { filter, used: 0, capacity }
    }

    fn insert(&mut self, address: &Address) {
        self.filter.insert(address);
        self.used += 1;
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
    use ahash::HashSet;
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
            let addresses = listed.iter().copied().map(Address).collect();
            let list = Whitelist::build(vec![addresses], &config(0.5, true));

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
            let list =
                Whitelist::build(vec![listed.iter().copied().collect()], &config(rate, true));

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
        let addresses = random(20_000, 1).into_iter().collect();
        let list = Whitelist::build(vec![addresses], &config(0.5, false));

        let verdicts: Vec<_> = random(1_000, 2).iter().map(|other| list.contains(other)).collect();

        assert!(verdicts.contains(&Verdict::Listed));
        assert!(!verdicts.contains(&Verdict::FalsePositive));
        assert_eq!(list.size(), Some(20_000));
    }

    #[test]
    fn an_empty_list_keeps_nobody() {
        let list = Whitelist::build(vec![AddressList::default()], &config(0.01, true));

        assert!(random(1_000, 3).iter().all(|other| list.contains(other) != Verdict::Listed));
    }

    fn list_of(range: std::ops::Range<u8>) -> AddressList {
        range.map(|ordinal| Address([ordinal; 20])).collect()
    }

    #[test]
    fn an_address_of_two_sources_counts_once_and_stays_while_one_of_them_lists_it() {
        let config = config(0.01, true);
        let list = Whitelist::build(vec![list_of(0..4), list_of(2..6)], &config);
        assert_eq!(list.size(), Some(6));

        let changed = list.changed(vec![list_of(0..2), list_of(2..5)], &[], 1, &config);

        assert_eq!(changed.size(), Some(5));
        assert_eq!(changed.contains(&Address([3; 20])), Verdict::Listed);
        assert_eq!(changed.contains(&Address([5; 20])), Verdict::FalsePositive);
        assert_eq!(changed.contains(&Address([9; 20])), Verdict::Rejected);
    }

    #[test]
    fn a_filter_that_is_full_is_built_anew_and_keeps_its_rate() {
        let config = WhitelistConfig { min_capacity: 1, ..config(0.01, true) };
        let mut addresses: Vec<_> = random(1_000, 1).into_iter().collect();
        let mut list = Whitelist::build(vec![addresses.iter().copied().collect()], &config);

        for seed in 2..100 {
            let added: Vec<_> = random(100, seed).into_iter().collect();
            addresses.extend(&added);
            let lists = vec![addresses.iter().copied().collect()];
            list = list.changed(lists, &added, 0, &config);
        }

        assert_eq!(list.size(), Some(addresses.len()));
        assert!(addresses.iter().all(|address| list.contains(address) == Verdict::Listed));
        let strangers = random(100_000, 1_000);
        let passed = strangers.iter().filter(|other| list.contains(other) != Verdict::Rejected);
        assert!(passed.count() < 1_000);
    }

    #[test]
    fn without_the_exact_lists_who_leaves_is_gone_from_the_filter() {
        let config = config(0.000_1, false);
        let list = Whitelist::build(vec![list_of(0..10)], &config);

        let changed = list.changed(vec![list_of(0..9)], &[], 1, &config);

        assert_eq!(changed.contains(&Address([9; 20])), Verdict::Rejected);
    }
}
