//! Which events go: by age, and before their age when the disk demands it.
//!
//! Invariants: the oldest of a topic go first; the last [`KEPT`] stays whatever the disk says, as
//! it may be others who fill it; kept days go for want of disk space only.

use std::{ops::Range, path::Path, time::Duration};

use diesel::prelude::*;

use super::{
    backfill,
    connection::immediate,
    disk::{Pages, free_disk_bytes},
    fault::Fault,
    history,
    schema::{events, store_state},
    state,
};
use crate::{
    event::Timestamp,
    store::{Retained, RetentionLimits, Run, kept},
};

/// What a full disk cannot take, counted back from the newest block.
const KEPT: Duration = Duration::from_secs(3_600);

/// Freed pages that are given back to the file system in one portion, bytes: a few milliseconds.
const SHRINK_BYTES: u64 = 8 << 20;

/// Free pages below this are left for the rows that come next.
const SPARE_BYTES: u64 = 64 << 20;

/// What one portion has taken.
#[derive(Default)]
struct Deleted {
    rows: usize,
    seq: Option<i64>,
    /// Newest event time.
    time: Option<i64>,
}

/// Deletes one portion of what is due.
pub fn retain(
    connection: &mut SqliteConnection,
    run: Run,
    path: &Path,
    limits: &RetentionLimits,
) -> Result<Retained, Fault> {
    let pages = Pages::read(connection)?;
    let disk_low = free_disk_bytes(path)? < limits.min_free_bytes;
    let over_budget = limits.max_bytes.is_some_and(|max| pages.used_bytes() > max);
    // Space that is free inside the file is given back before anything is deleted for it.
    let spare = if disk_low { SHRINK_BYTES / 8 } else { SPARE_BYTES.max(pages.file_bytes() / 4) };
    if pages.free_bytes() > spare {
        pages.shrink(connection, SHRINK_BYTES)?;
        let shrunk = Pages::read(connection)?.file_bytes() < pages.file_bytes();
        if disk_low && shrunk {
            let shortened = is_shortened(connection, limits)?;
            return Ok(Retained { more: true, shortened, ..Retained::default() });
        }
    }
    immediate(connection, |connection| {
        delete_portion(connection, run, limits, disk_low || over_budget)
    })
}

fn delete_portion(
    connection: &mut SqliteConnection,
    run: Run,
    limits: &RetentionLimits,
    early: bool,
) -> Result<Retained, Fault> {
    let known = state::check_lease(connection, run)?;
    let topics = state::topics(connection)?;
    let newest = known.newest_time.map_or(limits.edge, Timestamp).min(limits.now);
    let spans = kept::spans_not_kept(&backfill::kept_days(connection, newest)?, limits.edge);
    let mut due = Deleted::default();
    for topic in &topics {
        for span in &spans {
            let left = limits.portion - due.rows;
            delete_oldest(connection, topic, span, left, &mut due)?;
        }
    }
    let mut forced = Deleted::default();
    if early
        && due.rows < limits.portion
        && let Some(topic) = oldest_topic(connection, &topics)?
    {
        let left = limits.portion - due.rows;
        let span = i64::MIN..newest.minus(KEPT).0;
        delete_oldest(connection, &topic, &span, left, &mut forced)?;
    }
    let deleted_seq = known.deleted_seq.max(due.seq).max(forced.seq);
    let shortened_to = known.shortened_to.max(forced.time);
    diesel::update(store_state::table)
        .set((store_state::deleted_seq.eq(deleted_seq), store_state::shortened_to.eq(shortened_to)))
        .execute(connection)?;
    let deleted = due.rows + forced.rows;
    Ok(Retained {
        deleted,
        more: deleted >= limits.portion || forced.rows > 0,
        shortened: reaches(shortened_to, limits.edge),
        exhausted: early && deleted == 0,
    })
}

/// Whether events that the age would have kept were deleted. It stays true until they would have
/// been too old anyway.
fn is_shortened(
    connection: &mut SqliteConnection,
    limits: &RetentionLimits,
) -> Result<bool, Fault> {
    let known = state::load(connection)?;
    Ok(reaches(known.and_then(|state| state.shortened_to), limits.edge))
}

fn reaches(shortened_to: Option<i64>, edge: Timestamp) -> bool {
    shortened_to.is_some_and(|time| time >= edge.0)
}

/// The topic whose first event is the oldest of all.
fn oldest_topic(
    connection: &mut SqliteConnection,
    topics: &[String],
) -> Result<Option<String>, Fault> {
    let mut oldest: Option<(i64, &String)> = None;
    for topic in topics {
        let first: Option<i64> = events::table
            .filter(events::topic.eq(topic))
            .order((events::position, events::idx, events::part))
            .select(events::time)
            .first(connection)
            .optional()?;
        if let Some(time) = first
            && oldest.is_none_or(|(known, _)| time < known)
        {
            oldest = Some((time, topic));
        }
    }
    Ok(oldest.map(|(_, topic)| topic.clone()))
}

/// Deletes the first events of a topic within a span of time: block time grows with the position.
fn delete_oldest(
    connection: &mut SqliteConnection,
    topic: &str,
    span: &Range<i64>,
    limit: usize,
    deleted: &mut Deleted,
) -> Result<(), Fault> {
    let from = match span.start {
        i64::MIN => Some(i64::MIN),
        start => history::first_position(connection, topic, Timestamp(start))?,
    };
    let Some(from) = from else { return Ok(()) };
    let first: Vec<(i64, i64)> = events::table
        .filter(events::topic.eq(topic))
        .filter(events::position.ge(from))
        .order((events::position, events::idx, events::part))
        .select((events::seq, events::time))
        .limit(limit as i64)
        .load(connection)?;
    for (seq, time) in first.into_iter().take_while(|&(_, time)| time < span.end) {
        deleted.rows += diesel::delete(events::table.find(seq)).execute(connection)?;
        // Back-filled events are outside of what a cursor can miss.
        deleted.seq = deleted.seq.max(Some(seq).filter(|seq| *seq >= 0));
        deleted.time = deleted.time.max(Some(time));
    }
    Ok(())
}
