//! Back-filled events, and the days that are kept for them.
//!
//! Invariant: a live event takes the place of a back-filled one, and never the other way round. Only
//! rows at positions that were back-filled, or held before this writer came, are looked at for that:
//! the stream is ahead of them.

use std::{collections::HashMap, time::Duration};

use diesel::{
    QueryableByName,
    prelude::*,
    sql_types::{Array, BigInt},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{fault::Fault, insert::Columns, lease, schema::events, topics::Topics};
use crate::{
    event::{Event, SequencedEvent, Timestamp, Topic},
    store::{
        Committed, Run,
        kept::{self, KeptDay},
        records::unsigned,
    },
};

/// Where back-filled rows may be, by topic: up to this position.
#[derive(Debug, Default)]
pub struct Reach(HashMap<Topic, u64>);

#[derive(QueryableByName)]
struct Day {
    #[diesel(sql_type = BigInt)]
    day: i64,
    #[diesel(sql_type = BigInt)]
    kept_until: i64,
}

impl Reach {
    /// Of a store as it is found: up to the highest row of each topic, of whichever kind.
    pub async fn load(connection: &mut AsyncPgConnection, topics: &Topics) -> Result<Self, Fault> {
        let mut reach = HashMap::new();
        for (id, topic) in topics.iter() {
            let highest: Option<i64> = events::table
                .filter(events::topic_id.eq(id))
                .select(diesel::dsl::max(events::position))
                .first(connection)
                .await?;
            let highest = unsigned(highest.unwrap_or(0), "position")?;
            reach.insert(topic, highest);
        }
        Ok(Self(reach))
    }

    pub fn widen(&mut self, events: &[Event]) {
        for event in events {
            let reach = self.0.entry(event.id.topic).or_default();
            *reach = event.id.position.max(*reach);
        }
    }

    /// Whether a back-filled row may have the identity of one of these.
    pub fn covers(&self, batch: &[&SequencedEvent]) -> bool {
        batch.iter().any(|SequencedEvent { event: Event { id, .. }, .. }| {
            self.0.get(&id.topic).is_some_and(|reach| id.position <= *reach)
        })
    }
}

/// Stores events, of which the rows are in `columns`, and keeps their days.
pub async fn store(
    connection: &mut AsyncPgConnection,
    run: Run,
    events: &[Event],
    columns: &Columns<'_>,
    keep: Option<Duration>,
) -> Result<Committed, Fault> {
    connection
        .transaction(async |connection| {
            lease::check(connection, run).await?;
            let inserted = columns.insert(connection).await?;
            if let Some(keep) = keep {
                keep_days(connection, events, keep).await?;
            }
            Ok(Committed { inserted, duplicates: events.len() - inserted })
        })
        .await
}

async fn keep_days(
    connection: &mut AsyncPgConnection,
    events: &[Event],
    keep: Duration,
) -> Result<(), Fault> {
    let (days, until): (Vec<i64>, Vec<i64>) = kept::kept_days(events, keep).into_iter().unzip();
    diesel::sql_query(
        "INSERT INTO nodecast.kept_days AS known (day, kept_until) \
             SELECT * FROM unnest($1, $2) ON CONFLICT (day) \
             DO UPDATE SET kept_until = greatest(known.kept_until, excluded.kept_until)",
    )
    .bind::<Array<BigInt>, _>(days)
    .bind::<Array<BigInt>, _>(until)
    .execute(connection)
    .await?;
    Ok(())
}

/// The days that are kept now; those that no longer are are forgotten.
pub async fn kept_days(
    connection: &mut AsyncPgConnection,
    now: Timestamp,
) -> Result<Vec<KeptDay>, Fault> {
    diesel::sql_query("DELETE FROM nodecast.kept_days WHERE kept_until <= $1")
        .bind::<BigInt, _>(now.0)
        .execute(connection)
        .await?;
    still_kept(connection, now).await
}

/// The days that are kept at a time, in order.
pub async fn still_kept(
    connection: &mut AsyncPgConnection,
    now: Timestamp,
) -> Result<Vec<KeptDay>, Fault> {
    let query = "SELECT day, kept_until FROM nodecast.kept_days WHERE kept_until > $1 ORDER BY day";
    let days: Vec<Day> = diesel::sql_query(query).bind::<BigInt, _>(now.0).load(connection).await?;
    Ok(days.into_iter().map(|row| (row.day, row.kept_until)).collect())
}
