//! Single events of a user with many: what is read for them, and rows that are older than their kind.

use std::collections::BTreeSet;

use diesel::sql_types::BigInt;

use super::*;
use crate::store::{
    EventQuery,
    contract::{MANY, commit_all_kinds, needles, user},
};

/// Pages of 8 KiB that a page of history may look at: a few in each partition. A walk through the fills
/// would be 800 and more.
const PAGES: u64 = 20;

/// The same for the ends of its time: for each end of each topic the depth of an index, as often as a day
/// of so many positions can be halved.
const PAGES_OF_TIMES: u64 = 400;

#[derive(QueryableByName)]
struct Explained {
    // Of the type `json`, which is sent as its text.
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    plan: String,
}

/// A store with what [`needles`] asks for in its first day, and a second one that is empty.
async fn haystack() -> (PostgresStore, Database) {
    let database = Database::new().await;
    let store = PostgresStore::open(&database.url, &StoreConfig::default()).await.unwrap();
    let mut connection = Server::parse(&database.url).unwrap().connect().await.unwrap();
    let day = Day::of(block_time(0));
    partitions::create(&mut connection, day, partitions::ON_DEMAND).await.unwrap();
    partitions::create(&mut connection, day.next(), partitions::ON_DEMAND).await.unwrap();
    let insert = format!(
        "INSERT INTO nodecast.topics VALUES (1, 'fills'), (2, 'misc'); \
         INSERT INTO nodecast.events (seq, position, time, idx, part, topic_id, late, \
                 user_address, body, kind) \
             SELECT row_number() OVER (ORDER BY position, topic), position, \
                 {first} + position::bigint * 1000000, 0, 0, topic, false, {user}, '{{}}', kind FROM ( \
             SELECT 1, CASE position WHEN {MANY} / 2 THEN 'twapId' ELSE '' END, position \
                 FROM generate_series(1, {MANY}) AS position \
             UNION ALL SELECT 2, 'Funding', position \
                 FROM generate_series(100, {MANY}, 100) AS position \
             UNION ALL VALUES (2, 'LedgerUpdate', 0), (2, 'LedgerUpdate', {MANY} + 1)) \
             AS row (topic, kind, position)",
        first = block_time(0).0,
        user = "decode(repeat('01', 20), 'hex')",
    );
    database.run(&insert).await;
    (store, database)
}

impl PostgresStore {
    /// Runs a statement and gives the server's record of it.
    async fn explained(&self, sql: &str, binds: &[String]) -> serde_json::Value {
        let plan = self.readers.read(async |connection| {
            let mut explain =
                diesel::sql_query(format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"))
                    .into_boxed::<diesel::pg::Pg>();
            for text in binds {
                explain = explain.bind::<Text, _>(text.clone());
            }
            let explained: Explained = explain.get_result(connection).await?;
            Ok(serde_json::from_str(&explained.plan).unwrap())
        });
        plan.await.unwrap()
    }
}

/// Pages that the server has looked at for a statement.
fn pages(plan: &serde_json::Value) -> u64 {
    let of = |name| plan[0]["Plan"][name].as_u64().unwrap();
    of("Shared Hit Blocks") + of("Shared Read Blocks")
}

/// The values that a plan has under a name, anywhere.
fn all(plan: &serde_json::Value, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![plan];
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::Array(values) => left.extend(values),
            serde_json::Value::Object(members) => {
                found.extend(members.get(name).and_then(|value| value.as_str()).map(str::to_owned));
                left.extend(members.values());
            }
            _ => {}
        }
    }
    found
}

