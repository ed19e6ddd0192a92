//! What only PostgreSQL does: partitions, leases, URLs. The rest is in `store::contract`.

mod connections;
mod gone_back;
mod kinds;
mod migrations;
mod reads;

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use diesel::{QueryableByName, sql_types::Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::{connection::Server, partitions::Day, topics::Topics, *};
use crate::{
    event::{SequencedEvent, Timestamp},
    store::{
        self, PageKey, Pending, RetentionLimits,
        contract::{Content, FILLS, MISC, block_time, contract_tests, event, history, page},
    },
};

/// A database of its own, dropped at the end.
struct Database {
    url: String,
}

impl Database {
    async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("unit_{}_{number}", std::process::id());
        let server = server();
        let mut connection = Server::parse(&server).unwrap().connect().await.unwrap();
        connection.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        Self { url: format!("{base}/{name}") }
    }

    async fn open(&self) -> Result<Arc<dyn EventStore>, StoreError> {
        store::open(&self.url, &StoreConfig::default()).await
    }

    async fn run(&self, statements: &str) {
        let mut connection = Server::parse(&self.url).unwrap().connect().await.unwrap();
        connection.batch_execute(statements).await.unwrap();
    }
}

/// The URL of the server that `scripts/test.sh` has started.
fn server() -> String {
    env::var("NODECAST_TEST_POSTGRES")
        .expect("NODECAST_TEST_POSTGRES names a PostgreSQL server: scripts/test.sh starts one")
}

async fn new_store() -> (Arc<dyn EventStore>, Database) {
    let database = Database::new().await;
    (database.open().await.unwrap(), database)
}

contract_tests!(new_store);

const DAY: u64 = 86_400;

fn days_ago_limits(edge: Timestamp) -> RetentionLimits {
    let now = Timestamp(i64::MAX);
    RetentionLimits { now, edge, max_bytes: None, min_free_bytes: 0, portion: 10 }
}

