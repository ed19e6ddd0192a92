//! The records of a list, sorted, in memory or mapped, and an index into them.
//!
//! Invariant: the records never change while they are here. A mapped file is ours alone: it is
//! complete before it gets its name, and afterwards only ever unlinked or renamed over, which leaves
//! the mapping as it is. (A medium that fails under a mapping, or another program that truncates the
//! file, ends the process with SIGBUS, as it would end any program that maps a file.)

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{Mutex, PoisonError},
};

use memmap2::{Mmap, MmapOptions};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    ListFault,
    format::{HEADER_BYTES, Header, Record},
    writer::Fresh,
};

/// Records that a look-up searches within, up to twice as many: a few lines of the cache.
const RECORDS_PER_BUCKET: usize = 16;

/// Most bits of an address that the index tells apart: 8 MiB of memory, from 16 million addresses on.
const MAX_INDEX_BITS: u32 = 20;

/// See the module.
pub struct Base {
    records: Records,
    index: Index,
    /// The file of the records while it has no name to be found by.
    fresh: Mutex<Option<Fresh>>,
}

enum Records {
    Memory(Vec<Record>),
    Mapped(Mmap),
}

impl Base {
    /// Of sorted records without duplicates.
    pub fn in_memory(mut records: Vec<Record>) -> Self {
        records.shrink_to_fit();
        Self::with(Records::Memory(records))
    }

    /// Of a file that was just written.
    pub fn fresh(fresh: Fresh) -> io::Result<Self> {
        let base = Self::mapped(fresh.file(), fresh.count())?;
        Ok(Self { fresh: Mutex::new(Some(fresh)), ..base })
    }

    /// Of a file that holds this many records behind its header.
    pub fn mapped(file: &File, count: u64) -> io::Result<Self> {
        let bytes = count * size_of::<Record>() as u64;
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        // A mapping of nothing is refused by the system.
        if bytes == 0 {
            return Ok(Self::default());
        }
        let mut options = MmapOptions::new();
        options.offset(HEADER_BYTES as u64).len(bytes);
        // SAFETY: nobody writes to the records or truncates the file; see the module.
        let map = unsafe { options.map(file) }?;
        Ok(Self::with(Records::Mapped(map)))
    }

    /// Of a file that was kept; `None`: there is none.
    ///
    /// # Errors
    /// When it cannot be read or is not as it was written: every byte is looked at.
    pub fn open(path: &Path, mapped_from: usize) -> Result<Option<(Header, Self)>, ListFault> {
        let io_fault = |error| ListFault::Io { path: path.to_owned(), error };
        let damaged = |what| ListFault::Damaged { path: path.to_owned(), what };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_fault(error)),
        };
        let metadata = file.metadata().map_err(io_fault)?;
        if !metadata.is_file() {
            return Err(damaged("it is not a regular file"));
        }
        let mut header = [0; HEADER_BYTES];
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("it is too short"));
            }
            Err(error) => return Err(io_fault(error)),
        }
        let header = Header::decode(&header).map_err(damaged)?;
        let records = metadata.len() - HEADER_BYTES as u64;
        if header.count.checked_mul(size_of::<Record>() as u64) != Some(records) {
            return Err(damaged("it is shorter or longer than it was written"));
        }
        let mut base = Self::mapped(&file, header.count).map_err(io_fault)?;
        if xxh3_64(base.records().as_flattened()) != header.checksum {
            return Err(damaged("its records are not as they were written"));
        }
        if base.len() < mapped_from {
            base = Self::in_memory(base.records().to_vec());
        }
        Ok(Some((header, base)))
    }

    fn with(records: Records) -> Self {
        let index = Index::of(records.get());
        Self { records, index, fresh: Mutex::new(None) }
    }

    pub fn contains(&self, wanted: &Record) -> bool {
        self.records()[self.index.bucket(wanted)].binary_search(wanted).is_ok()
    }

    pub fn len(&self) -> usize {
        self.records().len()
    }

    pub fn records(&self) -> &[Record] {
        self.records.get()
    }

    pub fn is_mapped(&self) -> bool {
        matches!(self.records, Records::Mapped(_))
    }

    /// The file that was built with the records and was not published yet, if it is in this
    /// directory.
    pub fn take_fresh(&self, directory: &Path) -> Option<Fresh> {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.take_if(|fresh| fresh.is_in(directory))
    }
}

impl Default for Base {
    fn default() -> Self {
        Self::with(Records::Memory(Vec::new()))
    }
}

impl Records {
    fn get(&self) -> &[Record] {
        match self {
            Self::Memory(records) => records,
            Self::Mapped(map) => map.as_chunks().0,
        }
    }
}

/// Where the records with the same first bits begin. Addresses are digests, so the buckets are of
/// about one size; where somebody made them otherwise, a look-up is a longer binary search.
struct Index {
    bits: u32,
    /// One more than there are buckets: each ends where the next one begins.
    starts: Box<[usize]>,
}

impl Index {
    fn of(records: &[Record]) -> Self {
        let bits = (records.len() / RECORDS_PER_BUCKET).checked_ilog2().unwrap_or(0);
        let bits = bits.min(MAX_INDEX_BITS);
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        for (position, record) in records.iter().enumerate() {
            while starts.len() <= bucket(record, bits) {
                starts.push(position);
            }
        }
        starts.resize((1 << bits) + 1, records.len());
        Self { bits, starts: starts.into() }
    }

    fn bucket(&self, record: &Record) -> std::ops::Range<usize> {
        let bucket = bucket(record, self.bits);
        self.starts[bucket]..self.starts[bucket + 1]
    }
}

fn bucket(record: &Record, bits: u32) -> usize {
    let first = u32::from_be_bytes([record[0], record[1], record[2], record[3]]);
    first.checked_shr(u32::BITS - bits).unwrap_or(0) as usize
}
