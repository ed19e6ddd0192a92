//! The writer: one connection, one transaction a batch, under the lease of its run.

use std::{
    fs, io, mem,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use diesel::{connection::SimpleConnection, prelude::*};

use super::{
    backfill,
    connection::{connect, immediate},
    disk,
    fault::Fault,
    insert::insert,
    lease::Lock,
    pending, retention,
    schema::store_state,
    state,
};
use crate::{
    event::{Event, Timestamp},
    fail_point,
    source::StreamCheckpoint,
    store::{
        CommitBatch, Committed, Pending, Recovered, Retained, RetentionLimits, Run, StoreError,
        StoreSize, StoreWriter, backfilled::Numbers, records::signed,
    },
};

/// The [`StoreWriter`] of SQLite. Its calls block, so it lives on a thread of its own.
pub struct SqliteWriter {
    path: PathBuf,
    /// The file that the path meant when it was opened. SQLite writes on into a file that was
    /// deleted, and everything would seem well until the next start.
    file: FileId,
    durable: bool,
    run: Run,
    /// `None` after a failure: a connection whose transaction may still be open is not used again.
    connection: Option<SqliteConnection>,
    /// `None` once closed.
    lock: Option<Lock>,
    /// Of back-filled rows.
    numbers: Numbers,
}

impl SqliteWriter {
    /// Takes the lease for a new run.
    pub fn open(path: PathBuf, durable: bool) -> Result<(Self, Recovered), StoreError> {
        let lock = Lock::take(&path)?;
        let mut connection = connect(&path, durable)?;
        let file = FileId::of(&path).map_err(|error| gone(&path, &error.to_string()))?;
        let run = state::start_run(&mut connection, Timestamp::now())?;
        let recovered = state::recover(&mut connection, run)?;
        let (connection, lock, numbers) = (Some(connection), Some(lock), Numbers::default());
        let writer = Self { path, file, durable, run, connection, lock, numbers };
        Ok((writer, recovered))
    }

    /// Makes this connection's next growth fail as a full disk would.
    #[cfg(test)]
    pub fn limit_pages(&mut self, pages: u32) {
        let connection = self.connection.as_mut().expect("it was just opened");
        diesel::sql_query(format!("PRAGMA max_page_count = {pages}")).execute(connection).unwrap();
    }

    /// Runs one piece of work on the connection, which is opened again if the last piece failed.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut SqliteConnection, Run) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        if self.lock.is_none() {
            return Err(StoreError::Unusable("the writer is closed".into()));
        }
        match FileId::of(&self.path) {
            Ok(file) if file == self.file => {}
            Ok(_) => return Err(gone(&self.path, "another file is in its place")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(gone(&self.path, "it was deleted"));
            }
            Err(error) => return Err(StoreError::Unavailable(error.to_string())),
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.path, self.durable)?,
        };
        match work(&mut connection, self.run) {
            Ok(done) => {
                self.connection = Some(connection);
                Ok(done)
            }
            // Refused content leaves a transaction that was rolled back in good order; after
            // anything else the state of the connection is not known.
            Err(Fault(error @ StoreError::Refused(_))) => {
                self.connection = Some(connection);
                Err(error)
            }
            Err(Fault(error)) => Err(error),
        }
    }
}

#[async_trait(?Send)]
impl StoreWriter for SqliteWriter {
    async fn commit(&mut self, batch: CommitBatch<'_>) -> Result<Committed, StoreError> {
        self.with(|connection, run| {
            immediate(connection, |connection| commit(connection, run, &batch))
        })
    }

    async fn backfill(
        &mut self,
        events: &[Event],
        keep: Option<Duration>,
    ) -> Result<Committed, StoreError> {
        // Taken out for the time of the call, for the borrow.
        let mut numbers = mem::take(&mut self.numbers);
        let done = self.with(|connection, run| {
            immediate(connection, |connection| {
                backfill::store(connection, run, events, &mut numbers, keep)
            })
        });
        self.numbers = numbers;
        done
    }

    async fn pending(&mut self) -> Result<Pending, StoreError> {
        self.with(|connection, run| {
            immediate(connection, |connection| pending::load(connection, run))
        })
    }

    async fn save_pending(&mut self, pending: &Pending) -> Result<(), StoreError> {
        self.with(|connection, run| {
            immediate(connection, |connection| pending::save(connection, run, pending))
        })
    }

    async fn checkpoints(&mut self) -> Result<Vec<StreamCheckpoint>, StoreError> {
        self.with(|connection, run| {
            immediate(connection, |connection| {
                state::check_lease(connection, run)?;
                state::load_streams(connection)
            })
        })
    }

    async fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.with(state::recover)
    }

    async fn retain(&mut self, limits: RetentionLimits) -> Result<Retained, StoreError> {
        let path = self.path.clone();
        self.with(|connection, run| retention::retain(connection, run, &path, &limits))
    }

    async fn compact(&mut self) -> Result<(), StoreError> {
        self.with(|connection, run| {
            immediate(connection, |connection| {
                state::check_lease(connection, run)?;
                state::compact_ranges(connection)
            })
        })
    }

    async fn size(&mut self) -> Result<StoreSize, StoreError> {
        let path = self.path.clone();
        self.with(|connection, _| disk::size(connection, &path))
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        if let Some(mut connection) = self.connection.take() {
            // Then the file alone is the whole database. Who holds it, or a full disk, can keep the
            // rest in the log: it is as good there, and not worth waiting for.
            connection
                .batch_execute("PRAGMA busy_timeout = 100; PRAGMA wal_checkpoint(TRUNCATE)")
                .unwrap_or_default();
        }
        self.lock = None;
        Ok(())
    }
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}

fn gone(path: &Path, what: &str) -> StoreError {
    StoreError::Unusable(format!("the database {} is gone: {what}", path.display()))
}

/// Writes a batch within an open transaction.
fn commit(
    connection: &mut SqliteConnection,
    run: Run,
    batch: &CommitBatch<'_>,
) -> Result<Committed, Fault> {
    let known = state::check_lease(connection, run)?;
    let number = signed(batch.number, "commit")?;
    if number <= known.commit_number {
        // It is there: only its answer was lost.
        return Ok(Committed::default());
    }
    let mut committed = Committed::default();
    for event in batch.events {
        let inserted = insert(connection, event)?;
        committed.inserted += inserted;
        committed.duplicates += 1 - inserted;
    }
    for range in batch.seen {
        state::save_range(connection, range)?;
    }
    for gap in batch.gaps_opened {
        state::open_gap(connection, gap)?;
    }
    for gap in batch.gaps_closed {
        state::close_gap(connection, gap)?;
    }
    state::save_progress(connection, batch.progress)?;
    let newest_time = batch.newest_time.map(|time| time.0).max(known.newest_time);
    diesel::update(store_state::table)
        .set((
            store_state::commit_number.eq(number),
            store_state::last_seq.eq(signed(batch.last_seq, "seq")?.max(known.last_seq)),
            store_state::newest_time.eq(newest_time),
        ))
        .execute(connection)?;
    fail_point!("store.in_transaction");
    Ok(committed)
}
