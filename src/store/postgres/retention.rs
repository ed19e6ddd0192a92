//! Which days go: by age, and before their age when the store is too large.
//!
//! Invariants: a day goes as a whole, the oldest first; the last [`KEPT`] stays whatever the size
//! says; kept days go for want of space only; how far the store was deleted is written, under the
//! lease, before a day begins to go. So what was begun may be finished by whoever comes next. The
//! row of the lease is never locked while a day is looked through. How much room the server's disk
//! has left cannot be seen from here.

use std::{collections::BTreeSet, time::Duration};

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{
    backfill,
    fault::Fault,
    lease,
    partitions::{self, Day, Place},
};
use crate::{
    event::Timestamp,
    store::{Retained, RetentionLimits, Run},
};

/// What the size of the store cannot take, counted back from the newest block.
const KEPT: Duration = Duration::from_secs(3_600);

/// Pages of a day that are looked through at a time, 256 MiB: each portion has the time limit of a
/// statement for itself, and the lease is renewed behind it.
const PORTION_PAGES: i64 = 32_768;

/// What a day holds.
#[derive(Debug, Default, PartialEq, Eq, QueryableByName)]
pub struct Extent {
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// The highest; back-filled events, below 0, are outside of what a cursor can miss.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub seq: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub time: Option<i64>,
}

#[derive(QueryableByName)]
struct Pages {
    #[diesel(sql_type = BigInt)]
    pages: i64,
}

#[derive(QueryableByName)]
struct Size {
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// Bytes of all partitions with their indexes.
pub async fn size_bytes(connection: &mut AsyncPgConnection) -> Result<u64, Fault> {
    let size: Size = diesel::sql_query(
        "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint AS bytes \
         FROM pg_inherits WHERE inhparent = 'nodecast.events'::regclass",
    )
    .get_result(connection)
    .await?;
    Ok(size.bytes.max(0) as u64)
}

/// Takes one day away, if one is due: first what an earlier try has left, then the oldest. Gives the
/// days that can take events.
///
/// # Errors
/// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) while readers are in that day.
pub async fn retain(
    connection: &mut AsyncPgConnection,
    run: Run,
    limits: &RetentionLimits,
) -> Result<(Retained, BTreeSet<Day>), Fault> {
    let tables = partitions::find(connection).await?;
    let left = tables.iter().find(|(_, place)| **place != Place::Attached);
    let attached = || tables.iter().filter(|(_, place)| **place == Place::Attached);
    let size = size_bytes(connection).await?;
    let over_budget = limits.max_bytes.is_some_and(|max| size > max);
    let (known, kept) = connection
        .transaction(async |connection| {
            let known = lease::check(connection, run).await?;
            let newest = known.newest_time.map_or(limits.edge, Timestamp).min(limits.now);
            let kept = backfill::kept_days(connection, newest).await?;
            Ok::<_, Fault>((known, kept))
        })
        .await?;
    let reaches =
        |shortened_to: Option<i64>| shortened_to.is_some_and(|time| time >= limits.edge.0);
    let newest = known.newest_time.map_or(limits.edge, Timestamp).min(limits.now);
    let ends_by = |day: Day, time: Timestamp| day.next().start() <= time.0;
    let due = attached()
        .find(|(day, _)| !kept.iter().any(|(kept, _)| *kept == day.number()))
        .filter(|(day, _)| ends_by(**day, limits.edge));
    let due = left.or(due);
    let forced = attached()
        .next()
        .filter(|_| due.is_none() && over_budget)
        .filter(|(day, _)| ends_by(**day, newest.minus(KEPT)));
    let stay: BTreeSet<Day> = attached().map(|(day, _)| *day).collect();
    let Some((day, place)) = due.or(forced).map(|(day, place)| (*day, *place)) else {
        let (shortened, exhausted) = (reaches(known.shortened_to), over_budget);
        return Ok((Retained { shortened, exhausted, ..Retained::default() }, stay));
    };
    // Nobody adds to the day meanwhile: the writer is busy here.
    let extent = extent(connection, run, day, PORTION_PAGES).await?;
    let shortened_to = forced.map_or(known.shortened_to, |_| known.shortened_to.max(extent.time));
    connection
        .transaction(async |connection| {
            lease::check(connection, run).await?;
            diesel::sql_query(
                "UPDATE nodecast.store_state SET deleted_seq = $1, shortened_to = $2",
            )
            .bind::<Nullable<BigInt>, _>(known.deleted_seq.max(extent.seq))
            .bind::<Nullable<BigInt>, _>(shortened_to)
            .execute(connection)
            .await?;
            Ok::<_, Fault>(())
        })
        .await?;
    partitions::remove(connection, day, place).await?;
    let retained = Retained {
        deleted: extent.rows.max(0) as usize,
        more: true,
        shortened: reaches(shortened_to),
        exhausted: false,
    };
    Ok((retained, stay.into_iter().filter(|left| *left != day).collect()))
}

/// Looks a day through, some pages at a time, and keeps the lease meanwhile: a day can take longer
/// than that lasts.
pub async fn extent(
    connection: &mut AsyncPgConnection,
    run: Run,
    day: Day,
    portion_pages: i64,
) -> Result<Extent, Fault> {
    let table = day.table()?;
    let Pages { pages } = diesel::sql_query(format!(
        "SELECT pg_relation_size('nodecast.{table}') / current_setting('block_size')::bigint AS pages"
    ))
    .get_result(connection)
    .await?;
    let mut extent = Extent::default();
    for first in (0..pages).step_by(portion_pages as usize) {
        let portion: Extent = diesel::sql_query(format!(
            "SELECT count(*) AS rows, max(seq) AS seq, max(time) AS time \
             FROM nodecast.{table} WHERE ctid >= '({first},0)' AND ctid < '({},0)'",
            first + portion_pages
        ))
        .get_result(connection)
        .await?;
        extent.rows += portion.rows;
        extent.seq = extent.seq.max(portion.seq.filter(|seq| *seq >= 0));
        extent.time = extent.time.max(portion.time);
        lease::set(connection, run, true).await?;
    }
    Ok(extent)
}
