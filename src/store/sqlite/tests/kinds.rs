//! Single events of a user with many: what is read for them, and rows that are older than their kind.

use diesel::sql_types::{BigInt, Nullable};

use super::*;
use crate::store::contract::{MANY, commit_all_kinds, needles};

// H38
#[actix_rt::test]
async fn a_row_of_a_users_history_is_found_without_reading_the_others() {
    let (store, directory) = new_store().await;
    drop(store);
    let first = block_time(0).0;
    diesel::sql_query(format!(
        "WITH RECURSIVE block (position) AS \
             (SELECT 0 UNION ALL SELECT position + 1 FROM block WHERE position <= {MANY}), \
         row (topic, kind, position) AS ( \
             SELECT 'fills', CASE position WHEN {MANY} / 2 THEN 'twapId' END, position FROM block \
                 WHERE position BETWEEN 1 AND {MANY} \
             UNION ALL SELECT 'misc', 'Funding', position FROM block \
                 WHERE position % 100 = 0 AND position BETWEEN 1 AND {MANY} \
             UNION ALL SELECT 'misc', 'LedgerUpdate', position FROM block \
                 WHERE position IN (0, {MANY} + 1)) \
         INSERT INTO events (topic, kind, position, idx, part, time, user, late, body) \
             SELECT topic, kind, position, 0, 0, {first} + position * 1000000, \
                 x'0101010101010101010101010101010101010101', 0, '{{}}' FROM row"
    ))
    .execute(&mut connection_to(&directory))
    .unwrap();

    for (query, positions) in needles() {
        // A read that comes as far as the first look at its deadline, which is 10,000 steps, ends with
        // it. A connection goes on counting where its last read has ended, so each has its own.
        let limit = Duration::ZERO;
        let config =
            StoreConfig { query_timeout: limit, read_connections: 1, ..StoreConfig::default() };
        let store = open_with(&directory, config).await.unwrap();

        let found = store.events(query.clone()).await;

        let found = found.unwrap_or_else(|error| panic!("{query:?}: {error}"));
        let found: Vec<_> = found.iter().map(|row| row.event.id.position).collect();
        assert_eq!(found, positions, "{query:?}");
    }
}

#[derive(Debug, PartialEq, QueryableByName)]
struct Kind {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Nullable<Text>)]
    kind: Option<String>,
}

// H43
#[actix_rt::test]
async fn rows_of_an_older_store_get_the_kind_that_they_would_have_been_stored_with() {
    let (store, directory) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    commit_all_kinds(&mut *writer).await;
    writer.close().await.unwrap();
    drop((writer, store));
    let mut connection = connection_to(&directory);
    let kinds = || -> Vec<Kind> {
        let query = "SELECT seq, kind FROM events ORDER BY seq";
        diesel::sql_query(query).load(&mut connection_to(&directory)).unwrap()
    };
    let before = kinds();
    let number = |wanted| before.iter().filter(|row| row.kind.as_deref() == wanted).count();
    assert!(number(Some("twapId")) > 5 && number(Some("LedgerUpdate")) > 5 && number(None) > 5);

    connection.revert_last_migration(MIGRATIONS).unwrap();
    connection.run_pending_migrations(MIGRATIONS).unwrap();

    assert_eq!(kinds(), before);
}
