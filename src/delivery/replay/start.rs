//! Where a subscription begins that does not begin now.
//!
//! Invariants: whatever a client asks for is answered with a place in the order of arrival behind
//! which nothing is missing, or refused with the reason; a session looks for one place at a time, few
//! of all sessions do, and none looks or waits without end.

use std::time::Duration;

use tokio::{sync::SemaphorePermit, time::timeout};

use super::Pages;
use crate::{
    delivery::subscription::{Users, Wanted},
    event::{Cursor, Event, Timestamp, Topic},
    router::log::Heads,
    stats::OneMore,
    store::{EarlierRun, EventQuery, PageKey, StoreError},
};

/// Blocks that a cursor of another store goes back: events of one block may have come to the two
/// stores in another order.
const OVERLAP: u64 = 16;

/// Rows that are read at one time to find a place.
const SEARCH_ROWS: usize = 512;

/// Most rows that are looked through for the last events which match.
const MAX_SEARCHED: usize = 200_000;

/// Searches at one time, of all sessions; a page for who has found his place does not wait for them.
pub const SEARCHES: usize = 2;

/// How long a search may wait for its turn. Each ends within `store.query_timeout` for a read.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    Now,
    Oldest,
    Cursor(Cursor),
    /// At least so many of the newest events that match.
    Last(usize),
    Block(u64),
    Time(Timestamp),
}

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Everything above it follows.
    pub seq: u64,
    /// What a client is told of that place: all below it is deleted, or before what was asked for.
    pub cursor: Cursor,
    /// It is exactly what was asked for; otherwise it is a cursor that was not given by this store, and
    /// some blocks before it come again.
    pub exact: bool,
}

/// The place of one who searches, and that it is counted.
struct Search<'a> {
    _place: SemaphorePermit<'a>,
    _counted: OneMore<'a>,
}

impl Start {
    /// Exactly behind a cursor.
    pub fn at(cursor: Cursor) -> Self {
        Self { seq: cursor.seq, cursor, exact: true }
    }

    /// Where its first event lies behind. What a client is told differs where old is what is old by its own
    /// time.
    pub fn place(&self) -> Cursor {
        Cursor { seq: self.seq, ..self.cursor.clone() }
    }
}

/// Why a client cannot begin where it wants to. The text is for the client.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    #[error("events behind this cursor have been deleted; oldest is what is still there")]
    Expired { oldest: Cursor },
    #[error("what has been cannot be read at the moment: {0}")]
    Unavailable(#[from] StoreError),
    #[error("too many look for the place where they begin: try again")]
    Busy,
}

impl Pages {
    /// Finds where a subscription begins.
    ///
    /// # Errors
    /// Nothing begins then.
    pub async fn start(&self, from: Since, wanted: &Wanted) -> Result<Start, ResumeError> {
        let exact = |cursor: Cursor| Ok(Start::at(cursor));
        match from {
            Since::Now => exact(self.log().head()),
            Since::Oldest => {
                let deleted = self.ask_deleted().await?;
                // Old is what is old by its own time: some of what is left may have come before.
                Ok(Start { seq: 0, cursor: self.cursor_at(deleted, Vec::new()), exact: true })
            }
            Since::Cursor(cursor) => self.resume(cursor, wanted).await,
            Since::Block(block) => {
                let query = EventQuery { positions: Some(block..=u64::MAX), ..self.query(wanted) };
                let _place = self.search().await?;
                exact(self.before_first(query, wanted.topic).await?)
            }
            Since::Time(time) => {
                let times = Some(time..=Timestamp(i64::MAX));
                let query = EventQuery { times, ..self.query(wanted) };
                let _place = self.search().await?;
                exact(self.before_first(query, wanted.topic).await?)
            }
            Since::Last(count) => {
                let _place = self.search().await?;
                exact(self.before_last(count, wanted).await?)
            }
        }
    }

