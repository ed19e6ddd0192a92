//! The writer: one connection, one transaction a batch, under the lease of its run.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};

use super::{
    backfill::{self, Reach},
    commit::commit,
    connection::Server,
    fault::Fault,
    insert::Columns,
    lease,
    partitions::{self, Day},
    retention, size, state,
    topics::Topics,
};
use crate::{
    event::{Event, Timestamp, Topic},
    source::StreamCheckpoint,
    store::{
        CommitBatch, Committed, Recovered, Retained, RetentionLimits, Run, StoreError, StoreSize,
        StoreWriter, records,
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
    topics: Topics,
    /// Where back-filled rows may be that a live one replaces.
    reach: Reach,
    /// The highest number of a back-filled row; see [`Self::number_backfilled`].
    last_backfilled: i64,
    /// Latest block time of a commit: partitions are made ahead of it.
    newest: Option<Timestamp>,
    /// Whether a commit is on the server's disk before it counts.
    durable: bool,
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
    pub async fn open(server: Server, durable: bool) -> Result<(Self, Recovered), StoreError> {
        let mut connection = server.connect().await?;
        set_up(&mut connection, durable).await?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let run = connection
            .transaction(async |connection| lease::take(connection, &host, Timestamp::now()).await)
            .await?;
        let recovered = state::recover(&mut connection, run).await?;
        let mut writer = Self {
            server,
            run,
            // It connects anew on the thread that it works on: its socket is driven there.
            connection: None,
            days: partitions::list(&mut connection).await?,
            topics: Topics::default(),
            reach: Reach::load(&mut connection).await?,
            last_backfilled: i64::MIN,
            newest: recovered.newest_time,
            durable,
            closed: false,
        };
        match writer.make_days(&mut connection).await {
            // Somebody is in the way: the timer comes back to it.
            Ok(()) | Err(Fault(StoreError::Unavailable(_))) => Ok((writer, recovered)),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The first of so many numbers for back-filled rows: microseconds, shifted below 0. They only
    /// tell events of one block apart, which are stored together; so that they repeat when the clock
    /// steps back harms nobody.
    fn number_backfilled(&mut self, count: usize) -> i64 {
        let first =
            (Timestamp::now().0 - records::SHIFT).max(self.last_backfilled.saturating_add(1));
        self.last_backfilled = first.saturating_add(count as i64);
        first
    }

    /// Makes what rows of these topics and times need.
    async fn make_places(
        &mut self,
        connection: &mut AsyncPgConnection,
        wanted: impl Iterator<Item = (Topic, Timestamp)>,
    ) -> Result<(), Fault> {
        let (topics, days): (BTreeSet<Topic>, BTreeSet<Day>) =
            wanted.map(|(topic, time)| (topic, Day::of(time))).unzip();
        for day in days {
            if !self.days.contains(&day) {
                partitions::create(connection, day, partitions::ON_DEMAND).await?;
                self.days.insert(day);
            }
        }
        self.topics.learn(connection, self.run, topics).await
    }

    /// Makes the partitions that are needed soon.
    async fn make_days(&mut self, connection: &mut AsyncPgConnection) -> Result<(), Fault> {
        match self.newest {
            Some(newest) => partitions::create_ahead(connection, newest, &mut self.days).await,
            None => Ok(()),
        }
    }

    async fn take_connection(&mut self) -> Result<AsyncPgConnection, StoreError> {
        if self.closed {
            return Err(StoreError::Unusable("the writer is closed".into()));
        }
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.server.connect().await?;
        set_up(&mut connection, self.durable).await?;
        // Somebody may have taken partitions away meanwhile.
        self.days = partitions::list(&mut connection).await?;
        self.topics = Topics::load(&mut connection).await?;
        Ok(connection)
    }
}

async fn set_up(connection: &mut AsyncPgConnection, durable: bool) -> Result<(), Fault> {
    // A server that hangs is as good as away.
    connection.batch_execute("SET statement_timeout = '60s'; SET jit = off").await?;
    if !durable {
        connection.batch_execute("SET synchronous_commit = off").await?;
    }
    Ok(())
}

#[async_trait(?Send)]
impl StoreWriter for PostgresWriter {
    async fn commit(&mut self, batch: CommitBatch<'_>) -> Result<Committed, StoreError> {
        let newest = self.newest.max(batch.newest_time);
        let places = batch.events.iter().map(|event| (event.event.id.topic, event.event.time));
        let committed = with!(self, async |connection, run| {
            self.make_places(connection, places).await?;
            let columns = Columns::of(batch.events, &self.topics);
            match columns {
                Ok(columns) => commit(connection, run, &batch, &columns, &self.reach).await,
                Err(refused) => Err(Fault(refused)),
            }
        })?;
        self.newest = newest;
        Ok(committed)
    }

    async fn backfill(
        &mut self,
        events: &[Event],
        keep: Option<Duration>,
    ) -> Result<Committed, StoreError> {
        let first = self.number_backfilled(events.len());
        // Before it is known whether they are stored: it may only be too wide.
        self.reach.widen(events);
        with!(self, async |connection, run| {
            self.make_places(connection, events.iter().map(|event| (event.id.topic, event.time)))
                .await?;
            let topics = &self.topics;
            connection
                .transaction(async |connection| {
                    backfill::store(connection, run, events, topics, first, keep).await
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

    async fn prepare(&mut self) -> Result<(), StoreError> {
        with!(self, async |connection, _run| self.make_days(connection).await)
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
