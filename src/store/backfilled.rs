//! Back-filled events on their way into the store, row by row where it refuses some.
//!
//! Place: below `DbWriter`, and in the command that opens the store itself. Invariant: each event
//! is stored, known, or given back as refused.

use std::time::Duration;

use super::{Committed, StoreError, StoreWriter};
use crate::event::Event;

/// How back-filled events are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Keeps the days that they fall on for this long instead of the store's retention.
    pub keep: Option<Duration>,
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
