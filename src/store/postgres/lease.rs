//! The writer's lease: one daemon per database, by the clock of the server.
//!
//! Invariants: every transaction that writes locks the row of the lease, so that two writers cannot
//! overlap; a run that has lost the lease commits nothing any more, however late it wakes up.

use std::time::Duration;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use rustix::{
    io::Errno,
    process::{self, Pid},
};

use super::fault::Fault;
use crate::{
    event::Timestamp,
    store::{Run, StoreError, records::unsigned},
};

/// How long a daemon that says nothing keeps the lease.
const LEASE: Duration = Duration::from_secs(10);

/// The one row of `store_state`, as far as others than the lease need it.
#[derive(Clone, Debug, QueryableByName)]
pub struct StoreState {
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    #[diesel(sql_type = BigInt)]
    pub run: i64,
    #[diesel(sql_type = BigInt)]
    pub commit_number: i64,
    #[diesel(sql_type = BigInt)]
    pub last_seq: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub newest_time: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub deleted_seq: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub shortened_to: Option<i64>,
    #[diesel(sql_type = Text)]
    pub(super) holder_host: String,
    #[diesel(sql_type = BigInt)]
    pub(super) holder_process: i64,
    #[diesel(sql_type = Bool)]
    pub(super) is_held: bool,
}

const SELECT: &str = "SELECT epoch, run, commit_number, last_seq, newest_time, deleted_seq, \
    shortened_to, holder_host, holder_process, leased_until > clock_timestamp() AS is_held \
    FROM nodecast.store_state";

/// Reads the row without a lock.
pub async fn load(connection: &mut AsyncPgConnection) -> Result<Option<StoreState>, Fault> {
    Ok(diesel::sql_query(SELECT).load(connection).await?.pop())
}

/// Takes the lease for a new run, within a transaction. The run's number is above every earlier
/// one's, even if our clock has stepped back.
///
/// # Errors
/// [`StoreError::LeaseLost`] while another daemon holds it.
pub async fn take(
    connection: &mut AsyncPgConnection,
    host: &str,
    now: Timestamp,
) -> Result<Run, Fault> {
    let process = i64::from(std::process::id());
    let first = "INSERT INTO nodecast.store_state \
        (id, epoch, run, commit_number, last_seq, holder_host, holder_process, leased_until) \
        VALUES (1, $1, 0, 0, 0, '', 0, '-infinity') ON CONFLICT DO NOTHING";
    let epoch = fastrand::u64(1..) as i64;
    diesel::sql_query(first).bind::<BigInt, _>(epoch).execute(connection).await?;
    let known = locked(connection).await?;
    if known.is_held && !is_dead(&known, host) {
        let holder = format!("process {} on {}", known.holder_process, known.holder_host);
        return Err(Fault(StoreError::LeaseLost(format!("{holder} holds the lease"))));
    }
    let id = now.0.max(known.run + 1);
    let update = format!(
        "UPDATE nodecast.store_state SET run = $1, commit_number = 0, holder_host = $2, \
         holder_process = $3, leased_until = {}",
        until()
    );
    diesel::sql_query(update)
        .bind::<BigInt, _>(id)
        .bind::<Text, _>(host)
        .bind::<BigInt, _>(process)
        .execute(connection)
        .await?;
    Ok(Run { id: unsigned(id, "run")?, epoch: known.epoch as u64 })
}

/// Locks the row within a transaction of a run, and tells how the store stands, if that run is
/// still the writer.
pub async fn check(connection: &mut AsyncPgConnection, run: Run) -> Result<StoreState, Fault> {
    let state = locked(connection).await?;
    if state.run as u64 != run.id || state.epoch as u64 != run.epoch {
        return Err(Fault(StoreError::LeaseLost(format!(
            "run {} (process {} on {}) has taken over from run {}",
            state.run, state.holder_process, state.holder_host, run.id
        ))));
    }
    Ok(state)
}

/// Gives the lease back, or keeps it for a while longer.
pub async fn set(connection: &mut AsyncPgConnection, run: Run, is_held: bool) -> Result<(), Fault> {
    let until = if is_held { until() } else { "'-infinity'".to_owned() };
    let update = format!("UPDATE nodecast.store_state SET leased_until = {until} WHERE run = $1");
    let updated =
        diesel::sql_query(update).bind::<BigInt, _>(run.id as i64).execute(connection).await?;
    if updated == 0 {
        return Err(Fault(StoreError::LeaseLost(format!("another run followed {}", run.id))));
    }
    Ok(())
}

/// The end of a lease that is taken or renewed now, in SQL.
pub fn until() -> String {
    format!("clock_timestamp() + interval '{} seconds'", LEASE.as_secs())
}

async fn locked(connection: &mut AsyncPgConnection) -> Result<StoreState, Fault> {
    let row = diesel::sql_query(format!("{SELECT} FOR UPDATE")).load(connection).await?.pop();
    row.ok_or_else(|| {
        Fault(StoreError::Unusable("the row of the store's state is gone".to_owned()))
    })
}

/// Whether the holder is a process of this machine that is no more: then nobody has to wait for the
/// end of its lease. Whether another machine's process lives cannot be seen.
fn is_dead(state: &StoreState, host: &str) -> bool {
    let own = i64::from(std::process::id());
    let holder = i32::try_from(state.holder_process).ok().and_then(Pid::from_raw);
    // Not by /proc: in the sandbox of the systemd unit processes of other users are missing there.
    let is_gone = |holder| process::test_kill_process(holder) == Err(Errno::SRCH);
    state.holder_host == host && state.holder_process != own && holder.is_some_and(is_gone)
}