// H38
#[actix_rt::test]
async fn a_row_of_a_users_history_is_found_without_reading_the_others() {
    let (store, database) = haystack().await;
    // Without statistics, as in a day that has just begun, and with them.
    for analyze in ["SELECT 1", "VACUUM ANALYZE nodecast.events"] {
        database.run(analyze).await;
        for (query, positions) in needles() {
            let found = store.events(query.clone()).await.unwrap();
            let found: Vec<_> = found.iter().map(|row| row.event.id.position).collect();
            assert_eq!(found, positions, "{query:?}");

            let topics = store.readers.read(async |connection| Topics::load(connection).await);
            let topics = &topics.await.unwrap();
            if let Some(times) = &query.times {
                let all = spans::by_position(&query, topics);
                let question = spans::question(&all, *times.start(), *times.end()).unwrap();
                let looked_at = pages(&store.explained(&question, &[]).await);
                assert!(looked_at < PAGES_OF_TIMES, "{query:?}: {looked_at}");
            }
            let spans = store
                .readers
                .read(async |connection| spans::spans(connection, &query, topics).await)
                .await
                .unwrap();
            if let Some(page) = history::statement(&query, &spans) {
                let plan = store.explained(&page.sql, &page.binds).await;
                let second = if query.kind.is_some() { "kind" } else { "expr" };
                let index = format!("_user_address_{second}_position_seq_idx");
                let names = all(&plan, "Index Name");
                assert!(!names.is_empty() || positions.is_empty(), "{query:?}: {plan}");
                assert!(names.iter().all(|name| name.ends_with(&index)), "{query:?}: {names:?}");
                assert!(pages(&plan) < PAGES, "{query:?}: {plan}");
            }
        }
    }
}

#[actix_rt::test]
async fn a_page_of_a_time_reads_the_partitions_of_its_days_only() {
    let (store, _database) = haystack().await;
    let day = Day::of(block_time(0));
    let (first, second) = (day.table().unwrap(), day.next().table().unwrap());

    for (times, tables) in [
        (block_time(5)..=block_time(DAY - 1), vec![&first]),
        (block_time(DAY)..=block_time(DAY + 5), vec![&second]),
        (block_time(DAY - 1)..=block_time(DAY), vec![&first, &second]),
        (Timestamp(i64::MIN)..=block_time(5), vec![&first]),
        (block_time(DAY)..=Timestamp(i64::MAX), vec![&second]),
    ] {
        for kind in [None, Some("Funding")] {
            let times = Some(times.clone());
            let query = EventQuery { users: vec![user(1)], kind, times, ..page(3) };
            let page = store.readers.read(async |connection| {
                let topics = Topics::load(connection).await?;
                let spans = spans::by_position(&query, &topics);
                Ok(history::statement(&query, &spans).unwrap())
            });
            let page = page.await.unwrap();

            let plan = store.explained(&page.sql, &page.binds).await;

            let read: Vec<_> = all(&plan, "Relation Name").into_iter().collect();
            assert_eq!(read.iter().collect::<Vec<_>>(), tables, "{query:?}");
        }
    }
}

#[derive(Debug, PartialEq, QueryableByName)]
struct Kind {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    kind: String,
}

// H43
#[actix_rt::test]
async fn rows_of_an_older_store_get_the_kind_that_they_would_have_been_stored_with() {
    let (store, database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    commit_all_kinds(&mut *writer).await;
    writer.close().await.unwrap();
    let mut connection = Server::parse(&database.url).unwrap().connect().await.unwrap();
    // The server's reader of JSON takes that for no text, wherever it stands.
    let strange = "UPDATE nodecast.events SET body = '{\"x\":\"\\u0000\",\"twapId\":null }' \
        WHERE seq = (SELECT min(seq) FROM nodecast.events WHERE kind = '' AND topic_id = 1)";
    connection.batch_execute(strange).await.unwrap();
    let kinds = async |connection: &mut AsyncPgConnection| -> Vec<Kind> {
        let query = "SELECT seq, kind FROM nodecast.events ORDER BY seq";
        diesel::sql_query(query).load(connection).await.unwrap()
    };
    let before = kinds(&mut connection).await;
    let number = |wanted| before.iter().filter(|row| row.kind == wanted).count();
    assert!(number("twapId") > 5 && number("LedgerUpdate") > 5 && number("") > 5);

    for script in [
        include_str!("../../../../migrations/postgres/2026-11-24-000000_kinds/down.sql"),
        include_str!("../../../../migrations/postgres/2026-11-24-000000_kinds/up.sql"),
    ] {
        connection.batch_execute(script).await.unwrap();
    }

    assert_eq!(kinds(&mut connection).await, before);
}
