//! Reads whose connection the server closes, and what the server has to look through for others.

use std::{cell::Cell, time::Duration};

use diesel::{QueryableByName, sql_types::Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::{Database, Server};
use crate::{
    config::StoreConfig,
    store::{
        PostgresStore, StoreError,
        contract::{Content, FILLS, event},
    },
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

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    text: String,
}

#[actix_rt::test]
async fn a_read_in_the_order_of_arrival_looks_through_its_window_and_not_the_day() {
    let database = Database::new().await;
    let store = database.open().await.unwrap();
    let (mut writer, _) = store.open_writer().await.unwrap();
    let batch = 10_000;
    // Each finds the pages of the one before it to be summarized.
    for number in 0..6 {
        let seqs = number * batch + 1..=(number + 1) * batch;
        let rows = seqs.map(|seq| event(FILLS, seq, 0, seq)).collect();
        Content::of(rows).commit(number + 1, &mut *writer).await.unwrap();
    }

    let mut connection = Server::parse(&database.url).unwrap().connect().await.unwrap();
    connection.batch_execute("SET enable_seqscan = off").await.unwrap();
    let plan: Vec<Line> = diesel::sql_query(
        "EXPLAIN (ANALYZE, COSTS off, TIMING off) \
         SELECT seq FROM nodecast.events WHERE seq > 20000 AND seq <= 20100",
    )
    .load(&mut connection)
    .await
    .unwrap();

    let removed: u64 = plan
        .iter()
        .filter_map(|line| line.text.trim().strip_prefix("Rows Removed by Index Recheck: "))
        .map(|rows| rows.parse::<u64>().unwrap())
        .sum();
    let plan: Vec<_> = plan.iter().map(|line| line.text.as_str()).collect();
    // Those of the last batch are not summarized, and half a MiB around the window is looked through.
    assert!((batch..3 * batch).contains(&removed), "{plan:#?}");
}

#[actix_rt::test]
async fn what_is_committed_while_a_page_is_read_is_left_to_the_next_one() {
    let database = Database::new().await;
    let store = database.open().await.unwrap();
    let (mut writer, _) = store.open_writer().await.unwrap();
    let seqs = async |after| {
        let arrivals = store.arrivals(after, 10).await.unwrap();
        arrivals.events.iter().map(|row| row.seq).collect::<Vec<_>>()
    };
    Content::of(vec![event(FILLS, 1, 0, 1), event(FILLS, 2, 0, 5_000)])
        .commit(1, &mut *writer)
        .await
        .unwrap();
    Content::of(vec![event(FILLS, 3, 0, 9_000_000)]).commit(2, &mut *writer).await.unwrap();

    // As a read sees it that began between the two: the second one may have rows in a window that
    // was read already, and where some of it follow, those would be missing for ever.
    database.run("UPDATE nodecast.store_state SET last_seq = 5000").await;
    assert_eq!(seqs(0).await, [1, 5_000]);
    assert_eq!(seqs(5_000).await, [0; 0]);

    database.run("UPDATE nodecast.store_state SET last_seq = 9000000").await;
    assert_eq!(seqs(5_000).await, [9_000_000]);
}
