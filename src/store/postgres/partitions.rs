//! Partitions of the events: one a day of event time, UTC.
//!
//! Invariant: a partition's name is its day, so nothing but the server's catalogue has to know which
//! there are.

use std::collections::BTreeSet;

use diesel::{QueryableByName, sql_types::Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::fault::Fault;
use crate::{event::Timestamp, store::StoreError};

const DAY_MICROS: i64 = 86_400_000_000;

/// A day since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(i64);

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
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

/// The days that have a partition.
pub async fn list(connection: &mut AsyncPgConnection) -> Result<BTreeSet<Day>, Fault> {
    let names: Vec<Name> = diesel::sql_query(
        "SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'nodecast.events'::regclass",
    )
    .load(connection)
    .await?;
    Ok(names.iter().filter_map(|row| Day::of_table(&row.name)).collect())
}

/// Makes the partition of a day. Somebody else, or an earlier try whose answer was lost, may have
/// made it already.
///
/// A table is made by itself and attached: that lets readers go on, where making it as a partition
/// at once would wait for them, and all others behind it. Its check spares the server to look
/// through it.
pub async fn create(connection: &mut AsyncPgConnection, day: Day) -> Result<(), Fault> {
    let (table, first, end) = (day.table()?, day.start(), day.next().start());
    if list(connection).await?.contains(&day) {
        return Ok(());
    }
    let statements = format!(
        "BEGIN; \
         SET LOCAL lock_timeout = '2s'; \
         CREATE TABLE nodecast.{table} (LIKE nodecast.events INCLUDING ALL, \
             CONSTRAINT day CHECK (time >= {first} AND time < {end})); \
         ALTER TABLE nodecast.events ATTACH PARTITION nodecast.{table} \
             FOR VALUES FROM ({first}) TO ({end}); \
         ALTER TABLE nodecast.{table} DROP CONSTRAINT day; \
         COMMIT"
    );
    let made = connection.batch_execute(&statements).await;
    if made.is_err() {
        connection.batch_execute("ROLLBACK").await?;
    }
    Ok(made?)
}

/// Takes the partition of a day away, with all that it holds. Readers that are in it are waited for
/// a moment only; then the next time will do.
pub async fn drop(connection: &mut AsyncPgConnection, day: Day) -> Result<(), Fault> {
    let table = day.table()?;
    let statements = format!(
        "SET LOCAL lock_timeout = '2s'; \
         ALTER TABLE nodecast.events DETACH PARTITION nodecast.{table}; \
         DROP TABLE nodecast.{table}"
    );
    Ok(connection.batch_execute(&statements).await?)
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
