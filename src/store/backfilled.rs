//! Back-filled events on their way into the store, row by row where it refuses some.
//!
//! Place: below `DbWriter`, and in the command that opens the store itself. Invariant: each event
//! is stored, known, or given back as refused.

use std::time::Duration;

use super::{Committed, StoreError, StoreWriter, records::SHIFT};
use crate::event::{BACKFILLED_SEQ, Event, Timestamp};

/// How back-filled events are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Keeps the days that they fall on for this long instead of the store's retention.
    pub keep: Option<Duration>,
}

/// Gives numbers to back-filled rows: microseconds, shifted below 0. They only tell the events of one
/// block apart, in the order in which they come, also when the block comes in several portions.
#[derive(Debug, Default)]
pub struct Numbers {
    /// The first that is above all that were given.
    next: Option<i64>,
}

impl Numbers {
    /// The first of so many.
    pub fn take(&mut self, count: usize) -> i64 {
        // So that it stays in the range of back-filled ones for all that read it.
        let lowest = BACKFILLED_SEQ as i64 - SHIFT;
        let first = (lowest + Timestamp::now().0).max(self.next.unwrap_or(i64::MIN));
        self.next = Some(first.saturating_add(count as i64));
        first
    }

    /// Passes over one that is not free.
    pub fn pass(&mut self, taken: i64) {
        self.next = self.next.max(Some(taken.saturating_add(1)));
    }
}

/// What became of events.
#[derive(Debug, Default)]
pub struct Backfilled {
    pub inserted: usize,
    /// Were there already.
    pub known: usize,
    /// The store always refuses them.
    pub refused: Vec<(Event, String)>,
}

/// Stores events; those that are refused are found by halving, and the others are stored.
///
/// # Errors
/// Every other error of the store. What was stored before it stays, and is known the next time.
pub async fn store_backfilled(
    writer: &mut dyn StoreWriter,
    events: Vec<Event>,
    setting: Setting,
) -> Result<Backfilled, StoreError> {
    let mut done = Backfilled::default();
    let mut parts = vec![events];
    while let Some(mut part) = parts.pop() {
        match writer.backfill(&part, setting.keep).await {
            Ok(Committed { inserted, duplicates }) => {
                done.inserted += inserted;
                done.known += duplicates;
            }
            Err(StoreError::Refused(reason)) if part.len() == 1 => {
                done.refused.extend(part.into_iter().map(|event| (event, reason.clone())));
            }
            Err(StoreError::Refused(_)) => {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
