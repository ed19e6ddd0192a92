//! Several sorted lists as one: each address once, with the lists that hold it.

use std::iter::Peekable;

use super::list::AddressList;
use crate::event::Address;

/// Walks over all lists at once, in ascending order, without copying any. Gives each address with
/// a bit for every list that holds it: bit 0 is that of the first list.
pub struct Union<'l> {
    lists: Vec<Peekable<Box<dyn Iterator<Item = Address> + 'l>>>,
}

impl<'l> Union<'l> {
    /// # Panics
    /// When there are more lists than bits.
    pub fn of(lists: impl IntoIterator<Item = &'l AddressList>) -> Self {
        let sorted = |list: &'l AddressList| {
            let addresses: Box<dyn Iterator<Item = Address> + 'l> = Box::new(list.iter());
            addresses.peekable()
        };
        let lists: Vec<_> = lists.into_iter().map(sorted).collect();
        assert!(lists.len() <= 8, "an address has one bit a list");
        Self { lists }
    }

    /// The addresses that another union lacks.
    pub fn without(self, other: Union<'l>) -> impl Iterator<Item = Address> + 'l {
        let mut others = other.map(|(address, _)| address).peekable();
        self.map(|(address, _)| address).filter(move |address| {
            while others.next_if(|other| other < address).is_some() {}
            others.peek() != Some(address)
        })
    }
}

impl Iterator for Union<'_> {
    type Item = (Address, u8);

    fn next(&mut self) -> Option<Self::Item> {
        let least = self.lists.iter_mut().filter_map(|list| list.peek().copied()).min()?;
        let mut holders = 0;
        for (list, bit) in self.lists.iter_mut().zip(0..) {
            if list.next_if_eq(&least).is_some() {
                holders |= 1 << bit;
            }
        }
        Some((least, holders))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn list(bytes: &[u8]) -> AddressList {
        bytes.iter().map(|byte| Address([*byte; 20])).collect()
    }

    proptest! {
        #[test]
        fn each_address_comes_once_in_order_with_those_who_hold_it(sources in prop::collection::vec(prop::collection::vec(0_u8..30, 0..20), 0..4)) {
            let lists: Vec<_> = sources.iter().map(|bytes| list(bytes)).collect();
            let mut expected = BTreeMap::<u8, u8>::new();
            for (bytes, bit) in sources.iter().zip(0..) {
                for byte in bytes {
                    *expected.entry(*byte).or_default() |= 1 << bit;
                }
            }

            let found: Vec<_> = Union::of(&lists).map(|(address, bits)| (address.0[0], bits)).collect();

            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn what_another_union_lacks_is_found_in_one_walk(one in prop::collection::btree_set(0_u8..30, 0..20), two in prop::collection::btree_set(0_u8..30, 0..20), other in prop::collection::btree_set(0_u8..30, 0..20)) {
            let of = |bytes: &std::collections::BTreeSet<u8>| list(&bytes.iter().copied().collect::<Vec<_>>());
            let (lists, others) = ([of(&one), of(&two)], [of(&other)]);

            let lacking: Vec<_> = Union::of(&lists).without(Union::of(&others)).map(|address| address.0[0]).collect();

            let both: std::collections::BTreeSet<_> = one.union(&two).copied().collect();
            prop_assert_eq!(lacking, both.difference(&other).copied().collect::<Vec<_>>());
        }
    }
}
