//! Makes a list of addresses that come in any order, twice too.
//!
//! What fits a chunk is sorted in memory. Of a longer list each chunk is sorted and written to a
//! file, and at the end the files are merged. Those files have no name, so that nothing of them
//! outlives the process however it ends.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    AddressList, Limits, ListFault, base::Base, format::Record, writer::SortedWriter, writer::sweep,
};
use crate::event::Address;

/// Buffer of each file that is merged.
const BUFFER_BYTES: usize = 256 << 10;

/// A list in the making. Dropped unfinished, it leaves nothing behind.
pub struct ListBuilder {
    /// Where a long list is sorted and stays; `None`: in memory, however long.
    directory: Option<PathBuf>,
    name: String,
    /// What is not written yet.
    chunk: Vec<Record>,
    /// Sorted chunks.
    runs: Vec<File>,
    pushed: u64,
    limits: Limits,
}

impl ListBuilder {
    /// Begins a list. With a directory a long one is sorted there and then mapped from there;
    /// without one it stays in memory.
    pub fn new(directory: Option<&Path>, name: &str) -> Self {
        Self::with_limits(Limits::default(), directory, name)
    }

    pub(super) fn with_limits(limits: Limits, directory: Option<&Path>, name: &str) -> Self {
        let (directory, name) = (directory.map(Path::to_owned), name.to_owned());
        Self { directory, name, chunk: Vec::new(), runs: Vec::new(), pushed: 0, limits }
    }

    /// Takes an address.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn push(&mut self, address: Address) -> Result<(), ListFault> {
        if self.chunk.len() >= self.limits.chunk
            && let Some(directory) = self.directory.clone()
        {
            self.spill(&directory).map_err(|error| fault(&directory, error))?;
        }
        self.pushed += 1;
        self.chunk.push(address.0);
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
    pub fn finish(mut self) -> Result<AddressList, ListFault> {
        self.sort_chunk();
        let limits = self.limits;
        let base = match self.directory.clone() {
            Some(directory)
                if !self.runs.is_empty() || self.chunk.len() >= self.limits.mapped_from =>
            {
                self.merge(&directory).map_err(|error| fault(&directory, error))?
            }
            _ => Base::in_memory(self.chunk),
        };
        Ok(AddressList { limits, ..base.into() })
    }

    fn sort_chunk(&mut self) {
        self.chunk.sort_unstable();
        self.chunk.dedup();
    }

    fn spill(&mut self, directory: &Path) -> io::Result<()> {
        self.sort_chunk();
        // A list of few addresses that come often stays in memory.
        if self.chunk.len() <= self.limits.chunk / 2 {
            return Ok(());
        }
        fs::create_dir_all(directory)?;
        let mut run = tempfile::tempfile_in(directory)?;
        run.write_all(self.chunk.as_flattened())?;
        run.rewind()?;
        self.runs.push(run);
        self.chunk.clear();
        Ok(())
    }

    fn merge(self, directory: &Path) -> io::Result<Base> {
        let Self { chunk, runs, name, .. } = self;
        fs::create_dir_all(directory)?;
        sweep(directory, &name);
        let mut writer = SortedWriter::create(directory, &name)?;
        if runs.is_empty() {
            for record in &chunk {
                writer.push(record)?;
            }
            return Base::fresh(writer.finish()?);
        }
        let mut sources: Vec<Box<dyn Read + '_>> = vec![Box::new(chunk.as_flattened())];
        for run in runs {
            sources.push(Box::new(BufReader::with_capacity(BUFFER_BYTES, run)));
        }
        let mut heads = BinaryHeap::new();
        for (source, reader) in sources.iter_mut().enumerate() {
            heads.extend(next(reader)?.map(|record| Reverse((record, source))));
        }
        while let Some(Reverse((record, source))) = heads.pop() {
            writer.push(&record)?;
            heads.extend(next(&mut sources[source])?.map(|record| Reverse((record, source))));
        }
        Base::fresh(writer.finish()?)
    }
}

fn next(run: &mut impl Read) -> io::Result<Option<Record>> {
    let mut record = [0; size_of::<Record>()];
    match run.read_exact(&mut record) {
        Ok(()) => Ok(Some(record)),
        // Whole records were written, so it is the end.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn fault(directory: &Path, error: io::Error) -> ListFault {
    ListFault::Io { path: directory.to_owned(), error }
}
