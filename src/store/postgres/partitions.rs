//! Partitions of the events: one a day of event time, UTC.
//!
//! Invariants: a partition's name is its day, so nothing but the server's catalogue has to know which
//! there are; nobody is made to wait for a reader of a day that goes, and what was begun and could
//! not be finished is found by its name and finished later.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use diesel::{
    QueryableByName,
    sql_types::{Bool, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::fault::Fault;
use crate::{event::Timestamp, store::StoreError};

/// How long a commit waits for locks to get the partition that it needs.
pub const ON_DEMAND: Duration = Duration::from_secs(2);

/// How long commits are held up by what can be tried again later: days ahead, and those that go.
pub const IN_PASSING: Duration = Duration::from_millis(500);

/// Days that are made ahead of the events, that of the newest event included.
const AHEAD: usize = 3;

const DAY_MICROS: i64 = 86_400_000_000;

/// A day since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(i64);

/// How far a day's table belongs to the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Attached,
    /// Its detachment was begun and not finished: no query sees it any more.
    Leaving,
    /// Detached and not dropped yet.
    Detached,
}

#[derive(QueryableByName)]
struct Table {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bool)]
    is_partition: bool,
    #[diesel(sql_type = Bool)]
    is_leaving: bool,
}

impl Day {
    pub fn of(time: Timestamp) -> Self {
        Self(time.0.div_euclid(DAY_MICROS))
    }

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Of a number of days since 1970.
    pub fn number(self) -> i64 {
        self.0
    }

    /// The first microsecond.
    pub fn start(self) -> i64 {
        self.0.saturating_mul(DAY_MICROS)
    }

