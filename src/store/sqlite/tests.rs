//! What only SQLite does: files, plans, pragmas. The rest is in `store::contract`.

mod kinds;

use std::{fs, sync::Arc};

use diesel::sql_types::Text;
use diesel_migrations::MigrationHarness;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    connection::{MIGRATIONS, connect},
    *,
};
use crate::{
    event::{Timestamp, Topic},
    store::{
        self, PageKey, RetentionLimits,
        contract::{
            Content, FILLS, MISC, Model, all_pages, block_time, contract_tests, event, history,
            page, range, row_retention_tests, user,
        },
    },
};

async fn new_store() -> (Arc<dyn EventStore>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (open_in(&directory).await.unwrap(), directory)
}

async fn open_in(directory: &TempDir) -> Result<Arc<dyn EventStore>, StoreError> {
    open_with(directory, StoreConfig::default()).await
}

async fn open_with(
    directory: &TempDir,
    config: StoreConfig,
) -> Result<Arc<dyn EventStore>, StoreError> {
    let url = format!("sqlite:{}", directory.path().join("nodecast.db").display());
    store::open(&url, &StoreConfig { durable: false, ..config }).await
}

fn connection_to(directory: &TempDir) -> SqliteConnection {
    connect(&directory.path().join("nodecast.db"), true).unwrap()
}

#[actix_rt::test]
async fn a_connection_that_is_lent_is_counted_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nodecast.db");
    let config = StoreConfig { read_connections: 2, ..StoreConfig::default() };
    let store = SqliteStore::open(&path, &config).unwrap();
    let before = store.read_connections();

    let lent = store.readers.get().unwrap();
    let meanwhile = store.read_connections();
    drop(lent);

    assert_eq!(before, ReadConnections { lent: 0, limit: 2 });
    assert_eq!(meanwhile, ReadConnections { lent: 1, limit: 2 });
    assert_eq!(store.read_connections(), before);
}

contract_tests!(new_store);
row_retention_tests!(new_store);

#[actix_rt::test]
async fn a_query_that_takes_too_long_is_broken_off_and_disturbs_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let limit = Duration::ZERO;
    let config =
        StoreConfig { query_timeout: limit, read_connections: 1, ..StoreConfig::default() };
    let store = open_with(&directory, config).await.unwrap();
    let (mut writer, _) = store.open_writer().await.unwrap();
    Content::of(history(1_000, 3)).commit(1, &mut *writer).await.unwrap();

    // It reads every row and finds none.
    let scan = EventQuery { coin: Some("NOWHERE".into()), ..page(10) };
    let refused = store.events(scan).await;
    assert!(matches!(refused, Err(StoreError::TooSlow(after)) if after == limit), "{refused:?}");

    // By the same connection; it is found before anybody looks at the clock.
    let found = store.events(page(1)).await.unwrap();
    assert_eq!(found.len(), 1);
    // The writer has no deadline, however long it takes.
    Content::of(history(3_000, 3)).commit(2, &mut *writer).await.unwrap();
}

#[actix_rt::test]
async fn after_a_close_the_file_alone_is_the_whole_database() {
    let (store, directory) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    Content::of(history(50, 3)).commit(1, &mut *writer).await.unwrap();
    let all = store.events(page(1_000)).await.unwrap().len();

    writer.close().await.unwrap();

    let copy = tempfile::tempdir().unwrap();
    let name = "nodecast.db";
    fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
    let copied = open_in(&copy).await.unwrap();
    assert_eq!(copied.events(page(1_000)).await.unwrap().len(), all);
}

#[actix_rt::test]
async fn nothing_is_committed_into_a_file_that_was_deleted_or_replaced() {
    let (store, directory) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    Content::of(history(2, 1)).commit(1, &mut *writer).await.unwrap();
    let path = directory.path().join("nodecast.db");
    let set_aside = directory.path().join("aside.db");

    fs::rename(&path, &set_aside).unwrap();
    for replaced in [false, true] {
        if replaced {
            fs::copy(&set_aside, &path).unwrap();
        }
        let refused = Content::of(history(4, 1)).commit(2, &mut *writer).await;
        assert!(matches!(refused, Err(StoreError::Unusable(_))), "{refused:?}");
    }
}

#[derive(QueryableByName)]
struct Plan {
    #[diesel(sql_type = Text)]
    detail: String,
}

