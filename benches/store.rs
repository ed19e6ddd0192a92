//! The hot paths of both stores: one commit, and one page of history at depth.
//!
//! `cargo bench --bench store`; `scripts/bench.sh store` starts the PostgreSQL server for it. The
//! databases are below the temporary directory and wait for its disk at each commit, as by
//! default. Beside the commits stand references of the same run: for SQLite plain writes of as many
//! bytes, for PostgreSQL a binary COPY of the same rows into a table without an index.

mod rows;

use std::{
    env,
    fs::File,
    hint::black_box,
    io::{self, Write},
    pin::pin,
    time::Duration,
};

use actix_rt::Runtime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use nodecast::{
    config::StoreConfig,
    event::SequencedEvent,
    store::{self, EventQuery},
};
use tokio_postgres::{NoTls, binary_copy::BinaryCopyInWriter, types::Type};

use self::rows::{ROWS, batch, commit, place, user};

/// Commits that fill a store before a page is read at its middle.
const DEPTH: u64 = 100;

const PACE: Duration = Duration::from_millis(70);

fn sqlite(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", directory.path().join("bench.db").display());
    let mut group = criterion.benchmark_group("sqlite");
    paths(&mut group, &Runtime::new().expect("a runtime"), &url);
    let bytes = ROWS * 500;
    let mut file = File::create(directory.path().join("plain")).expect("a file");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("reference: plain writes", |bencher| {
        bencher.iter(|| -> io::Result<()> {
            file.write_all(&vec![7; bytes as usize])?;
            file.sync_data()
        });
    });
    group.finish();
}

fn postgres(criterion: &mut Criterion) {
    let Ok(server) = env::var("NODECAST_TEST_POSTGRES") else {
        eprintln!(
            "SKIPPED: PostgreSQL. NODECAST_TEST_POSTGRES names no server; scripts/bench.sh store \
             starts one."
        );
        return;
    };
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(connect(&server));
    let name = format!("bench_{}", std::process::id());
    let create = format!("CREATE DATABASE {name}");
    runtime.block_on(client.batch_execute(&create)).expect("a new database");
    let (base, _) = server.rsplit_once('/').expect("the URL names a database");
    let mut group = criterion.benchmark_group("postgres");
    paths(&mut group, &runtime, &format!("{base}/{name}"));
    group.throughput(Throughput::Elements(ROWS));
    let table = "CREATE TABLE plain (seq bigint, position bigint, time bigint, idx integer, \
        user_address bytea, body text)";
    runtime.block_on(client.batch_execute(table)).expect("a table");
    let mut number = 0;
    group.bench_function("reference: COPY without an index", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                batch(number, PACE)
            },
            |events| runtime.block_on(copy(&client, &events)).expect("the server takes it"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the server");
    actix_rt::spawn(async move { connection.await.expect("the server stays") });
    client
}

async fn copy(
    client: &tokio_postgres::Client,
    events: &[SequencedEvent],
) -> Result<(), tokio_postgres::Error> {
    let sink = client.copy_in("COPY plain FROM STDIN (FORMAT binary)").await?;
    let types = [Type::INT8, Type::INT8, Type::INT8, Type::INT4, Type::BYTEA, Type::TEXT];
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for SequencedEvent { seq, event, .. } in events {
        let (seq, position) = (*seq as i64, event.id.position as i64);
        let index = event.id.index as i32;
        let user = event.user.as_ref().map(|user| &user.0[..]);
        let body = std::str::from_utf8(&event.body).expect("text");
        writer.as_mut().write(&[&seq, &position, &event.time.0, &index, &user, &body]).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Measures what every store does.
fn paths(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, url: &str) {
    let store = runtime.block_on(store::open(url, &StoreConfig::default())).expect("a store");
    let (mut writer, _) = runtime.block_on(store.open_writer()).expect("a writer");
    let mut number = 0;
    for _ in 0..DEPTH {
        number += 1;
        runtime.block_on(commit(&mut *writer, number, &batch(number, PACE)));
    }

    group.sample_size(20);
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("commit of 5,000 rows", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                (number, batch(number, PACE))
            },
            |(number, events)| runtime.block_on(commit(&mut *writer, number, &events)),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(1_000));
    let after = Some(place(DEPTH / 2 * ROWS));
    let any = EventQuery { after, limit: 1_000, ..EventQuery::default() };
    let of_user = EventQuery { users: vec![user(7)], ..any.clone() };
    for (name, query) in [("page of 1,000", any), ("page of a user", of_user)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let rows = runtime.block_on(store.events(query.clone())).expect("a page");
                assert!(rows.len() > 100);
                black_box(rows)
            });
        });
    }
}

criterion_group!(benches, sqlite, postgres);
criterion_main!(benches);
