//! Promise 1: after any kill at any moment the store holds each event once.
//!
//! Simulated nodes write a chain with all their misbehaviour while the daemon is killed, again and
//! again, and started anew; then the store is compared with the manifest row by row. One node
//! alone shows that nothing is lost that another one would have brought; two show that what both
//! bring is stored once. `NODECAST_KILLS` sets the number of kills of each.

#![cfg(feature = "failpoints")]
// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use common::{
    PATIENCE, Setup, TestDaemon, database, eventually,
    node::{ALICE, Kind, append, fills_line},
    until, was_killed,
};
use nodecast::{
    event::Timestamp,
    generate::{Faults, Gap, Manifest, Plan, Simulator},
};
use serde_json::Value;

/// Between every two stages, and around the commit.
const POINTS: [&str; 11] = [
    "watcher.handle",
    "watcher.send",
    "parser.handle",
    "parser.send",
    "filter.handle",
    "filter.send",
    "router.handle",
    "router.appended",
    "store.before_commit",
    "store.in_transaction",
    "store.after_commit",
];

/// Passes of a point at which it kills. The first ones can be those of the streams' baselines,
/// which hold no bytes: two topics in each of two node directories.
const PASSES: std::ops::RangeInclusive<u64> = 5..=9;

/// One kill in this many comes at a random moment instead of a named point.
const RANDOM_EVERY: u64 = 10;

/// One kill in this many is followed by a file that is pruned or replaced.
const SPOIL_EVERY: u64 = 7;

const DAY: Duration = Duration::from_secs(86_400);

/// How long a daemon may take for what is left when the kills are over. Only a broken one needs so long.
const CATCHING_UP: Duration = Duration::from_secs(300);

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

/// A node, or two nodes of one chain of which the second lags.
struct Nodes {
    directories: Vec<PathBuf>,
    ahead: Simulator,
    lagging: Option<Simulator>,
    written: u64,
}

impl Nodes {
    /// Blocks by which the second node is behind.
    const LAG: u64 = 25;

    fn new(plan: &Plan, directories: &[PathBuf]) -> Self {
        Self {
            directories: directories.to_vec(),
            ahead: Simulator::new(plan.clone(), &directories[0]).unwrap(),
            lagging: directories.get(1).map(|directory| {
                Simulator::new(plan.lagging_by(Duration::from_secs(90)), directory).unwrap()
            }),
            written: 0,
        }
    }

    fn write(&mut self, blocks: u64) {
        self.ahead.write_blocks(blocks).unwrap();
        self.written += blocks;
        if self.written > Self::LAG
            && let Some(lagging) = &mut self.lagging
        {
            lagging.write_blocks(blocks).unwrap();
        }
    }

    /// Lets the second node catch up, ends the files, and gives what was written.
    fn finish(mut self) -> Manifest {
        finish(&mut self.ahead, &self.directories[0]);
        let mut manifest = self.ahead.into_manifest();
        if let Some(mut lagging) = self.lagging {
            lagging.write_blocks(Self::LAG).unwrap();
            finish(&mut lagging, &self.directories[1]);
            manifest.merge(&lagging.into_manifest());
        }
        manifest
    }

    /// Replaces a finished hour file by a new file with the same content. With two nodes this is
    /// one of the second, and in turn with it a file of the first is pruned whose blocks the second
    /// has written too: each node leaves out blocks of its own, and one that only the pruned file
    /// held could not be read by anybody. Gives whether there was such a file.
    fn spoil(&mut self, turn: u64, rng: &mut fastrand::Rng) -> bool {
        // Bytes that a simulated node still holds back for an old hour would go into a file that
        // nobody can see any more.
        for node in [Some(&mut self.ahead), self.lagging.as_mut()].into_iter().flatten() {
            node.writer().flush().unwrap();
        }
        let prune = self.lagging.is_some() && turn.is_multiple_of(2);
        let directory = &self.directories[if prune { 0 } else { self.directories.len() - 1 }];
        let mut files = hour_files(directory);
        files.retain(|file| is_finished(directory, file));
        if let Some(second) = self.lagging.as_ref().filter(|_| prune) {
            let has = |block| second.manifest().has(block);
            files.retain(|file| blocks_of(file).into_iter().all(has));
        }
        let Some(file) = rng.choice(&files) else { return false };
        if prune {
            fs::remove_file(file).unwrap();
        } else {
            let copy = file.with_extension("copy");
            fs::copy(file, &copy).unwrap();
            fs::rename(&copy, file).unwrap();
        }
        true
    }
}

