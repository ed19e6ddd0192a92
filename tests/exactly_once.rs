//! Promise 1: after any kill at any moment the store holds each event once.
//!
//! Two simulated nodes write one chain with all their misbehaviour while the daemon is killed,
//! again and again, and started anew; then the store is compared with the manifest row by row.
//! `NODECAST_KILLS` sets the number of kills.

#![cfg(feature = "failpoints")]
// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use common::{PATIENCE, Setup, TestDaemon, database, eventually, was_killed};
use nodecast::{
    event::Timestamp,
    generate::{Faults, Manifest, Plan, Simulator},
};

/// Between every two stages, with bytes that were read and are not committed.
const IN_FLIGHT: [&str; 9] = [
    "watcher.send",
    "parser.handle",
    "parser.send",
    "filter.handle",
    "filter.send",
    "router.handle",
    "router.appended",
    "store.before_commit",
    "store.in_transaction",
];

/// Also worth a kill, but not surely with bytes in flight.
const OTHERS: [&str; 2] = ["watcher.handle", "store.after_commit"];

/// One kill in this many comes at a random moment instead of a named point.
const RANDOM_EVERY: u64 = 6;

/// One kill in this many is followed by a file that is pruned or replaced.
const SPOIL_EVERY: u64 = 7;

const DAY: Duration = Duration::from_secs(86_400);

/// After this long without a new row no more will come.
const NOTHING_COMES: Duration = Duration::from_secs(10);

/// A chain of which an hour has 60 blocks, so that the test crosses hours and days. It starts so
/// long ago that this many kills do not bring it into the future, which is refused.
fn plan(seed: u64, kills: u64) -> Plan {
    Plan {
        seed,
        users: 40,
        start: Some(Timestamp::now().minus(DAY * (30 + kills as u32 / 8))),
        block_interval: Duration::from_secs(60),
        faults: Faults {
            torn: true,
            unterminated: true,
            crash_every: 40,
            rewind_every: 150,
            gap_every: 120,
        },
        ..Plan::default()
    }
}

/// Two nodes of one chain, one of which lags.
struct Nodes {
    directories: Vec<PathBuf>,
    ahead: Simulator,
    lagging: Simulator,
    written: u64,
}

impl Nodes {
    /// Blocks by which the second node is behind.
    const LAG: u64 = 25;

    fn new(plan: &Plan, directories: &[PathBuf]) -> Self {
        Self {
            directories: directories.to_vec(),
            ahead: Simulator::new(plan.clone(), &directories[0]).unwrap(),
            lagging: Simulator::new(plan.lagging_by(Duration::from_secs(90)), &directories[1])
                .unwrap(),
            written: 0,
        }
    }

    fn write(&mut self, blocks: u64) {
        self.ahead.write_blocks(blocks).unwrap();
        self.written += blocks;
        if self.written > Self::LAG {
            self.lagging.write_blocks(blocks).unwrap();
        }
    }

    /// Prunes a finished hour file of the first node, or replaces one of the second by a new file
    /// with the same content, in turn. What the pruned file held the other node has too.
    fn spoil(&self, turn: u64, rng: &mut fastrand::Rng) {
        let directory = &self.directories[(turn % 2) as usize];
        let mut files = hour_files(directory);
        // The newest of each kind is being written.
        files.retain(|file| Some(file) != newest(directory, file).as_ref());
        let Some(file) = rng.choice(&files) else { return };
        if turn.is_multiple_of(2) {
            fs::remove_file(file).unwrap();
        } else {
            let copy = file.with_extension("copy");
            fs::copy(file, &copy).unwrap();
            fs::rename(&copy, file).unwrap();
        }
    }
}

/// All hour files of a node directory.
fn hour_files(node: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let kinds = entries(node).into_iter().map(|kind| kind.join("hourly"));
    let days = kinds.flat_map(|hourly| entries(&hourly));
    days.flat_map(|day| entries(&day)).collect()
}

/// The newest hour file of the kind that a file belongs to.
fn newest(node: &Path, file: &Path) -> Option<PathBuf> {
    let hourly = file.parent()?.parent()?;
    let same_kind = hour_files(node).into_iter().filter(|file| file.starts_with(hourly));
    same_kind.max_by_key(|file| {
        let number = |name: Option<&std::ffi::OsStr>| {
            name.and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok())
        };
        (number(file.parent().and_then(Path::file_name)), number(file.file_name()))
    })
}

/// Waits until as many rows are stored as were written, or nothing more comes: then the comparison
/// tells what is missing.
fn wait_until_stored(setup: &Setup, manifest: &Manifest) {
    let (mut stored, mut changed) = (0, Instant::now());
    while stored < manifest.rows.len() && changed.elapsed() < NOTHING_COMES {
        std::thread::sleep(Duration::from_millis(20));
        let now = database::rows(&setup.database()).len();
        if now != stored {
            (stored, changed) = (now, Instant::now());
        }
    }
}

