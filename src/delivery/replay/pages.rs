//! Pages of the order of arrival, read from the store once for all who need them.
//!
//! Place in the pipeline: between `EventStore` and the sessions that are behind, of every worker.
//! Invariants: a page is whole, so that nothing lies between its ends that is not in it; pages in
//! memory are bounded in bytes; few reads are under way at one time, and none for what another one
//! has brought meanwhile.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Semaphore;

use super::start::SEARCHES;
use crate::{
    delivery::dialect::puts_together,
    event::{Event, Keys, SequencedEvent, Topic},
    router::log::{Heads, Log, LogEvent},
    stats::Stats,
    store::{Arrivals, EarlierRun, EventStore, StoreError},
};

/// Events of one page: about a megabyte at real sizes.
const PAGE_EVENTS: usize = 512;

/// Of one that would end between events that are shown as one, at most: no real block has as many fills.
const MAX_PAGE_EVENTS: usize = 16 * PAGE_EVENTS;

/// Most bytes of pages that are kept for others; those that a session reads from stay until it has.
const MAX_BYTES: usize = 32 << 20;

/// Reads of the store at one time, so that history keeps connections for itself.
const READS: usize = 2;

/// Reads the keys of a body that came from the store, which keeps none.
pub type KeysOf = fn(Topic, &[u8]) -> Keys;

/// A stretch of the order of arrival: everything of the store above `after`, up to `through`.
pub struct Page {
    pub after: u64,
    pub through: u64,
    pub events: Vec<LogEvent>,
    /// Highest `seq` that had been deleted when it was read: what lies below may be missing.
    pub deleted_seq: Option<u64>,
    cost_bytes: usize,
}

/// The store as those see it who are behind.
pub struct Pages {
    store: Arc<dyn EventStore>,
    log: Arc<Log>,
    keys: KeysOf,
    /// Oldest first.
    earlier_runs: Vec<EarlierRun>,
    stats: Arc<Stats>,
    reads: Semaphore,
    searches: Semaphore,
    /// Highest `seq` that retention has deleted, as far as it was seen here.
    deleted_seq: AtomicU64,
    shelf: Mutex<Shelf>,
}

/// The pages in memory.
#[derive(Default)]
struct Shelf {
    /// By what they follow, with the moment of their last use.
    pages: BTreeMap<u64, (Arc<Page>, u64)>,
    bytes: usize,
    uses: u64,
}