#[actix_rt::test]
async fn every_page_walks_an_index_in_its_order() {
    let (store, directory) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    Content::of(history(50, 3)).commit(1, &mut *writer).await.unwrap();
    let mut connection = connection_to(&directory);
    let after = Some(PageKey { position: 20, seq: 5 });
    let queries = [
        page(100),
        EventQuery { users: vec![user(1)], ..page(100) },
        EventQuery { users: vec![user(1), user(2), user(0)], after, ..page(100) },
        EventQuery { users: vec![user(1)], topics: vec![FILLS], descending: true, ..page(100) },
        EventQuery { positions: Some(10..=30), after, ..page(100) },
        EventQuery { topics: vec![MISC], ..page(100) },
        EventQuery { times: Some(block_time(10)..=block_time(20)), ..page(100) },
        EventQuery { coin: Some("BTC".into()), descending: true, after, ..page(100) },
        EventQuery { kind: Some("Funding"), users: vec![user(1)], descending: true, ..page(100) },
        EventQuery {
            kind: Some("Funding"),
            users: vec![user(1), user(2)],
            topics: vec![MISC],
            times: Some(block_time(10)..=block_time(20)),
            after,
            ..page(100)
        },
    ];

    for query in queries {
        let statement = history::statement(&mut connection, &query).unwrap().unwrap();
        let mut explained = diesel::sql_query(format!("EXPLAIN QUERY PLAN {}", statement.sql))
            .into_boxed::<diesel::sqlite::Sqlite>();
        for text in statement.binds {
            explained = explained.bind::<Text, _>(text);
        }
        let plan: Vec<Plan> = explained.load(&mut connection).unwrap();
        let plan: Vec<_> = plan.into_iter().map(|step| step.detail).collect();

        let branch = |step: &&String| step.contains("events USING");
        assert!(plan.iter().any(|step| branch(&step)), "{query:?}: {plan:#?}");
        for step in plan.iter().filter(branch) {
            let index = match (query.users.is_empty(), query.kind) {
                (true, _) => "events_identity (topic=?",
                (false, None) => "events_by_user (user=? AND topic=?",
                (false, Some(_)) => "events_by_kind (user=? AND kind=?",
            };
            let walked = format!("{index} AND position>? AND position<?)");
            assert!(step.contains(&walked), "{query:?}: {plan:#?}");
        }
        // A user's index is in order by itself; a topic's only has to sort within a block.
        for step in plan.iter().filter(|step| step.contains("TEMP B-TREE")) {
            assert!(query.users.is_empty(), "{query:?}: {plan:#?}");
            assert!(step.contains("LAST TERM OF ORDER BY"), "{query:?}: {plan:#?}");
        }
        assert!(!plan.iter().any(|step| step.starts_with("SCAN events")), "{plan:#?}");
    }
}

