//! What is told of a list that changed.

use std::{fmt, io, sync::Arc};

use actix::prelude::*;
use serde::Serialize;

use crate::event::Address;

/// Most added addresses that are handed on by name: 20 bytes each. Of more, only the number is told.
pub const MAX_NAMED: usize = 100_000;

/// Other users are listed than before, over all sources together: an address that another source
/// lists as well was neither added nor removed.
///
/// Sent by the keeper when the filters have been given the new list, and once at the start when the
/// list differs from that of the last run. The first start of all tells nothing: nobody was added to
/// a list that there was not.
///
/// The list becomes the last known one only when the message was answered with `Ok`: then whatever
/// follows from it is on the disk. After an error it is told again later, and after a crash before
/// the answer by the next start.
#[derive(Clone, Message)]
#[rtype(result = "io::Result<()>")]
pub struct ListChanged {
    /// Who is new, in ascending order; the first [`MAX_NAMED`] of them.
    pub added: Arc<[Address]>,
    /// How many are new; more than `added` names when the names were cut.
    pub added_count: usize,
    /// How many are gone.
    pub removed: usize,
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
}
