//! Reads the database file past our own store code, so that a fault there cannot hide itself.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use diesel::{
    Connection, QueryableByName, RunQueryDsl, SqliteConnection,
    sql_types::{BigInt, Binary, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, async_connection_wrapper::AsyncConnectionWrapper};
use nodecast::{
    event::{Address, EventId, Topic},
    generate::{Gap, Row},
};

/// The database of a daemon.
pub enum Database<'d> {
    Sqlite(&'d Path),
    /// Its URL.
    Postgres(&'d str),
}

impl<'d> From<&'d PathBuf> for Database<'d> {
    fn from(path: &'d PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl<'d> From<&'d Path> for Database<'d> {
    fn from(path: &'d Path) -> Self {
        Self::Sqlite(path)
    }
}

impl<'d> From<&'d str> for Database<'d> {
    fn from(url: &'d str) -> Self {
        Self::Postgres(url)
    }
}

/// Runs a query with the columns of `$row` on either database.
macro_rules! load {
    ($database:expr, $row:ty, $sqlite:expr, $postgres:expr) => {{
        let rows: Vec<$row> = match $database {
            Database::Sqlite(path) => {
                let path = path.display().to_string();
                let mut connection = SqliteConnection::establish(&path).unwrap();
                // The file is locked for a moment while the daemon opens or closes it.
                diesel::sql_query("PRAGMA busy_timeout = 10000").execute(&mut connection).unwrap();
                diesel::sql_query($sqlite).load(&mut connection).unwrap()
            }
            Database::Postgres(url) => {
                diesel::sql_query($postgres).load(&mut postgres(url)).unwrap()
            }
        };
        rows
    }};
}

/// Connects as anybody would.
pub fn postgres(url: &str) -> AsyncConnectionWrapper<AsyncPgConnection> {
    AsyncConnectionWrapper::establish(url).unwrap()
}

/// Makes a database of this test alone on the server of all tests, and gives its URL.
pub fn create_on_postgres() -> String {
    let server = std::env::var("NODECAST_TEST_POSTGRES")
        .expect("NODECAST_TEST_POSTGRES names a PostgreSQL server: scripts/test.sh starts one");
    let name = format!("test_{}_{}", std::process::id(), fastrand::u32(..));
    let create = format!("CREATE DATABASE {name}");
    diesel::sql_query(create).execute(&mut postgres(&server)).unwrap();
    let (base, _) = server.rsplit_once('/').unwrap();
    format!("{base}/{name}")
}

/// Drops such a database.
pub fn drop_on_postgres(url: &str) {
    let (base, name) = url.rsplit_once('/').unwrap();
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    diesel::sql_query(drop).execute(&mut postgres(&format!("{base}/postgres"))).unwrap();
}

#[derive(QueryableByName)]
struct Backend {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    pid: i32,
}

/// The process of a server on this machine that is the parent of all others.
pub fn postmaster(url: &str) -> u32 {
    let mut connection = postgres(url);
    let query = diesel::sql_query("SELECT pg_backend_pid() AS pid");
    let backend = query.get_result::<Backend>(&mut connection).unwrap().pid;
    let stat = std::fs::read_to_string(format!("/proc/{backend}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(1).unwrap().parse().unwrap()
}

#[derive(QueryableByName)]
struct StoredRow {
    #[diesel(sql_type = Text)]
    topic: String,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = BigInt)]
    idx: i64,
    #[diesel(sql_type = BigInt)]
    part: i64,
    #[diesel(sql_type = Nullable<Binary>)]
    user: Option<Vec<u8>>,
    #[diesel(sql_type = Text)]
    body: String,
}

#[derive(QueryableByName)]
struct StoredGap {
    #[diesel(sql_type = Text)]
    topic: String,
    #[diesel(sql_type = BigInt)]
    first: i64,
    #[diesel(sql_type = BigInt)]
    last: i64,
}

/// The gaps that are open, each with its topic. Status lists only a hundred.
pub fn open_gaps<'d>(database: impl Into<Database<'d>>) -> Vec<(String, Gap)> {
    let stored = load!(
        database.into(),
        StoredGap,
        "SELECT topic, first, last FROM gaps WHERE closed IS NULL ORDER BY topic, first",
        "SELECT topic, first, last FROM nodecast.gaps WHERE closed IS NULL ORDER BY topic, first"
    );
    let gap = |gap: StoredGap| (gap.topic, Gap { first: gap.first as u64, last: gap.last as u64 });
    stored.into_iter().map(gap).collect()
}

/// User and body of each row by identity.
///
/// # Panics
/// When an identity is there twice.
pub fn rows<'d>(database: impl Into<Database<'d>>) -> BTreeMap<EventId, (Option<Address>, String)> {
    let stored = load!(
        database.into(),
        StoredRow,
        "SELECT topic, position, idx, part, user, body FROM events",
        "SELECT name AS topic, position, idx::bigint, part::bigint, user_address AS user, body \
         FROM nodecast.events JOIN nodecast.topics ON topics.id = topic_id"
    );
    let mut rows = BTreeMap::new();
    for row in stored {
        let id = EventId {
            topic: Topic::intern(&row.topic),
            position: row.position as u64,
            index: row.idx as u32,
            part: row.part as u32,
        };
        let user = row.user.map(|bytes| Address(bytes.try_into().unwrap()));
        assert!(rows.insert(id, (user, row.body)).is_none(), "{id:?} is stored twice");
    }
    rows
}

/// Compares the store with what was written, row by row.
///
/// # Panics
/// With the first differences, when a row is lost, invented or altered.
pub fn assert_equals_manifest<'a, 'd>(
    database: impl Into<Database<'d>>,
    written: impl Iterator<Item = &'a Row>,
) {
    assert_equal(rows(database), written);
}

/// # Panics
/// As [`assert_equals_manifest`].
pub fn assert_equal<'a>(
    mut stored: BTreeMap<EventId, (Option<Address>, String)>,
    written: impl Iterator<Item = &'a Row>,
) {
    let (mut lost, mut altered) = (Vec::new(), Vec::new());
    for row in written {
        match stored.remove(&row.id) {
            None => lost.push(row.id),
            Some((user, body)) if user != row.user || body != row.body => altered.push(row.id),
            Some(_) => {}
        }
    }
    let invented: Vec<_> = stored.keys().take(10).collect();
    assert!(
        lost.is_empty() && altered.is_empty() && stored.is_empty(),
        "{} lost {:?}, {} altered {:?}, {} invented {:?}",
        lost.len(),
        lost.iter().take(10).collect::<Vec<_>>(),
        altered.len(),
        altered.iter().take(10).collect::<Vec<_>>(),
        stored.len(),
        invented,
    );
}
