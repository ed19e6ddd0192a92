//! The writer: one connection, one transaction a batch, under the lease of its run.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use diesel::sql_types::{BigInt, Nullable};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    backfill::{self, Reach},
    connection::Server,
    fault::Fault,
    insert::Columns,
    lease,
    partitions::{self, Day},
    retention, size, state,
};
use crate::{
    event::{BACKFILLED_SEQ, Event, Timestamp},
    fail_point,
    source::StreamCheckpoint,
    store::{
        CommitBatch, Committed, Recovered, Retained, RetentionLimits, Run, StoreError, StoreSize,
        StoreWriter,
        records::{self, signed},
    },
};

/// The [`StoreWriter`] of PostgreSQL.
pub struct PostgresWriter {
    server: Server,
    run: Run,
    /// `None` after a failure: a connection whose transaction may still be open is not used again.
    connection: Option<AsyncPgConnection>,
    /// Days that have a partition, as far as we know.
    days: BTreeSet<Day>,
    /// Where back-filled rows may be that a live one replaces.
    reach: Reach,
    /// The highest number of a back-filled row; see [`Self::number_backfilled`].
    last_backfilled: i64,
    closed: bool,
}

/// Runs a piece of work on the connection, which is opened again if the last piece failed.
macro_rules! with {
    ($writer:expr, async |$connection:ident, $run:ident| $work:expr) => {{
        let $run = $writer.run;
        let mut opened = $writer.take_connection().await?;
        let $connection = &mut opened;
        let done: Result<_, Fault> = $work;
        match done {
            Ok(done) => {
                $writer.connection = Some(opened);
                Ok(done)
            }
            // Refused content leaves a transaction that was rolled back in good order; after
            // anything else the state of the connection is not known.
            Err(Fault(error @ StoreError::Refused(_))) => {
                $writer.connection = Some(opened);
                Err(error)
            }
            Err(Fault(error)) => Err(error),
        }
    }};
}

impl PostgresWriter {
    /// Takes the lease for a new run.
    pub async fn open(server: Server) -> Result<(Self, Recovered), StoreError> {
        let mut connection = server.connect().await?;
        set_up(&mut connection).await?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let run = connection
            .transaction(async |connection| lease::take(connection, &host, Timestamp::now()).await)
            .await?;
        let recovered = state::recover(&mut connection, run).await?;
        let days = partitions::list(&mut connection).await?;
        // The writer connects anew on the thread that it works on: its socket is driven there.
        let reach = Reach::load(&mut connection).await?;
        let last_backfilled = i64::MIN;
        let writer =
            Self { server, run, connection: None, days, reach, last_backfilled, closed: false };
        Ok((writer, recovered))
    }

    /// The first of so many numbers for back-filled rows: microseconds, shifted below 0. They only
    /// tell events of one block apart, which are stored together; so that they repeat when the clock
    /// steps back harms nobody.
    fn number_backfilled(&mut self, count: usize) -> i64 {
        let first = Timestamp::now().0 + BACKFILLED_SEQ as i64 - records::SHIFT;
        let first = first.max(self.last_backfilled.saturating_add(1));
        self.last_backfilled = first.saturating_add(count as i64);
        first
    }

    async fn make_partitions(
        connection: &mut AsyncPgConnection,
        days: &mut BTreeSet<Day>,
        wanted: BTreeSet<Day>,
    ) -> Result<(), Fault> {
        for day in wanted {
            if !days.contains(&day) {
                partitions::create(connection, day).await?;
                days.insert(day);
            }
        }
        Ok(())
    }

    async fn take_connection(&mut self) -> Result<AsyncPgConnection, StoreError> {
        if self.closed {
            return Err(StoreError::Unusable("the writer is closed".into()));
        }
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.server.connect().await?;
        set_up(&mut connection).await?;
        // Somebody may have taken partitions away meanwhile.
        self.days = partitions::list(&mut connection).await?;
        Ok(connection)
    }
}

async fn set_up(connection: &mut AsyncPgConnection) -> Result<(), Fault> {
    // A server that hangs is as good as away.
    Ok(connection.batch_execute("SET statement_timeout = '60s'; SET jit = off").await?)
}

