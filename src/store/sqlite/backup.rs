//! A copy of the database file, beside a running daemon.

use std::path::{Path, PathBuf};

use diesel::{RunQueryDsl, connection::SimpleConnection, sql_types::Text};

use super::{connection, fault::Fault};
use crate::store::StoreError;

/// Copies a database into an empty file, and gives the absolute path of the database.
///
/// One read transaction: what a daemon writes meanwhile is not in it, and the write-ahead log grows
/// until it is done. The copy is compact; it needs as much room as there are rows.
pub fn backup(path: &Path, copy: &Path) -> Result<PathBuf, StoreError> {
    let path = connection::resolve(path)?;
    let name = copy
        .to_str()
        .ok_or_else(|| StoreError::Unusable(format!("the path {} is not UTF-8", copy.display())))?;
    let mut connection = connection::establish_text(&path, &path.display().to_string())?;
    let copied = connection.batch_execute("PRAGMA busy_timeout = 10000").and_then(|()| {
        diesel::sql_query("VACUUM INTO ?").bind::<Text, _>(name).execute(&mut connection)
    });
    copied.map_err(|error| connection::within(&path, Fault::from(error).0))?;
    Ok(path)
}
