//! Hour files that are there already, into a fresh store, everything listed.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nodecast::{
    event::Timestamp,
    generate::{Plan, Rows, Simulator, Totals},
};

use super::{
    common::{PATIENCE, Setup},
    process,
};

const BLOCKS: u64 = 100_000;
const ROUNDS: usize = 3;

/// 2026-03-14T12:00:00.
const START: Timestamp = Timestamp(1_773_489_600_000_000);

/// How often the daemon is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);

pub fn measure() -> io::Result<()> {
    let node = tempfile::tempdir()?;
    let plan = Plan { start: Some(START), ..Plan::default() };
    let mut simulator =
        Simulator::with_rows(plan, node.path(), Rows::Forget).map_err(io::Error::other)?;
    simulator.write_blocks(BLOCKS)?;
    simulator.finish()?;
    let totals = simulator.manifest().totals;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "hour files to SQLite, everything listed, synchronous FULL: {BLOCKS} blocks, {} MB, {} events",
        totals.bytes / 1_000_000,
        totals.rows
    )?;
    for _ in 0..ROUNDS {
        round(node.path(), &totals, &mut out)?;
    }
    Ok(())
}

fn round(node: &Path, totals: &Totals, out: &mut impl Write) -> io::Result<()> {
    let mut setup = Setup::new();
    setup.data_dirs = vec![node.to_owned()];
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
    let commits = status["store"]["commits"].as_u64().unwrap_or(1).max(1);
    let stored = setup.database().metadata()?.len();
    writeln!(
        out,
        "  {:.0} events/s, start of the process included: {:.2} s, {commits} commits, highest {:.0} MB resident",
        totals.rows as f64 / took.as_secs_f64(),
        took.as_secs_f64(),
        process::status_kb(daemon.pid(), "VmHWM")? as f64 / 1e3,
    )?;
    write!(out, "    processor, us an event (program + kernel):")?;
    for (name, cpu) in process::threads(daemon.pid())? {
        if ["chain", "router", "db_writer"].contains(&&*name) {
            let each = |seconds: f64| seconds * 1e6 / totals.rows as f64;
            write!(out, " {name} {:.2} + {:.2}", each(cpu.user), each(cpu.system))?;
        }
    }
    let bare = plain_writes(setup.root.path(), stored, commits)?;
    writeln!(
        out,
        "\n    the same {} MB by plain writes, {commits} times fdatasync: {:.2} s",
        stored / 1_000_000,
        bare.as_secs_f64()
    )
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