#[actix_rt::test]
async fn an_unknown_scheme_says_what_is_accepted_and_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    let config = StoreConfig::default();

    for url in [
        format!("mysql://user:secret@{}", path.display()),
        path.display().to_string(),
        "sqlite:".to_owned(),
        "sqlite::memory:".to_owned(),
    ] {
        let Err(StoreError::Unusable(text)) = store::open(&url, &config).await.map(|_| ()) else {
            panic!("{url} was accepted");
        };
        assert!(text.contains("sqlite:PATH"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[actix_rt::test]
async fn a_missing_directory_is_named() {
    let config = StoreConfig::default();

    let opened = store::open("sqlite:/nowhere/at/all/x.db", &config).await.map(|_| ());

    let Err(StoreError::Unusable(text)) = opened else { panic!("{opened:?}") };
    assert!(text.contains("/nowhere/at/all"), "{text}");
}

#[actix_rt::test]
async fn a_file_that_is_not_a_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nodecast.db");
    let content = "this is no database. ".repeat(500);
    fs::write(&path, &content).unwrap();

    let opened = open_in(&directory).await.map(|_| ());

    let Err(StoreError::Unusable(text)) = opened else { panic!("{opened:?}") };
    assert!(text.contains("nodecast.db") && text.contains("not a database"), "{text}");
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
}

#[actix_rt::test]
async fn the_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    diesel::sql_query("CREATE TABLE events (x)").execute(&mut connection_to(&directory)).unwrap();

    let opened = open_in(&directory).await.map(|_| ());

    let Err(StoreError::Unusable(text)) = opened else { panic!("{opened:?}") };
    assert!(text.contains("another program"), "{text}");
}

#[actix_rt::test]
async fn a_store_of_a_newer_program_is_refused() {
    let (store, directory) = new_store().await;
    drop(store);
    diesel::sql_query("INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')")
        .execute(&mut connection_to(&directory))
        .unwrap();

    let opened = open_in(&directory).await.map(|_| ());

    let Err(StoreError::Unusable(text)) = opened else { panic!("{opened:?}") };
    assert!(text.contains("newer nodecast"), "{text}");
}

#[actix_rt::test]
async fn migrations_work_up_down_and_up() {
    // H43
    let (store, directory) = new_store().await;
    drop(store);
    let mut connection = connection_to(&directory);

    connection.revert_all_migrations(MIGRATIONS).unwrap();
    let left: Vec<Plan> = diesel::sql_query(
        "SELECT name AS detail FROM sqlite_master \
         WHERE name NOT LIKE 'sqlite%' AND name NOT LIKE '\\_\\_diesel%' ESCAPE '\\'",
    )
    .load(&mut connection)
    .unwrap();
    let again = connection.run_pending_migrations(MIGRATIONS).unwrap();

    assert!(left.is_empty(), "{:?}", left[0].detail);
    assert!(!again.is_empty());
}

#[actix_rt::test]
async fn a_writer_whose_run_was_overtaken_commits_nothing() {
    let (store, directory) = new_store().await;
    let (mut writer, recovered) = store.open_writer().await.unwrap();
    // As another host would on a network file system that does not know locks.
    let next = recovered.run.id + 1;
    diesel::sql_query(format!("UPDATE store_state SET run = {next}"))
        .execute(&mut connection_to(&directory))
        .unwrap();

    let committed = Content::of(vec![event(FILLS, 1, 0, 1)]).commit(1, &mut *writer).await;
    let retained = writer
        .retain(RetentionLimits {
            now: Timestamp(i64::MAX),
            edge: Timestamp(i64::MAX),
            max_bytes: None,
            min_free_bytes: 0,
            portion: 10,
        })
        .await;
    let backfilled = writer.backfill(&[event(FILLS, 2, 0, 0).event], None).await;

    assert!(matches!(committed, Err(StoreError::LeaseLost(_))), "{committed:?}");
    assert!(matches!(backfilled, Err(StoreError::LeaseLost(_))), "{backfilled:?}");
    assert!(matches!(retained, Err(StoreError::LeaseLost(_))), "{retained:?}");
    assert!(matches!(writer.compact().await, Err(StoreError::LeaseLost(_))));
    assert!(store.events(page(10)).await.unwrap().is_empty());
}

#[actix_rt::test]
async fn a_run_is_above_all_earlier_ones_when_the_clock_has_stepped_back() {
    let (_store, directory) = new_store().await;
    let mut connection = connection_to(&directory);

    let first = state::start_run(&mut connection, Timestamp(1_000)).unwrap();
    let second = state::start_run(&mut connection, Timestamp(5)).unwrap();

    assert_eq!((first.id, second.id), (1_000, 1_001));
    assert_eq!(first.epoch, second.epoch);
}

#[actix_rt::test]
async fn a_database_that_is_locked_is_unavailable_and_works_afterwards() {
    let (store, directory) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let mut other = connection_to(&directory);
    let content = Content::of(vec![event(FILLS, 1, 0, 1)]);
    diesel::sql_query("BEGIN IMMEDIATE").execute(&mut other).unwrap();

    let locked = content.commit(1, &mut *writer).await;
    diesel::sql_query("ROLLBACK").execute(&mut other).unwrap();

    assert!(matches!(locked, Err(StoreError::Unavailable(_))), "{locked:?}");
    assert_eq!(content.commit(1, &mut *writer).await.unwrap().inserted, 1);
}

#[actix_rt::test]
async fn a_full_database_is_unavailable_and_works_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    drop(open_in(&directory).await.unwrap());
    let path = directory.path().join("nodecast.db");
    let (mut writer, _) = SqliteWriter::open(path, true).unwrap();
    let mut large = event(FILLS, 1, 0, 1);
    large.event.body = format!("\"{}\"", "x".repeat(10 << 20)).into();
    let content = Content::of(vec![large]);
    writer.limit_pages(100);

    let full = content.commit(1, &mut writer).await;

    assert!(matches!(full, Err(StoreError::Unavailable(_))), "{full:?}");
    // The limit was on the connection, which is not used again after such a failure.
    assert_eq!(content.commit(1, &mut writer).await.unwrap().inserted, 1);
}

#[actix_rt::test]
async fn the_file_shrinks_after_much_was_deleted() {
    let (store, directory) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let mut events: Vec<_> = (0..300).map(|step| event(FILLS, step, 0, step + 1)).collect();
    for event in &mut events {
        event.event.body = format!("\"{}\"", "x".repeat(400_000)).into();
    }
    Content::of(events).commit(1, &mut *writer).await.unwrap();
    let path = directory.path().join("nodecast.db");
    writer.close().await.unwrap();
    let full = fs::metadata(&path).unwrap().len();
    let (mut writer, _) = store.open_writer().await.unwrap();
    let now = Timestamp(i64::MAX);
    let limits = RetentionLimits {
        now,
        edge: block_time(299),
        max_bytes: None,
        min_free_bytes: 0,
        portion: 50,
    };

    for _ in 0..20 {
        writer.retain(limits).await.unwrap();
    }

    writer.close().await.unwrap();
    let shrunk = fs::metadata(&path).unwrap().len();
    assert!(shrunk < full * 2 / 3, "{full} -> {shrunk}");
}

