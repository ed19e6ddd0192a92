//! The tables: made in a new database, and brought up to this program in an older store.
//!
//! Invariants: of daemons that start together one makes the tables, and the others wait for it; a
//! store that has a writer is changed by nobody else, so whoever has something to change takes the
//! lease before, and is refused (or stands by) while another daemon holds it. Afterwards the lease is
//! free again; an older program that gets it then finds tables that it does not know, and stops.

use std::time::Duration;

use diesel::{
    QueryableByName,
    migration::{MigrationSource, MigrationVersion},
    pg::Pg,
    sql_types::Bool,
};
use diesel_async::{
    AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
    async_connection_wrapper::AsyncConnectionWrapper,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::{task::spawn_blocking, time::interval};

use super::{
    connection::{Server, limited},
    fault::{self, Fault},
    lease,
};
use crate::{
    event::Timestamp,
    store::{Run, StoreError, to_be_migrated},
};

pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Of all daemons at once, so that two that start together do not make the tables twice.
pub const MIGRATION_LOCK: i64 = 0x6e6f_6465_6361_7374;

/// How long a start waits for another daemon that makes the tables.
const MIGRATION_WAIT: Duration = Duration::from_secs(300);

/// How often the lease is renewed meanwhile: three times before it ends.
const RENEWAL: Duration = Duration::from_secs(3);

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

/// Makes the tables of a new database and brings an older store up to this program.
///
/// # Errors
/// [`StoreError::Unusable`] for tables that a newer program made, and [`StoreError::LeaseLost`] when
/// there is something to change while another daemon writes: nothing has changed then.
pub async fn migrate(server: &Server) -> Result<(), StoreError> {
    migrate_to(server, MIGRATIONS).await
}

/// As [`migrate`], to other tables than those of this program.
pub async fn migrate_to(
    server: &Server,
    wanted: impl MigrationSource<Pg> + Send + 'static,
) -> Result<(), StoreError> {
    let mut connection = server.connect().await?;
    let prepare = format!(
        "SELECT pg_advisory_lock({MIGRATION_LOCK}); \
         DO $$ BEGIN \
             IF to_regnamespace('nodecast') IS NULL THEN CREATE SCHEMA nodecast; END IF; \
         END $$; \
         SET search_path TO nodecast"
    );
    let is_store = "SELECT to_regclass('nodecast.store_state') IS NOT NULL AS yes";
    let preparing = async {
        connection.batch_execute(&prepare).await?;
        Ok(diesel::sql_query(is_store).get_result::<Answer>(&mut connection).await?.yes)
    };
    let within = |error| server.within(error);
    let is_store = limited(MIGRATION_WAIT, preparing).await.map_err(within)?;
    let blocking = spawn_blocking(move || {
        let mut connection = AsyncConnectionWrapper::<AsyncPgConnection>::from(connection);
        let is_pending = is_pending(&mut connection, &wanted)?;
        Ok::<_, StoreError>((connection, wanted, is_pending))
    });
    let (connection, wanted, is_pending) = joined(blocking.await).map_err(within)?;
    if !is_pending {
        return Ok(());
    }
    // Without a limit: a large table takes what it takes, and half a migration helps nobody. The
    // lock that was taken before ends with the connection.
    let work = async {
        // Not before this is polled: a blocking task runs as soon as it is spawned.
        joined(spawn_blocking(move || run_pending(connection, wanted)).await).map_err(within)
    };
    if is_store { under_lease(server, work).await } else { work.await }
}

/// Does work while this process holds the writer's lease.
async fn under_lease(
    server: &Server,
    work: impl Future<Output = Result<(), StoreError>>,
) -> Result<(), StoreError> {
    let mut connection = server.connect().await?;
    let taken = lease::take(&mut connection, Timestamp::now()).await;
    let run = taken.map_err(|Fault(error)| to_be_migrated(error))?;
    let mut renewals = interval(RENEWAL);
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            // What is under way goes on to its end also without a lease. Where it has locked the
            // row, nobody else can take the lease either.
            _ = renewals.tick() => {
                set(&mut connection, run, true).await.ok();
            }
        }
    };
    let released = set(&mut connection, run, false).await;
    done.and(released)
}

async fn set(
    connection: &mut AsyncPgConnection,
    run: Run,
    is_held: bool,
) -> Result<(), StoreError> {
    Ok(lease::set(connection, run, is_held).await?)
}

fn joined<T>(
    joined: Result<Result<T, StoreError>, tokio::task::JoinError>,
) -> Result<T, StoreError> {
    joined.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
}

type Wrapped = AsyncConnectionWrapper<AsyncPgConnection>;

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    fault::of_text(&error.to_string())
}

/// Tells whether there is something to change. Blocks.
fn is_pending(
    connection: &mut Wrapped,
    wanted: &impl MigrationSource<Pg>,
) -> Result<bool, StoreError> {
    let known = wanted.migrations().map_err(failed)?;
    let applied: Vec<MigrationVersion<'_>> = connection.applied_migrations().map_err(failed)?;
    let unknown = applied
        .iter()
        .find(|version| !known.iter().any(|migration| migration.name().version() == **version));
    if let Some(version) = unknown {
        return Err(StoreError::Unusable(format!(
            "it was made by a newer nodecast (migration {version} is unknown here)"
        )));
    }
    Ok(applied.len() < known.len())
}

/// Blocks.
fn run_pending(
    mut connection: Wrapped,
    wanted: impl MigrationSource<Pg>,
) -> Result<(), StoreError> {
    connection.run_pending_migrations(wanted).map_err(failed)?;
    Ok(())
}