    /// Waits for one of the places of those who search.
    async fn search(&self) -> Result<Search<'_>, ResumeError> {
        let counted = self.stats().sessions.searches.one_more();
        let place = timeout(MAX_WAIT, self.searches().acquire()).await;
        let place = place.map_err(|_| ResumeError::Busy)?.expect("the semaphore is never closed");
        Ok(Search { _place: place, _counted: counted })
    }

    async fn resume(&self, mut cursor: Cursor, wanted: &Wanted) -> Result<Start, ResumeError> {
        let Heads { epoch, run, .. } = self.log().heads();
        let committed = match cursor.run == run {
            // It may be ahead of the store, but never of what was given: one that is was not given here.
            true => Some(self.log().state().last_seq).filter(|last| cursor.seq <= *last),
            false => self.earlier(cursor.run).map(|run| run.last_seq),
        };
        let Some(committed) = committed.filter(|_| cursor.epoch == epoch) else {
            let _place = self.search().await?;
            let cursor = self.by_position(cursor, wanted).await?;
            return Ok(Start { seq: cursor.seq, cursor, exact: false });
        };
        // A crash may have lost what lies above, and its numbers were given to other events.
        cursor.seq = cursor.seq.min(committed);
        cursor.run = run;
        if self.log().find(cursor.seq).is_none() {
            let deleted = self.ask_deleted().await?;
            if deleted > cursor.seq {
                let oldest = self.cursor_at(deleted, cursor.positions);
                return Err(ResumeError::Expired { oldest });
            }
        }
        Ok(Start::at(cursor))
    }

    fn earlier(&self, run: u64) -> Option<EarlierRun> {
        let runs = self.earlier_runs();
        runs.binary_search_by_key(&run, |earlier| earlier.id).ok().map(|at| runs[at])
    }

    /// Where another store's cursor stands in this one, by the block that it names for the topic.
    async fn by_position(&self, cursor: Cursor, wanted: &Wanted) -> Result<Cursor, ResumeError> {
        let named = cursor.position(wanted.topic);
        // A cursor that does not know the topic stands before all of it that there is.
        let block = named.map_or(0, |block| block.saturating_sub(OVERLAP));
        let query = EventQuery { positions: Some(block..=u64::MAX), ..self.query(wanted) };
        let place = self.before_first(query, wanted.topic).await?;
        let Some(block) = named else { return Ok(place) };
        // Asked behind the search: what is there now was there then.
        let deleted = self.ask_deleted().await?;
        if deleted > 0 && !self.has_before(block, wanted).await? {
            let oldest = self.cursor_at(deleted, cursor.positions);
            return Err(ResumeError::Expired { oldest });
        }
        Ok(place)
    }

    /// Whether an event of the topic lies below a block: then retention has deleted none from there on.
    /// One that was back-filled tells nothing, as it may have come after its neighbours had gone.
    async fn has_before(&self, block: u64, wanted: &Wanted) -> Result<bool, StoreError> {
        let Some(last) = block.checked_sub(1) else { return Ok(false) };
        let query = EventQuery { positions: Some(0..=last), limit: 1, ..self.query(wanted) };
        let query = EventQuery { in_order: true, descending: true, ..query };
        Ok(!self.store().events(query).await?.is_empty())
    }

    /// The place before the first event of the order of arrival that a query has. The topic alone
    /// decides, as a place is none of a user's.
    ///
    /// The first event that came at or above a block was not late: when it came there was no later one.
    /// So it is the lowest of those that were not late, and in its block the one of the lowest `seq`.
    ///
    /// It names the block before those that are asked for, and not the one before that event: what is missing
    /// between them is missing there.
    async fn before_first(&self, query: EventQuery, topic: Topic) -> Result<Cursor, StoreError> {
        let one = EventQuery { in_order: true, limit: 1, ..query.clone() };
        let first = self.store().events(one.clone()).await?.pop();
        let first = first.map(|first| (first.seq - 1, first.event.id.position));
        // Whatever comes up to it is in memory still: it is not in the store.
        let (seq, block) = match first.or_else(|| self.first_in_log(&query)) {
            Some((seq, block)) => (seq, Some(block)),
            None => (self.log().head().seq, self.log().head().position(topic)),
        };
        let named = match (&query.positions, block) {
            (_, None) => None,
            (Some(asked), Some(block)) => block.min(*asked.start()).checked_sub(1),
            (None, Some(block)) => {
                let positions = Some(0..=block.saturating_sub(1));
                let (times, in_order) = (None, false);
                let last = EventQuery { times, positions, in_order, descending: true, ..one };
                self.store().events(last).await?.pop().map(|last| last.event.id.position)
            }
        };
        Ok(self.cursor_at(seq, named.map(|block| (topic, block)).into_iter().collect()))
    }

    /// The place before the first event of the log that a query has, and its block.
    fn first_in_log(&self, query: &EventQuery) -> Option<(u64, u64)> {
        let mut from = self.log().state().first;
        loop {
            let slice = self.log().read(from, SEARCH_ROWS);
            if slice.segments.is_empty() {
                return None;
            }
            let events = slice.segments.iter().flat_map(|segment| &segment.events);
            let first = events.map(|event| &event.sequenced).find(|row| {
                let Event { id, time, .. } = &row.event;
                query.topics.contains(&id.topic)
                    && query.positions.as_ref().is_none_or(|range| range.contains(&id.position))
                    && query.times.as_ref().is_none_or(|range| range.contains(time))
            });
            if let Some(first) = first {
                return Some((first.seq - 1, first.event.id.position));
            }
            from = slice.next;
        }
    }

    /// The place before the last events that match: those of the log which are not in the store, and
    /// of the store as many as are missing.
    async fn before_last(&self, count: usize, wanted: &Wanted) -> Result<Cursor, StoreError> {
        let head = self.log().head();
        if count == 0 {
            return Ok(head);
        }
        let mut found = Vec::new();
        let mut searched = 0;
        let mut query = EventQuery { descending: true, ..self.query(wanted) };
        if let Users::Listed(users) = &wanted.users {
            query.users = users.iter().copied().collect();
        }
        while found.len() < count && searched < MAX_SEARCHED {
            let rows = self.store().events(query.clone()).await?;
            let Some(last) = rows.last() else { break };
            query.after = Some(PageKey { position: last.event.id.position, seq: last.seq });
            searched += rows.len();
            for mut row in rows.into_iter().filter(|row| !row.is_backfilled()) {
                row.event.keys = self.keys_of(&row.event);
                if wanted.conditions.as_ref().is_none_or(|conditions| conditions.hold(&row.event)) {
                    found.push((row.seq, row.event.id.position));
                }
            }
        }
        // What is in the log and not in the store is newer than all of these.
        found.extend(self.matching_in_log(wanted));
        found.sort_unstable();
        found.dedup();
        let first = found.get(found.len().saturating_sub(count));
        Ok(first.map_or(head, |&(seq, position)| {
            self.cursor_at(seq - 1, vec![(wanted.topic, position.saturating_sub(1))])
        }))
    }

    fn matching_in_log(&self, wanted: &Wanted) -> Vec<(u64, u64)> {
        let state = self.log().state();
        let (mut from, mut found) = (state.committed.max(state.first), Vec::new());
        loop {
            let slice = self.log().read(from, SEARCH_ROWS);
            if slice.segments.is_empty() {
                return found;
            }
            let events = slice.segments.iter().flat_map(|segment| &segment.events);
            let wants =
                events.map(|event| &event.sequenced).filter(|row| wanted.matches(&row.event));
            found.extend(wants.map(|row| (row.seq, row.event.id.position)));
            from = slice.next;
        }
    }

    fn query(&self, wanted: &Wanted) -> EventQuery {
        EventQuery { topics: vec![wanted.topic], limit: SEARCH_ROWS, ..EventQuery::default() }
    }

    fn cursor_at(&self, seq: u64, positions: Vec<(Topic, u64)>) -> Cursor {
        let Heads { epoch, run, .. } = self.log().heads();
        Cursor { epoch, run, seq, positions }
    }
}

impl Start {
    /// Up to which position of a topic a client knows of the gaps that begins here, or asks for none of
    /// them; `None` where it asks for nothing of the past.
    pub fn heard(&self, from: &Since, topic: Topic) -> Option<u64> {
        (*from != Since::Now).then(|| self.cursor.position(topic).unwrap_or(0))
    }
}

impl Wanted {
    fn matches(&self, event: &Event) -> bool {
        let of_user = match &self.users {
            Users::All => true,
            Users::Listed(users) => event.user.is_some_and(|user| users.contains(&user)),
        };
        event.id.topic == self.topic
            && of_user
            && self.conditions.as_ref().is_none_or(|conditions| conditions.hold(event))
    }
}

#[cfg(test)]
mod tests;
