//! A newer program on an older store: the lease comes first.

use diesel::{
    migration::{Migration, MigrationSource},
    pg::Pg,
};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use super::*;
use crate::{
    store::postgres::{
        lease,
        migrate::{MIGRATIONS, migrate_to},
    },
    testing::until,
};

const MORE: EmbeddedMigrations = embed_migrations!("src/store/postgres/tests/newer");

/// The tables of a program that comes after this one.
struct Newer;

impl MigrationSource<Pg> for Newer {
    fn migrations(&self) -> diesel::migration::Result<Vec<Box<dyn Migration<Pg>>>> {
        let (mut all, more): (Vec<_>, Vec<_>) = (MIGRATIONS.migrations()?, MORE.migrations()?);
        all.extend(more);
        Ok(all)
    }
}

/// Fails unless the newer tables are there, or are not.
async fn assert_migrated(database: &Database, is_migrated: bool) {
    let divisor = format!("((to_regclass('nodecast.more') IS NOT NULL) = {is_migrated})::int");
    database.run(&format!("SELECT 1 / {divisor}")).await;
}

#[actix_rt::test]
async fn a_newer_program_changes_no_table_under_a_writer() {
    let (store, database) = new_store().await;
    let server = Server::parse(&database.url).unwrap();
    let (mut writer, _) = store.open_writer().await.unwrap();

    let refused = migrate_to(&server, Newer).await;

    let Err(StoreError::LeaseLost(reason)) = refused else { panic!("{refused:?}") };
    let writes = format!("process {} on ", std::process::id());
    assert!(reason.contains(&writes) && reason.contains("the tables lack"), "{reason}");
    assert_migrated(&database, false).await;
    Content::of(history(2, 1)).commit(1, &mut *writer).await.unwrap();

    writer.close().await.unwrap();
    migrate_to(&server, Newer).await.unwrap();
    assert_migrated(&database, true).await;
    // Nobody has to wait for the end of the lease that it held.
    store.open_writer().await.unwrap();
}

#[actix_rt::test]
async fn nobody_becomes_the_writer_while_the_tables_are_changed() {
    let (store, database) = new_store().await;
    let server = Server::parse(&database.url).unwrap();
    let mut gate = server.connect().await.unwrap();
    gate.batch_execute("SELECT pg_advisory_lock(4711)").await.unwrap();

    let migrating = actix_rt::spawn(async move { migrate_to(&server, Newer).await });
    until("the lease is held", async || {
        lease::load(&mut gate).await.unwrap().is_some_and(|state| state.writer().is_some())
    })
    .await;
    let refused = store.open_writer().await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::LeaseLost(_))), "{refused:?}");
    assert!(!migrating.is_finished());
    drop(gate);

    migrating.await.unwrap().unwrap();
    assert_migrated(&database, true).await;
    store.open_writer().await.unwrap();
}

#[actix_rt::test]
async fn newer_programs_that_start_together_change_the_tables_once() {
    let (_, database) = new_store().await;
    let server = Server::parse(&database.url).unwrap();

    let migrated = futures_util::future::join_all((0..3).map(|_| migrate_to(&server, Newer))).await;

    migrated.into_iter().for_each(|migrated| migrated.unwrap());
    assert_migrated(&database, true).await;
}