/// Ends the files of a node behind a newline: a line without one is not known to be whole before
/// there is a next file.
fn finish(node: &mut Simulator, directory: &Path) {
    let ends_whole = || {
        let mut files = hour_files(directory);
        files.retain(|file| is_newest(directory, file));
        files.iter().all(|file| fs::read(file).unwrap().ends_with(b"\n"))
    };
    node.finish().unwrap();
    while !ends_whole() {
        node.write_block().unwrap();
        node.finish().unwrap();
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

/// The numbers of the blocks in a file, whatever else its lines have become.
fn blocks_of(file: &Path) -> Vec<u64> {
    let text = fs::read(file).unwrap();
    let text = String::from_utf8_lossy(&text);
    let numbers = text.split("\"block_number\":").skip(1);
    // A number that a crash has cut off has no comma behind it.
    numbers.filter_map(|rest| rest.split_once(',')?.0.parse().ok()).collect()
}

/// How many files of the same kind are newer.
fn newer_files(node: &Path, file: &Path) -> usize {
    let number = |name: Option<&OsStr>| -> Option<u64> { name?.to_str()?.parse().ok() };
    let hour =
        |file: &Path| (number(file.parent().and_then(Path::file_name)), number(file.file_name()));
    let hourly = file.parent().and_then(Path::parent).unwrap();
    let same_kind = hour_files(node).into_iter().filter(|other| other.starts_with(hourly));
    same_kind.filter(|other| hour(other) > hour(file)).count()
}

fn is_newest(node: &Path, file: &Path) -> bool {
    newer_files(node, file) == 0
}

/// Whether the node writes no more to a file: it is neither the newest of its kind nor the one
/// before, whose end can come after the beginning of the next.
fn is_finished(node: &Path, file: &Path) -> bool {
    newer_files(node, file) >= 2
}

/// Waits until as many rows are stored as were written.
///
/// # Panics
/// With what is missing, when it does not come.
fn wait_until_stored(setup: &Setup, manifest: &Manifest) {
    if !until(CATCHING_UP, || setup.stored().len() >= manifest.rows.len()) {
        setup.assert_equals(manifest.rows.iter());
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

/// The open gaps of the fills, once no more of them are about to close: an hour's last line without
/// a newline comes late, and when its block is empty no row tells that it has come.
fn gaps_that_stay(setup: &Setup, manifest: &Manifest) -> Vec<Gap> {
    let mut open = Vec::new();
    eventually("no gap is open in which nothing is missing", || {
        let gaps = setup.open_gaps().into_iter();
        open = gaps.filter(|(topic, _)| topic == "fills").map(|(_, gap)| gap).collect();
        let misses = |gap: &Gap, other: &Gap| gap.first <= other.last && other.first <= gap.last;
        open.iter().all(|gap| manifest.gaps.iter().any(|missing| misses(gap, missing)))
    });
    open
}

/// Waits until all that was written is read and committed.
fn wait_until_quiet(daemon: &TestDaemon) -> Value {
    let mut status = Value::Null;
    eventually("all is read and committed", || {
        status = daemon.status();
        let nodes = status["nodes"].as_array().unwrap();
        let mut streams = nodes.iter().flat_map(|node| node["streams"].as_array().unwrap());
        streams.all(|stream| stream["behind_bytes"] == 0)
            && status["log"]["uncommitted_segments"] == 0
            && status["budget"]["in_flight_bytes"] == 0
    });
    status
}

fn kill_again_and_again(mut setup: Setup) {
    let kills: u64 = env::var("NODECAST_KILLS").map_or(30, |kills| kills.parse().unwrap());
    let seed = env::var("NODECAST_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    println!("NODECAST_SEED={seed} NODECAST_KILLS={kills}");
    let mut rng = fastrand::Rng::with_seed(seed);
    // The chain's time runs a hundred times faster than ours: nothing may be too old meanwhile.
    setup.config = "[source]\ngrace = \"100ms\"\nrescan_interval = \"250ms\"\n\
                    [store]\nretention = \"3650d\"\n"
        .to_owned();
    let plan = plan(seed, kills);
    let mut nodes = Nodes::new(&plan, &setup.data_dirs);
    nodes.write(3);

    let (mut at_points, mut in_flight, mut spoilt) = (0, 0, 0);
    for kill in 0..kills {
        if kill % RANDOM_EVERY == RANDOM_EVERY - 1 {
            setup.failpoints.clear();
            let alive = Duration::from_micros(rng.u64(0..400_000));
            write_and_kill(setup.spawn(), &mut nodes, alive);
        } else {
            let point = POINTS[at_points as usize % POINTS.len()];
            setup.failpoints = format!("{point}=kill@{}", rng.u64(PASSES));
            write_until_killed(&mut setup.spawn(), &mut nodes, point);
            at_points += 1;
            let bytes = setup.bytes_in_flight_at_kill();
            in_flight += u64::from(bytes > 0);
            println!("{}: {bytes} bytes in flight", setup.failpoints);
        }
        if kill % SPOIL_EVERY == SPOIL_EVERY - 1 {
            spoilt += u64::from(nodes.spoil(kill / SPOIL_EVERY, &mut rng));
        }
    }
    // At the first turns there may be no finished file yet.
    assert!(spoilt * 2 >= kills / SPOIL_EVERY, "{spoilt} files were replaced or pruned");
    let manifest = nodes.finish();

    setup.failpoints.clear();
    let daemon = setup.start();
    wait_until_stored(&setup, &manifest);
    // No silent hole. A gap keeps its bounds until all of it has come, so it can be wider than what
    // is missing: the end of an hour's file comes late, another node brings a part.
    let open = gaps_that_stay(&setup, &manifest);
    for missing in manifest.gaps.iter().flat_map(|gap| gap.first..=gap.last) {
        assert!(open.iter().any(|gap| gap.contains(missing)), "{missing} is in none of {open:?}");
    }
    let status = wait_until_quiet(&daemon);
    assert_eq!(daemon.stop().code(), Some(0));

    println!("{in_flight} of {at_points} kills with bytes in flight; {:?}", manifest.totals);
    assert!(in_flight * 5 >= at_points * 4, "{in_flight} of {at_points} had bytes in flight");
    setup.assert_equals(manifest.rows.iter());
    assert_eq!(status["router"]["conflicts"], 0, "{status}");
    let gaps = setup.open_gaps();
    assert_eq!(status["router"]["gaps_open"], gaps.len(), "status and store disagree");
}

// H15
#[test]
fn kills_at_any_moment_lose_nothing_of_a_single_node() {
    kill_again_and_again(Setup::new());
}

// H15
#[test]
fn kills_at_any_moment_lose_nothing_and_repeat_nothing_of_two_nodes() {
    let mut setup = Setup::new();
    setup.add_node();
    kill_again_and_again(setup);
}

// H15
#[test]
fn kills_at_any_moment_lose_nothing_and_repeat_nothing_on_postgresql() {
    let mut setup = Setup::new();
    setup.add_node();
    setup.database_url = Some(database::create_on_postgres());
    kill_again_and_again(setup);
}

/// Starts at the end of two lines, is ended as told, and starts again after two more were written,
/// and two after that. Gives the blocks that are stored.
fn stored_from_now(end_first_run: impl FnOnce(&mut Setup)) -> Vec<u64> {
    let mut setup = Setup::new();
    setup.from = "now";
    let mut file = Kind::fills(setup.node()).open(20_260_315, 9);
    let mut write = |blocks: [u64; 2]| {
        blocks.iter().for_each(|block| append(&mut file, &(fills_line(*block, ALICE, 1) + "\n")));
    };
    write([1, 2]);
    end_first_run(&mut setup);
    write([3, 4]);

    setup.failpoints.clear();
    let daemon = setup.start();
    // Nothing may be written before it has decided where it begins.
    eventually("its position is chosen", || {
        let status = daemon.status();
        status["store"]["commits"].as_u64() > Some(0) && status["log"]["uncommitted_segments"] == 0
    });
    write([5, 6]);
    eventually("the newest is read", || daemon.status()["router"]["height"] == 6);
    let status = wait_until_quiet(&daemon);
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(status["router"]["conflicts"], 0, "{status}");
    setup.stored().into_keys().map(|id| id.position).collect()
}

fn run_until_killed(setup: &mut Setup, failpoints: &str) {
    setup.failpoints = failpoints.to_owned();
    let mut daemon = setup.spawn();
    let status = daemon.wait_exit().expect("the point is reached");
    assert!(was_killed(status), "{status}\n{}", daemon.log_tail());
}

/// Once the first start has chosen its position, what the node writes while we are down is not
/// skipped: a restart chooses no second one.
#[test]
fn a_kill_after_a_first_start_from_now_skips_nothing() {
    let at_once = stored_from_now(|setup| run_until_killed(setup, "store.after_commit=kill"));
    assert_eq!(at_once, [3, 4, 5, 6]);

    let later = stored_from_now(|setup| {
        let daemon = setup.start();
        eventually("the position is committed", || {
            daemon.status()["store"]["commits"].as_u64() > Some(0)
        });
        daemon.kill();
    });
    assert_eq!(later, [3, 4, 5, 6]);
}

/// Nothing is read before the position is committed, so a kill in between leaves no half of it: the
/// next start is the first one, and begins where the files end then.
#[test]
fn a_kill_before_a_first_position_is_committed_makes_the_next_start_the_first() {
    let stored = stored_from_now(|setup| run_until_killed(setup, "watcher.baseline=kill"));
    assert_eq!(stored, [5, 6]);
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
    finish(&mut node, setup.node());
    let manifest = node.into_manifest();

    eventually("all is stored", || setup.stored().len() >= manifest.rows.len());
    assert_eq!(daemon.stop().code(), Some(0));
    setup.assert_equals(manifest.rows.iter());
}

/// The writer is back at the checkpoints by then; the Router and the watchers are not yet.
// H15
#[test]
fn a_kill_while_a_new_generation_begins_loses_nothing_and_repeats_nothing() {
    let mut setup = Setup::new();
    setup.failpoints = "store.commit=fail@3,supervisor.begin=kill".to_owned();
    // A calm node: an hour's end without a newline would wait for its grace.
    let plan = Plan { faults: Faults::default(), ..plan(9, 0) };
    let mut nodes = Nodes::new(&plan, &setup.data_dirs);
    nodes.write(3);

    write_until_killed(&mut setup.spawn(), &mut nodes, "supervisor.begin");
    let manifest = nodes.finish();
    setup.failpoints.clear();
    let daemon = setup.start();
    wait_until_stored(&setup, &manifest);

    assert_eq!(daemon.stop().code(), Some(0));
    setup.assert_equals(manifest.rows.iter());
}

/// What lost batches held of the budget is free again: otherwise nothing could be read any more.
#[test]
fn a_failed_batch_that_filled_the_budget_does_not_end_the_reading() {
    let mut setup = Setup::new();
    setup.failpoints = "store.commit=fail@2".to_owned();
    setup.config = "[source]\nbudget_bytes = \"1MiB\"\n".to_owned();
    let mut file = Kind::fills(setup.node()).open(20_260_315, 9);
    for block in 1..=2_000 {
        append(&mut file, &(fills_line(block, ALICE, 5) + "\n"));
    }

    let daemon = setup.start();

    eventually("all is stored", || setup.stored().len() == 10_000);
    let status = daemon.status();
    assert_eq!(status["router"]["generations"], 1, "{status}");
    assert_eq!(daemon.stop().code(), Some(0));
}

/// A half-dead daemon is worse than a dead one.
#[test]
fn a_panic_in_any_pipeline_actor_ends_the_process() {
    for (point, cause) in [
        ("watcher.handle", ""),
        ("parser.handle", ""),
        ("filter.handle", ""),
        ("router.handle", ""),
        ("writer.handle", ""),
        ("shard.turn", ""),
        // Reached only after a batch was lost.
        ("supervisor.begin", "store.commit=fail,"),
    ] {
        let mut setup = Setup::new();
        setup.failpoints = format!("{cause}{point}=panic");
        // A calm node: its last line is whole, so every row has to be there after the restart.
        let plan = Plan { faults: Faults::default(), ..plan(8, 0) };
        let mut node = Simulator::new(plan, setup.node()).unwrap();
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
        node.write_blocks(3).unwrap();
        finish(&mut node, setup.node());
        let manifest = node.into_manifest();
        setup.failpoints.clear();
        let daemon = setup.start();
        wait_until_stored(&setup, &manifest);
        assert_eq!(daemon.stop().code(), Some(0));
        setup.assert_equals(manifest.rows.iter());
    }
}