#[actix_rt::test]
async fn retention_takes_whole_days_and_remembers_how_far() {
    // H41
    let (store, database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let events: Vec<_> = (0..12).map(|step| event(FILLS, step * DAY / 4, 0, step + 1)).collect();
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    // In the middle of the third day: two are over.
    let edge = block_time(2 * DAY + DAY / 2);

    let first = writer.retain(days_ago_limits(edge)).await.unwrap();
    let second = writer.retain(days_ago_limits(edge)).await.unwrap();
    let last = writer.retain(days_ago_limits(edge)).await.unwrap();

    assert_eq!((first.deleted, first.more), (4, true));
    assert_eq!((second.deleted, second.more), (4, true));
    assert_eq!((last.deleted, last.more, last.shortened), (0, false, false));
    assert_eq!(store.events(page(100)).await.unwrap(), events[8..]);
    let size = store.size().await.unwrap();
    assert_eq!((size.deleted_seq, size.oldest_seq), (Some(8), Some(9)));
    assert_eq!(writer.recover().await.unwrap().last_seq, 12);
    // A day that was taken away can come again.
    let late = Content::of(vec![event(FILLS, 1, 0, 20)]);
    assert_eq!(late.commit(2, &mut *writer).await.unwrap().inserted, 1);
    drop(database);
}

#[actix_rt::test]
async fn a_store_above_its_size_gives_up_its_oldest_day_and_never_the_last_hour() {
    let (store, _database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let events: Vec<_> = (0..3).map(|day| event(FILLS, day * DAY + DAY / 2, 0, day + 1)).collect();
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    let small = RetentionLimits { max_bytes: Some(1), ..days_ago_limits(Timestamp(i64::MIN)) };

    let mut retained = writer.retain(small).await.unwrap();
    while retained.more {
        retained = writer.retain(small).await.unwrap();
    }

    assert!(retained.shortened && retained.exhausted, "{retained:?}");
    assert_eq!(store.events(page(10)).await.unwrap(), events[2..]);
}

#[actix_rt::test]
async fn a_day_that_ended_within_the_last_hour_stays_whatever_the_size_says() {
    let (store, _database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let times = [DAY / 2, DAY + DAY / 2, 2 * DAY + 1_800];
    let events: Vec<_> = (1..).zip(times).map(|(seq, time)| event(FILLS, time, 0, seq)).collect();
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    let small = RetentionLimits { max_bytes: Some(1), ..days_ago_limits(Timestamp(i64::MIN)) };

    while writer.retain(small).await.unwrap().more {}

    assert_eq!(store.events(page(10)).await.unwrap(), events[1..]);
}

#[actix_rt::test]
async fn an_event_dated_ahead_gives_no_younger_day_away() {
    let (store, _database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let events = vec![event(FILLS, DAY / 2, 0, 1), event(FILLS, 30 * DAY, 0, 2)];
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    let limits = days_ago_limits(Timestamp(i64::MIN));
    let small = RetentionLimits { now: block_time(DAY + 1_800), max_bytes: Some(1), ..limits };

    let retained = writer.retain(small).await.unwrap();

    assert!(retained.deleted == 0 && retained.exhausted, "{retained:?}");
    assert_eq!(store.events(page(10)).await.unwrap(), events);
}

/// Three days with four events each, of which the first is over.
async fn three_days(writer: &mut dyn StoreWriter) -> (Vec<SequencedEvent>, RetentionLimits) {
    let events: Vec<_> = (0..12).map(|step| event(FILLS, step * DAY / 4, 0, step + 1)).collect();
    Content::of(events.clone()).commit(1, writer).await.unwrap();
    (events, days_ago_limits(block_time(DAY + DAY / 2)))
}

const FIRST_DAY: &str = "nodecast.events_20260315";

// H41
#[actix_rt::test]
async fn retention_waits_for_no_reader_and_nobody_waits_for_retention() {
    let (store, database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let (events, limits) = three_days(&mut *writer).await;
    let mut reader = Server::parse(&database.url).unwrap().connect().await.unwrap();
    reader.batch_execute("BEGIN; SELECT count(*) FROM nodecast.events").await.unwrap();

    let blocked = writer.retain(limits).await;

    assert!(matches!(blocked, Err(StoreError::Unavailable(_))), "{blocked:?}");
    assert_eq!(store.events(page(100)).await.unwrap(), events[4..]);
    // A cursor from before them is told so from now on.
    assert_eq!(store.size().await.unwrap().deleted_seq, Some(4));
    let next = vec![event(FILLS, 3 * DAY, 0, 20)];
    assert_eq!(Content::of(next.clone()).commit(2, &mut *writer).await.unwrap().inserted, 1);
    // A late event of that very day needs the place that the reader holds.
    let late = Content::of(vec![event(FILLS, 1, 0, 21)]);
    let refused = late.commit(3, &mut *writer).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");

    reader.batch_execute("ROLLBACK").await.unwrap();
    let retained = writer.retain(limits).await.unwrap();

    assert_eq!((retained.deleted, retained.more), (4, true));
    assert_eq!(store.size().await.unwrap().deleted_seq, Some(4));
    assert!(!writer.retain(limits).await.unwrap().more);
    assert_eq!(late.commit(3, &mut *writer).await.unwrap().inserted, 1);
}

#[actix_rt::test]
async fn a_day_that_went_halfway_when_the_daemon_died_is_taken_away_by_the_next() {
    let (store, database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let (_, limits) = three_days(&mut *writer).await;
    writer.close().await.unwrap();
    let detach = format!("ALTER TABLE nodecast.events DETACH PARTITION {FIRST_DAY}");
    for (seq, halfway) in [(30, detach.clone()), (40, format!("{detach} CONCURRENTLY"))] {
        let mut reader = Server::parse(&database.url).unwrap().connect().await.unwrap();
        let mut detaching = Server::parse(&database.url).unwrap().connect().await.unwrap();
        if halfway.ends_with("CONCURRENTLY") {
            // It gives up behind the first of its two steps.
            reader.batch_execute("BEGIN; SELECT count(*) FROM nodecast.events").await.unwrap();
            detaching.batch_execute("SET lock_timeout = 100").await.unwrap();
            detaching.batch_execute(&halfway).await.unwrap_err();
        } else {
            detaching.batch_execute(&halfway).await.unwrap();
        }
        drop((reader, detaching));
        let (mut writer, _) = database.open().await.unwrap().open_writer().await.unwrap();

        let retained = writer.retain(limits).await.unwrap();

        assert_eq!((retained.deleted, retained.more), (4, true), "{halfway}");
        database.run(&format!("SELECT 1 / (to_regclass('{FIRST_DAY}') IS NULL)::int")).await;
        // Once more, for the other way.
        let again: Vec<_> =
            (0..4).map(|step| event(FILLS, step * DAY / 4, 0, seq + step)).collect();
        let all = Content::of(again).commit(1, &mut *writer).await.unwrap();
        assert_eq!(all.inserted, 4);
        writer.close().await.unwrap();
    }
}

#[actix_rt::test]
async fn the_days_to_come_are_made_before_their_events() {
    let (store, database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let days = |count: u32| {
        format!(
            "SELECT 1 / (count(*) = {count})::int FROM pg_inherits \
             WHERE inhparent = 'nodecast.events'::regclass"
        )
    };
    Content::of(vec![event(FILLS, 5, 0, 1)]).commit(1, &mut *writer).await.unwrap();
    database.run(&days(1)).await;

    writer.prepare().await.unwrap();

    database.run(&days(3)).await;
    Content::of(vec![event(FILLS, DAY, 0, 2)]).commit(2, &mut *writer).await.unwrap();
    database.run(&days(3)).await;
    writer.close().await.unwrap();
    // A start makes them, too.
    let (_writer, _) = store.open_writer().await.unwrap();
    database.run(&days(4)).await;
}

#[actix_rt::test]
async fn a_commit_that_need_not_be_durable_does_not_wait_for_the_disk() {
    let database = Database::new().await;
    for (durable, expected) in [(true, "on"), (false, "off")] {
        let config = StoreConfig { durable, ..StoreConfig::default() };
        let store = store::open(&database.url, &config).await.unwrap();
        let (mut writer, _) = store.open_writer().await.unwrap();
        // The trigger sees the writer's own session.
        database
            .run(&format!(
                "CREATE OR REPLACE FUNCTION nodecast.look() RETURNS trigger LANGUAGE plpgsql AS $$ \
                 BEGIN \
                     ASSERT current_setting('synchronous_commit') = '{expected}'; RETURN NEW; \
                 END $$; \
                 CREATE OR REPLACE TRIGGER look BEFORE UPDATE ON nodecast.store_state \
                 FOR EACH ROW EXECUTE FUNCTION nodecast.look()"
            ))
            .await;

        Content::default().commit(1, &mut *writer).await.unwrap();

        database.run("DROP TRIGGER look ON nodecast.store_state").await;
        writer.close().await.unwrap();
    }
}

#[actix_rt::test]
async fn a_writer_whose_lease_ran_out_and_was_taken_commits_nothing_any_more() {
    let (store, database) = new_store().await;
    let (mut first, _) = store.open_writer().await.unwrap();
    Content::of(history(2, 1)).commit(1, &mut *first).await.unwrap();
    // It hangs for longer than its lease.
    database.run("UPDATE nodecast.store_state SET leased_until = now() - interval '1 s'").await;

    let (mut second, recovered) = store.open_writer().await.unwrap();

    assert_eq!(recovered.last_seq, 3);
    let refused = Content::of(vec![event(FILLS, 9, 0, 50)]).commit(2, &mut *first).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost(_))), "{refused:?}");
    let refused = first.backfill(&[event(FILLS, 8, 0, 0).event], None).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost(_))), "{refused:?}");
    let refused = first.retain(days_ago_limits(Timestamp(i64::MAX))).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost(_))), "{refused:?}");
    assert!(matches!(first.compact().await, Err(StoreError::LeaseLost(_))));
    let Err(StoreError::LeaseLost(successor)) = first.renew().await else { panic!("it is lost") };
    let named = format!("process {} on ", std::process::id());
    assert!(successor.contains(&named) && successor.contains("has taken over"), "{successor}");
    assert_eq!(store.events(page(10)).await.unwrap(), history(2, 1));
    Content::of(vec![event(FILLS, 9, 0, 60)]).commit(1, &mut *second).await.unwrap();
    second.renew().await.unwrap();
}

