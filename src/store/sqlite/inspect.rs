//! A look at a database file that leaves it, and its directory, as they were.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use diesel::{
    QueryableByName,
    migration::MigrationSource,
    prelude::*,
    sql_types::{BigInt, Nullable, Text},
    sqlite::Sqlite,
};

use super::{
    backfill,
    connection::{self, MIGRATIONS},
    disk,
    fault::Fault,
    lease,
    schema::{events, gaps},
    state,
};
use crate::{
    event::Timestamp,
    store::{
        StoreError,
        holder::Holder,
        inspect::{Content, Inspection, SchemaState},
        kept,
    },
};

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct Extent {
    #[diesel(sql_type = Nullable<BigInt>)]
    oldest: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    newest: Option<i64>,
}

/// The times of the first and the last row of each topic: by the index, two rows a topic.
const EXTENT: &str = "WITH RECURSIVE topics (topic) AS (SELECT min(topic) FROM events UNION ALL \
    SELECT (SELECT min(topic) FROM events WHERE topic > topics.topic) FROM topics \
        WHERE topic IS NOT NULL) \
    SELECT min((SELECT time FROM events e WHERE e.topic = t.topic ORDER BY position LIMIT 1)) \
        AS oldest, \
    max((SELECT time FROM events e WHERE e.topic = t.topic ORDER BY position DESC LIMIT 1)) \
        AS newest FROM topics t WHERE topic IS NOT NULL";

/// Looks at a database. `None`: there is no file.
///
/// # Errors
/// [`StoreError::Unusable`] when it is not ours.
pub fn inspect(path: &Path) -> Result<Option<Inspection>, StoreError> {
    if !path.try_exists().map_err(|error| unavailable(path, &error))? {
        return Ok(None);
    }
    let path = connection::resolve(path)?;
    let mut connection = open_to_look(&path)?;
    let looked = look(&mut connection, &path);
    looked.map(Some).map_err(|Fault(error)| connection::within(&path, error))
}

/// Opens a database for reading without making a file beside it.
///
/// With a write-ahead log in use there are the files that a reader needs. Without one nobody has the
/// database open, and it is read as a file that does not change.
pub fn open_to_look(path: &Path) -> Result<SqliteConnection, StoreError> {
    let mode = if with_suffix(path, "-wal").exists() { "mode=ro" } else { "immutable=1" };
    connection::establish_text(path, &format!("file:{}?{mode}", percent_encoded(path)?))
}

fn look(connection: &mut SqliteConnection, path: &Path) -> Result<Inspection, Fault> {
    let (ours, tables) = connection::count_tables(connection)?;
    if ours == 0 && tables > 0 {
        return Err(Fault(connection::not_ours()));
    }
    let version: Version =
        diesel::sql_query("SELECT sqlite_version() AS version").get_result(connection)?;
    let schema = SchemaState::of(&known_versions()?, applied_versions(connection, ours > 0)?);
    let has_tables = !schema.applied.is_empty();
    Ok(Inspection {
        store: format!("sqlite:{}", path.display()),
        version: format!("SQLite {}", version.version),
        server: None,
        holder: holder(path),
        content: if has_tables { Some(content(connection, path)?) } else { None },
        schema,
    })
}

/// The versions of all migrations of this program.
pub fn known_versions() -> Result<Vec<String>, StoreError> {
    let known = MigrationSource::<Sqlite>::migrations(&MIGRATIONS);
    let known = known.map_err(|error| StoreError::Failed(error.to_string()))?;
    Ok(known.iter().map(|migration| migration.name().version().to_string()).collect())
}

fn applied_versions(
    connection: &mut SqliteConnection,
    are_there: bool,
) -> Result<Vec<String>, Fault> {
    if !are_there {
        return Ok(Vec::new());
    }
    let query = "SELECT version FROM __diesel_schema_migrations ORDER BY version";
    let applied: Vec<Version> = diesel::sql_query(query).load(connection)?;
    Ok(applied.into_iter().map(|row| row.version).collect())
}

