//! The writer: one connection, one transaction a batch, under the lease of its run.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use diesel_async::{AsyncConnection, AsyncPgConnection};

use super::{
    arrivals::{self, Unsummarized},
    backfill::{self, Reach},
    commit::{Held, commit},
    fault::Fault,
    insert::Columns,
    lease,
    link::{Link, Opened},
    partitions::{self, Day},
    pending, retention, size, state,
};
use crate::{
    event::{Event, Timestamp},
    source::StreamCheckpoint,
    store::{
        CommitBatch, Committed, Pending, Recovered, Retained, RetentionLimits, Run, StoreError,
        StoreSize, StoreWriter, backfilled::Numbers,
    },
};

/// The [`StoreWriter`] of PostgreSQL.
pub struct PostgresWriter {
    link: Link,
    run: Run,
    /// Number of the last commit that is known to be done, since the state was last read.
    committed: u64,
    /// Where back-filled rows may be that a live one replaces.
    reach: Reach,
    unsummarized: Unsummarized,
    /// Of back-filled rows. That they repeat when the clock steps back between two runs harms nobody.
    numbers: Numbers,
    /// Latest block time of a commit: partitions are made ahead of it.
    newest: Option<Timestamp>,
    closed: bool,
}

impl PostgresWriter {
    /// Takes the lease for a new run.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] while another daemon holds it.
    pub async fn open(mut link: Link) -> Result<(Self, Recovered), StoreError> {
        let (run, recovered, reach, days) = link
            .run(async |Opened { connection, topics, days }| {
                let run = lease::take(connection, Timestamp::now()).await?;
                let recovered = state::recover(connection, run).await?;
                match make_days(connection, recovered.newest_time, days).await {
                    // Somebody is in the way: the timer comes back to it.
                    Ok(()) | Err(Fault(StoreError::Unavailable(_))) => {}
                    Err(fault) => return Err(fault),
                }
                Ok((run, recovered, Reach::load(connection, topics).await?, days.clone()))
            })
            .await?;
        // The writer connects anew on the thread that it works on: its socket is driven there.
        link.close();
        let writer = Self {
            link,
            run,
            committed: 0,
            reach,
            unsummarized: Unsummarized::all(days),
            numbers: Numbers::default(),
            newest: recovered.newest_time,
            closed: false,
        };
        Ok((writer, recovered))
    }

    /// Runs a piece of work on the connection, which is opened again if the last piece failed.
    async fn with<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Opened, Run) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let Self { link, run, .. } = self.opened()?;
        link.run(async |opened| work(opened, *run).await).await.map_err(StoreError::once_open)
    }

    fn opened(&mut self) -> Result<&mut Self, StoreError> {
        match self.closed {
            false => Ok(self),
            true => Err(StoreError::Unusable("the writer is closed".into())),
        }
    }
}

/// Makes what rows of these days and topics need before they can be written.
async fn make_room(
    Opened { connection, days, topics }: &mut Opened,
    run: Run,
    events: impl Iterator<Item = &Event> + Clone,
) -> Result<(), Fault> {
    let wanted: BTreeSet<Day> = events.clone().map(|event| Day::of(event.time)).collect();
    for day in wanted {
        if !days.contains(&day) {
            partitions::create(connection, day, partitions::ON_DEMAND).await?;
            days.insert(day);
        }
    }
    topics.learn(connection, run, events.map(|event| event.id.topic).collect()).await
}

/// Makes the partitions that are needed soon.
async fn make_days(
    connection: &mut AsyncPgConnection,
    newest: Option<Timestamp>,
    days: &mut BTreeSet<Day>,
) -> Result<(), Fault> {
    match newest {
        Some(newest) => partitions::create_ahead(connection, newest, days).await,
        None => Ok(()),
    }
}

#[async_trait(?Send)]
impl StoreWriter for PostgresWriter {
    async fn commit(&mut self, batch: CommitBatch<'_>) -> Result<Committed, StoreError> {
        let Self { link, run, reach, unsummarized, newest, committed: done_before, .. } =
            self.opened()?;
        let committed = link.run(async |opened| {
            if unsummarized.is_due() {
                arrivals::summarize(&mut opened.connection, unsummarized).await?;
            }
            make_room(opened, *run, batch.events.iter().map(|event| &event.event)).await?;
            let columns = Columns::of(batch.events, &opened.topics)?;
            let held = Held { run: *run, committed: *done_before };
            commit(&mut opened.connection, held, &batch, &columns, reach).await
        });
        let committed = committed.await.map_err(StoreError::once_open)?;
        *done_before = batch.number;
        *newest = (*newest).max(batch.newest_time);
        let days = batch.events.iter().map(|event| Day::of(event.event.time));
        unsummarized.add(committed.inserted, days);
        Ok(committed)
    }

    async fn backfill(
        &mut self,
        events: &[Event],
        keep: Option<Duration>,
    ) -> Result<Committed, StoreError> {
        let first = self.numbers.take(events.len());
        // Before it is known whether they are stored: it may only be too wide.
        self.reach.widen(events);
        self.with(async |opened, run| {
            make_room(opened, run, events.iter()).await?;
            let columns = Columns::backfilled(events, first, &opened.topics)?;
            backfill::store(&mut opened.connection, run, events, &columns, keep).await
        })
        .await
    }

    async fn pending(&mut self) -> Result<Pending, StoreError> {
        self.with(async |opened, run| pending::load(&mut opened.connection, run).await).await
    }

    async fn save_pending(&mut self, pending: &Pending) -> Result<(), StoreError> {
        self.with(async |opened, run| pending::save(&mut opened.connection, run, pending).await)
            .await
    }

    async fn checkpoints(&mut self) -> Result<Vec<StreamCheckpoint>, StoreError> {
        self.with(async |opened, run| {
            let reading = opened.connection.transaction(async |connection| {
                lease::check(connection, run).await?;
                state::load_streams(connection).await
            });
            reading.await
        })
        .await
    }

    async fn recover(&mut self) -> Result<Recovered, StoreError> {
        let recovered = self
            .with(async |opened, run| state::recover(&mut opened.connection, run).await)
            .await?;
        // Also where the store has gone back: from here it goes on.
        self.committed = 0;
        Ok(recovered)
    }

    async fn retain(&mut self, limits: RetentionLimits) -> Result<Retained, StoreError> {
        self.with(async |Opened { connection, days, .. }, run| {
            let retained;
            (retained, *days) = retention::retain(connection, run, &limits).await?;
            Ok(retained)
        })
        .await
    }

    async fn prepare(&mut self) -> Result<(), StoreError> {
        let newest = self.newest;
        self.with(async |Opened { connection, days, .. }, _| {
            make_days(connection, newest, days).await
        })
        .await
    }

    async fn compact(&mut self) -> Result<(), StoreError> {
        self.with(async |opened, run| {
            let compacting = opened.connection.transaction(async |connection| {
                lease::check(connection, run).await?;
                state::compact_ranges(connection).await
            });
            compacting.await
        })
        .await
    }

    async fn size(&mut self) -> Result<StoreSize, StoreError> {
        self.with(async |opened, _| size(&mut opened.connection).await).await
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        self.with(async |opened, run| lease::set(&mut opened.connection, run, true).await).await
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        if self.closed {
            return Ok(());
        }
        let given_back = self
            .with(async |opened, run| lease::set(&mut opened.connection, run, false).await)
            .await;
        self.closed = true;
        self.link.close();
        given_back
    }
}