#[async_trait(?Send)]
impl StoreWriter for PostgresWriter {
    async fn commit(&mut self, batch: CommitBatch<'_>) -> Result<Committed, StoreError> {
        let wanted: BTreeSet<Day> =
            batch.events.iter().map(|event| Day::of(event.event.time)).collect();
        with!(self, async |connection, run| {
            Self::make_partitions(connection, &mut self.days, wanted).await?;
            let reach = &self.reach;
            connection
                .transaction(async |connection| write(connection, run, &batch, reach).await)
                .await
        })
    }

    async fn backfill(
        &mut self,
        events: &[Event],
        keep: Option<Duration>,
    ) -> Result<Committed, StoreError> {
        let wanted: BTreeSet<Day> = events.iter().map(|event| Day::of(event.time)).collect();
        let first = self.number_backfilled(events.len());
        // Before it is known whether they are stored: it may only be too wide.
        self.reach.widen(events);
        with!(self, async |connection, run| {
            Self::make_partitions(connection, &mut self.days, wanted).await?;
            connection
                .transaction(async |connection| {
                    backfill::store(connection, run, events, first, keep).await
                })
                .await
        })
    }

    async fn checkpoints(&mut self) -> Result<Vec<StreamCheckpoint>, StoreError> {
        with!(self, async |connection, run| connection
            .transaction(async |connection| {
                lease::check(connection, run).await?;
                state::load_streams(connection).await
            })
            .await)
    }

    async fn recover(&mut self) -> Result<Recovered, StoreError> {
        with!(self, async |connection, run| state::recover(connection, run).await)
    }

    async fn retain(&mut self, limits: RetentionLimits) -> Result<Retained, StoreError> {
        let (retained, days) =
            with!(self, async |connection, run| retention::retain(connection, run, &limits).await)?;
        self.days = days;
        Ok(retained)
    }

    async fn compact(&mut self) -> Result<(), StoreError> {
        with!(self, async |connection, run| connection
            .transaction(async |connection| {
                lease::check(connection, run).await?;
                state::compact_ranges(connection).await
            })
            .await)
    }

    async fn size(&mut self) -> Result<StoreSize, StoreError> {
        with!(self, async |connection, _run| size(connection).await)
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        with!(self, async |connection, run| lease::set(connection, run, true).await)
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        if self.closed {
            return Ok(());
        }
        let given_back =
            with!(self, async |connection, run| lease::set(connection, run, false).await);
        self.closed = true;
        self.connection = None;
        given_back
    }
}

/// Writes a batch within an open transaction.
async fn write(
    connection: &mut AsyncPgConnection,
    run: Run,
    batch: &CommitBatch<'_>,
    reach: &Reach,
) -> Result<Committed, Fault> {
    let known = lease::check(connection, run).await?;
    let number = signed(batch.number, "commit")?;
    if number <= known.commit_number {
        // It is there: only its answer was lost.
        return Ok(Committed::default());
    }
    let columns = Columns::of(batch.events)?;
    columns.check_repeated(connection, known.last_seq).await?;
    reach.make_way(connection, batch.events).await?;
    let inserted = columns.insert(connection).await?;
    state::save_ranges(connection, batch.seen).await?;
    for gap in batch.gaps_opened {
        state::open_gap(connection, gap).await?;
    }
    for gap in batch.gaps_closed {
        state::close_gap(connection, gap).await?;
    }
    state::save_progress(connection, batch.progress).await?;
    let last_seq = signed(batch.last_seq, "seq")?;
    let newest_time = batch.newest_time.map(|time| time.0).max(known.newest_time);
    let update = format!(
        "UPDATE nodecast.store_state SET commit_number = $1, last_seq = $2, newest_time = $3, \
         leased_until = {}",
        lease::until()
    );
    diesel::sql_query(update)
        .bind::<BigInt, _>(number)
        .bind::<BigInt, _>(columns.last_seq().unwrap_or(0).max(last_seq).max(known.last_seq))
        .bind::<Nullable<BigInt>, _>(newest_time)
        .execute(connection)
        .await?;
    fail_point!("store.in_transaction");
    Ok(Committed { inserted, duplicates: batch.events.len() - inserted })
}