fn content(connection: &mut SqliteConnection, path: &Path) -> Result<Content, Fault> {
    let size = disk::size(connection, path)?;
    // By the smallest index: the rows themselves are not read.
    let rows: i64 = events::table.count().get_result(connection)?;
    let open: i64 = gaps::table.filter(gaps::closed.is_null()).count().get_result(connection)?;
    let extent: Extent = diesel::sql_query(EXTENT).get_result(connection)?;
    let newest = state::load(connection)?.and_then(|state| state.newest_time);
    let newest = newest.or(extent.newest).map(Timestamp);
    let now = newest.map_or_else(Timestamp::now, |newest| newest.min(Timestamp::now()));
    Ok(Content {
        bytes: size.bytes,
        free_disk_bytes: size.free_disk_bytes,
        rows: Some(rows.max(0) as u64),
        rows_estimated: false,
        oldest: extent.oldest.map(Timestamp),
        newest,
        kept: backfill::still_kept(connection, now)?,
        partitions: None,
        open_gaps: open.max(0) as u64,
    })
}

/// Counts the events that are older than a time and not on a kept day.
pub fn count_before(path: &Path, edge: Timestamp) -> Result<u64, StoreError> {
    Ok(count_due(&mut open_to_look(path)?, edge)?)
}

fn count_due(connection: &mut SqliteConnection, edge: Timestamp) -> Result<u64, Fault> {
    let newest = state::load(connection)?.and_then(|state| state.newest_time);
    let now = newest.map_or(edge, Timestamp).min(Timestamp::now());
    let mut due = 0;
    for span in kept::spans_not_kept(&backfill::still_kept(connection, now)?, edge) {
        let query = "SELECT count(*) AS count FROM events WHERE time >= ? AND time < ?";
        let query =
            diesel::sql_query(query).bind::<BigInt, _>(span.start).bind::<BigInt, _>(span.end);
        let found: Count = query.get_result(connection)?;
        due += found.count.max(0) as u64;
    }
    Ok(due)
}

/// The daemon that holds the lock, found without touching the lock: to take it for a moment could
/// make a daemon that starts just now believe that it is not alone.
fn holder(database: &Path) -> Option<Holder> {
    let lock = lease::lock_path(database);
    let inode = fs::metadata(&lock).ok()?.ino();
    let process = match fs::read_to_string("/proc/locks") {
        Ok(locks) => locks.lines().find_map(|line| lock_holder(line, inode))?,
        // Nobody shows the locks: then the process that wrote its number, if it lives.
        Err(_) => {
            let written = fs::read_to_string(&lock).ok()?;
            let written: u32 = written.strip_prefix("process ")?.split(' ').next()?.parse().ok()?;
            Path::new(&format!("/proc/{written}")).exists().then_some(written)?
        }
    };
    Some(Holder::of(&Holder::own().host, process))
}

/// The process of a line such as `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`.
fn lock_holder(line: &str, inode: u64) -> Option<u32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [_, "FLOCK", "ADVISORY", "WRITE", process, file, ..] => {
            let (_, found) = file.rsplit_once(':')?;
            (found.parse() == Ok(inode)).then(|| process.parse().ok())?
        }
        _ => None,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// A path in a URI of SQLite, where `?`, `#` and `%` have a meaning.
fn percent_encoded(path: &Path) -> Result<String, StoreError> {
    let text = path
        .to_str()
        .ok_or_else(|| StoreError::Unusable(format!("the path {} is not UTF-8", path.display())))?;
    Ok(text.replace('%', "%25").replace('?', "%3f").replace('#', "%23"))
}

fn unavailable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_the_file() {
        let line = "6: FLOCK  ADVISORY  WRITE 4711 fe:01:131 0 EOF";

        assert_eq!(lock_holder(line, 131), Some(4_711));
        assert_eq!(lock_holder(line, 13), None);
        assert_eq!(lock_holder("6: POSIX  ADVISORY  WRITE 4711 fe:01:131 0 EOF", 131), None);
        // Somebody who waits for it.
        assert_eq!(lock_holder("6: -> FLOCK  ADVISORY  WRITE 4711 fe:01:131 0 EOF", 131), None);
    }

    #[test]
    fn a_look_leaves_no_file_and_is_not_misled_by_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a?b#c%20.db");
        connection::migrate(&path, true).unwrap();
        let names = || {
            let names =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        let before = names();

        let looked = inspect(&path).unwrap().unwrap();

        assert_eq!(names(), before);
        assert_eq!(looked.schema.pending, [] as [String; 0]);
        assert_eq!((looked.content.unwrap().rows, looked.holder), (Some(0), None));
        assert!(inspect(&folder.path().join("absent.db")).unwrap().is_none());
        assert_eq!(names(), before);
    }
}