    /// The table, without its schema: `events_20260315`.
    pub fn table(self) -> Result<String, StoreError> {
        let refused = || {
            StoreError::Refused(format!("an event {} days from 1970 has no calendar day", self.0))
        };
        let days = i32::try_from(self.0).map_err(|_| refused())?;
        let julian = days.checked_add(2_440_588).ok_or_else(refused)?;
        let date = time::Date::from_julian_day(julian).map_err(|_| refused())?;
        if date.year() < 0 {
            return Err(refused());
        }
        Ok(format!("events_{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day()))
    }

    fn of_table(name: &str) -> Option<Self> {
        let number = name.strip_prefix("events_").filter(|digits| digits.len() == 8)?;
        let part = |range: std::ops::Range<usize>| number.get(range)?.parse::<u16>().ok();
        let month = time::Month::try_from(u8::try_from(part(4..6)?).ok()?).ok()?;
        let day = u8::try_from(part(6..8)?).ok()?;
        let date = time::Date::from_calendar_date(part(0..4)?.into(), month, day).ok()?;
        Some(Self(i64::from(date.to_julian_day()) - 2_440_588))
    }
}

/// All tables of days, whether they are partitions yet or still.
pub async fn find(connection: &mut AsyncPgConnection) -> Result<BTreeMap<Day, Place>, Fault> {
    let tables: Vec<Table> = diesel::sql_query(
        "SELECT c.relname::text AS name, i.inhrelid IS NOT NULL AS is_partition, \
             coalesce(i.inhdetachpending, false) AS is_leaving \
         FROM pg_class c LEFT JOIN pg_inherits i \
             ON i.inhrelid = c.oid AND i.inhparent = 'nodecast.events'::regclass \
         WHERE c.relnamespace = 'nodecast'::regnamespace AND c.relkind = 'r' \
             AND c.relname LIKE 'events\\_%'",
    )
    .load(connection)
    .await?;
    let place = |table: &Table| match (table.is_partition, table.is_leaving) {
        (true, false) => Place::Attached,
        (true, true) => Place::Leaving,
        (false, _) => Place::Detached,
    };
    Ok(tables
        .iter()
        .filter_map(|table| Some((Day::of_table(&table.name)?, place(table))))
        .collect())
}

/// The days that can take events.
pub async fn list(connection: &mut AsyncPgConnection) -> Result<BTreeSet<Day>, Fault> {
    let found = find(connection).await?.into_iter();
    Ok(found.filter(|(_, place)| *place == Place::Attached).map(|(day, _)| day).collect())
}

/// Makes those of the next days that are missing in `days`, and adds them.
pub async fn create_ahead(
    connection: &mut AsyncPgConnection,
    newest: Timestamp,
    days: &mut BTreeSet<Day>,
) -> Result<(), Fault> {
    let next = std::iter::successors(Some(Day::of(newest)), |day| Some(day.next()));
    for day in next.take(AHEAD) {
        if !days.contains(&day) {
            create(connection, day, IN_PASSING).await?;
            days.insert(day);
        }
    }
    Ok(())
}

/// Makes the partition of a day. Somebody else, or an earlier try whose answer was lost, may have
/// made it already; and what is left of a day that was deleted goes first.
///
/// A table is made by itself and attached: that lets readers go on, where making it as a partition
/// at once would wait for them, and all others behind it. Its check spares the server to look
/// through it.
pub async fn create(
    connection: &mut AsyncPgConnection,
    day: Day,
    patience: Duration,
) -> Result<(), Fault> {
    let (table, first, end) = (day.table()?, day.start(), day.next().start());
    match find(connection).await?.get(&day) {
        Some(Place::Attached) => return Ok(()),
        Some(left) => remove(connection, day, *left).await?,
        None => {}
    }
    let statements = format!(
        "BEGIN; \
         SET LOCAL lock_timeout = {}; \
         CREATE TABLE nodecast.{table} (LIKE nodecast.events INCLUDING ALL, \
             CONSTRAINT day CHECK (time >= {first} AND time < {end})); \
         ALTER TABLE nodecast.events ATTACH PARTITION nodecast.{table} \
             FOR VALUES FROM ({first}) TO ({end}); \
         ALTER TABLE nodecast.{table} DROP CONSTRAINT day; \
         COMMIT",
        patience.as_millis()
    );
    let made = connection.batch_execute(&statements).await;
    if made.is_err() {
        connection.batch_execute("ROLLBACK").await?;
    }
    Ok(made?)
}

/// Takes the table of a day away, with all that it holds; outside a transaction.
///
/// New queries do not see it as soon as this has begun. Queries that were in it before are waited
/// for a moment only.
///
/// # Errors
/// [`StoreError::Unavailable`] when they stay: the rest is for another time. The connection has a
/// `lock_timeout` then and is to be given up.
pub async fn remove(
    connection: &mut AsyncPgConnection,
    day: Day,
    place: Place,
) -> Result<(), Fault> {
    let table = day.table()?;
    let patience = IN_PASSING.as_millis();
    connection.batch_execute(&format!("SET lock_timeout = {patience}")).await?;
    let detach = format!("ALTER TABLE nodecast.events DETACH PARTITION nodecast.{table}");
    // Without CONCURRENTLY, who comes after it would wait for all who were there before it.
    match place {
        Place::Attached => connection.batch_execute(&format!("{detach} CONCURRENTLY")).await?,
        Place::Leaving => connection.batch_execute(&format!("{detach} FINALIZE")).await?,
        Place::Detached => {}
    }
    connection.batch_execute(&format!("DROP TABLE nodecast.{table}")).await?;
    Ok(connection.batch_execute("RESET lock_timeout").await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_days_name_is_its_date() {
        for (micros, name) in [
            (0, "events_19700101"),
            (1_773_532_800_000_000 - 1, "events_20260314"),
            (1_773_532_800_000_000, "events_20260315"),
        ] {
            let day = Day::of(Timestamp(micros));
            assert_eq!(day.table().unwrap(), name);
            assert_eq!(Day::of_table(name), Some(day));
            assert!(day.start() <= micros && micros < day.next().start());
        }
        assert_eq!(Day::of_table("events_2026031"), None);
        assert!(Day::of(Timestamp(i64::MAX)).table().is_err());
    }
}
