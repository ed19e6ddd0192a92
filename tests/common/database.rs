//! Reads the database file past our own store code, so that a fault there cannot hide itself.

use std::{collections::BTreeMap, path::Path};

use diesel::{
    Connection, QueryableByName, RunQueryDsl, SqliteConnection,
    sql_types::{BigInt, Binary, Nullable, Text},
};
use nodecast::{
    event::{Address, EventId, Topic},
    generate::{Gap, Row},
};

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
pub fn open_gaps(database: &Path) -> Vec<(String, Gap)> {
    let mut connection = SqliteConnection::establish(&database.display().to_string()).unwrap();
    let query = "SELECT topic, first, last FROM gaps WHERE closed IS NULL ORDER BY topic, first";
    let stored: Vec<StoredGap> = diesel::sql_query(query).load(&mut connection).unwrap();
    let gap = |gap: StoredGap| (gap.topic, Gap { first: gap.first as u64, last: gap.last as u64 });
    stored.into_iter().map(gap).collect()
}

/// User and body of each row by identity.
///
/// # Panics
/// When an identity is there twice.
pub fn rows(database: &Path) -> BTreeMap<EventId, (Option<Address>, String)> {
    let mut connection = SqliteConnection::establish(&database.display().to_string()).unwrap();
    // The file is locked for a moment while the daemon opens or closes it.
    diesel::sql_query("PRAGMA busy_timeout = 10000").execute(&mut connection).unwrap();
    let query = "SELECT topic, position, idx, part, user, body FROM events";
    let stored: Vec<StoredRow> = diesel::sql_query(query).load(&mut connection).unwrap();
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
pub fn assert_equals_manifest<'a>(database: &Path, written: impl Iterator<Item = &'a Row>) {
    let mut stored = rows(database);
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
