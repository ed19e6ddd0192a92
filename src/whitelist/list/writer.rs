//! Writes the file of a list. It gets its name when it is complete and on the disk.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;
use xxhash_rust::xxh3::Xxh3Default;

use super::format::{HEADER_BYTES, Header, Record, new_id};
use crate::fail_point;

const BUFFER_BYTES: usize = 256 << 10;

/// Ends the names of files that have not got their own yet.
const UNFINISHED: &str = ".unfinished";

/// A file in the making.
pub struct SortedWriter {
    file: BufWriter<NamedTempFile>,
    directory: PathBuf,
    checksum: Xxh3Default,
    count: u64,
    last: Option<Record>,
}

/// A complete file without header and name. Dropped, it is removed.
pub struct Fresh {
    file: NamedTempFile,
    directory: PathBuf,
    checksum: u64,
    count: u64,
}

impl SortedWriter {
    pub fn create(directory: &Path, name: &str) -> io::Result<Self> {
        let file = tempfile::Builder::new()
            .prefix(&format!("{name}."))
            .suffix(UNFINISHED)
            .tempfile_in(directory)?;
        // The lock, which ends with the process, tells `sweep` that somebody is at it.
        file.as_file().try_lock()?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        file.write_all(&[0; HEADER_BYTES])?;
        let directory = directory.to_owned();
        Ok(Self { file, directory, checksum: Xxh3Default::new(), count: 0, last: None })
    }

    /// Takes the next record in ascending order; one that comes twice is written once.
    pub fn push(&mut self, record: &Record) -> io::Result<()> {
        if self.last.as_ref() == Some(record) {
            return Ok(());
        }
        debug_assert!(self.last.is_none_or(|last| last < *record), "records come sorted");
        self.last = Some(*record);
        self.count += 1;
        self.checksum.update(record);
        self.file.write_all(record)
    }

    pub fn finish(self) -> io::Result<Fresh> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let (directory, checksum) = (self.directory, self.checksum.digest());
        Ok(Fresh { file, directory, checksum, count: self.count })
    }
}

impl Fresh {
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn is_in(&self, directory: &Path) -> bool {
        self.directory == directory
    }

    /// Gives the file its header and its name.
    pub fn publish(mut self, path: &Path, stamp: &[u8]) -> io::Result<Header> {
        let Self { checksum, count, .. } = self;
        let header = Header { count, checksum, id: new_id(), stamp: stamp.to_vec() };
        let file = self.file.as_file_mut();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header.encode())?;
        fail_point!("list_written", io::Error::other("fail point"));
        file.sync_all()?;
        fail_point!("list_synced");
        self.file.persist(path)?;
        fail_point!("list_renamed");
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(header)
    }
}

/// Removes what a killed process left unfinished. What cannot be removed is in nobody's way.
pub fn sweep(directory: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let is_ours = |found: &OsStr| {
        let rest = found.to_str().and_then(|found| found.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with('.') && rest.ends_with(UNFINISHED))
    };
    for entry in entries.flatten().filter(|entry| is_ours(&entry.file_name())) {
        let is_left = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if is_left {
            fs::remove_file(entry.path()).ok();
        }
    }
}
