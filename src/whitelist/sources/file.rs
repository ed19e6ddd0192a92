//! A list in a file: read again when it changes.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use std::os::unix::ffi::OsStrExt;

use slog::{Logger, info};

use super::{
    super::file::{FileFault, FileStamp, read_into},
    AddressList, Folder, Held, Kept, SourceKind, WhitelistConfig, WhitelistError, identity,
};

/// `whitelist.file`.
pub struct FileSource {
    path: PathBuf,
    pub held: Held,
    /// The file as it was when it was last read, whatever came of it.
    read: Option<Seen>,
    /// A change that the timer saw. It is read when it looks the same one interval later: a file
    /// that is still being written is not.
    settling: Option<FileStamp>,
}

/// A look at the file.
#[derive(Clone, Copy)]
struct Seen {
    stamp: FileStamp,
    /// Whether an equal stamp proves that the file has not changed since.
    is_proof: bool,
}

impl Seen {
    fn of(path: &Path) -> Option<Self> {
        let stamp = FileStamp::of(path).ok()?;
        Some(Self { stamp, is_proof: stamp.is_settled(SystemTime::now()) })
    }

    fn content(this: Option<Self>) -> Vec<u8> {
        let proof = this.filter(|seen| seen.is_proof);
        proof.map_or(Vec::new(), |seen| seen.stamp.to_bytes().to_vec())
    }
}

impl FileSource {
    /// Reads the file, unless it is the one that the last run read. A list that lost too much since
    /// then is not used.
    ///
    /// # Errors
    /// When the file cannot be read or is faulty.
    pub fn open(
        path: &Path,
        config: &WhitelistConfig,
        kept: Option<Kept>,
        folder: &Folder,
        logger: &Logger,
    ) -> Result<Self, WhitelistError> {
        let name = path.display().to_string();
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let identity = identity(&[absolute.as_os_str().as_bytes()]);
        let mut held = Held::new(SourceKind::File, name, identity, logger);
        let is_known = held.restore(kept);
        let read = Seen::of(path);
        let mut source = Self { path: path.to_owned(), held, read, settling: None };
        let content = Seen::content(read);
        if is_known && !content.is_empty() && content == source.held.content {
            source.held.settle();
            return Ok(source);
        }
        let list = source.read(folder, logger)?;
        match source.take(list, is_known.then_some(config.max_shrink)) {
            // It is told, and the list of the last run holds.
            Ok(_) | Err(WhitelistError::Shrunk { .. }) => Ok(source),
            Err(error) => Err(error),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// When the file cannot be read or is faulty.
    pub fn read(
        &mut self,
        folder: &Folder,
        logger: &Logger,
    ) -> Result<AddressList, WhitelistError> {
        // Taken before reading, so that a change in the meantime is noticed by the timer.
        self.read = Seen::of(&self.path);
        self.settling = None;
        read(&self.path, folder, logger)
    }

    /// Takes what was read. Gives the old list, if the new one is another.
    ///
    /// # Errors
    /// When it lost too much; the old list stays.
    pub fn take(
        &mut self,
        list: AddressList,
        max_shrink: Option<f64>,
    ) -> Result<Option<AddressList>, WhitelistError> {
        self.held.take(list, Seen::content(self.read), max_shrink)
    }

    /// Whether the file is to be read: it changed and came to rest, or it changed so shortly before
    /// it was last read that a further change could look the same.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn look(&mut self) -> Result<bool, WhitelistError> {
        let stamp = match FileStamp::of(&self.path) {
            Ok(stamp) => stamp,
            Err(fault) => {
                // The same file may come back: it is then to be read.
                self.read = None;
                return Err(fault_of(&self.path, fault.into()));
            }
        };
        match self.read {
            Some(seen) if seen.stamp == stamp => {
                self.settling = None;
                return Ok(!seen.is_proof && stamp.is_settled(SystemTime::now()));
            }
            _ if self.settling == Some(stamp) => return Ok(true),
            _ => self.settling = Some(stamp),
        }
        Ok(false)
    }

    /// Whether it is another file than that which was last read.
    pub fn has_changed(&self) -> bool {
        FileStamp::of(&self.path).ok() != self.read.map(|seen| seen.stamp)
    }
}

/// The list of a file.
///
/// # Errors
/// When the file cannot be read or is faulty.
pub fn read(path: &Path, folder: &Folder, logger: &Logger) -> Result<AddressList, WhitelistError> {
    let fault = |fault| fault_of(path, fault);
    let mut builder = folder.builder(SourceKind::File);
    read_into(path, |address| builder.push(address)).map_err(fault)?;
    let pushed = builder.pushed();
    let list = builder.finish().map_err(|error| fault(error.into()))?;
    let duplicates = pushed - list.len() as u64;
    if duplicates > 0 {
        info!(logger, "addresses stand in the whitelist file more than once";
            "path" => %path.display(), "duplicates" => duplicates);
    }
    Ok(list)
}

fn fault_of(path: &Path, fault: FileFault) -> WhitelistError {
    WhitelistError::File { path: path.to_owned(), fault }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::log;

    #[test]
    fn the_times_of_a_file_prove_nothing_while_another_change_could_look_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (path, folder) = (directory.path().join("list"), Folder::at(directory.path()));
        let config = WhitelistConfig::default();
        loop {
            fs::write(&path, "0x010461c14e146ac35fe42271bdc1134ee31c703a\n").unwrap();
            let mut source = FileSource::open(&path, &config, None, &folder, &log()).unwrap();
            let is_due = source.look().unwrap();
            // A machine that stands still for seconds gives a proof after all.
            if FileStamp::of(&path).unwrap().is_settled(SystemTime::now()) {
                continue;
            }

            assert!(source.held.content.is_empty());
            assert!(!is_due);
            break;
        }
    }
}
