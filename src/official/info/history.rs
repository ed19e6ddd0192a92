//! Rows of history: a user's events in the shapes of the official protocol, read block by block.
//!
//! Order: blocks by their number, forward or newest first; the rows of one block stand in the order of the
//! block either way, as the recorded answers of the service have them. All of a block is read before any
//! of it is told, so late and back-filled events stand where they belong, and an order's partial fills, which
//! are told as one, are never cut by a page.

use std::{
    collections::VecDeque,
    ops::{ControlFlow, RangeInclusive},
};

use crate::{
    event::{Address, Event, SequencedEvent, Timestamp},
    official::{Asked, FILLS, MISC, Rows},
    store::{EventQuery, EventStore, PageKey, StoreError},
};

/// Most events of one read: about a megabyte at real sizes.
const PAGE_EVENTS: usize = 2_048;

/// What a read asks for beyond the rows that are wanted, so that their last block is whole as a rule.
const MORE_EVENTS: usize = 64;

/// Which rows come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Forward,
    /// Newest first, to be continued from the last time.
    Backward,
    /// Newest first, and nothing behind them.
    Newest,
}

/// Where an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub rows: usize,
    pub bytes: usize,
}

/// Answers with a list of rows.
///
/// Whoever pages goes on from the last time, so an answer that may be continued goes beyond the millisecond
/// in which it begins, however many rows that has: else the next page were the same.
///
/// # Errors
/// Those of the store.
pub async fn answer(
    store: &dyn EventStore,
    rows: Rows,
    user: Address,
    times: Option<RangeInclusive<Timestamp>>,
    order: Order,
    limits: Limits,
) -> Result<Vec<u8>, StoreError> {
    let mut list = List::new(order, limits);
    let mut blocks = Blocks::new(store, rows, user, times, order != Order::Forward);
    while !list.is_full()
        && let Some(block) = blocks.next(list.room()).await?
    {
        // What is left of a block when the list is full is found from the last time.
        if rows.of_block(Asked::ByRequest, &block, |time, row| list.push(time, row)).is_break() {
            break;
        }
    }
    Ok(list.finish())
}

/// Whether anything at all is stored of a user.
///
/// # Errors
/// Those of the store.
pub async fn is_known(store: &dyn EventStore, user: Address) -> Result<bool, StoreError> {
    let topics = vec![FILLS, MISC];
    let any = EventQuery { topics, users: vec![user], limit: 1, ..EventQuery::default() };
    Ok(!store.events(any).await?.is_empty())
}

/// A JSON list that is being written.
struct List {
    out: Vec<u8>,
    count: usize,
    first_time: i64,
    last_time: i64,
    order: Order,
    limits: Limits,
}

impl List {
    fn new(order: Order, limits: Limits) -> Self {
        Self { out: b"[".to_vec(), count: 0, first_time: 0, last_time: 0, order, limits }
    }

    fn is_full(&self) -> bool {
        let is_full = self.count >= self.limits.rows || self.out.len() >= self.limits.bytes;
        is_full && (self.order == Order::Newest || self.last_time != self.first_time)
    }

    /// How many rows may still come.
    fn room(&self) -> usize {
        self.limits.rows.saturating_sub(self.count)
    }

    fn push(&mut self, time: i64, row: &[u8]) -> ControlFlow<()> {
        if self.is_full() {
            return ControlFlow::Break(());
        }
        match self.count {
            0 => self.first_time = time,
            _ => self.out.push(b','),
        }
        self.last_time = time;
        self.count += 1;
        self.out.extend_from_slice(row);
        ControlFlow::Continue(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.out.push(b']');
        self.out
    }
}

/// The events of one user in one topic, block by block.
pub struct Blocks<'s> {
    store: &'s dyn EventStore,
    query: EventQuery,
    /// Read, and not given yet.
    waiting: VecDeque<SequencedEvent>,
    /// The store has no more.
    is_at_end: bool,
}

impl<'s> Blocks<'s> {
    pub fn new(
        store: &'s dyn EventStore,
        rows: Rows,
        user: Address,
        times: Option<RangeInclusive<Timestamp>>,
        descending: bool,
    ) -> Self {
        // A range that ends before it begins holds nothing.
        let is_at_end = times.as_ref().is_some_and(RangeInclusive::is_empty);
        let query = EventQuery {
            topics: vec![rows.topic()],
            users: vec![user],
            kind: rows.kind(),
            times,
            descending,
            ..EventQuery::default()
        };
        Self { store, query, waiting: VecDeque::new(), is_at_end }
    }

    /// Gives the next block with all of its events, in their order. `wanted`: about how many rows are.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next(&mut self, wanted: usize) -> Result<Option<Vec<Event>>, StoreError> {
        loop {
            let Some(first) = self.waiting.front() else {
                if self.is_at_end {
                    return Ok(None);
                }
                self.read(wanted).await?;
                continue;
            };
            let position = first.event.id.position;
            let is_of_it = |one: &SequencedEvent| one.event.id.position == position;
            // The end of a page is the end of a block only where the next one has begun.
            if !self.is_at_end && self.waiting.back().is_some_and(is_of_it) {
                self.read(wanted).await?;
                continue;
            }
            let count = self.waiting.iter().take_while(|one| is_of_it(one)).count();
            let mut block: Vec<_> = self.waiting.drain(..count).map(|one| one.event).collect();
            block.sort_unstable_by_key(|event| (event.id.index, event.id.part));
            return Ok(Some(block));
        }
    }

    async fn read(&mut self, wanted: usize) -> Result<(), StoreError> {
        let limit = wanted.saturating_add(MORE_EVENTS).min(PAGE_EVENTS);
        self.query.limit = limit;
        let page = self.store.events(self.query.clone()).await?;
        self.is_at_end = page.len() < limit;
        if let Some(last) = page.last() {
            self.query.after = Some(PageKey { position: last.event.id.position, seq: last.seq });
        }
        self.waiting.extend(page);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        official::info::tests::{fill, funding, slice, update},
        store,
    };

    #[actix_rt::test]
    async fn the_store_is_asked_for_the_kind_that_events_of_these_rows_have() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("nodecast.db").display());
        let store = store::open(&url, &Default::default()).await.unwrap();
        for (rows, event) in [
            (Rows::Fills { aggregate: true }, fill(1, 0, 1)),
            (Rows::TwapSliceFills, slice(1, 0, 1)),
            (Rows::Fundings, funding(1)),
            (Rows::LedgerUpdates, update(1, "{}")),
        ] {
            let blocks = Blocks::new(&*store, rows, event.user.unwrap(), None, false);

            assert_eq!(blocks.query.kind, event.kind(), "{rows:?}");
            assert_eq!(blocks.query.topics, [event.id.topic]);
            let mut found = 0;
            let all = rows.of_block(Asked::ByRequest, &[event], |_, _| {
                found += 1;
                ControlFlow::Continue(())
            });
            assert!(all.is_continue() && found > 0, "{rows:?}");
        }
    }
}
