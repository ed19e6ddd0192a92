//! The writer: one connection, one transaction a batch, under the lease of its run.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use diesel::sql_types::{BigInt, Nullable};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{
    connection::Server,
    fault::Fault,
    insert::Columns,
    lease,
    link::{Link, Opened},
    partitions::{self, Day},
    retention, size, state,
};
use crate::{
    event::Timestamp,
    fail_point,
    store::{
        CommitBatch, Committed, Recovered, Retained, RetentionLimits, Run, StoreError, StoreSize,
        StoreWriter, records::signed,
    },
};

/// The [`StoreWriter`] of PostgreSQL.
pub struct PostgresWriter {
    link: Link,
    run: Run,
    closed: bool,
}

impl PostgresWriter {
    /// Takes the lease for a new run.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] while another daemon holds it.
    pub async fn open(server: Server, limit: Duration) -> Result<(Self, Recovered), StoreError> {
        let mut link = Link::new(server.clone(), limit);
        let (run, recovered) = link
            .run(async |opened| {
                let connection = &mut opened.connection;
                let run = lease::take(connection, Timestamp::now()).await?;
                Ok((run, state::recover(connection, run).await?))
            })
            .await?;
        // The writer connects anew on the thread that it works on: its socket is driven there.
        Ok((Self { link: Link::new(server, limit), run, closed: false }, recovered))
    }

    /// Runs a piece of work on the connection, which is opened again if the last piece failed.
    async fn with<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Opened, Run) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        if self.closed {
            return Err(StoreError::Unusable("the writer is closed".into()));
        }
        let run = self.run;
        self.link.run(async |opened| work(opened, run).await).await
    }
}

#[async_trait(?Send)]
impl StoreWriter for PostgresWriter {
    async fn commit(&mut self, batch: CommitBatch<'_>) -> Result<Committed, StoreError> {
        let wanted: BTreeSet<Day> =
            batch.events.iter().map(|event| Day::of(event.event.time)).collect();
        self.with(async |Opened { connection, days }, run| {
            for day in wanted {
                if !days.contains(&day) {
                    partitions::create(connection, day).await?;
                    days.insert(day);
                }
            }
            connection.transaction(async |connection| write(connection, run, &batch).await).await
        })
        .await
    }

    async fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.with(async |opened, run| state::recover(&mut opened.connection, run).await).await
    }

    async fn retain(&mut self, limits: RetentionLimits) -> Result<Retained, StoreError> {
        self.with(async |Opened { connection, days }, run| {
            let retained;
            (retained, *days) = retention::retain(connection, run, &limits).await?;
            Ok(retained)
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

/// Writes a batch within an open transaction.
async fn write(
    connection: &mut AsyncPgConnection,
    run: Run,
    batch: &CommitBatch<'_>,
) -> Result<Committed, Fault> {
    let known = lease::check(connection, run).await?;
    let number = signed(batch.number, "commit")?;
    if number <= known.commit_number {
        // It is there: only its answer was lost.
        return Ok(Committed::default());
    }
    let columns = Columns::of(batch.events)?;
    columns.check_repeated(connection, known.last_seq).await?;
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
