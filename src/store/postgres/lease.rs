//! The writer's lease: one daemon per database, by the clock of the server.
//!
//! Invariants: every transaction that writes locks the row of the lease, so that two writers cannot
//! overlap; a run that has lost the lease commits nothing any more, however late it wakes up.

use std::time::Duration;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{fault::Fault, state};
use crate::{
    event::Timestamp,
    store::{Run, Standing, StoreError, holder::Holder, records::unsigned},
};

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

/// How long a daemon that says nothing keeps the lease.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long who takes a lease waits for the row: its holder may hang in a transaction, and then the
/// server takes the row from it soon.
const LOCK_WAIT: Duration = Duration::from_secs(2);

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
    holder_host: String, // [`Holder::place`].
    #[diesel(sql_type = BigInt)]
    holder_process: i64,
    #[diesel(sql_type = Bool)]
    is_held: bool,
    #[diesel(sql_type = Bool)]
    is_given_back: bool,
}

#[derive(QueryableByName)]
struct IsThere {
    #[diesel(sql_type = Bool)]
    is_there: bool,
}

/// Who is to migrate reads it before: a column that a later migration adds does not belong here.
const SELECT: &str = "SELECT epoch, run, commit_number, last_seq, newest_time, deleted_seq, \
    shortened_to, holder_host, holder_process, leased_until > clock_timestamp() AS is_held, \
    leased_until = '-infinity' AS is_given_back \
    FROM nodecast.store_state";

/// Reads the row without a lock.
pub async fn load(connection: &mut AsyncPgConnection) -> Result<Option<StoreState>, Fault> {
    Ok(diesel::sql_query(SELECT).load(connection).await?.pop())
}

/// Takes the lease for a new run. The run's number is above every earlier one's, even if our clock
/// has stepped back.
///
/// # Errors
/// [`StoreError::LeaseLost`] while another daemon holds it.
pub async fn take(connection: &mut AsyncPgConnection, now: Timestamp) -> Result<Run, Fault> {
    // First without a lock: who stands by asks often, and the writer shall not wait for it.
    if let Some(known) = load(connection).await? {
        refuse_if_held(&known)?;
    }
    connection.transaction(async |connection| take_in_transaction(connection, now).await).await
}

async fn take_in_transaction(
    connection: &mut AsyncPgConnection,
    now: Timestamp,
) -> Result<Run, Fault> {
    connection
        .batch_execute(&format!("SET LOCAL lock_timeout = {}", LOCK_WAIT.as_millis()))
        .await?;
    let first = "INSERT INTO nodecast.store_state \
        (id, epoch, run, commit_number, last_seq, holder_host, holder_process, leased_until) \
        VALUES (1, $1, 0, 0, 0, '', 0, '-infinity') ON CONFLICT DO NOTHING";
    let epoch = fastrand::u64(1..) as i64;
    diesel::sql_query(first).bind::<BigInt, _>(epoch).execute(connection).await?;
    let known = locked(connection).await?;
    refuse_if_held(&known)?;
    // The first run follows none, and who takes the lease for a migration may find older tables.
    if known.run > 0 && has_runs(connection).await? {
        state::remember_run(connection, &known).await?;
    }
    let own = Holder::own();
    let id = now.0.max(known.run + 1);
    let update = format!(
        "UPDATE nodecast.store_state SET run = $1, commit_number = 0, holder_host = $2, \
         holder_process = $3, leased_until = {}",
        until()
    );
    diesel::sql_query(update)
        .bind::<BigInt, _>(id)
        .bind::<Text, _>(own.place())
        .bind::<BigInt, _>(i64::from(own.process))
        .execute(connection)
        .await?;
    Ok(Run { id: unsigned(id, "run")?, epoch: known.epoch as u64 })
}

async fn has_runs(connection: &mut AsyncPgConnection) -> Result<bool, Fault> {
    let has = "SELECT to_regclass('nodecast.runs') IS NOT NULL AS yes";
    Ok(diesel::sql_query(has).get_result::<Answer>(connection).await?.yes)
}

/// Locks the row within a transaction of a run, and tells how the store stands, if that run is
/// still the writer.
pub async fn check(connection: &mut AsyncPgConnection, run: Run) -> Result<StoreState, Fault> {
    let state = locked(connection).await?;
    if state.run as u64 != run.id || state.epoch as u64 != run.epoch {
        return Err(taken_over(&state));
    }
    Ok(state)
}

fn taken_over(state: &StoreState) -> Fault {
    Fault(StoreError::LeaseLost(format!(
        "{} has taken over from this one since {}",
        state.holder(),
        state.since(),
    )))
}

/// Gives the lease back, or keeps it for a while longer.
pub async fn set(connection: &mut AsyncPgConnection, run: Run, is_held: bool) -> Result<(), Fault> {
    let until = if is_held { until() } else { "'-infinity'".to_owned() };
    let update = format!("UPDATE nodecast.store_state SET leased_until = {until} WHERE run = $1");
    let updated =
        diesel::sql_query(update).bind::<BigInt, _>(run.id as i64).execute(connection).await?;
    if updated == 0 {
        let successor = load(connection).await?;
        return Err(successor.map_or_else(|| lost(run), |state| taken_over(&state)));
    }
    Ok(())
}

/// Where nobody can be named.
pub fn lost(run: Run) -> Fault {
    Fault(StoreError::LeaseLost(format!("run {} does not hold the lease any more", run.id)))
}

/// The end of a lease that is taken or renewed now, in SQL.
pub fn until() -> String {
    format!("clock_timestamp() + interval '{} seconds'", LEASE.as_secs())
}

async fn locked(connection: &mut AsyncPgConnection) -> Result<StoreState, Fault> {
    let row = diesel::sql_query(format!("{SELECT} FOR UPDATE")).load(connection).await?.pop();
    row.ok_or_else(|| Fault(StoreError::Denied("the row of the store's state is gone".to_owned())))
}

/// Looks how it stands, also before there are tables.
pub async fn look(connection: &mut AsyncPgConnection) -> Result<Standing, Fault> {
    let is_store = "SELECT to_regclass('nodecast.store_state') IS NOT NULL AS is_there";
    let answer: IsThere = diesel::sql_query(is_store).get_result(connection).await?;
    if !answer.is_there {
        return Ok(Standing::Free);
    }
    Ok(load(connection).await?.map_or(Standing::Free, |state| state.standing()))
}

/// Refuses a lease that somebody else holds, as far as can be known.
fn refuse_if_held(state: &StoreState) -> Result<(), StoreError> {
    match state.standing() {
        Standing::Held(reason) => Err(StoreError::LeaseLost(reason)),
        Standing::Free | Standing::Ended(_) => Ok(()),
    }
}

impl StoreState {
    fn holder(&self) -> Holder {
        Holder::of(&self.holder_host, self.holder_process.try_into().unwrap_or(0))
    }

    fn standing(&self) -> Standing {
        let holder = self.holder();
        if self.is_given_back || holder.is_gone() {
            Standing::Free
        } else if self.is_held {
            Standing::Held(format!("{holder} holds the lease since {}", self.since()))
        } else {
            Standing::Ended(holder)
        }
    }

    /// Who writes now.
    pub fn writer(&self) -> Option<Holder> {
        self.is_held.then(|| self.holder())
    }

    /// When the run that writes took the lease: its number is that time.
    fn since(&self) -> Timestamp {
        Timestamp(self.run)
    }
}
