//! Connections: how they are set up, and that the file is a store of ours.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use diesel::{
    connection::SimpleConnection,
    prelude::*,
    r2d2::{ConnectionManager, CustomizeConnection, Pool},
    sql_types::{BigInt, Text},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{
    fault::{Fault, classify_text},
    lease::Lock,
};
use crate::store::{StoreError, to_be_migrated};

pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

pub type ReadPool = Pool<ConnectionManager<SqliteConnection>>;

/// How long a statement waits for a lock of another program before it is "locked".
const BUSY: Duration = Duration::from_secs(2);

/// How long a history query waits for a connection before it is answered as unavailable.
const READER_WAIT: Duration = Duration::from_secs(5);

/// After a checkpoint the write-ahead log shrinks back to this, bytes.
const WAL_KEPT: u64 = 64 << 20;

/// Pages in the write-ahead log after which a commit moves them into the file. A full batch is
/// about 800 pages: with SQLite's 1,000 nearly each commit would pay for a checkpoint.
const CHECKPOINT_PAGES: u32 = 8_192;

/// Most memory of the writer's page cache, KiB: the newest leaves of the user index fit.
const CACHE_KIB: u32 = 16 << 10;

#[derive(QueryableByName)]
struct Mode {
    #[diesel(sql_type = Text)]
    journal_mode: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Opens a connection that may write. Creates the file when it is missing.
pub fn connect(path: &Path, durable: bool) -> Result<SqliteConnection, StoreError> {
    let mut connection = establish(path)?;
    set_up(&mut connection, durable).map_err(|Fault(error)| within(path, error))?;
    Ok(connection)
}

/// PRAGMAs one by one: the first that fails is the one that is reported.
fn set_up(connection: &mut SqliteConnection, durable: bool) -> Result<(), Fault> {
    connection.batch_execute(&format!("PRAGMA busy_timeout = {}", BUSY.as_millis()))?;
    // Works only before the first table is made, and does nothing afterwards.
    connection.batch_execute("PRAGMA auto_vacuum = INCREMENTAL")?;
    let mode: Mode = diesel::sql_query("PRAGMA journal_mode = WAL").get_result(connection)?;
    if mode.journal_mode != "wal" {
        return Err(Fault(StoreError::Unusable(format!(
            "the file system does not allow a write-ahead log (journal mode {})",
            mode.journal_mode
        ))));
    }
    let synchronous = if durable { "FULL" } else { "NORMAL" };
    connection.batch_execute(&format!("PRAGMA synchronous = {synchronous}"))?;
    connection.batch_execute(&format!("PRAGMA journal_size_limit = {WAL_KEPT}"))?;
    connection.batch_execute(&format!("PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}"))?;
    connection.batch_execute(&format!("PRAGMA cache_size = -{CACHE_KIB}"))?;
    Ok(())
}

/// Runs work in a transaction that holds the write lock from its start.
///
/// SQLite rolls back by itself when the disk is full or fails; diesel then reports that its own
/// roll-back found nothing to do, and the cause would be lost. So the cause is kept here.
pub fn immediate<T>(
    connection: &mut SqliteConnection,
    work: impl FnOnce(&mut SqliteConnection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut cause = None;
    let result = connection.immediate_transaction(|connection| {
        work(connection).map_err(|Fault(error)| {
            cause = Some(error);
            diesel::result::Error::RollbackTransaction
        })
    });
    result.map_err(|error| match (cause, error) {
        (Some(cause), diesel::result::Error::RollbackTransaction) => Fault(cause),
        // Only an orderly roll-back makes refused content harmless.
        (None | Some(StoreError::Refused(_)), error) => Fault::from(error),
        (Some(cause), _) => Fault(cause),
    })
}

fn establish(path: &Path) -> Result<SqliteConnection, StoreError> {
    let text = path
        .to_str()
        .ok_or_else(|| StoreError::Unusable(format!("the path {} is not UTF-8", path.display())))?;
    establish_text(path, text)
}

/// Opens what a text names, a path or a URI; `path` is for messages.
pub fn establish_text(path: &Path, text: &str) -> Result<SqliteConnection, StoreError> {
    SqliteConnection::establish(text)
        .map_err(|error| within(path, classify_text(&error.to_string())))
}

/// Says which file it was.
pub fn within(path: &Path, error: StoreError) -> StoreError {
    let at = |text: String| format!("{}: {text}", path.display());
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(at(text)),
        StoreError::Unusable(text) => StoreError::Unusable(at(text)),
        StoreError::Failed(text) => StoreError::Failed(at(text)),
        other => other,
    }
}

/// Gives the absolute path of a database whose directory exists, so that a later change of the
/// working directory does not matter and SQLite sees neither a URI nor `:memory:`.
pub fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let unusable = |text: String| StoreError::Unusable(text);
    let name = path
        .file_name()
        .ok_or_else(|| unusable(format!("{} does not name a file", path.display())))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = parent.canonicalize().map_err(|error| {
        unusable(format!("the directory {} of the database: {error}", parent.display()))
    })?;
    Ok(parent.join(name))
}

