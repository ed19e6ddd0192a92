//! Reads whose connection the server closes.

use std::{cell::Cell, time::Duration};

use diesel_async::SimpleAsyncConnection;

use super::Database;
use crate::{
    config::StoreConfig,
    store::{PostgresStore, StoreError},
};

#[actix_rt::test]
async fn a_read_whose_connection_was_closed_is_repeated_once_on_a_new_one_and_a_slow_one_is_not() {
    let database = Database::new().await;
    let config = StoreConfig { query_timeout: Duration::from_millis(200), ..Default::default() };
    let store = PostgresStore::open(&database.url, &config).await.unwrap();
    let tries = Cell::new(0);
    let tries = &tries;
    let terminate = "SELECT pg_terminate_backend(pg_backend_pid())";

    // Two are idle, and the server closes both when the first is used.
    let opened = store.readers.read(async |_| {
        let second = store.readers.read(async |_| Ok(())).await;
        Ok(second?)
    });
    opened.await.unwrap();
    let answer = store.readers.read(async |connection| {
        tries.set(tries.get() + 1);
        if tries.get() == 1 {
            let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
            connection.batch_execute(others).await?;
            connection.batch_execute(terminate).await?;
        }
        Ok(connection.batch_execute("SELECT 1").await?)
    });
    answer.await.unwrap();
    assert_eq!(tries.replace(0), 2);

    let always = store.readers.read(async |connection| {
        tries.set(tries.get() + 1);
        Ok(connection.batch_execute(terminate).await?)
    });
    let failed = always.await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    assert_eq!(tries.replace(0), 2);

    let slow = store.readers.read(async |connection| {
        tries.set(tries.get() + 1);
        Ok(connection.batch_execute("SELECT pg_sleep(5)").await?)
    });
    let failed = slow.await;
    assert!(matches!(failed, Err(StoreError::TooSlow(_))), "{failed:?}");
    assert_eq!(tries.get(), 1);
}
