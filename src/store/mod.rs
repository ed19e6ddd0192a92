//! The store: each event once, with the ledger and the checkpoints that belong to it.
//!
//! Place in the pipeline: `DbWriter` commits what it reads from the log; sessions and HTTP read.
//! Invariants: rows, ledger and checkpoints of a batch are one transaction under the lease of one
//! writer; the identity of an event is a unique key.
//!
//! Back-filled events have negative numbers in the column `seq`: they are in history and outside the
//! order of arrival, so a resume (`seq` above a cursor's) never meets them, the end of the table stays
//! with the live ones, and neither needs a column of its own. A live event of the same identity takes
//! the place of a back-filled one: what was cast can be resumed.
//!
//! The kind of an event within its topic ([`Event::kind`]) is a column of its own: the fundings of a user are
//! found by an index, however many fills or ledger updates there are.
//!
//! What is still to be back-filled by list is here as well ([`Pending`]), so that whoever writes next does
//! it, on whichever machine.

mod backfilled;
pub mod backup;
mod committer;
#[cfg(test)]
mod contract;
mod holder;
pub mod inspect;
mod kept;
mod pending;
pub mod postgres;
mod prune;
mod ranges;
mod records;
pub mod sqlite;
mod writer;

use std::{collections::HashSet, fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::postgres::LEASE;
pub use self::{
    backfilled::{Backfilled, Setting, store_backfilled},
    kept::KeptDay,
    pending::{Pending, PendingJob},
    prune::{Deleted, OTHER_STORE, PRUNE, Prune, PruneCommand, PruneOrder, Pruned},
    writer::{
        ANSWER_WITHIN, AttachReader, Backfill, DbWriter, Flush, GetCheckpoints, GetPending, Hurry,
        NewGeneration, Reconfigure, SavePending, Shared, StoreFault, Stored,
    },
};
use self::{holder::Holder, postgres::PostgresStore, sqlite::SqliteStore};
use crate::{
    config::{StoreConfig, sqlite_path},
    event::{Address, Event, EventId, SequencedEvent, Timestamp, Topic},
    router::ledger::{BlockRange, Gap},
    source::{Progress, StreamCheckpoint},
};

/// Why the store did not do what it was asked for, sorted by what we then do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Locked, full, away: the same call is tried again with growing delay.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Another writer holds the lease: this daemon must stop writing at once.
    #[error("another nodecast writes to this store: {0}")]
    LeaseLost(String),
    /// A read was broken off after this time: a narrower one may be answered.
    #[error("the answer was not found within {0:?}")]
    TooSlow(Duration),
    /// The server refuses this content and always will: bisected down to the row, which goes to
    /// quarantine.
    #[error("the store refuses the content: {0}")]
    Refused(String),
    /// The outcome is not known or not understood: the batch counts as lost, the pipeline starts a
    /// new generation from the checkpoints.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The store does not hold what we expect of it, or is not ours; the daemon stops.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
    /// The server does not let us in or to our tables, or they are not there: a wrong password, a
    /// database of another name, a right that is missing. A start ends with it. In a store that was
    /// open before, it is an outage as any other: a password is changed, a backup is being restored.
    #[error("the store cannot be used: {0}")]
    Denied(String),
}

impl StoreError {
    /// What it means for a store that was open before.
    pub fn once_open(self) -> Self {
        match self {
            Self::Denied(text) => Self::Unavailable(text),
            other => other,
        }
    }
}

/// The pool of connections for history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadConnections {
    /// To reads that are under way.
    pub lent: u32,
    /// `store.read_connections`, as the pool was made.
    pub limit: u32,
}

/// Who writes: one per start of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Start of the daemon, microseconds since 1970, made larger than every earlier run's by the
    /// store.
    pub id: u64,
    /// The store, drawn once when it was created.
    pub epoch: u64,
}

/// What a daemon needs to go on where the last one stopped.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub run: Run,
    /// Highest `seq` ever committed, deleted ones included.
    pub last_seq: u64,
    /// Highest position of each topic that has events or blocks.
    pub heads: Vec<(Topic, u64)>,
    pub streams: Vec<StreamCheckpoint>,
    /// Latest event or block time ever committed.
    pub newest_time: Option<Timestamp>,
    /// Unordered.
    pub seen: Vec<BlockRange>,
    /// Those that are still open.
    pub gaps: Vec<Gap>,
    /// The runs before this one, oldest first.
    pub earlier_runs: Vec<EarlierRun>,
}

/// A run that has ended. The next one may have given the numbers behind `last_seq` anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlierRun {
    pub id: u64,
    /// Highest `seq` that it committed.
    pub last_seq: u64,
}

