//! One source's addresses as an exact list: sorted, 20 bytes each, kept in the state directory.
//!
//! Place in the pipeline: behind the Bloom filter of `Whitelist`, for what passes it, and what two
//! lists are compared by. Invariants: a list never changes, [`AddressList::changed`] gives another
//! one that shares what is equal; what was kept is replaced as a whole, so that a crash at any
//! moment leaves the old list or the new one; a mapped file is never written to or truncated, a new
//! one takes its name.
//!
//! A source builds its list with a [`ListBuilder`], compares it with the one in use
//! ([`AddressList::difference`]), and only when it is accepted makes it the kept one
//! ([`AddressList::keep`]), together with a stamp by which the source recognises after a restart
//! that it has not changed. [`AddressList::open`] gives back what an earlier run kept.
//!
//! Two files belong to a list. `NAME.list` holds the *base*: all records, in memory when they are
//! few and mapped when they are many. `NAME.changes` holds the few addresses that came and went
//! since, the *delta*, so that one new member of ten million costs a line and not 200 MB. When the
//! delta has grown, the next `keep` writes a new base.

mod base;
mod builder;
mod changes;
mod delta;
mod format;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{
    base::Base,
    changes::Kept,
    delta::Delta,
    format::{MAX_STAMP_BYTES, Record},
    writer::{SortedWriter, sweep},
};
pub use self::{builder::ListBuilder, delta::Iter};
use crate::event::Address;

/// Why a list could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ListFault {
    /// What was kept before stays.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// Not written by us, or not as it was written. It is to be built anew from its source.
    #[error("{} is damaged or no list: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
}

/// What is kept how. Tests have smaller ones.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Addresses that are sorted in memory at a time.
    chunk: usize,
    /// A list of this many addresses is mapped, a shorter one is in memory.
    mapped_from: usize,
    /// A delta above this and above a hundredth of the base is merged into a new base.
    delta: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { chunk: (64 << 20) / size_of::<Record>(), mapped_from: 100_000, delta: 10_000 }
    }
}

/// An exact list of addresses. Cheap to clone.
#[derive(Clone, Default)]
pub struct AddressList {
    base: Arc<Base>,
    /// What differs from the base.
    delta: Arc<Delta>,
    /// How it lies in the state directory; `None`: nowhere yet.
    kept: Option<Arc<Kept>>,
    limits: Limits,
}

impl AddressList {
    /// What an earlier run kept under this name, and the stamp it was kept with. What a crash left
    /// half written is removed.
    ///
    /// # Errors
    /// When there is something that cannot be used; the list is then to be built from its source.
    pub fn open(directory: &Path, name: &str) -> Result<Option<(Self, Vec<u8>)>, ListFault> {
        Self::open_with(Limits::default(), directory, name)
    }

    fn open_with(
        limits: Limits,
        directory: &Path,
        name: &str,
    ) -> Result<Option<(Self, Vec<u8>)>, ListFault> {
        sweep(directory, name);
        let path = base_path(directory, name);
        let Some((header, base)) = Base::open(&path, limits.mapped_from)? else { return Ok(None) };
        let (kept, delta) = Kept::open(directory, name, header, &base)?;
        let stamp = kept.stamp.clone();
        let (base, delta) = (Arc::new(base), Arc::new(delta));
        Ok(Some((Self { base, delta, kept: Some(Arc::new(kept)), limits }, stamp)))
    }

    /// Makes this the list that [`Self::open`] gives, and returns it as it is kept. A small change
    /// of the list that is kept there costs little.
    ///
    /// # Errors
    /// When it cannot be written; what was kept before stays, and this list can be used, changed
    /// and kept later.
    ///
    /// # Panics
    /// When the stamp is longer than its place in the header, 256 bytes.
    pub fn keep(&self, directory: &Path, name: &str, stamp: &[u8]) -> Result<Self, ListFault> {
        assert!(stamp.len() <= MAX_STAMP_BYTES, "a stamp is a digest, not the content");
        if let Some(kept) = &self.kept
            && !self.is_heavy(kept)
            && let Some(kept) = kept.append(directory, name, &self.delta, stamp)?
        {
            return Ok(Self { kept: Some(Arc::new(kept)), ..self.clone() });
        }
        self.keep_whole(directory, name, stamp)
    }

