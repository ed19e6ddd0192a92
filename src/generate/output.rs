//! The directory that the command line's `generate` writes to.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    str,
};

use super::{users::Users, writer::Kind};

/// Name of the manifest in the directory.
pub const MANIFEST_FILE: &str = "manifest.jsonl";

/// Name of the list of all users in the directory; usable as a whitelist.
pub const USERS_FILE: &str = "users.txt";

/// Shows that a directory is ours.
const MARK_FILE: &str = ".nodecast-generated";

/// How much of the end of a file is searched for the last block: some hundred lines.
const TAIL_BYTES: u64 = 256 << 10;

const BLOCK_NUMBER: &[u8] = b"\"block_number\":";

/// Why a directory is not written to.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A node panics when it finds a process with its name in the command line.
    #[error(
        "the path {} contains `hl-node`, and a node on this machine would take this process for \
         another node and stop; choose another name",
        .0.display()
    )]
    NamedLikeNode(PathBuf),
    #[error(
        "{} holds files that `generate` did not write; choose an empty or a new directory",
        .0.display()
    )]
    Foreign(PathBuf),
    #[error("{} cannot be prepared: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Makes the directory ready for a new run: what an earlier run left there is removed.
///
/// # Errors
/// When it holds anything that was not made by `generate`, or cannot be written.
pub fn prepare(directory: &Path) -> Result<(), OutputError> {
    if directory.to_string_lossy().contains("hl-node") {
        return Err(OutputError::NamedLikeNode(directory.to_owned()));
    }
    let io = |error| OutputError::Io { path: directory.to_owned(), error };
    fs::create_dir_all(directory).map_err(io)?;
    let is_empty = fs::read_dir(directory).map_err(io)?.next().is_none();
    if !is_empty && !directory.join(MARK_FILE).is_file() {
        return Err(OutputError::Foreign(directory.to_owned()));
    }
    fs::write(directory.join(MARK_FILE), "Written by `nodecast generate`, which may replace it.\n")
        .map_err(io)?;
    for kind in [Kind::Fills, Kind::Misc, Kind::OrderStatuses] {
        for streaming in [false, true] {
            absent(fs::remove_dir_all(directory.join(kind.directory(streaming)))).map_err(io)?;
        }
    }
    for file in [MANIFEST_FILE, USERS_FILE] {
        absent(fs::remove_file(directory.join(file))).map_err(io)?;
    }
    Ok(())
}

/// The highest block of an earlier run in this directory. A reader that followed that run takes a
/// lower number for a repetition.
///
/// # Errors
/// When the files of that run cannot be read.
pub fn last_block(directory: &Path) -> io::Result<Option<u64>> {
    if !directory.join(MARK_FILE).is_file() {
        return Ok(None);
    }
    let mut last = None;
    for kind in [Kind::Fills, Kind::Misc] {
        for streaming in [false, true] {
            let hourly = directory.join(kind.directory(streaming)).join("hourly");
            if let Some(file) = newest_file(&hourly)? {
                last = last.max(highest_number(&tail_of(&file)?));
            }
        }
    }
    Ok(last)
}

/// The file of a kind that was written to last.
fn newest_file(hourly: &Path) -> io::Result<Option<PathBuf>> {
    let mut files = Vec::new();
    for day in entries(hourly)? {
        for file in entries(&day)? {
            files.push((fs::metadata(&file)?.modified()?, file));
        }
    }
    Ok(files.into_iter().max().map(|(_, file)| file))
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn tail_of(file: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Of all numbers: the last one may be cut off, and a node goes back now and then.
fn highest_number(bytes: &[u8]) -> Option<u64> {
    memchr::memmem::find_iter(bytes, BLOCK_NUMBER)
        .filter_map(|at| {
            let text = &bytes[at + BLOCK_NUMBER.len()..];
            let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            str::from_utf8(&text[..digits]).ok()?.parse().ok()
        })
        .max()
}

/// Writes the list of all users.
///
/// # Errors
/// When the file cannot be written.
pub fn write_users(directory: &Path, users: &Users) -> io::Result<()> {
    let mut text = String::from("# All users of the simulated chain.\n");
    for address in users.addresses() {
        text.push_str(&address.to_string());
        text.push('\n');
    }
    fs::write(directory.join(USERS_FILE), text)
}

/// It is well when there was nothing to remove.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_foreign_files_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("kept"), "x").unwrap();

        assert!(matches!(prepare(directory.path()), Err(OutputError::Foreign(_))));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_earlier_run_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (hours, note) =
            (directory.path().join("node_fills_by_block/hourly"), directory.path().join("note"));
        prepare(directory.path()).unwrap();
        fs::create_dir_all(&hours).unwrap();
        fs::write(&note, "x").unwrap();

        prepare(directory.path()).unwrap();

        assert!(!hours.exists());
        assert!(note.exists());
    }

    #[test]
    fn the_last_block_of_an_earlier_run_is_found_behind_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(last_block(&directory.path().join("absent")).unwrap(), None);
        prepare(directory.path()).unwrap();
        assert_eq!(last_block(directory.path()).unwrap(), None);
        for (kind, text) in [
            ("node_fills_by_block", "{\"block_number\":1007,\n{\"block_number\":1009,\n"),
            ("misc_events_by_block", "{\"block_number\":1012,\n{\"block_number\":10"),
        ] {
            let day = directory.path().join(kind).join("hourly/20260315");
            fs::create_dir_all(&day).unwrap();
            fs::write(day.join("7"), text).unwrap();
        }

        assert_eq!(last_block(directory.path()).unwrap(), Some(1012));
    }

    #[test]
    fn a_path_that_names_the_node_is_refused() {
        let refused = prepare(Path::new("/nowhere/hl-node/data"));

        assert!(matches!(refused, Err(OutputError::NamedLikeNode(_))));
    }
}