/// Most earlier runs that are remembered: of a cursor that is older only the positions count.
const RUNS_KEPT: i64 = 10_000;

/// One transaction: some segments of the log.
#[derive(Clone, Copy)]
pub struct CommitBatch<'a> {
    /// Number of this commit in this run, from 1: a commit whose answer was lost is looked up by
    /// it and not repeated.
    pub number: u64,
    pub events: &'a [&'a SequencedEvent],
    pub seen: &'a [&'a BlockRange],
    pub gaps_opened: &'a [&'a Gap],
    pub gaps_closed: &'a [&'a Gap],
    /// In order: later ones replace earlier ones of the same file or stream.
    pub progress: &'a [&'a Progress],
    /// Highest `seq` given so far, also when its event was dropped.
    pub last_seq: u64,
    /// Latest block time seen so far.
    pub newest_time: Option<Timestamp>,
}

impl fmt::Debug for CommitBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommitBatch({}, {} events)", self.number, self.events.len())
    }
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    pub inserted: usize,
    /// Were there already: the unique key held.
    pub duplicates: usize,
}

/// Which events history is asked for. All conditions hold together; an empty list is no condition.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    pub topics: Vec<Topic>,
    pub users: Vec<Address>,
    /// The events' [kind](Event::kind) within their topic. With `users` such rows are found by an index;
    /// without them all of a topic are looked through.
    pub kind: Option<&'static str>,
    /// Value of the key `coin`.
    pub coin: Option<String>,
    /// Inclusive.
    pub positions: Option<RangeInclusive<u64>>,
    /// Event time, inclusive.
    pub times: Option<RangeInclusive<Timestamp>>,
    /// Neither late nor back-filled ones: those that came at the end of their topic.
    pub in_order: bool,
    /// Newest position first.
    pub descending: bool,
    /// Continue behind this place, in the direction of the order.
    pub after: Option<PageKey>,
    pub limit: usize,
    /// Skip this many rows: for the numbered pages of the older protocol only.
    pub offset: usize,
}

/// Place of a row in the order of history: by position, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageKey {
    pub position: u64,
    pub seq: u64,
}

/// What follows a place in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// Ascending by `seq`; as many as were asked for, if there are.
    pub events: Vec<SequencedEvent>,
    /// Highest `seq` that retention has deleted, seen after the events were: who asks for what lies
    /// below it may miss some.
    pub deleted_seq: Option<u64>,
}

/// What retention may keep.
#[derive(Clone, Copy, Debug)]
pub struct RetentionLimits {
    /// A block may be dated a day ahead of it; what is young is judged by the earlier of the two.
    pub now: Timestamp,
    /// Events older than this go.
    pub edge: Timestamp,
    /// Size on disk above which the oldest go before their time; `None`: no limit.
    pub max_bytes: Option<u64>,
    /// Free bytes that must stay on the file system.
    pub min_free_bytes: u64,
    /// Rows to delete in one portion, so that commits come between.
    pub portion: usize,
}

/// What one portion of retention did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    pub deleted: usize,
    /// More is due: call again after the commits that wait.
    pub more: bool,
    /// The disk, not the age, decided: the store keeps less than it was asked to.
    pub shortened: bool,
    /// The disk demands more than may be deleted for it: what is left is too young to go.
    pub exhausted: bool,
}

/// Extent of the store, for status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// What the stored rows take; space that waits to be used again does not count.
    pub bytes: u64,
    /// Of the file system that the store is on; `None` when that cannot be seen from here.
    pub free_disk_bytes: Option<u64>,
    /// The lowest of the order of arrival, where that needs no search.
    pub oldest_seq: Option<u64>,
    pub oldest_time: Option<Timestamp>,
    /// Highest `seq` that retention has deleted: a cursor before it has expired.
    pub deleted_seq: Option<u64>,
}

/// Opens the store that a URL names: `sqlite:PATH` or `postgres://..`.
///
/// # Errors
/// [`StoreError::Unusable`] for a scheme that is not known, among others; nothing is created then.
pub async fn open(url: &str, config: &StoreConfig) -> Result<Arc<dyn EventStore>, StoreError> {
    // Only the scheme is repeated: what is behind it may hold a password.
    let accepted = "accepted are sqlite:PATH and postgres://HOST/DATABASE";
    match url.split_once(':') {
        Some(("sqlite", _)) => match sqlite_path(url) {
            Some(path) => Ok(Arc::new(SqliteStore::open(path, config)?)),
            None => {
                Err(StoreError::Unusable(format!("the database URL names no file; {accepted}")))
            }
        },
        Some(("postgres" | "postgresql", _)) => {
            Ok(Arc::new(PostgresStore::open(url, config).await?))
        }
        Some((scheme, _)) => Err(StoreError::Unusable(format!(
            "database URLs of the scheme `{scheme}` are not known; {accepted}"
        ))),
        None => Err(StoreError::Unusable(format!("the database URL has no scheme; {accepted}"))),
    }
}

