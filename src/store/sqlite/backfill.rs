//! Back-filled events, and the days that are kept for them.

use std::time::Duration;

use diesel::{prelude::*, sql_types::BigInt};

use super::{fault::Fault, insert::insert_backfilled, schema::events, state};
use crate::{
    event::{Event, Timestamp},
    store::{
        Committed, Run,
        backfilled::Numbers,
        kept::{self, KeptDay},
    },
};

#[derive(QueryableByName)]
struct Day {
    #[diesel(sql_type = BigInt)]
    day: i64,
    #[diesel(sql_type = BigInt)]
    kept_until: i64,
}

/// Stores events outside the order of arrival, within an open transaction.
pub fn store(
    connection: &mut SqliteConnection,
    run: Run,
    events: &[Event],
    numbers: &mut Numbers,
    keep: Option<Duration>,
) -> Result<Committed, Fault> {
    state::check_lease(connection, run)?;
    let first = free(connection, numbers, events.len())?;
    let mut committed = Committed::default();
    for (seq, event) in (first..).zip(events) {
        let inserted = insert_backfilled(connection, seq, event)?;
        committed.inserted += inserted;
        committed.duplicates += 1 - inserted;
    }
    for (day, until) in keep.map(|keep| kept::kept_days(events, keep)).unwrap_or_default() {
        diesel::sql_query(
            "INSERT INTO kept_days (day, kept_until) VALUES (?, ?) ON CONFLICT (day) \
             DO UPDATE SET kept_until = max(kept_until, excluded.kept_until)",
        )
        .bind::<BigInt, _>(day)
        .bind::<BigInt, _>(until)
        .execute(connection)?;
    }
    Ok(committed)
}

/// The first of so many numbers that no row has: the clock may have stepped back since an earlier run.
fn free(
    connection: &mut SqliteConnection,
    numbers: &mut Numbers,
    count: usize,
) -> Result<i64, Fault> {
    loop {
        let first = numbers.take(count);
        let highest: Option<i64> = events::table
            .filter(events::seq.lt(first + count as i64))
            .select(diesel::dsl::max(events::seq))
            .first(connection)?;
        match highest {
            Some(taken) if taken >= first => numbers.pass(taken),
            _ => return Ok(first),
        }
    }
}

/// The days that are kept now; those that no longer are are forgotten.
pub fn kept_days(connection: &mut SqliteConnection, now: Timestamp) -> Result<Vec<KeptDay>, Fault> {
    diesel::sql_query("DELETE FROM kept_days WHERE kept_until <= ?")
        .bind::<BigInt, _>(now.0)
        .execute(connection)?;
    still_kept(connection, now)
}

/// The days that are kept at a time, in order.
pub fn still_kept(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> Result<Vec<KeptDay>, Fault> {
    let query = "SELECT day, kept_until FROM kept_days WHERE kept_until > ? ORDER BY day";
    let days: Vec<Day> = diesel::sql_query(query).bind::<BigInt, _>(now.0).load(connection)?;
    Ok(days.into_iter().map(|row| (row.day, row.kept_until)).collect())
}
