//! One transaction: rows, ledger and checkpoints under the lease, or nothing.
//!
//! All statements are sent at once and their answers read together, so a commit takes three round
//! trips: for the begin, for the statements, for the end. Where a live event may take the place of a
//! back-filled one they go step by step.
//! Invariants: the first statement moves the row of the lease on, and only for the run that holds
//! it and a number that is new; when it moves nothing, whatever followed it is rolled back. A store
//! that has gone back behind what was committed, restored from a backup or on a replica that lagged,
//! takes nothing until its state was read again: what it lacks would be missing for ever.

use diesel::sql_types::{BigInt, Nullable};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use futures_util::join;

use super::{backfill::Reach, fault::Fault, insert::Columns, lease, state, statement::statement};
use crate::{
    fail_point,
    store::{CommitBatch, Committed, Run, StoreError, records::signed},
};

statement! {
    /// Locks the row of the lease until the end of the transaction, as every writer does.
    Advance<'r> {
        "UPDATE nodecast.store_state SET commit_number = " number: i64 => BigInt,
        ", last_seq = greatest(last_seq, " last_seq: i64 => BigInt,
        "), newest_time = greatest(newest_time, " newest_time: Option<i64> => Nullable<BigInt>,
        "), leased_until = clock_timestamp() + interval '1 ms' * " lease_ms: i64 => BigInt,
        " WHERE (run, epoch) = (" run: &'r i64 => BigInt,
        ", " epoch: &'r i64 => BigInt,
        ") AND commit_number < " new_number: i64 => BigInt,
        " AND commit_number >= " committed: i64 => BigInt,
        " AND last_seq < " first_seq: i64 => BigInt;
        ""
    }
}

/// What the writer goes by.
#[derive(Clone, Copy)]
pub struct Held {
    pub run: Run,
    /// Number of its last commit that is known to be done; 0 after its state was read.
    pub committed: u64,
}

/// Why a transaction was rolled back.
enum Stop {
    /// The lease is lost, the number was committed, the store has gone back, or a `seq` was given
    /// before.
    NotAdvanced,
    Failed(Fault),
}

impl<E: Into<Fault>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Commits a batch, of which the rows are in `columns`.
///
/// # Errors
/// [`StoreError::LeaseLost`] when another run has taken over, [`StoreError::Failed`] when the store has
/// gone back.
pub async fn commit(
    connection: &mut AsyncPgConnection,
    held: Held,
    batch: &CommitBatch<'_>,
    columns: &Columns<'_>,
    reach: &Reach,
) -> Result<Committed, Fault> {
    let all_new = columns.first_seq().unwrap_or(i64::MAX);
    let done = connection
        .transaction(async |connection| {
            write(connection, held, batch, columns, reach, all_new).await
        })
        .await;
    match done {
        Ok(committed) => Ok(committed),
        Err(Stop::Failed(fault)) => Err(fault),
        Err(Stop::NotAdvanced) => look_and_commit(connection, held, batch, columns, reach).await,
    }
}

/// Does the same step by step, after looking how the store stands.
async fn look_and_commit(
    connection: &mut AsyncPgConnection,
    held: Held,
    batch: &CommitBatch<'_>,
    columns: &Columns<'_>,
    reach: &Reach,
) -> Result<Committed, Fault> {
    connection
        .transaction(async |connection| {
            let known = lease::check(connection, held.run).await?;
            if known.commit_number < signed(held.committed, "commit")? {
                return Err(Fault(StoreError::Failed(format!(
                    "it has gone back to commit {} of this run, of which {} was done",
                    known.commit_number, held.committed
                ))));
            }
            if signed(batch.number, "commit")? <= known.commit_number {
                // It is there: only its answer was lost.
                return Ok(Committed::default());
            }
            columns.check_repeated(connection, known.last_seq).await?;
            match write(connection, held, batch, columns, reach, i64::MAX).await {
                Ok(committed) => Ok(committed),
                Err(Stop::Failed(fault)) => Err(fault),
                Err(Stop::NotAdvanced) => Err(lease::lost(held.run)),
            }
        })
        .await
}

/// Writes all of a batch within an open transaction, unless the store has given `first_seq` away.
async fn write(
    connection: &AsyncPgConnection,
    held: Held,
    batch: &CommitBatch<'_>,
    columns: &Columns<'_>,
    reach: &Reach,
    first_seq: i64,
) -> Result<Committed, Stop> {
    let number = signed(batch.number, "commit")?;
    let last_seq = signed(batch.last_seq, "seq")?;
    let advance = Advance {
        number,
        last_seq: columns.last_seq().unwrap_or(0).max(last_seq),
        newest_time: batch.newest_time.map(|time| time.0),
        lease_ms: lease::LEASE.as_millis() as i64,
        run: &(held.run.id as i64),
        epoch: &(held.run.epoch as i64),
        new_number: number,
        committed: signed(held.committed, "commit")?,
        first_seq,
    };
    let mut leased = connection;
    let advancing = async {
        match advance.execute(&mut leased).await? {
            1 => Ok(()),
            _ => Err(Stop::NotAdvanced),
        }
    };
    let storing = async {
        let (inserted, ranges, gaps, progress) = join!(
            columns.insert(connection),
            state::save_ranges(connection, batch.seen),
            save_gaps(connection, batch),
            state::save_progress(connection, batch.progress),
        );
        let inserted = inserted?;
        ranges?;
        gaps?;
        progress?;
        Ok::<_, Stop>(inserted)
    };
    let inserted = if reach.covers(batch.events) {
        // One after the other: beside the insert the removal could come after it and take the wrong
        // row, and before the lock it could stand in the way of who has taken over.
        advancing.await?;
        columns.make_way(connection).await?;
        storing.await?
    } else {
        // In the order of the statements: behind the first that failed all others only tell that
        // the transaction is over.
        let (advanced, stored) = join!(advancing, storing);
        advanced?;
        stored?
    };
    fail_point!("store.in_transaction");
    Ok(Committed { inserted, duplicates: batch.events.len() - inserted })
}

async fn save_gaps(connection: &AsyncPgConnection, batch: &CommitBatch<'_>) -> Result<(), Fault> {
    for gap in batch.gaps_opened {
        state::open_gap(connection, gap).await?;
    }
    for gap in batch.gaps_closed {
        state::close_gap(connection, gap).await?;
    }
    Ok(())
}
