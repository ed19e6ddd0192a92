//! Reads in the order of arrival, which clients resume in.
//!
//! `events_by_arrival` knows the lowest and highest `seq` of each few pages of a day (BRIN), not each
//! row: rows arrive in the order of their pages, but for those that a clean-up let into older ones. So
//! a read asks for a window of numbers, which the server finds by those bounds and sorts.
//! Invariants: a read costs its window and what was added since the last [`summarize`], whatever the
//! store holds; nothing depends on the bounds but the time it takes.

use std::collections::BTreeSet;

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    fault::Fault,
    history::{COLUMNS, Row, event},
    lease,
    partitions::{Day, IN_PASSING},
    topics::Topics,
};
use crate::store::{Arrivals, StoreError, records::clamp};

/// Rows after which pages are summarized, some MiB: every read looks through what is not.
const SUMMARY_ROWS: usize = 10_000;

/// How much wider the next window is when one had too few rows: numbers can have been given up, or
/// be those of rows that retention has taken.
const WIDENING: i64 = 8;

/// Reads are forbidden to sort, and to look through pages, where an index gives the order. For one
/// window the server would start processes to help it, which takes longer than the window.
const BY_WINDOW: &str = "SET LOCAL enable_bitmapscan = on; SET LOCAL enable_sort = on; \
    SET LOCAL max_parallel_workers_per_gather = 0";

/// Pages that the index does not know yet.
#[derive(Debug)]
pub struct Unsummarized {
    rows: usize,
    days: BTreeSet<Day>,
}

impl Unsummarized {
    /// What an earlier run may have left.
    pub fn all(days: BTreeSet<Day>) -> Self {
        Self { rows: SUMMARY_ROWS, days }
    }

    /// Counts rows that were added.
    pub fn add(&mut self, rows: usize, days: impl Iterator<Item = Day>) {
        self.rows += rows;
        self.days.extend(days);
    }

    pub fn is_due(&self) -> bool {
        self.rows >= SUMMARY_ROWS
    }
}

/// Lets the index know what was added. Where that fails, as when somebody is in the way, the next time
/// does it: nothing but the time of reads depends on it.
pub async fn summarize(
    connection: &mut AsyncPgConnection,
    unsummarized: &mut Unsummarized,
) -> Result<(), Fault> {
    let tables = unsummarized.days.iter().map(|day| Ok(format!("'{}'", day.table()?)));
    let tables = tables.collect::<Result<Vec<_>, StoreError>>()?.join(", ");
    unsummarized.rows = 0;
    if tables.is_empty() {
        return Ok(());
    }
    let statements = format!(
        "BEGIN; SET LOCAL lock_timeout = {}; \
         SELECT brin_summarize_new_values(i.indexrelid) FROM pg_index i \
             JOIN pg_inherits h ON h.inhrelid = i.indexrelid \
             JOIN pg_class c ON c.oid = i.indrelid \
         WHERE h.inhparent = 'nodecast.events_by_arrival'::regclass AND c.relname IN ({tables}); \
         COMMIT",
        IN_PASSING.as_millis()
    );
    match connection.batch_execute(&statements).await {
        Ok(()) => unsummarized.days.clear(),
        Err(_) => connection.batch_execute("ROLLBACK").await?,
    }
    Ok(())
}

/// Reads what follows a `seq`.
pub async fn arrivals(
    connection: &mut AsyncPgConnection,
    after: u64,
    limit: usize,
) -> Result<Arrivals, Fault> {
    let topics = Topics::load(connection).await?;
    let rows = connection
        .transaction(async |connection| {
            connection.batch_execute(BY_WINDOW).await?;
            rows(connection, clamp(after), limit).await
        })
        .await?;
    let events = rows.into_iter().map(|row| event(row, &topics)).collect::<Result<_, _>>()?;
    // Behind the events, because a day goes after its number is written.
    let deleted_seq = lease::load(connection).await?.and_then(|state| state.deleted_seq);
    Ok(Arrivals { events, deleted_seq: deleted_seq.map(|seq| seq as u64) })
}

async fn rows(
    connection: &mut AsyncPgConnection,
    mut after: i64,
    limit: usize,
) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::new();
    let mut width = i64::try_from(limit).unwrap_or(i64::MAX);
    // Before the first window: what a commit adds between two of them may begin in one that was read.
    let newest = lease::load(connection).await?.map_or(0, |state| state.last_seq);
    while rows.len() < limit && after < newest {
        let last = after.saturating_add(width);
        let missing = limit - rows.len();
        let window: Vec<Row> = diesel::sql_query(format!(
            "SELECT {COLUMNS} FROM nodecast.events WHERE seq > {after} AND seq <= {last} \
             ORDER BY seq LIMIT {missing}"
        ))
        .load(connection)
        .await?;
        rows.extend(window);
        (after, width) = (last, width.saturating_mul(WIDENING));
    }
    Ok(rows)
}