#[actix_rt::test]
async fn of_writers_that_come_together_one_gets_the_lease() {
    let (store, _database) = new_store().await;

    let opened = futures_util::future::join_all((0..4).map(|_| store.open_writer())).await;

    assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1);
}

#[actix_rt::test]
async fn each_commit_keeps_the_lease() {
    let (store, database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    database.run("UPDATE nodecast.store_state SET leased_until = now()").await;

    Content::default().commit(1, &mut *writer).await.unwrap();

    let refused = store.open_writer().await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::LeaseLost(_))), "{refused:?}");
}

#[actix_rt::test]
async fn a_run_is_above_all_earlier_ones_when_the_clock_has_stepped_back() {
    let (store, database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    writer.close().await.unwrap();
    database.run("UPDATE nodecast.store_state SET run = 9000000000000000").await;

    let (_writer, recovered) = store.open_writer().await.unwrap();

    assert_eq!(recovered.run.id, 9_000_000_000_000_001);
}

#[actix_rt::test]
async fn the_lease_of_a_process_of_this_machine_that_died_is_free_at_once() {
    let (store, database) = new_store().await;
    let (_writer, _) = store.open_writer().await.unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();

    database.run(&format!("UPDATE nodecast.store_state SET holder_process = {dead}")).await;

    store.open_writer().await.unwrap();
}

#[actix_rt::test]
async fn a_connection_that_was_cut_is_opened_again_for_the_same_batch() {
    let (store, database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    Content::of(history(2, 1)).commit(1, &mut *writer).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.run(cut).await;

    let content = Content::of(vec![event(FILLS, 9, 0, 50)]);
    let mut tried = content.commit(2, &mut *writer).await;
    while let Err(StoreError::Unavailable(_)) = tried {
        tried = content.commit(2, &mut *writer).await;
    }

    assert_eq!(tried.unwrap().inserted, 1);
}

#[actix_rt::test]
async fn what_an_error_means_does_not_hang_on_its_language() {
    let database = Database::new().await;
    let mut connection = Server::parse(&database.url).unwrap().connect().await.unwrap();
    for (state, kind) in [("57014", "Unavailable"), ("22021", "Refused"), ("42501", "Denied")] {
        let raise = format!(
            "DO $$ BEGIN RAISE EXCEPTION 'so geht das nicht' USING ERRCODE = '{state}'; END $$"
        );

        let failed = connection.batch_execute(&raise).await.map_err(Fault::from).unwrap_err();

        assert_eq!(format!("{:?}", failed.0), format!("{kind}(\"[{state}] so geht das nicht\")"));
    }
}

#[actix_rt::test]
async fn daemons_that_start_together_make_the_tables_once() {
    let database = Database::new().await;

    let opened = futures_util::future::join_all((0..4).map(|_| database.open())).await;

    for store in opened {
        store.unwrap();
    }
}

// H40
#[actix_rt::test]
async fn the_older_services_table_is_a_view_and_a_name_that_is_taken_is_left_alone() {
    let (store, database) = new_store().await;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let mut misc = event(MISC, 7, 0, 2);
    let body = r#"{"time":"t","hash":"0x1","inner":{"CDeposit":{"amount":"1.0"}}}"#;
    misc.event.body = bytes::Bytes::from_static(body.as_bytes());
    Content::of(vec![event(FILLS, 7, 1, 1), misc]).commit(1, &mut *writer).await.unwrap();
    let seen = "SELECT 1/count(*) FROM public.events WHERE block_number = 7";
    let user = "user_address = '0x0101010101010101010101010101010101010101'";

    database.run(&format!("{seen} AND event_type = 'fill' AND {user}")).await;
    database.run(&format!("{seen} AND data->>'px' = '0.10' AND created_at > '2026-03-15'")).await;
    database
        .run(&format!("{seen} AND event_type = 'misc' AND data->'CDeposit'->>'amount' = '1.0'"))
        .await;
    database.run(&format!("{seen} AND data->>'hash' = '0x1'")).await;
    assert_eq!(database.open().await.unwrap().warnings(), Vec::<String>::new());

    database.run("DROP VIEW public.events; CREATE TABLE public.events (mine int)").await;
    let warnings = database.open().await.unwrap().warnings();
    assert!(warnings[0].contains("public.events"), "{warnings:?}");
    database.run("SELECT mine FROM public.events").await;
}

// H43
#[actix_rt::test]
async fn migrations_run_up_down_and_up() {
    macro_rules! scripts {
        ($($name:literal)*) => {
            [$((
                include_str!(concat!("../../../migrations/postgres/2026-11-", $name, "/up.sql")),
                include_str!(concat!("../../../migrations/postgres/2026-11-", $name, "/down.sql")),
            )),*]
        };
    }
    let scripts = scripts! {
        "21-000000_store" "21-180000_backfills" "22-000000_arrivals" "23-000000_arrival_ranges"
        "24-000000_kinds"
    };
    let (_store, database) = new_store().await;

    database.run("DROP VIEW public.events").await;
    for (_, down) in scripts.iter().rev() {
        database.run(down).await;
    }
    database.run("SELECT 1 / (to_regclass('nodecast.events') IS NULL)::int").await;
    for (up, _) in scripts {
        database.run(up).await;
    }

    let (mut writer, _) = database.open().await.unwrap().open_writer().await.unwrap();
    Content::of(history(2, 1)).commit(1, &mut *writer).await.unwrap();
    writer.save_pending(&Pending::default()).await.unwrap();
}

#[actix_rt::test]
async fn a_store_of_a_newer_program_is_refused() {
    let (_store, database) = new_store().await;
    database
        .run("INSERT INTO nodecast.__diesel_schema_migrations (version) VALUES ('99991231000000')")
        .await;

    let opened = database.open().await.map(|_| ());

    let Err(StoreError::Unusable(text)) = opened else { panic!("{opened:?}") };
    assert!(text.contains("newer nodecast"), "{text}");
}

#[actix_rt::test]
async fn a_server_that_cannot_be_used_is_one_clear_line() {
    let server = server();
    let (base, _) = server.rsplit_once('/').unwrap();
    let refused = [
        (format!("{base}/there_is_no_such_database"), "does not exist"),
        (base.replace("nodecast@", "nobody_knows_me@") + "/postgres", "does not exist"),
        ("postgres://127.0.0.1:1/x?sslmode=perhaps".into(), "sslmode"),
        ("postgres://127.0.0.1".into(), "names no database"),
    ];
    for (url, cause) in refused {
        let opened = store::open(&url, &StoreConfig::default()).await.map(|_| ());
        let Err(StoreError::Unusable(text) | StoreError::Denied(text)) = opened else {
            panic!("{url}: {opened:?}")
        };
        assert!(text.contains(cause) && !text.contains('\n'), "{text}");
    }
    let silent = store::open("postgres://127.0.0.1:1/x", &StoreConfig::default()).await.map(|_| ());
    assert!(matches!(silent, Err(StoreError::Unavailable(_))), "{silent:?}");
}

#[actix_rt::test]
async fn a_page_of_a_day_without_statistics_is_read_in_the_order_of_the_index() {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
        line: String,
    }
    let database = Database::new().await;
    let store = PostgresStore::open(&database.url, &StoreConfig::default()).await.unwrap();
    let day = Day::of(block_time(0));
    let insert = format!(
        "INSERT INTO nodecast.topics VALUES (1, 'fills');
         INSERT INTO nodecast.events
             (seq, position, time, idx, part, topic_id, late, user_address, body)
         SELECT n, n / 50, {}, n % 50, 0, 1, false, NULL, '{{}}' FROM generate_series(1, 20000) n",
        day.start()
    );
    let mut connection = Server::parse(&database.url).unwrap().connect().await.unwrap();
    partitions::create(&mut connection, day, partitions::ON_DEMAND).await.unwrap();
    database.run(&insert).await;

    let after = Some(PageKey { position: 100, seq: 5_000 });
    let query = EventQuery { after, limit: 1_000, ..EventQuery::default() };
    let plan = store.readers.read(async |connection| {
        let topics = Topics::load(connection).await?;
        let page = history::statement(&query, &spans::by_position(&query, &topics)).unwrap();
        let explain = diesel::sql_query(format!("EXPLAIN {}", page.sql));
        let plan: Vec<Plan> = explain.load(connection).await?;
        Ok(plan.into_iter().map(|row| row.line).collect::<Vec<_>>().join("\n"))
    });

    let plan = plan.await.unwrap();
    assert!(plan.contains("Presorted Key"), "{plan}");
    assert!(plan.contains("Index Scan") && !plan.contains("Bitmap"), "{plan}");
    assert_eq!(store.events(query).await.unwrap().len(), 1_000);
}

#[actix_rt::test]
async fn a_day_that_is_looked_through_page_by_page_is_known_to_its_last_row() {
    let database = Database::new().await;
    PostgresStore::open(&database.url, &StoreConfig::default()).await.unwrap();
    let mut connection = Server::parse(&database.url).unwrap().connect().await.unwrap();
    let run = lease::take(&mut connection, block_time(0)).await.unwrap();
    let day = Day::of(block_time(0));
    partitions::create(&mut connection, day, partitions::ON_DEMAND).await.unwrap();
    // The last rows are not the highest, and those below 0 were back-filled.
    let insert = format!(
        "INSERT INTO nodecast.events
             (seq, position, time, idx, part, topic_id, late, user_address, body)
         SELECT 1500 - n, n, {0} + n % 700, 0, 0, 1, false, NULL, '{{}}'
         FROM generate_series(1, 2000) n",
        day.start()
    );
    database.run(&insert).await;

    let whole = retention::extent(&mut connection, run, day, 1_000).await.unwrap();
    let by_page = retention::extent(&mut connection, run, day, 1).await.unwrap();

    let time = Some(day.start() + 699);
    assert_eq!(whole, retention::Extent { rows: 2_000, seq: Some(1_499), time });
    assert_eq!(by_page, whole);
}
