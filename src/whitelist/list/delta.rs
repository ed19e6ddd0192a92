//! What a list has more and less than its base.
//!
//! Invariants: nothing that is added is in the base, everything that is removed is.

use std::{
    collections::{BTreeSet, btree_set},
    iter::Peekable,
    slice,
};

use super::{base::Base, format::Record};
use crate::event::Address;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    added: BTreeSet<Record>,
    removed: BTreeSet<Record>,
}

impl Delta {
    /// Takes another change of the same base up. A record that is in both stays.
    pub fn apply(
        &mut self,
        base: &Base,
        added: impl Iterator<Item = Record>,
        removed: impl Iterator<Item = Record>,
    ) {
        for record in removed {
            if base.contains(&record) {
                self.removed.insert(record);
            } else {
                self.added.remove(&record);
            }
        }
        for record in added {
            if base.contains(&record) {
                self.removed.remove(&record);
            } else {
                self.added.insert(record);
            }
        }
    }

    /// The change that leads from an earlier delta of the same base to this one: what comes, what
    /// goes.
    pub fn since<'a>(&'a self, old: &'a Self) -> (Vec<&'a Record>, Vec<&'a Record>) {
        let come = self.added.difference(&old.added).chain(old.removed.difference(&self.removed));
        let go = old.added.difference(&self.added).chain(self.removed.difference(&old.removed));
        (come.collect(), go.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes against the base.
    pub fn len(&self) -> usize {
        self.added.len() + self.removed.len()
    }

    /// Whether the record is listed; `None`: the base knows.
    pub fn contains(&self, record: &Record) -> Option<bool> {
        if self.added.contains(record) {
            return Some(true);
        }
        self.removed.contains(record).then_some(false)
    }

    /// Length of the list.
    pub fn len_of(&self, base: &Base) -> usize {
        base.len() + self.added.len() - self.removed.len()
    }

    /// The addresses of the list in ascending order.
    pub fn iter<'a>(&'a self, base: &'a Base) -> Iter<'a> {
        Iter {
            base: base.records().iter().peekable(),
            added: self.added.iter().peekable(),
            removed: self.removed.iter().peekable(),
            left: self.len_of(base),
        }
    }
}

/// The addresses of a list in ascending order.
pub struct Iter<'a> {
    base: Peekable<slice::Iter<'a, Record>>,
    added: Peekable<btree_set::Iter<'a, Record>>,
    removed: Peekable<btree_set::Iter<'a, Record>>,
    left: usize,
}

impl Iterator for Iter<'_> {
    type Item = Address;

    fn next(&mut self) -> Option<Address> {
        while let Some(gone) = self.removed.peek()
            && self.base.next_if_eq(gone).is_some()
        {
            self.removed.next();
        }
        let record = match (self.base.peek(), self.added.peek()) {
            (Some(base), Some(added)) if added < base => self.added.next(),
            (Some(_), _) => self.base.next(),
            (None, _) => self.added.next(),
        };
        self.left -= usize::from(record.is_some());
        record.copied().map(Address)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}
