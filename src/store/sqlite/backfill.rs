//! Back-filled events, and the days that are kept for them.

use std::time::Duration;

use diesel::{prelude::*, sql_types::BigInt};

use super::{fault::Fault, insert::insert_backfilled, schema::events, state};
use crate::{
    event::{Event, Timestamp},
    store::{
        Committed, Run,
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

/// Stores events below everything that was back-filled before, within an open transaction.
pub fn store(
    connection: &mut SqliteConnection,
    run: Run,
    events: &[Event],
    keep: Option<Duration>,
) -> Result<Committed, Fault> {
    state::check_lease(connection, run)?;
    let lowest: Option<i64> =
        events::table.select(diesel::dsl::min(events::seq)).first(connection)?;
    // Upwards, so that the events of a block stay in their order.
    let first = lowest.unwrap_or(0).min(0) - events.len() as i64;
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
