//! The directory that the command line's `generate` writes to.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{users::Users, writer::Kind};

/// Name of the manifest in the directory.
pub const MANIFEST_FILE: &str = "manifest.jsonl";

/// Name of the list of all users in the directory; usable as a whitelist.
pub const USERS_FILE: &str = "users.txt";

/// Shows that a directory is ours.
const MARK_FILE: &str = ".nodecast-generated";

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
    fn a_path_that_names_the_node_is_refused() {
        let refused = prepare(Path::new("/nowhere/hl-node/data"));

        assert!(matches!(refused, Err(OutputError::NamedLikeNode(_))));
    }
}