/// Writes until the daemon has killed itself at its point.
fn write_until_killed(daemon: &mut TestDaemon, nodes: &mut Nodes, point: &str) {
    let start = Instant::now();
    loop {
        if let Some(status) = daemon.wait_exit_for(Duration::from_millis(3)) {
            assert!(was_killed(status), "{point}: {status}\n{}", daemon.log_tail());
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{point} was not reached\n{}", daemon.log_tail());
        nodes.write(1);
    }
}

/// Writes for a while, then kills.
fn write_and_kill(mut daemon: TestDaemon, nodes: &mut Nodes, alive: Duration) {
    let start = Instant::now();
    while start.elapsed() < alive {
        nodes.write(1);
        let ended = daemon.wait_exit_for(Duration::from_millis(1));
        assert!(ended.is_none(), "{ended:?}\n{}", daemon.log_tail());
    }
    daemon.kill();
}

// H15
#[test]
fn kills_at_any_moment_lose_nothing_and_repeat_nothing() {
    let kills: u64 = env::var("NODECAST_KILLS").map_or(60, |kills| kills.parse().unwrap());
    let seed = env::var("NODECAST_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    println!("NODECAST_SEED={seed} NODECAST_KILLS={kills}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut setup = Setup::new();
    setup.data_dirs.push(setup.root.path().join("node2"));
    fs::create_dir(&setup.data_dirs[1]).unwrap();
    // The chain's time runs a hundred times faster than ours: nothing may be too old meanwhile.
    setup.config = "[source]\ngrace = \"100ms\"\nrescan_interval = \"250ms\"\n\
                    [store]\nretention = \"3650d\"\n"
        .to_owned();
    let plan = plan(seed, kills);
    let mut nodes = Nodes::new(&plan, &setup.data_dirs);
    nodes.write(3);

    // The first start chooses its position; a kill right behind that must skip nothing either.
    setup.failpoints = "watcher.baseline=kill".to_owned();
    write_until_killed(&mut setup.spawn(), &mut nodes, "watcher.baseline");
    let mut in_flight = 0;
    for kill in 0..kills {
        if kill % RANDOM_EVERY == RANDOM_EVERY - 1 {
            setup.failpoints.clear();
            let alive = Duration::from_micros(rng.u64(0..400_000));
            write_and_kill(setup.spawn(), &mut nodes, alive);
        } else {
            let turn = (kill - kill / RANDOM_EVERY) as usize % (IN_FLIGHT.len() + OTHERS.len());
            let point = IN_FLIGHT.iter().chain(&OTHERS).nth(turn).unwrap();
            setup.failpoints = format!("{point}=kill@{}", rng.u64(1..=6));
            write_until_killed(&mut setup.spawn(), &mut nodes, point);
            in_flight += u64::from(turn < IN_FLIGHT.len());
        }
        if kill % SPOIL_EVERY == SPOIL_EVERY - 1 {
            nodes.spoil(kill / SPOIL_EVERY, &mut rng);
        }
    }
    nodes.lagging.write_blocks(Nodes::LAG).unwrap();
    nodes.ahead.finish().unwrap();
    nodes.lagging.finish().unwrap();
    let mut manifest = nodes.ahead.into_manifest();
    manifest.merge(&nodes.lagging.into_manifest());

    setup.failpoints.clear();
    let daemon = setup.start();
    wait_until_stored(&setup, &manifest);
    assert_eq!(daemon.stop().code(), Some(0));

    println!("{in_flight} of {kills} kills with bytes in flight; {} rows", manifest.rows.len());
    assert!(in_flight * 10 >= kills * 6);
    database::assert_equals_manifest(&setup.database(), manifest.rows.iter());
}

/// A batch that the store fails once is lost, and the whole pipeline goes back for it.
#[test]
fn a_failed_batch_starts_a_new_generation_and_loses_nothing() {
    let mut setup = Setup::new();
    setup.failpoints = "store.commit=fail@3".to_owned();
    let plan = Plan { faults: Faults::default(), ..plan(7, 0) };
    let mut node = Simulator::new(plan, setup.node()).unwrap();
    node.write_blocks(5).unwrap();
    let daemon = setup.start();

    eventually("a batch failed", || {
        node.write_block().unwrap();
        daemon.status()["router"]["generations"] == 1
    });
    node.write_blocks(20).unwrap();
    node.finish().unwrap();
    let manifest = node.into_manifest();

    eventually("all is stored", || database::rows(&setup.database()).len() >= manifest.rows.len());
    assert_eq!(daemon.stop().code(), Some(0));
    database::assert_equals_manifest(&setup.database(), manifest.rows.iter());
}

/// A half-dead daemon is worse than a dead one.
#[test]
fn a_panic_in_any_pipeline_actor_ends_the_process() {
    for point in [
        "watcher.handle",
        "parser.handle",
        "filter.handle",
        "router.handle",
        "writer.handle",
        "shard.turn",
    ] {
        let mut setup = Setup::new();
        setup.failpoints = format!("{point}=panic");
        let mut node = Simulator::new(plan(8, 0), setup.node()).unwrap();
        let mut daemon = setup.spawn();

        let start = Instant::now();
        let status = loop {
            node.write_block().unwrap();
            if let Some(status) = daemon.wait_exit_for(Duration::from_millis(20)) {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "{point}: lives on\n{}", daemon.log_tail());
        };

        assert!(!status.success(), "{point}");
        assert!(daemon.log().contains(&format!("fail point {point}")), "{point}: {status}");
    }
}