    /// Whether the changes have become so many that a new base is due.
    fn is_heavy(&self, kept: &Kept) -> bool {
        let most = self.limits.delta.max(self.base.len() / 100);
        self.delta.len() > most || kept.changes_bytes > (4 * most * size_of::<Record>()) as u64
    }

    fn keep_whole(&self, directory: &Path, name: &str, stamp: &[u8]) -> Result<Self, ListFault> {
        let path = base_path(directory, name);
        let fault = |error| ListFault::Io { path: path.clone(), error };
        fs::create_dir_all(directory).map_err(fault)?;
        // A list that was just built lies there already and lacks only its name.
        let fresh = self.base.take_fresh(directory).filter(|_| self.delta.is_empty());
        let (base, fresh) = match fresh {
            Some(fresh) => (self.base.clone(), fresh),
            None => {
                let mut writer = SortedWriter::create(directory, name).map_err(fault)?;
                for address in self.iter() {
                    writer.push(&address.0).map_err(fault)?;
                }
                let fresh = writer.finish().map_err(fault)?;
                let base = if self.delta.is_empty() {
                    self.base.clone()
                } else if self.len() < self.limits.mapped_from {
                    Arc::new(Base::in_memory(self.iter().map(|address| address.0).collect()))
                } else {
                    Arc::new(Base::mapped(fresh.file(), fresh.count()).map_err(fault)?)
                };
                (base, fresh)
            }
        };
        let header = fresh.publish(&path, stamp).map_err(fault)?;
        let kept = Kept::whole(directory, name, header);
        let delta = Arc::default();
        Ok(Self { base, delta, kept: Some(Arc::new(kept)), limits: self.limits })
    }

    /// This list with some more addresses and without some others; one that is in both stays.
    /// Nothing is written before [`Self::keep`].
    pub fn changed(
        &self,
        added: impl IntoIterator<Item = Address>,
        removed: impl IntoIterator<Item = Address>,
    ) -> Self {
        let added = added.into_iter().map(|address| address.0);
        let removed = removed.into_iter().map(|address| address.0);
        let mut delta = Delta::clone(&self.delta);
        delta.apply(&self.base, added, removed);
        Self { delta: Arc::new(delta), ..self.clone() }
    }

    pub fn contains(&self, address: &Address) -> bool {
        self.delta.contains(&address.0).unwrap_or_else(|| self.base.contains(&address.0))
    }

    pub fn len(&self) -> usize {
        self.delta.len_of(&self.base)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses in ascending order.
    pub fn iter(&self) -> Iter<'_> {
        self.delta.iter(&self.base)
    }

    /// The addresses that the other list lacks, in ascending order: one walk over both.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Address> + 'a {
        let mut others = other.iter().peekable();
        self.iter().filter(move |address| {
            while others.next_if(|other| other < address).is_some() {}
            others.peek() != Some(address)
        })
    }

    /// Whether the records are in a mapped file and not in this process's own memory.
    pub fn is_mapped(&self) -> bool {
        self.base.is_mapped()
    }
}

/// In memory, kept nowhere.
impl FromIterator<Address> for AddressList {
    fn from_iter<I: IntoIterator<Item = Address>>(addresses: I) -> Self {
        let mut records: Vec<_> = addresses.into_iter().map(|address| address.0).collect();
        records.sort_unstable();
        records.dedup();
        Base::in_memory(records).into()
    }
}

impl From<Base> for AddressList {
    fn from(base: Base) -> Self {
        Self { base: Arc::new(base), ..Self::default() }
    }
}

impl<'a> IntoIterator for &'a AddressList {
    type Item = Address;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for AddressList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressList({} addresses)", self.len())
    }
}

fn base_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.list"))
}

fn changes_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.changes"))
}
