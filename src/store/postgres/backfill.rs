//! Back-filled events, and the days that are kept for them.
//!
//! Invariant: a live event takes the place of a back-filled one, and never the other way round. Only
//! rows at positions that were back-filled, or held before this writer came, are looked at for that:
//! the stream is ahead of them.

use std::{collections::HashMap, time::Duration};

use diesel::{
    QueryableByName,
    prelude::*,
    sql_types::{Array, BigInt, Binary, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{fault::Fault, lease, schema::events, state};
use crate::{
    event::{Event, SequencedEvent, Timestamp, Topic},
    store::{
        Committed, Run, StoreError, kept,
        records::{signed, unsigned},
    },
};

const INSERT: &str = "INSERT INTO nodecast.events \
    (seq, topic, position, idx, part, time, user_address, late, body) \
    SELECT seq, topic, position, idx, part, time, user_address, true, body::json \
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) \
    AS row (seq, topic, position, idx, part, time, user_address, body) \
    ON CONFLICT (topic, position, idx, part, time) DO NOTHING";

const MAKE_WAY: &str = "DELETE FROM nodecast.events e USING unnest($1, $2, $3, $4, $5) \
    AS live (topic, position, idx, part, time) \
    WHERE e.seq < 0 AND e.topic = live.topic AND e.position = live.position \
    AND e.idx = live.idx AND e.part = live.part AND e.time = live.time";

/// Where back-filled rows may be, by topic: up to this position.
#[derive(Debug, Default)]
pub struct Reach(HashMap<Topic, u64>);

#[derive(QueryableByName)]
struct Day {
    #[diesel(sql_type = BigInt)]
    day: i64,
}

impl Reach {
    /// Of a store as it is found: up to the highest row of each topic, of whichever kind.
    pub async fn load(connection: &mut AsyncPgConnection) -> Result<Self, Fault> {
        let mut reach = HashMap::new();
        for topic in state::topics(connection).await? {
            let highest: Option<i64> = events::table
                .filter(events::topic.eq(&topic))
                .select(diesel::dsl::max(events::position))
                .first(connection)
                .await?;
            let highest = unsigned(highest.unwrap_or(0), "position")?;
            reach.insert(Topic::intern(&topic), highest);
        }
        Ok(Self(reach))
    }

    pub fn widen(&mut self, events: &[Event]) {
        for event in events {
            let reach = self.0.entry(event.id.topic).or_default();
            *reach = event.id.position.max(*reach);
        }
    }

    /// Takes back-filled rows away that have the identity of a live event of this batch, within an
    /// open transaction.
    pub async fn make_way(
        &self,
        connection: &mut AsyncPgConnection,
        batch: &[&SequencedEvent],
    ) -> Result<(), Fault> {
        let within = |id: &&SequencedEvent| {
            let id = &id.event.id;
            self.0.get(&id.topic).is_some_and(|reach| id.position <= *reach)
        };
        let events: Vec<&Event> =
            batch.iter().copied().filter(within).map(|sequenced| &sequenced.event).collect();
        if events.is_empty() {
            return Ok(());
        }
        let places = Places::of(&events)?;
        diesel::sql_query(MAKE_WAY)
            .bind::<Array<Text>, _>(&places.topic)
            .bind::<Array<BigInt>, _>(&places.position)
            .bind::<Array<BigInt>, _>(&places.index)
            .bind::<Array<BigInt>, _>(&places.part)
            .bind::<Array<BigInt>, _>(&places.time)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Identities as columns.
#[derive(Default)]
struct Places<'e> {
    topic: Vec<&'e str>,
    position: Vec<i64>,
    index: Vec<i64>,
    part: Vec<i64>,
    time: Vec<i64>,
}

impl<'e> Places<'e> {
    fn of(events: &[&'e Event]) -> Result<Self, StoreError> {
        let mut places = Self::default();
        for event in events {
            places.topic.push(event.id.topic.as_str());
            places.position.push(signed(event.id.position, "position")?);
            places.index.push(event.id.index.into());
            places.part.push(event.id.part.into());
            places.time.push(event.time.0);
        }
        Ok(places)
    }
}

/// Stores events with these numbers, within an open transaction: from `lowest` upwards.
pub async fn store(
    connection: &mut AsyncPgConnection,
    run: Run,
    events: &[Event],
    lowest: i64,
    keep: Option<Duration>,
) -> Result<Committed, Fault> {
    lease::check(connection, run).await?;
    let bodies = events.iter().map(|event| {
        std::str::from_utf8(&event.body)
            .map_err(|error| StoreError::Refused(format!("the body is not UTF-8: {error}")))
    });
    let bodies: Vec<&str> = bodies.collect::<Result<_, _>>()?;
    let places = Places::of(&events.iter().collect::<Vec<_>>())?;
    let seq: Vec<i64> = (lowest..).take(events.len()).collect();
    let users: Vec<Option<&[u8]>> =
        events.iter().map(|event| event.user.as_ref().map(|user| user.0.as_slice())).collect();
    let inserted = diesel::sql_query(INSERT)
        .bind::<Array<BigInt>, _>(seq)
        .bind::<Array<Text>, _>(&places.topic)
        .bind::<Array<BigInt>, _>(&places.position)
        .bind::<Array<BigInt>, _>(&places.index)
        .bind::<Array<BigInt>, _>(&places.part)
        .bind::<Array<BigInt>, _>(&places.time)
        .bind::<Array<Nullable<Binary>>, _>(users)
        .bind::<Array<Text>, _>(bodies)
        .execute(connection)
        .await?;
    if let Some(keep) = keep {
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
    }
    Ok(Committed { inserted, duplicates: events.len() - inserted })
}

/// The days that are kept now; those that no longer are are forgotten.
pub async fn kept_days(
    connection: &mut AsyncPgConnection,
    now: Timestamp,
) -> Result<Vec<i64>, Fault> {
    diesel::sql_query("DELETE FROM nodecast.kept_days WHERE kept_until <= $1")
        .bind::<BigInt, _>(now.0)
        .execute(connection)
        .await?;
    let days: Vec<Day> =
        diesel::sql_query("SELECT day FROM nodecast.kept_days").load(connection).await?;
    Ok(days.into_iter().map(|row| row.day).collect())
}