#[actix_rt::test]
async fn a_ledger_of_a_week_is_small_after_compaction() {
    let (store, directory) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    for number in 0..200 {
        let seen = (0..1_000).map(|block| range(number * 1_000 + block, number * 1_000 + block));
        let content = Content { seen: seen.collect(), ..Content::default() };
        content.commit(number + 1, &mut *writer).await.unwrap();
    }

    writer.compact().await.unwrap();

    let rows: i64 =
        schema::blocks::table.count().get_result(&mut connection_to(&directory)).unwrap();
    assert!(rows < 40, "{rows}");
    let seen = writer.recover().await.unwrap().seen;
    assert_eq!(seen.iter().map(|range| range.last - range.first + 1).sum::<u64>(), 200_000);
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(Topic, u64, u32)>),
    /// A commit that is refused as a whole.
    Refused(Vec<(Topic, u64, u32)>),
    Repeat,
    Reopen,
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = (prop_oneof![Just(FILLS), Just(MISC)], 0_u64..12, 0_u32..4);
    let ids = prop::collection::vec(id, 0..12);
    let step = prop_oneof![
        6 => ids.clone().prop_map(Step::Commit),
        1 => ids.prop_map(Step::Refused),
        1 => Just(Step::Repeat),
        1 => Just(Step::Reopen),
        1 => Just(Step::Compact),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_commits_and_restarts_stores_each_identity_once(steps in steps()) {
        actix_rt::System::new().block_on(run_steps(steps));
    }
}

async fn run_steps(steps: Vec<Step>) {
    let (mut store, directory) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let mut model = Model::default();
    let (mut number, mut seq) = (0, 0);
    let mut last = Content::default();
    for step in steps {
        let mut events_of = |ids: Vec<(Topic, u64, u32)>| {
            let events = ids.into_iter().map(|(topic, position, index)| {
                seq += 1;
                event(topic, position, index, seq)
            });
            events.collect::<Vec<_>>()
        };
        match step {
            Step::Commit(ids) => {
                last = Content::of(events_of(ids));
                number += 1;
                let before = model.0.len();
                model.commit(&last.events);
                let committed = last.commit(number, &mut *writer).await.unwrap();
                assert_eq!(committed.inserted, model.0.len() - before);
                assert_eq!(committed.inserted + committed.duplicates, last.events.len());
            }
            Step::Refused(ids) => {
                let mut content = Content::of(events_of(ids));
                let mut bad = event(FILLS, 1, 1, 1 << 40);
                bad.event.body = bytes::Bytes::from_static(b"\xff");
                content.events.push(bad);
                content.commit(number + 1, &mut *writer).await.unwrap_err();
            }
            Step::Repeat if number > 0 => {
                last.commit(number, &mut *writer).await.unwrap();
            }
            Step::Repeat => {}
            Step::Reopen => {
                drop(writer);
                drop(store);
                store = open_in(&directory).await.unwrap();
                let (reopened, recovered) = store.open_writer().await.unwrap();
                writer = reopened;
                number = 0;
                assert!(model.0.values().all(|event| event.seq <= recovered.last_seq));
            }
            Step::Compact => writer.compact().await.unwrap(),
        }
    }
    assert_eq!(all_pages(&*store, page(5)).await, model.in_order());
}

#[actix_rt::test]
async fn what_a_prune_announces_is_what_it_deletes() {
    const DAY: u64 = 86_400;
    let directory = tempfile::tempdir().unwrap();
    let store = open_in(&directory).await.unwrap();
    let (mut writer, _) = store.open_writer().await.unwrap();
    let live: Vec<_> = (0..6).map(|day| event(FILLS, day * DAY + 7, 0, day + 1)).collect();
    Content::of(live).commit(1, &mut *writer).await.unwrap();
    let day = Duration::from_secs(DAY);
    let on_day = |day: u64| event(FILLS, day * DAY + 9, 1, 0).event;
    writer.backfill(&[on_day(2)], Some(9 * day)).await.unwrap();
    // That one's time is over.
    writer.backfill(&[on_day(3)], Some(day / 2)).await.unwrap();
    let edge = block_time(5 * DAY);

    let path = directory.path().join("nodecast.db");
    let announced = inspect::count_before(&path, edge).unwrap();

    let now = Timestamp::now();
    let limits = RetentionLimits { now, edge, max_bytes: None, min_free_bytes: 0, portion: 1_000 };
    let deleted = writer.retain(limits).await.unwrap().deleted;
    assert_eq!((announced, deleted), (5, 5));
}