/// Makes the tables of a new file and brings an older store up to this program.
///
/// # Errors
/// [`StoreError::Unusable`] for a file that is not ours or was made by a newer program; nothing
/// in it has changed then. [`StoreError::LeaseLost`] when there is something to change while a
/// daemon writes.
pub fn migrate(path: &Path, durable: bool) -> Result<(), StoreError> {
    if is_current(path)? {
        return Ok(());
    }
    let _lock = Lock::take(path).map_err(to_be_migrated)?;
    let mut connection = connect(path, durable)?;
    connection
        .run_pending_migrations(MIGRATIONS)
        .map_err(|error| within(path, classify_text(&error.to_string())))?;
    Ok(())
}

/// Looks without changing anything, so that a file that is not ours stays as it is.
fn is_current(path: &Path) -> Result<bool, StoreError> {
    let exists = path.metadata().is_ok_and(|metadata| metadata.len() > 0);
    if !exists {
        return Ok(false);
    }
    let mut connection = establish(path)?;
    let (ours, tables) =
        count_tables(&mut connection).map_err(|Fault(error)| within(path, error))?;
    if ours == 0 {
        return match tables {
            0 => Ok(false),
            _ => Err(within(path, not_ours())),
        };
    }
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        within(path, classify_text(&error.to_string()))
    };
    let known =
        diesel::migration::MigrationSource::<diesel::sqlite::Sqlite>::migrations(&MIGRATIONS)
            .map_err(failed)?;
    let applied = connection.applied_migrations().map_err(failed)?;
    let unknown = applied
        .iter()
        .find(|version| !known.iter().any(|migration| migration.name().version() == **version));
    if let Some(version) = unknown {
        return Err(within(
            path,
            StoreError::Unusable(format!(
                "it was made by a newer nodecast (migration {version} is unknown here)"
            )),
        ));
    }
    Ok(applied.len() == known.len())
}

pub fn not_ours() -> StoreError {
    StoreError::Unusable("this SQLite database belongs to another program".into())
}

/// Counts our table of migrations (0 or 1), and all tables.
pub fn count_tables(connection: &mut SqliteConnection) -> Result<(i64, i64), Fault> {
    connection.batch_execute(&format!("PRAGMA busy_timeout = {}", BUSY.as_millis()))?;
    let mut count = |condition: &str| -> Result<i64, Fault> {
        let text = format!("SELECT count(*) AS count FROM sqlite_master WHERE {condition}");
        Ok(diesel::sql_query(text).get_result::<Count>(connection)?.count)
    };
    Ok((count("name = '__diesel_schema_migrations'")?, count("type = 'table'")?))
}

/// Opens the pool for history. Its connections cannot write.
pub fn read_pool(path: &Path, connections: u32) -> Result<ReadPool, StoreError> {
    let text = path
        .to_str()
        .ok_or_else(|| StoreError::Unusable(format!("the path {} is not UTF-8", path.display())))?;
    Pool::builder()
        .max_size(connections.max(1))
        // The first is opened now, so that a fault shows at the start; the others when needed.
        .min_idle(Some(1))
        .connection_timeout(READER_WAIT)
        .test_on_check_out(false)
        .connection_customizer(Box::new(ReadOnly))
        .build(ConnectionManager::new(text))
        .map_err(|error| within(path, classify_text(&error.to_string())))
}

#[derive(Debug)]
struct ReadOnly;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for ReadOnly {
    fn on_acquire(&self, connection: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        connection
            .batch_execute(&format!("PRAGMA busy_timeout = {}", BUSY.as_millis()))
            .and_then(|()| connection.batch_execute("PRAGMA query_only = ON"))
            .map_err(diesel::r2d2::Error::QueryError)
    }
}
