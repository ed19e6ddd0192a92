//! How far a job is in the files of this machine, kept in its state directory so that it goes on there
//! after a restart. What is to be done at all is in the [books](super::books).
//!
//! Invariant: a file is replaced as a whole, and is on the disk when [`Saved::write`] returns.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::pass::Place;
use crate::store::Pending;

/// Below the state directory.
const DIRECTORY: &str = "backfill";

/// How the names of jobs by list begin; those by hand are found by what was ordered.
pub const BY_LIST: &str = "list-";

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Of a job by list: the files and how far they are read; `None` until it begins.
    pub bounds: Option<Vec<(PathBuf, u64)>>,
    /// Files that were read to their end, with their sizes.
    pub done: BTreeMap<PathBuf, u64>,
    /// Where the file stands that is read.
    pub place: Option<Place>,
}

impl Saved {
    /// Reads a job; one that was never written is new.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when the file is not one of ours.
    pub fn read(state_dir: &Path, name: &str) -> io::Result<Self> {
        match fs::read(path(state_dir, name)) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    pub fn write(&self, state_dir: &Path, name: &str) -> io::Result<()> {
        let directory = state_dir.join(DIRECTORY);
        if !directory.exists() {
            fs::create_dir_all(&directory)?;
            File::open(state_dir)?.sync_all()?;
        }
        let mut file = NamedTempFile::new_in(&directory)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.as_file().sync_all()?;
        file.persist(path(state_dir, name))?;
        // Else a loss of power could take its name.
        File::open(&directory)?.sync_all()
    }

    /// Keeps what cannot be understood under another name, and a new job under this one. Gives where
    /// it lies.
    pub fn put_aside(state_dir: &Path, name: &str) -> io::Result<PathBuf> {
        let from = path(state_dir, name);
        let aside = from.with_extension("damaged");
        fs::copy(from, &aside)?;
        Self::default().write(state_dir, name)?;
        Ok(aside)
    }

    /// Forgets a job.
    pub fn remove(state_dir: &Path, name: &str) -> io::Result<()> {
        match fs::remove_file(path(state_dir, name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Forgets the jobs by list that are not pending.
    pub fn forget_others(state_dir: &Path, pending: &Pending) -> io::Result<()> {
        for name in Self::list(state_dir)? {
            if pending.jobs.iter().all(|job| job.name != name) {
                Self::remove(state_dir, &name)?;
            }
        }
        Ok(())
    }

    /// The names of the jobs by list, the oldest first.
    pub fn list(state_dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(state_dir.join(DIRECTORY)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
            names.extend(name.filter(|name| name.starts_with(BY_LIST)).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }
}

fn path(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join(DIRECTORY).join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_found_again_as_it_was_kept() {
        let state_dir = tempfile::tempdir().unwrap();
        let path = state_dir.path();
        let saved = Saved {
            bounds: Some(vec![("/a/0".into(), 5)]),
            done: BTreeMap::from([("/a/1".into(), 9)]),
            place: Some(Place {
                path: "/a/0".into(),
                offset: 3,
                digest: u64::MAX,
                open: vec![],
                begun_before: Some(7),
            }),
        };
        assert!(Saved::list(path).unwrap().is_empty());

        saved.write(path, "list-2").unwrap();
        Saved::default().write(path, "list-1").unwrap();
        Saved::default().write(path, "order-1").unwrap();

        assert_eq!(Saved::read(path, "list-2").unwrap(), saved);
        assert_eq!(Saved::read(path, "list-3").unwrap(), Saved::default());
        assert_eq!(Saved::list(path).unwrap(), ["list-1", "list-2"]);
        Saved::remove(path, "list-1").unwrap();
        Saved::remove(path, "list-1").unwrap();
        assert_eq!(Saved::list(path).unwrap(), ["list-2"]);
    }

    #[test]
    fn a_job_that_cannot_be_understood_is_put_aside_and_begins_anew() {
        let state_dir = tempfile::tempdir().unwrap();
        let path = state_dir.path();
        Saved { bounds: Some(Vec::new()), ..Saved::default() }.write(path, "list-1").unwrap();
        fs::write(super::path(path, "list-1"), "{\"bounds\":[").unwrap();
        let error = Saved::read(path, "list-1").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let aside = Saved::put_aside(path, "list-1").unwrap();

        assert_eq!(fs::read_to_string(aside).unwrap(), "{\"bounds\":[");
        assert_eq!(Saved::read(path, "list-1").unwrap(), Saved::default());
        assert_eq!(Saved::list(path).unwrap(), ["list-1"]);
    }
}
