//! Snapshots: what a subscription begins with, cut by `seq`.
//!
//! Invariant: the rows are those of all events up to the cursor, each once, however commits, casts and this
//! read overlap; what follows the cursor is in none of them.

use std::{cmp::Reverse, collections::HashSet, ops::ControlFlow};

use ahash::RandomState;
use bytes::Bytes;

use super::history::Blocks;
use crate::{
    event::{Address, Cursor, Event, EventId},
    official::{Asked, Rows},
    router::log::Log,
    store::{EventStore, StoreError},
};

/// Snapshots that read the store at one time, so that history keeps connections for itself.
pub const MAX_READS: usize = 2;

/// How often the store is read again because the log, meanwhile, let go of what lies between.
const ATTEMPTS: usize = 5;

/// The newest rows of a user, and the place behind which live ones follow.
#[derive(Clone, Debug)]
pub struct Newest {
    /// As subscriptions have them. The newest block is the first; those of one block in its order.
    pub items: Vec<Bytes>,
    /// "Delivered up to here".
    pub cursor: Cursor,
}

/// Reads the store and what the log holds beyond it.
///
/// # Errors
/// Those of the store; [`StoreError::Unavailable`] also where commits overtake it again and again.
pub async fn newest(
    store: &dyn EventStore,
    log: &Log,
    rows: Rows,
    user: Address,
    limit: usize,
) -> Result<Newest, StoreError> {
    for _ in 0..ATTEMPTS {
        // Asked for before the read, which sees at least this much. What has left the log is stored, or was
        // given up and comes with other numbers.
        let state = log.state();
        let known = state.committed_seq.max(state.left_seq);
        let stored = newest_stored(store, rows, user, limit).await?;
        if let Some((cast, cursor)) = cast_since(log, known, rows, user) {
            let items = newest_of(stored, cast, rows, limit);
            return Ok(Newest { items, cursor });
        }
    }
    Err(StoreError::Unavailable("events are stored faster than they are read".to_owned()))
}

/// Whole blocks with at least so many rows, if there are, newest first.
async fn newest_stored(
    store: &dyn EventStore,
    rows: Rows,
    user: Address,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let mut blocks = Blocks::new(store, rows, user, None, true);
    let (mut found, mut count) = (Vec::new(), 0);
    while count < limit
        && let Some(block) = blocks.next(limit - count).await?
    {
        let counted = rows.of_block(Asked::BySubscription, &block, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        debug_assert!(counted.is_continue());
        found.extend(block);
    }
    Ok(found)
}

/// What the log holds of a user behind a `seq`, and the end of the log then; `None` when some of it has left.
fn cast_since(log: &Log, after: u64, rows: Rows, user: Address) -> Option<(Vec<Event>, Cursor)> {
    let from = log.find(after)?;
    let slice = log.read(from, usize::MAX);
    if slice.missed > 0 {
        return None;
    }
    let cursor = match slice.segments.last() {
        Some(last) => last.cursor(),
        None => log.heads_before(from)?.cursor(after),
    };
    let events = slice.segments.iter().flat_map(|segment| &segment.events);
    let of_user = events
        .map(|event| &event.sequenced.event)
        .filter(|event| event.id.topic == rows.topic() && event.user == Some(user));
    Some((of_user.cloned().collect(), cursor))
}

/// The newest rows of both together.
fn newest_of(stored: Vec<Event>, cast: Vec<Event>, rows: Rows, limit: usize) -> Vec<Bytes> {
    let mut events: Vec<Event> = Vec::with_capacity(stored.len() + cast.len());
    let mut known = HashSet::<EventId, RandomState>::default();
    // A commit under way makes an event come from both.
    events.extend(stored.into_iter().chain(cast).filter(|event| known.insert(event.id)));
    events
        .sort_unstable_by_key(|event| (Reverse(event.id.position), event.id.index, event.id.part));
    let mut items = Vec::with_capacity(limit.min(events.len()));
    for block in events.chunk_by(|one, next| one.id.position == next.id.position) {
        let done = rows.of_block(Asked::BySubscription, block, |_, row| {
            if items.len() == limit {
                return ControlFlow::Break(());
            }
            items.push(Bytes::copy_from_slice(row));
            ControlFlow::Continue(())
        });
        if done.is_break() {
            break;
        }
    }
    items
}