impl Pages {
    pub fn new(
        store: Arc<dyn EventStore>,
        log: Arc<Log>,
        keys: KeysOf,
        earlier_runs: Vec<EarlierRun>,
        stats: Arc<Stats>,
    ) -> Self {
        let (reads, searches) = (Semaphore::new(READS), Semaphore::new(SEARCHES));
        let shelf = Mutex::default();
        let deleted_seq = AtomicU64::new(0);
        Self { store, log, keys, earlier_runs, stats, reads, searches, deleted_seq, shelf }
    }

    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.store
    }

    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The places of those who look for where they begin.
    pub fn searches(&self) -> &Semaphore {
        &self.searches
    }

    pub fn earlier_runs(&self) -> &[EarlierRun] {
        &self.earlier_runs
    }

    pub fn keys_of(&self, event: &Event) -> Keys {
        (self.keys)(event.id.topic, &event.body)
    }

    /// Most bytes that are kept, for metrics.
    pub fn max_bytes() -> usize {
        MAX_BYTES
    }

    /// Highest `seq` that retention has deleted, as far as it was seen here.
    pub fn deleted_seq(&self) -> u64 {
        self.deleted_seq.load(Ordering::Relaxed)
    }

    /// Asks the store how far retention has deleted.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn ask_deleted(&self) -> Result<u64, StoreError> {
        let _place = self.reads.acquire().await.expect("the semaphore is never closed");
        // Nothing is above it: only what comes with the answer is wanted.
        let arrivals = self.store.arrivals(u64::MAX, 1).await?;
        Ok(self.note_deleted(arrivals.deleted_seq))
    }

    /// Forgets pages of which something may be deleted by now.
    fn note_deleted(&self, deleted: Option<u64>) -> u64 {
        let deleted = deleted.unwrap_or(0);
        if self.deleted_seq.fetch_max(deleted, Ordering::Relaxed) < deleted {
            self.shelf().forget_before(deleted);
        }
        deleted
    }

    /// Gives a page with what follows `after`, if one is in memory.
    pub fn shelved(&self, after: u64) -> Option<Arc<Page>> {
        self.shelf().find(after)
    }

    /// Gives a page with what follows `after`. It goes beyond it wherever the log does not hold all
    /// that follows.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn page(&self, after: u64) -> Result<Arc<Page>, StoreError> {
        if let Some(page) = self.shelved(after) {
            return Ok(page);
        }
        let _place = self.reads.acquire().await.expect("the semaphore is never closed");
        // Whoever had the place before may have read it.
        if let Some(page) = self.shelved(after) {
            return Ok(page);
        }
        // Asked for before the read, which sees at least what is committed now. What has left the log is
        // stored, or was given up and comes with other numbers.
        let state = self.log.state();
        let known = state.committed_seq.max(state.left_seq);
        let (mut arrivals, mut is_full) = self.arrivals(after).await?;
        self.note_deleted(arrivals.deleted_seq);
        // What is committed meanwhile may be there in part.
        let count = arrivals.events.partition_point(|row| row.seq <= known);
        is_full &= count == arrivals.events.len();
        arrivals.events.truncate(count);
        let last = arrivals.events.last().map_or(after, |last| last.seq);
        let through = if is_full { last } else { known.max(after) };
        let page = Arc::new(Page::new(after, through, arrivals, &self.log.heads(), self.keys));
        self.stats.sessions.replay_pages.add(1);
        let bytes = self.shelf().put(page.clone());
        self.stats.sessions.replay_bytes.set(bytes as i64);
        Ok(page)
    }

    /// What follows `after`, and whether there may be more. Events that are shown as one are not cut, where a page
    /// can hold them.
    async fn arrivals(&self, after: u64) -> Result<(Arrivals, bool), StoreError> {
        let mut most = PAGE_EVENTS;
        loop {
            let mut arrivals = self.store.arrivals(after, most).await?;
            let is_full = arrivals.events.len() >= most;
            if !is_full || end_with_whole(&mut arrivals.events) || most >= MAX_PAGE_EVENTS {
                return Ok((arrivals, is_full));
            }
            most *= 4;
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Every change is complete before a panic could happen.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves those out at the end that more may follow to which they belong. Gives whether anything is left; else
/// nothing has changed.
fn end_with_whole(events: &mut Vec<SequencedEvent>) -> bool {
    if !events.last().is_some_and(|last| puts_together(last.event.id.topic)) {
        return true;
    }
    let end = events.windows(2).rposition(|pair| !pair[0].is_continued_by(&pair[1]));
    end.inspect(|end| events.truncate(end + 1)).is_some()
}

impl Page {
    fn new(after: u64, through: u64, arrivals: Arrivals, log: &Heads, keys: KeysOf) -> Self {
        let mut positions: Vec<(Topic, u64)> = Vec::new();
        // How far topics had come before is only known of those in it, and only roughly: another store
        // may resume too early by it, never too late.
        for row in arrivals.events.iter().filter(|row| !row.late) {
            let id = &row.event.id;
            if !positions.iter().any(|(topic, _)| *topic == id.topic) {
                positions.push((id.topic, id.position.saturating_sub(1)));
            }
        }
        let mut heads = Arc::new(Heads { epoch: log.epoch, run: log.run, positions });
        let mut events = Vec::with_capacity(arrivals.events.len());
        let mut cost_bytes = size_of::<Self>();
        for mut row in arrivals.events {
            let id = row.event.id;
            row.event.keys = keys(id.topic, &row.event.body);
            cost_bytes += row.event.cost_bytes();
            let late = row.late;
            events.push(LogEvent::new(row, heads.clone()));
            let head = heads.positions.iter().find(|(topic, _)| *topic == id.topic);
            if !late && head.is_some_and(|(_, position)| *position < id.position) {
                let heads = Arc::make_mut(&mut heads);
                for (topic, position) in &mut heads.positions {
                    if *topic == id.topic {
                        *position = id.position;
                    }
                }
            }
        }
        let deleted_seq = arrivals.deleted_seq;
        Self { after, through, events, deleted_seq, cost_bytes }
    }

    /// How many of its events are at or below a `seq`.
    pub fn count_through(&self, seq: u64) -> usize {
        self.events.partition_point(|event| event.sequenced.seq <= seq)
    }
}

impl Shelf {
    fn find(&mut self, after: u64) -> Option<Arc<Page>> {
        self.uses += 1;
        let (_, (page, used)) = self.pages.range_mut(..=after).next_back()?;
        if page.through <= after {
            return None;
        }
        *used = self.uses;
        Some(page.clone())
    }

    fn forget_before(&mut self, seq: u64) {
        self.pages.retain(|after, _| *after >= seq);
        self.bytes = self.pages.values().map(|(page, _)| page.cost_bytes).sum();
    }

    /// Keeps a page, and drops those that were not used for longest. Gives the bytes of all.
    fn put(&mut self, page: Arc<Page>) -> usize {
        self.uses += 1;
        self.bytes += page.cost_bytes;
        if let Some((old, _)) = self.pages.insert(page.after, (page, self.uses)) {
            self.bytes -= old.cost_bytes;
        }
        while self.bytes > MAX_BYTES && self.pages.len() > 1 {
            let oldest = self.pages.iter().min_by_key(|(_, (_, used))| *used);
            let Some(after) = oldest.map(|(after, _)| *after) else { break };
            if let Some((gone, _)) = self.pages.remove(&after) {
                self.bytes -= gone.cost_bytes;
            }
        }
        self.bytes
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({}..={}, {} events)", self.after, self.through, self.events.len())
    }
}

#[cfg(test)]
mod tests;
