//! Hour files that are there already, into a fresh store of either kind, everything listed.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use diesel::RunQueryDsl;
use nodecast::{
    event::Timestamp,
    generate::{Plan, Rows, Simulator, Totals},
};

use super::{
    common::{self, PATIENCE, Setup, TestDaemon},
    process::{self, Cpu},
};

const BLOCKS: u64 = 100_000;
const ROUNDS: usize = 3;

/// 2026-03-14T12:00:00.
const START: Timestamp = Timestamp(1_773_489_600_000_000);

/// How often the daemon is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);

pub fn measure(on_postgres: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if on_postgres && std::env::var_os("NODECAST_TEST_POSTGRES").is_none() {
        return writeln!(
            out,
            "SKIPPED: hour files to PostgreSQL. NODECAST_TEST_POSTGRES names no server; \
             scripts/bench.sh ingest starts one."
        );
    }
    let node = tempfile::tempdir()?;
    let plan = Plan { start: Some(START), ..Plan::default() };
    let mut simulator =
        Simulator::with_rows(plan, node.path(), Rows::Forget).map_err(io::Error::other)?;
    simulator.write_blocks(BLOCKS)?;
    simulator.finish()?;
    let totals = simulator.manifest().totals;
    let store = match on_postgres {
        true => "PostgreSQL on this machine, its defaults, fsync on",
        false => "SQLite, synchronous FULL",
    };
    writeln!(
        out,
        "hour files to {store}, everything listed: {BLOCKS} blocks, {} MB, {} events",
        totals.bytes / 1_000_000,
        totals.rows
    )?;
    for _ in 0..ROUNDS {
        let mut setup = Setup::new();
        setup.data_dirs = vec![node.path().to_owned()];
        setup.database_url = on_postgres.then(common::database::create_on_postgres);
        if let Some(url) = &setup.database_url {
            // What other benchmarks have left to be written is not ours.
            diesel::sql_query("CHECKPOINT")
                .execute(&mut common::database::postgres(url))
                .map_err(io::Error::other)?;
        }
        round(&setup, &totals, &mut out)?;
        if let Some(url) = &setup.database_url {
            common::database::drop_on_postgres(url);
        }
    }
    Ok(())
}

fn round(setup: &Setup, totals: &Totals, out: &mut impl Write) -> io::Result<()> {
    let postmaster = setup.database_url.as_deref().map(common::database::postmaster);
    let server = || postmaster.map_or(Ok(Cpu::default()), process::server);
    let server_before = server()?;
    let begun = Instant::now();
    let daemon = setup.start();
    let status = loop {
        let status = daemon.status();
        if status["store"]["inserted"] == totals.rows {
            break status;
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "{status}\n{}", daemon.log_tail());
        thread::sleep(LOOK);
    };
    let took = begun.elapsed();
    let server = server()?.since(server_before);
    let commits = status["store"]["commits"].as_u64().unwrap_or(1).max(1);
    let stored = match &setup.database_url {
        Some(_) => status["store"]["size_bytes"].as_u64().unwrap_or(0).max(totals.bytes),
        None => setup.database().metadata()?.len(),
    };
    writeln!(
        out,
        "  {:.0} events/s, start of the process included: {:.2} s, {commits} commits, highest {:.0} MB resident",
        totals.rows as f64 / took.as_secs_f64(),
        took.as_secs_f64(),
        process::status_kb(daemon.pid(), "VmHWM")? as f64 / 1e3,
    )?;
    cpu(&daemon, postmaster.map(|_| server), totals.rows, out)?;
    let bare = plain_writes(setup.root.path(), stored, commits)?;
    writeln!(
        out,
        "    the same {} MB by plain writes, {commits} times fdatasync: {:.2} s",
        stored / 1_000_000,
        bare.as_secs_f64()
    )
}

/// Tells what an event cost the processors: ours by thread, and the server's.
fn cpu(
    daemon: &TestDaemon,
    server: Option<Cpu>,
    events: u64,
    out: &mut impl Write,
) -> io::Result<()> {
    let each = |seconds: f64| seconds * 1e6 / events as f64;
    let mut ours = Cpu::default();
    write!(out, "    processor, us an event (program + kernel):")?;
    for (name, cpu) in process::threads(daemon.pid())? {
        ours = Cpu { user: ours.user + cpu.user, system: ours.system + cpu.system };
        if ["chain", "router", "db_writer"].contains(&&*name) {
            write!(out, " {name} {:.2} + {:.2}", each(cpu.user), each(cpu.system))?;
        }
    }
    let rate = |cpu: Cpu| events as f64 / (cpu.user + cpu.system).max(0.01);
    writeln!(out, "\n    events a second of processor: {:.0} of ours", rate(ours))?;
    if let Some(server) = server {
        let (user, system) = (each(server.user), each(server.system));
        writeln!(
            out,
            "    {:.0} of the server ({user:.2} + {system:.2} us an event)",
            rate(server)
        )?;
    }
    Ok(())
}

/// What the disk takes for as many bytes in as many portions, each made durable.
fn plain_writes(directory: &Path, bytes: u64, portions: u64) -> io::Result<Duration> {
    let mut file = File::create(directory.join("plain"))?;
    let portion = vec![7; (bytes / portions) as usize];
    let begun = Instant::now();
    for _ in 0..portions {
        file.write_all(&portion)?;
        file.sync_data()?;
    }
    Ok(begun.elapsed())
}
