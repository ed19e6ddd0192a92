//! One source's addresses as an exact list: sorted, 20 bytes each, kept in the state directory.
//!
//! Place in the pipeline: behind the Bloom filter of `Whitelist`, for what passes it, and what two
//! lists are compared by. Invariants: a list never changes, [`AddressList::changed`] gives another
//! one that shares what is equal; what was kept is replaced as a whole, so that a crash at any
//! moment leaves the old list or the new one.
//!
//! A source builds its list with a [`ListBuilder`], compares it with the one in use
//! ([`AddressList::difference`]), and only when it is accepted makes it the kept one
//! ([`AddressList::keep`]), together with a stamp by which the source recognises after a restart
//! that it has not changed. [`AddressList::open`] gives back what an earlier run kept.

mod builder;

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::builder::ListBuilder;
use crate::event::Address;

/// Longest stamp in bytes.
pub const MAX_STAMP_BYTES: usize = 256;

/// Why a list could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ListFault {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// Not written by us, or not as it was written. It is to be built anew from its source.
    #[error("{} is damaged or no list: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
}

/// An exact list of addresses. Cheap to clone.
#[derive(Clone, Default)]
pub struct AddressList {
    addresses: Arc<[Address]>,
}

impl AddressList {
    /// What an earlier run kept under this name, and the stamp it was kept with.
    ///
    /// # Errors
    /// When there is something that cannot be used; the list is then to be built from its source.
    pub fn open(directory: &Path, name: &str) -> Result<Option<(Self, Vec<u8>)>, ListFault> {
        let path = path_of(directory, name);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ListFault::Io { path, error }),
        };
        let Some((stamp_len, rest)) = content.split_first_chunk() else {
            return Err(ListFault::Damaged { path, what: "it is too short" });
        };
        let stamp_len = u64::from_le_bytes(*stamp_len) as usize;
        let Some((stamp, records)) = rest.split_at_checked(stamp_len) else {
            return Err(ListFault::Damaged { path, what: "it is too short" });
        };
        let addresses = records.as_chunks().0.iter().copied().map(Address).collect();
        Ok(Some((Self { addresses }, stamp.to_owned())))
    }

    /// Makes this the list that [`Self::open`] gives, and returns it as it is kept.
    ///
    /// # Errors
    /// When it cannot be written; what was kept before stays, and this list can be used and kept
    /// later.
    pub fn keep(&self, directory: &Path, name: &str, stamp: &[u8]) -> Result<Self, ListFault> {
        let path = path_of(directory, name);
        let write = || {
            fs::create_dir_all(directory)?;
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(&(stamp.len() as u64).to_le_bytes())?;
            file.write_all(stamp)?;
            for address in self.iter() {
                file.write_all(&address.0)?;
            }
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|error| ListFault::Io { path: path.clone(), error })?;
        Ok(self.clone())
    }

    /// This list with some more addresses and without some others. An address in both is added.
    /// Nothing is written before [`Self::keep`].
    pub fn changed(
        &self,
        added: impl IntoIterator<Item = Address>,
        removed: impl IntoIterator<Item = Address>,
    ) -> Self {
        let mut addresses: std::collections::BTreeSet<_> = self.iter().collect();
        for address in removed {
            addresses.remove(&address);
        }
        addresses.extend(added);
        Self { addresses: addresses.into_iter().collect() }
    }

    pub fn contains(&self, address: &Address) -> bool {
        self.addresses.binary_search(address).is_ok()
    }

    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Address> + '_ {
        self.addresses.iter().copied()
    }

    /// The addresses that the other list lacks, in ascending order: one walk over both.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Address> + 'a {
        let mut others = other.iter().peekable();
        self.iter().filter(move |address| {
            while others.next_if(|other| other < address).is_some() {}
            others.peek() != Some(address)
        })
    }
}

/// In memory, kept nowhere.
impl FromIterator<Address> for AddressList {
    fn from_iter<I: IntoIterator<Item = Address>>(addresses: I) -> Self {
        let mut addresses: Vec<_> = addresses.into_iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self { addresses: addresses.into() }
    }
}

impl fmt::Debug for AddressList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressList({} addresses)", self.len())
    }
}

fn path_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.list"))
}
