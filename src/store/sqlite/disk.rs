//! How much the store takes, and how much its file system has left.

use std::path::Path;

use diesel::{connection::SimpleConnection, prelude::*, sql_types::BigInt};

use super::{fault::Fault, schema::events, state};
use crate::{
    event::Timestamp,
    store::{StoreError, StoreSize},
};

/// Pages of the database file, in bytes.
#[derive(Clone, Copy, Debug, QueryableByName)]
pub struct Pages {
    #[diesel(sql_type = BigInt)]
    size: i64,
    #[diesel(sql_type = BigInt)]
    total: i64,
    #[diesel(sql_type = BigInt)]
    free: i64,
}

impl Pages {
    pub fn read(connection: &mut SqliteConnection) -> Result<Self, Fault> {
        Ok(diesel::sql_query(
            "SELECT page_size AS size, page_count AS total, freelist_count AS free \
             FROM pragma_page_size, pragma_page_count, pragma_freelist_count",
        )
        .get_result(connection)?)
    }

    /// Bytes that hold something.
    pub fn used_bytes(self) -> u64 {
        (self.size * (self.total - self.free)).max(0) as u64
    }

    /// Bytes of the file that wait to be used again.
    pub fn free_bytes(self) -> u64 {
        (self.size * self.free).max(0) as u64
    }

    pub fn file_bytes(self) -> u64 {
        (self.size * self.total).max(0) as u64
    }

    /// Gives up to `bytes` of free pages back to the file system.
    pub fn shrink(self, connection: &mut SqliteConnection, bytes: u64) -> Result<(), Fault> {
        let pages = bytes / self.size.max(1) as u64;
        // Not `execute`: the pragma frees one page a step and has to be run to its end.
        connection.batch_execute(&format!("PRAGMA incremental_vacuum({pages})"))?;
        // The file gets shorter when the log is moved into it.
        connection.batch_execute("PRAGMA wal_checkpoint(PASSIVE)")?;
        Ok(())
    }
}

/// Free bytes on the file system of the database, for a process without privileges.
pub fn free_disk_bytes(path: &Path) -> Result<u64, StoreError> {
    let directory = path.parent().unwrap_or(path);
    let found = rustix::fs::statvfs(directory).map_err(|error| {
        StoreError::Unavailable(format!("free space of {}: {error}", directory.display()))
    })?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The extent of the store.
pub fn size(connection: &mut SqliteConnection, path: &Path) -> Result<StoreSize, Fault> {
    let oldest: Option<(i64, i64)> = events::table
        .filter(events::seq.ge(0))
        .order(events::seq)
        .select((events::seq, events::time))
        .first(connection)
        .optional()?;
    let deleted_seq = state::load(connection)?.and_then(|state| state.deleted_seq);
    Ok(StoreSize {
        bytes: Pages::read(connection)?.used_bytes(),
        free_disk_bytes: Some(free_disk_bytes(path)?),
        oldest_seq: oldest.map(|(seq, _)| seq as u64),
        oldest_time: oldest.map(|(_, time)| Timestamp(time)),
        deleted_seq: deleted_seq.map(|seq| seq as u64),
    })
}
