//! What is told of a list that changed.

use std::{fmt, io, sync::Arc};

use actix::prelude::*;
use serde::Serialize;

use super::set::Whitelist;
use crate::event::Address;

/// Most added addresses that are handed on by name: 20 bytes each. Of more, only the number is told.
pub const MAX_NAMED: usize = 100_000;

/// Which list it is, whatever sources it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListMark {
    pub digest: u64,
    /// Addresses; `None`: everybody.
    pub size: Option<u64>,
}

/// Other users are listed than before, over all sources together: an address that another source
/// lists as well was neither added nor removed.
#[derive(Clone, Default)]
pub struct ListChanged {
    /// Who is new, in ascending order; the first [`MAX_NAMED`] of them.
    pub added: Arc<[Address]>,
    /// How many are new; more than `added` names when the names were cut.
    pub added_count: usize,
    /// How many are gone.
    pub removed: usize,
}

/// The list as it is, and how it came to be so.
///
/// Sent by the keeper at the start, and whenever other users are listed, each time when the filters
/// have been given the list, and one at a time: what changes before the answer comes with the next
/// one. The list becomes the last known one only when the message was answered with `Ok`: then
/// whatever follows from it is kept. After an error it is told again later, together with what has
/// changed since, and after a crash before the answer by the next start.
#[derive(Clone, Message)]
#[rtype(result = "io::Result<()>")]
pub struct ListNews {
    pub list: Arc<Whitelist>,
    pub change: ListChanged,
    pub since: Since,
}

/// Which list a change counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The one that was told before.
    LastTold,
    /// At the start: the one that this state directory has kept. `None`: there was none, or it was
    /// this same one. The first start of all changes nothing: nobody was added to a list that there
    /// was not.
    LastRun(Option<ListMark>),
}

/// How a new list differs from the old one, over all sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WhitelistChange {
    pub added: usize,
    pub removed: usize,
}

impl ListChanged {
    /// Takes the addresses of two walks.
    pub fn of(
        added: impl IntoIterator<Item = Address>,
        removed: impl IntoIterator<Item = Address>,
    ) -> Self {
        let mut added_count = 0;
        let mut named = Vec::new();
        for address in added {
            added_count += 1;
            if named.len() < MAX_NAMED {
                named.push(address);
            }
        }
        Self { added: named.into(), added_count, removed: removed.into_iter().count() }
    }

    /// This change and a later one as one. Who was added and has left again stays named.
    pub fn and(&self, later: &Self) -> Self {
        let removed = self.removed + later.removed;
        let mut added: Vec<_> = self.added.iter().chain(&*later.added).copied().collect();
        added.sort_unstable();
        added.dedup();
        let added_count = match self.is_cut() || later.is_cut() {
            true => self.added_count.saturating_add(later.added_count),
            false => added.len(),
        };
        added.truncate(MAX_NAMED);
        Self { added: added.into(), added_count, removed }
    }

    /// Whether some of the added addresses are not named.
    pub fn is_cut(&self) -> bool {
        self.added.len() < self.added_count
    }

    pub fn is_empty(&self) -> bool {
        self.added_count == 0 && self.removed == 0
    }

    /// The numbers alone.
    pub fn counts(&self) -> WhitelistChange {
        WhitelistChange { added: self.added_count, removed: self.removed }
    }
}

impl fmt::Debug for ListNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListNews({:?}, {:?})", self.change, self.since)
    }
}

impl fmt::Debug for ListChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListChanged({} added, {} removed)", self.added_count, self.removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_long_change_are_cut_and_their_number_is_not() {
        let address = |ordinal: usize| {
            let mut bytes = [0; 20];
            bytes[12..].copy_from_slice(&(ordinal as u64).to_be_bytes());
            Address(bytes)
        };

        let whole = ListChanged::of((0..MAX_NAMED).map(address), None);
        let cut = ListChanged::of((0..MAX_NAMED + 3).map(address), (0..2).map(address));

        assert!(!whole.is_cut());
        assert!(cut.is_cut());
        assert_eq!(cut.added.len(), MAX_NAMED);
        assert_eq!(cut.counts(), WhitelistChange { added: MAX_NAMED + 3, removed: 2 });
    }

    #[test]
    fn changes_that_nobody_takes_become_one_with_no_more_names_than_one_has() {
        let address = |number: u32| {
            let mut bytes = [0; 20];
            bytes[16..].copy_from_slice(&number.to_be_bytes());
            Address(bytes)
        };
        let of = |numbers: std::ops::Range<u32>| ListChanged::of(numbers.map(address), []);

        let two = of(0..3).and(&ListChanged::of([address(2), address(9)], [address(0)]));
        assert_eq!(*two.added, [0, 1, 2, 9].map(address));
        assert_eq!((two.added_count, two.removed, two.is_cut()), (4, 1, false));

        let mut all = ListChanged::default();
        for begin in 0..5 {
            all = all.and(&of(begin * 30_000..(begin + 1) * 30_000));
        }
        assert_eq!((all.added.len(), all.added_count), (MAX_NAMED, 150_000));
        assert!(all.and(&of(0..1)).is_cut());
    }
}