/// How the writer's lease stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody had it, it was given back, or its holder is known to be dead.
    Free,
    /// With the reason why it cannot be taken.
    Held(String),
    /// This holder has not renewed it in time: it is dead, hangs, or could not reach the store.
    Ended(Holder),
}

/// Looks at the lease of the store that a URL names, and takes nothing. An embedded store's is a lock,
/// which is free or not when it is taken.
///
/// # Errors
/// [`StoreError::Unavailable`] also when the answer takes half as long as a lease.
pub async fn look_at_lease(url: &str) -> Result<Standing, StoreError> {
    match sqlite_path(url) {
        Some(_) => Ok(Standing::Free),
        None => postgres::look_at_lease(url).await,
    }
}

/// What is said of a lease that is in the way of a migration.
fn to_be_migrated(error: StoreError) -> StoreError {
    match error {
        StoreError::LeaseLost(holder) => StoreError::LeaseLost(format!(
            "{holder}; the tables lack what this program needs, and are changed when it has ended"
        )),
        other => other,
    }
}

/// A database of events. Reads go through it from any thread.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// A name for logs and status, without secrets.
    fn describe(&self) -> String;

    /// What an operator should know of how it was opened.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Tells how many connections are lent to history reads now, and how many there may be.
    fn read_connections(&self) -> ReadConnections;

    /// Takes the writer's lease and reads what a start needs.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another living daemon holds the lease.
    async fn open_writer(&self) -> Result<(Box<dyn StoreWriter>, Recovered), StoreError>;

    /// Reads one page of history.
    async fn events(&self, query: EventQuery) -> Result<Vec<SequencedEvent>, StoreError>;

    /// Reads what follows a `seq` in the order of arrival, at most so many events. Back-filled ones
    /// are not in it.
    async fn arrivals(&self, after: u64, limit: usize) -> Result<Arrivals, StoreError>;

    /// Tells which of these are stored.
    async fn stored(&self, ids: Vec<EventId>) -> Result<HashSet<EventId>, StoreError>;

    /// Tells how much is stored and since when.
    async fn size(&self) -> Result<StoreSize, StoreError>;
}

/// The one writer of a store. It is owned by `DbWriter` and lives on its thread.
///
/// # Cancel safety
/// Its futures are always polled to the end.
#[async_trait(?Send)]
pub trait StoreWriter: Send {
    /// Writes all of the batch in one transaction, or nothing.
    async fn commit(&mut self, batch: CommitBatch<'_>) -> Result<Committed, StoreError>;

    /// Stores events outside the order of arrival, in one transaction: those that are there already,
    /// live or back-filled, stay as they are. With `keep` the days that they fall on are kept for
    /// that long.
    async fn backfill(
        &mut self,
        events: &[Event],
        keep: Option<Duration>,
    ) -> Result<Committed, StoreError>;

    /// Reads what is to be back-filled by list, and for which list.
    async fn pending(&mut self) -> Result<Pending, StoreError>;

    /// Replaces that as a whole, in one transaction.
    async fn save_pending(&mut self, pending: &Pending) -> Result<(), StoreError>;

    /// Reads how far each stream is in the store.
    async fn checkpoints(&mut self) -> Result<Vec<StreamCheckpoint>, StoreError>;

    /// Reads the state of the last commit again, for a new generation of the pipeline.
    async fn recover(&mut self) -> Result<Recovered, StoreError>;

    /// Deletes one portion of what is due.
    async fn retain(&mut self, limits: RetentionLimits) -> Result<Retained, StoreError>;

    /// Makes room ahead of the events, where that is needed; called every minute between commits.
    async fn prepare(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Merges what a long run has scattered; called now and then between commits.
    async fn compact(&mut self) -> Result<(), StoreError>;

    /// Tells how much is stored, for the budget of the disk.
    async fn size(&mut self) -> Result<StoreSize, StoreError>;

    /// Keeps the lease while there is nothing to commit; called every few seconds.
    async fn renew(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Gives the lease back and flushes, as part of stopping.
    async fn close(&mut self) -> Result<(), StoreError>;
}
