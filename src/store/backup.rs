//! A copy of a store as a file.
//!
//! Place: `nodecast db backup` asks. Invariant: the copy is of one moment, whatever a daemon writes
//! meanwhile, and holds no password.

use std::path::Path;

use crate::{
    config::sqlite_path,
    store::{StoreError, postgres, sqlite},
};

/// Copies the store that a URL names into `copy`, an empty file. Gives the command that would
/// restore it when the file has its later name, `target`.
///
/// # Errors
/// When the store cannot be read or the file not written; it is of no use then.
pub async fn backup(url: &str, copy: &Path, target: &Path) -> Result<String, StoreError> {
    match sqlite_path(url) {
        Some(path) => {
            let (path, copy) = (path.to_owned(), copy.to_owned());
            let database = sqlite::blocking(move || sqlite::backup::backup(&path, &copy)).await?;
            let (database, target) = (database.display(), target.display());
            Ok(format!(
                "stop nodecast, rm -f {database}-wal {database}-shm, cp {target} {database}"
            ))
        }
        None => {
            let (url, copy, target) = (url.to_owned(), copy.to_owned(), target.to_owned());
            sqlite::blocking(move || postgres::dump::dump(&url, &copy, &target)).await
        }
    }
}
