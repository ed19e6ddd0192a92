//! PostgreSQL with four million rows in two days: a page at the end, pages in the order of
//! arrival, and a day that goes.
//!
//! `scripts/bench.sh depth`, which starts the server. Beside the figures stand references of the same
//! run: the page by OFFSET, and DELETE of a twentieth of the rows.

mod rows;

use std::{
    env,
    io::{self, Write},
    time::{Duration, Instant},
};

use nodecast::{
    config::StoreConfig,
    event::Timestamp,
    store::{self, EventQuery, RetentionLimits},
};
use tokio_postgres::NoTls;

use self::rows::{ROWS, START, WIDTH, batch, commit, place, user};

const TOTAL: u64 = 4_000_000;

const DAY: Duration = Duration::from_secs(86_400);

const PAGES: usize = 200;

/// As many as those who resume are given at once.
const ARRIVALS: usize = 512;

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn main() -> io::Result<()> {
    let Ok(server) = env::var("NODECAST_TEST_POSTGRES") else {
        return writeln!(
            io::stderr(),
            "SKIPPED: NODECAST_TEST_POSTGRES names no server; scripts/bench.sh depth starts one."
        );
    };
    actix_rt::Runtime::new()?.block_on(measure(&server))
}

async fn measure(server: &str) -> io::Result<()> {
    let (client, connection) =
        tokio_postgres::connect(server, NoTls).await.map_err(io::Error::other)?;
    actix_rt::spawn(async move { connection.await.expect("the server stays") });
    let name = format!("depth_{}", std::process::id());
    let create = format!("CREATE DATABASE {name}");
    client.batch_execute(&create).await.map_err(io::Error::other)?;
    let (base, _) = server.rsplit_once('/').ok_or_else(|| io::Error::other("no database"))?;
    let url = format!("{base}/{name}");
    let store = store::open(&url, &StoreConfig::default()).await.map_err(io::Error::other)?;
    let (mut writer, _) = store.open_writer().await.map_err(io::Error::other)?;
    let mut out = io::stdout().lock();

    let pace = 2 * DAY / (TOTAL / WIDTH) as u32;
    let begun = Instant::now();
    // The first row of batch 0 is seq 1.
    for number in 0..TOTAL / ROWS {
        commit(&mut *writer, number + 1, &batch(number, pace)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    writeln!(
        out,
        "PostgreSQL, {TOTAL} rows in two days, commits of {ROWS}: {:.0} rows/s",
        TOTAL as f64 / took
    )?;

    let at_depth = Some(place(TOTAL - 3 * 1_000));
    let any = EventQuery { after: at_depth, limit: 100, ..EventQuery::default() };
    let of_user = EventQuery { users: vec![user(7)], limit: 1, ..any.clone() };
    let backwards = EventQuery { after: None, descending: true, ..any.clone() };
    for (name, query) in [
        ("100 rows at the end", any.clone()),
        ("the same of a user", of_user),
        ("the newest 100", backwards),
    ] {
        let mut times = Vec::new();
        for _ in 0..PAGES {
            let begun = Instant::now();
            let rows = store.events(query.clone()).await.map_err(io::Error::other)?;
            times.push(begun.elapsed());
            assert_eq!(rows.len(), query.limit);
        }
        times.sort_unstable();
        writeln!(
            out,
            "  page, {name}: {:.2} ms in the middle of {PAGES}, {:.2} ms the slowest",
            ms(times[PAGES / 2]),
            ms(times[PAGES - 1])
        )?;
    }
    let offset = EventQuery { after: None, offset: (TOTAL - 3_000) as usize, ..any };
    let begun = Instant::now();
    store.events(offset).await.map_err(io::Error::other)?;
    writeln!(out, "    by OFFSET: {:.0} ms", begun.elapsed().as_secs_f64() * 1e3)?;

    let mut times = Vec::new();
    for page in 0..PAGES as u64 {
        let after = page * TOTAL / PAGES as u64;
        let begun = Instant::now();
        let rows = store.arrivals(after, ARRIVALS).await.map_err(io::Error::other)?.events;
        times.push(begun.elapsed());
        assert_eq!(rows.len(), ARRIVALS);
    }
    times.sort_unstable();
    writeln!(
        out,
        "  {ARRIVALS} rows in the order of arrival, all over: {:.2} ms in the middle of {PAGES}, \
         {:.2} ms the slowest",
        ms(times[PAGES / 2]),
        ms(times[PAGES - 1])
    )?;

    let (client, connection) =
        tokio_postgres::connect(&url, NoTls).await.map_err(io::Error::other)?;
    actix_rt::spawn(async move { connection.await.expect("the server stays") });
    // A day that goes was written long ago: the server's autovacuum has come by meanwhile, and nothing of
    // it waits to be written.
    for statement in ["VACUUM nodecast.events", "CHECKPOINT"] {
        client.batch_execute(statement).await.map_err(io::Error::other)?;
    }
    let edge = START.plus(DAY);
    let now = Timestamp(i64::MAX);
    let limits = RetentionLimits { now, edge, max_bytes: None, min_free_bytes: 0, portion: 1_000 };
    let begun = Instant::now();
    let retained = writer.retain(limits).await.map_err(io::Error::other)?;
    let took = begun.elapsed();
    assert!(retained.deleted as u64 + WIDTH >= TOTAL / 2, "{retained:?}");
    writeln!(out, "  retention of {} rows: {:.2} s", retained.deleted, took.as_secs_f64())?;

    let delete = format!(
        "DELETE FROM nodecast.events WHERE topic_id = 1 AND position >= {}",
        (TOTAL - TOTAL / 20) / WIDTH
    );
    let begun = Instant::now();
    let deleted = client.execute(&delete, &[]).await.map_err(io::Error::other)?;
    writeln!(
        out,
        "    DELETE of {deleted} rows, without the VACUUM behind it: {:.2} s",
        begun.elapsed().as_secs_f64()
    )
}
