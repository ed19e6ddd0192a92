//! Which files a job reads.
//!
//! Invariants: files of one directory come in the order of their hours; a file that is there plain
//! and packed is read once; every path is absolute.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    event::Topic,
    source::{
        FileMark, Form, StreamCheckpoint,
        node::{HourFile, kind_of, list_files},
    },
};

/// Directories between the one that is given and a file: a node directory, its kind, `hourly`, a day.
const MAX_DEPTH: usize = 6;

/// Of a packed hour file.
const PACKED: &str = "lz4";

/// An hour file, or an archive of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input {
    /// That of the kind.
    pub directory: PathBuf,
    pub hour: HourFile,
    pub packed: bool,
    pub path: PathBuf,
    pub topic: Topic,
    pub streaming: bool,
    /// Nothing behind this offset is read; `None`: all that is there.
    pub to: Option<u64>,
    /// Bytes to read of the file as it lies there.
    pub bytes: u64,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{0} is not an hour file: its path ends in KIND/hourly/YYYYMMDD/H or ../H.lz4, with KIND such as node_fills_by_block"
    )]
    NotHourly(PathBuf),
    #[error(
        "there is no hour file (KIND/hourly/YYYYMMDD/H or ../H.lz4, with KIND such as node_fills_by_block) in {0}"
    )]
    Nothing(PathBuf),
}

impl Input {
    /// Understands the path of a file; `None` when it is not one of the layout.
    fn of(path: &Path) -> Option<Self> {
        let packed = path.extension().is_some_and(|extension| extension == PACKED);
        let plain = if packed { path.with_extension("") } else { path.to_owned() };
        let day = plain.parent()?;
        let hourly = day.parent()?;
        let directory = hourly.parent()?;
        if hourly.file_name()? != "hourly" {
            return None;
        }
        let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
        let hour: HourFile = format!("{}/{}", name(day)?, name(&plain)?).parse().ok()?;
        let (topic, form) = kind_of(&name(directory)?)?;
        Some(Self {
            directory: directory.to_owned(),
            hour,
            packed,
            path: path.to_owned(),
            topic,
            streaming: form == Form::Streaming,
            to: None,
            bytes: 0,
        })
    }

    pub fn form(&self) -> Form {
        if self.streaming { Form::Streaming } else { Form::ByBlock }
    }
}

/// Finds the files that paths name: files, or directories with files below.
///
/// # Errors
/// When a path does not exist, or has nothing to read.
pub fn find(paths: &[PathBuf]) -> Result<Vec<Input>, InputError> {
    let mut inputs = Vec::new();
    for given in paths {
        let failed = |error| InputError::Io { path: given.clone(), error };
        let path = given.canonicalize().map_err(failed)?;
        let before = inputs.len();
        if path.is_dir() {
            walk(&path, MAX_DEPTH, &mut inputs).map_err(failed)?;
            if inputs.len() == before {
                return Err(InputError::Nothing(given.clone()));
            }
        } else {
            let mut input = Input::of(&path).ok_or_else(|| InputError::NotHourly(given.clone()))?;
            input.bytes = fs::metadata(&path).map_err(failed)?.len();
            inputs.push(input);
        }
    }
    Ok(in_order(inputs))
}

fn walk(directory: &Path, depth: usize, inputs: &mut Vec<Input>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // A file can be packed or pruned while we look.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, inputs)?;
            }
        } else if let Some(input) = Input::of(&path) {
            inputs.push(Input { bytes: metadata.len(), ..input });
        }
    }
    Ok(())
}

/// The files that chains have read, up to where they have.
pub fn below(checkpoints: &[StreamCheckpoint], data_dirs: &[PathBuf]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for checkpoint in checkpoints {
        let directory = PathBuf::from(&*checkpoint.name);
        if !data_dirs.iter().any(|node| directory.starts_with(node)) {
            continue;
        }
        // A directory that is gone has nothing to read any more.
        let Ok(listing) = list_files(&directory) else { continue };
        for mark in &checkpoint.files {
            let FileMark::At { file, offset, .. } = mark else { continue };
            let Ok(hour) = file.parse::<HourFile>() else { continue };
            if *offset == 0 || !listing.contains(hour) {
                continue;
            }
            let path = hour.path(&directory);
            inputs.extend(Input::of(&path).map(|input| Input {
                to: Some(*offset),
                bytes: *offset,
                ..input
            }));
        }
    }
    in_order(inputs)
}

/// Bounds that were kept, as inputs again.
pub fn bounded(bounds: &[(PathBuf, u64)]) -> Vec<Input> {
    let input = |(path, to): &(PathBuf, u64)| {
        Input::of(path).map(|input| Input { to: Some(*to), bytes: *to, ..input })
    };
    in_order(bounds.iter().filter_map(input).collect())
}

fn in_order(mut inputs: Vec<Input>) -> Vec<Input> {
    inputs.sort();
    // Plain comes before packed.
    inputs.dedup_by(|later, first| later.directory == first.directory && later.hour == first.hour);
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, name: &str) -> PathBuf {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "12").unwrap();
        path
    }

    #[test]
    fn files_are_found_at_every_depth_in_the_order_of_their_hours_and_once() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for name in ["10", "9.lz4", "9", "11.lz4", "12.gz", "24", "x"] {
            touch(&root, &format!("data/node_fills_by_block/hourly/20260315/{name}"));
        }
        touch(&root, "data/misc_events_streaming/hourly/20260314/3");
        touch(&root, "data/node_fills/hourly/20260315/9");

        for given in [vec![root.clone()], vec![root.join("data"), root.join("data")]] {
            let found = find(&given).unwrap();
            let names: Vec<_> = found
                .iter()
                .map(|input| (input.topic.as_str(), input.hour.to_string(), input.packed))
                .collect();
            assert_eq!(
                names,
                [
                    ("misc", "20260314/3".into(), false),
                    ("fills", "20260315/9".into(), false),
                    ("fills", "20260315/10".into(), false),
                    ("fills", "20260315/11".into(), true),
                ]
            );
            assert_eq!(found[0].form(), Form::Streaming);
            assert!(found.iter().all(|input| input.bytes == 2 && input.to.is_none()));
        }
        let kind = root.join("data/node_fills_by_block");
        assert_eq!(find(std::slice::from_ref(&kind)).unwrap().len(), 3);
        assert_eq!(find(&[kind.join("hourly/20260315/11.lz4")]).unwrap().len(), 1);
    }

    #[test]
    fn what_has_nothing_to_read_is_said() {
        let root = tempfile::tempdir().unwrap();
        let file = touch(root.path(), "notes.txt");

        assert!(matches!(find(&[file]), Err(InputError::NotHourly(_))));
        assert!(matches!(find(&[root.path().to_owned()]), Err(InputError::Nothing(_))));
        assert!(matches!(find(&[root.path().join("gone")]), Err(InputError::Io { .. })));
    }
}
