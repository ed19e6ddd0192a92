//! A look at a store from outside: without its lease, and without changing anything in it.
//!
//! Place: `nodecast doctor` and `nodecast db` ask; the daemon does not need it. Invariant: nothing
//! is made, not even a write-ahead log, so that a look at what is not ours does no harm.

use crate::{
    config::sqlite_path,
    event::Timestamp,
    store::{StoreError, holder::Holder, kept::KeptDay, postgres, sqlite},
};

/// What can be seen of a store.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// A name without secrets.
    pub store: String,
    /// Of the database program.
    pub version: String,
    /// `None` for an embedded store.
    pub server: Option<ServerFacts>,
    pub schema: SchemaState,
    /// Who writes to it now.
    pub holder: Option<Holder>,
    /// `None` before the tables are made.
    pub content: Option<Content>,
}

/// What a database server allows us.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    pub user: String,
    /// Connections that the server takes, without those that it reserves for its administrators.
    pub max_connections: i64,
    pub used_connections: i64,
    /// Whether it only reads: a replica, or a database that was set so.
    pub is_read_only: bool,
    /// What the user lacks, each with the statement that gives it.
    pub missing_rights: Vec<MissingRight>,
}

/// A right that the daemon needs and its user does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRight {
    pub what: String,
    /// SQL, to be run by the owner or an administrator.
    pub remedy: String,
}

/// How far the tables have come, by the versions of their migrations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaState {
    pub applied: Vec<String>,
    pub pending: Vec<String>,
    /// Made by a newer program.
    pub unknown: Vec<String>,
}

/// What is stored.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub bytes: u64,
    /// `None` where the file system of the store cannot be seen from here.
    pub free_disk_bytes: Option<u64>,
    /// `None` where a server has not estimated them yet.
    pub rows: Option<u64>,
    /// Whether the rows are an estimate of the server.
    pub rows_estimated: bool,
    /// Of the first event, back-filled ones too.
    pub oldest: Option<Timestamp>,
    /// Latest event or block time ever committed, or of the last event where all are back-filled.
    pub newest: Option<Timestamp>,
    /// Days that are kept beyond the retention, in order.
    pub kept: Vec<KeptDay>,
    /// One a day; `None` where there are none.
    pub partitions: Option<usize>,
    pub open_gaps: u64,
}

impl SchemaState {
    /// Compares what was applied with what this program knows; versions are in their order.
    pub(super) fn of(known: &[String], applied: Vec<String>) -> Self {
        let lacks = |all: &[String], version: &String| !all.contains(version);
        Self {
            pending: known.iter().filter(|one| lacks(&applied, one)).cloned().collect(),
            unknown: applied.iter().filter(|one| lacks(known, one)).cloned().collect(),
            applied,
        }
    }
}

/// Looks at the store that a URL names. `None`: there is no database file yet.
///
/// # Errors
/// As [`open`](super::open), but nothing is made.
pub async fn inspect(url: &str) -> Result<Option<Inspection>, StoreError> {
    match sqlite_path(url) {
        Some(path) => {
            let path = path.to_owned();
            sqlite::blocking(move || sqlite::inspect::inspect(&path)).await
        }
        None => postgres::inspect::inspect(url).await.map(Some),
    }
}

/// The migrations that this program knows for the store that a URL names.
pub fn known_versions(url: &str) -> Result<Vec<String>, StoreError> {
    match sqlite_path(url) {
        Some(_) => sqlite::inspect::known_versions(),
        None => postgres::inspect::known_versions(),
    }
}

/// Counts what a retention with this edge would take.
///
/// # Errors
/// As [`inspect`].
pub async fn count_before(url: &str, edge: Timestamp) -> Result<u64, StoreError> {
    match sqlite_path(url) {
        Some(path) => {
            let path = path.to_owned();
            sqlite::blocking(move || sqlite::inspect::count_before(&path, edge)).await
        }
        None => postgres::inspect::count_before(url, edge).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_pending_where_it_lacks_and_unknown_where_it_exceeds() {
        let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();

        let state = SchemaState::of(&texts(&["1", "2", "3"]), texts(&["1", "9"]));

        assert_eq!(state.pending, ["2", "3"]);
        assert_eq!(state.unknown, ["9"]);
        assert_eq!(state.applied, ["1", "9"]);
    }
}
