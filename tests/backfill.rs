//! Back-fill: older events of users who were listed later, and of files that nobody has read.

#![cfg(feature = "failpoints")]
// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "backfill/machines.rs"]
mod machines;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use common::{Setup, TestDaemon, database, eventually, receive_type, run_to_end, send, was_killed};
use diesel::{Connection, RunQueryDsl, SqliteConnection};
use lz4_flex::frame::FrameEncoder;
use nodecast::{
    event::{Address, BACKFILLED_SEQ, EventId, Timestamp},
    generate::{Manifest, Plan, Simulator},
};
use rustix::process::Signal;
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3_600);

/// A node whose blocks lie `age` back, a minute apart.
fn node(directory: &Path, age: Duration) -> Simulator {
    let plan = Plan {
        seed: 3,
        users: 12,
        start: Some(Timestamp::now().minus(age)),
        block_interval: Duration::from_secs(20),
        // Older blocks have lower numbers, as in one chain.
        first_block: 1_000_000_000 - age.as_secs() / 20,
        ..Plan::default()
    };
    Simulator::new(plan, directory).unwrap()
}

/// The users of a manifest, those with the most rows first.
fn busiest(manifest: &Manifest) -> Vec<Address> {
    let mut counts: BTreeMap<Address, usize> = BTreeMap::new();
    for user in manifest.rows.iter().filter_map(|row| row.user) {
        *counts.entry(user).or_default() += 1;
    }
    let mut users: Vec<_> = counts.into_iter().collect();
    users.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
    users.into_iter().map(|(user, _)| user).collect()
}

type Rows = BTreeMap<EventId, (Option<Address>, String)>;

fn rows_of(manifest: &Manifest, users: &[Address]) -> Rows {
    let rows =
        manifest.rows.iter().filter(|row| row.user.is_some_and(|user| users.contains(&user)));
    rows.map(|row| (row.id, (row.user, row.body.clone()))).collect()
}

fn caught_up(daemon: &TestDaemon, blocks: u64) {
    eventually("all is read", || {
        let status = daemon.status();
        let streams = status["nodes"][0]["streams"].as_array().cloned().unwrap_or_default();
        streams.len() == 2
            && streams.iter().all(|stream| {
                stream["behind_bytes"] == 0 && stream["last_block"].as_u64() == Some(blocks)
            })
            // What was read by now is committed: a batch is in flight until it is.
            && daemon.status()["budget"]["in_flight_batches"] == 0
    });
}

/// `field` of history, by identity, of everything that is stored of a user.
fn history(
    daemon: &TestDaemon,
    user: Address,
    field: &str,
) -> BTreeMap<(String, u64, u64, u64), Value> {
    let mut found = BTreeMap::new();
    for topic in ["fills", "misc"] {
        let (code, page) = daemon.get(&format!("/v1/events?topic={topic}&user={user}&limit=10000"));
        assert_eq!(code, 200, "{page}");
        for event in page["events"].as_array().unwrap() {
            let number = |name: &str| event[name].as_u64().unwrap();
            let id = (topic.to_owned(), number("block"), number("index"), number("part"));
            assert!(found.insert(id, event[field].clone()).is_none(), "{event} comes twice");
        }
    }
    found
}

/// Runs `nodecast backfill`.
fn backfill(setup: &Setup, from: &[&Path], more: &[&str]) -> Output {
    run_to_end(&mut backfill_command(setup, from, more))
}

/// Makes an empty store, as an operator does before the first start of a daemon.
fn make_store(setup: &Setup) {
    let mut migrate = Command::new(env!("CARGO_BIN_EXE_nodecast"));
    migrate.args(["db", "migrate", "--state-dir"]).arg(setup.state_dir());
    if let Some(url) = &setup.database_url {
        migrate.args(["--database-url", url]);
    }
    migrate.env_remove("NODECAST_CONFIG").env("HOME", setup.root.path());
    let migrated = run_to_end(&mut migrate);
    assert!(migrated.status.success(), "{migrated:?}");
}

fn backfill_command(setup: &Setup, from: &[&Path], more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodecast"));
    command.arg("backfill").arg("--from").args(from).args(more);
    command.args(["--state-dir".as_ref(), setup.state_dir().as_os_str()]);
    command.env_remove("NODECAST_CONFIG").env("NODECAST_FAILPOINTS", "").stdin(Stdio::null());
    if let Some(url) = &setup.database_url {
        command.args(["--database-url", url]);
    }
    command
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn assert_done(output: &Output, stored: usize, known: usize) {
    let (stdout, stderr) = said(output);
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let expected = format!("{stored} events stored, {known} were there already");
    assert!(stdout.starts_with(&expected), "{stdout}, not {expected}");
}

/// A directory of hour files that no daemon has read, and who is in it.
struct Archive {
    directory: tempfile::TempDir,
    manifest: Manifest,
    users: Vec<Address>,
}

impl Archive {
    fn new(age: Duration, blocks: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut node = node(directory.path(), age);
        node.write_blocks(blocks).unwrap();
        node.finish().unwrap();
        let manifest = node.into_manifest();
        let users = busiest(&manifest);
        Self { directory, manifest, users }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Packs every hour file, as archives are made.
    fn pack(&self) -> Vec<PathBuf> {
        fn walk(directory: &Path, packed: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, packed);
                } else if path.parent().unwrap().parent().unwrap().ends_with("hourly") {
                    let mut encoder = FrameEncoder::new(Vec::new());
                    encoder.write_all(&fs::read(&path).unwrap()).unwrap();
                    fs::remove_file(&path).unwrap();
                    let path = path.with_extension("lz4");
                    fs::write(&path, encoder.finish().unwrap()).unwrap();
                    packed.push(path);
                }
            }
        }
        let mut packed = Vec::new();
        walk(self.path(), &mut packed);
        packed.sort();
        packed
    }
}

fn list(users: &[Address]) -> String {
    users.iter().map(|user| format!("{user}\n")).collect()
}

/// A user is added while the daemon runs.
fn a_user_is_added(mut setup: Setup) {
    let mut node = node(setup.node(), HOUR);
    node.write_blocks(60).unwrap();
    let users = busiest(node.manifest());
    let (first, second) = (users[0], users[1]);
    setup.whitelist = list(&[first]);
    let daemon = setup.start();
    caught_up(&daemon, node.manifest().totals.highest_block);
    assert_eq!(setup.stored(), rows_of(node.manifest(), &[first]));
    let before = history(&daemon, first, "seq");
    let older = rows_of(node.manifest(), &[second]);
    assert!(older.len() > 5);
    let mut client = daemon.subscribe("fills");
    send(&mut client, &json!({"type": "subscribe", "id": 2, "topic": "misc"}));
    receive_type(&mut client, "ack");

    fs::write(setup.whitelist_file(), list(&[first, second])).unwrap();

    eventually("it is back-filled", || daemon.status()["backfill"]["jobs_ended"] == 1);
    let status = daemon.status()["backfill"].clone();
    // Nothing was taken up that others have already.
    assert_eq!((&status["stored"], &status["known"]), (&older.len().into(), &0.into()), "{status}");
    assert_eq!(status["last"]["state"], "done", "{status}");
    assert_eq!(status["last"]["bytes_done"], status["last"]["bytes_total"], "{status}");
    assert_eq!(status["last"]["faults_total"], 0, "{status}");
    assert_eq!(setup.stored(), rows_of(node.manifest(), &[first, second]));
    let seqs = history(&daemon, second, "seq");
    assert_eq!(seqs.len(), older.len());
    assert!(seqs.values().all(|seq| seq.as_u64().unwrap() >= BACKFILLED_SEQ));
    assert!(history(&daemon, second, "late").values().all(|late| *late == true));
    assert!(history(&daemon, second, "cursor").values().all(Value::is_null));
    assert!(history(&daemon, first, "cursor").values().all(Value::is_string));
    // Nothing of the first one has changed.
    assert_eq!(history(&daemon, first, "seq"), before);

    // What comes from now on is live: no client has got anything before it.
    let newest = node.manifest().totals.highest_block;
    node.write_blocks(30).unwrap();
    let event = receive_type(&mut client, "event");
    assert!(event["block"].as_u64().unwrap() > newest, "{event}");
    caught_up(&daemon, node.manifest().totals.highest_block);
    assert_eq!(setup.stored(), rows_of(node.manifest(), &[first, second]));
    for ((_, block, ..), seq) in history(&daemon, second, "seq") {
        assert_eq!(block > newest, seq.as_u64().unwrap() < BACKFILLED_SEQ, "{block} {seq}");
    }
    assert_eq!(daemon.status()["router"]["conflicts"], 0);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn who_is_added_gets_his_older_events_once_and_no_client_gets_them() {
    a_user_is_added(Setup::new());
}

#[test]
fn who_is_added_gets_his_older_events_on_postgres_too() {
    let mut setup = Setup::new();
    setup.database_url = Some(database::create_on_postgres());
    a_user_is_added(setup);
}

#[test]
fn what_waits_for_its_commit_when_a_user_is_added_is_back_filled_too() {
    let mut setup = Setup::new();
    setup.config = "[store]\nbatch_delay = \"3s\"\n".to_owned();
    let mut node = node(setup.node(), HOUR);
    node.write_blocks(20).unwrap();
    let users = busiest(node.manifest());
    setup.whitelist = list(&users[..1]);
    let daemon = setup.start();
    caught_up(&daemon, node.manifest().totals.highest_block);

    node.write_blocks(40).unwrap();
    let newest = node.manifest().totals.highest_block;
    eventually("it is filtered by the old list", || {
        let status = daemon.status();
        let streams = status["nodes"][0]["streams"].as_array().unwrap();
        streams.iter().all(|stream| stream["last_block"].as_u64() == Some(newest))
    });
    fs::write(setup.whitelist_file(), list(&users[..2])).unwrap();

    eventually("it is back-filled", || daemon.status()["backfill"]["jobs_ended"] == 1);
    assert_eq!(setup.stored(), rows_of(node.manifest(), &users[..2]));
}

#[test]
fn a_kill_in_the_middle_only_means_that_the_next_start_completes_it() {
    for point in
        ["store.before_backfill=kill@1", "store.after_backfill=kill@2", "backfill.step=kill@3"]
    {
        let mut setup = Setup::new();
        let mut node = node(setup.node(), HOUR);
        node.write_blocks(120).unwrap();
        let users = busiest(node.manifest());
        setup.whitelist = list(&users[..1]);
        setup.failpoints = point.to_owned();
        let mut daemon = setup.start();
        caught_up(&daemon, node.manifest().totals.highest_block);

        setup.whitelist = list(&users[..4]);
        fs::write(setup.whitelist_file(), &setup.whitelist).unwrap();
        assert!(was_killed(daemon.wait_exit().unwrap()), "{point}: {}", daemon.log_tail());
        // It writes on meanwhile.
        node.write_blocks(20).unwrap();
        setup.failpoints = String::new();
        let daemon = setup.start();

        eventually("it is completed", || daemon.status()["backfill"]["jobs_ended"] == 1);
        caught_up(&daemon, node.manifest().totals.highest_block);
        assert_eq!(setup.stored(), rows_of(node.manifest(), &users[..4]), "{point}");
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

#[test]
fn additions_while_the_daemon_is_down_are_back_filled_at_its_start() {
    let mut setup = Setup::new();
    let mut node = node(setup.node(), HOUR);
    node.write_blocks(60).unwrap();
    let users = busiest(node.manifest());
    setup.whitelist = list(&users[..1]);
    let daemon = setup.start();
    caught_up(&daemon, node.manifest().totals.highest_block);
    assert_eq!(daemon.status()["backfill"]["jobs_ended"], 0, "nobody was added at the first start");
    eventually("the list is known", || setup.knows_list_of("file"));
    assert_eq!(daemon.stop().code(), Some(0));

    node.write_blocks(30).unwrap();
    setup.whitelist = list(&users[..3]);
    let daemon = setup.start();

    eventually("it is back-filled", || daemon.status()["backfill"]["jobs_ended"] == 1);
    caught_up(&daemon, node.manifest().totals.highest_block);
    assert_eq!(setup.stored(), rows_of(node.manifest(), &users[..3]));
}

#[test]
fn switched_off_it_leaves_the_files_alone() {
    let mut setup = Setup::new();
    setup.config = "[backfill]\nenabled = false\n".to_owned();
    let mut node = node(setup.node(), HOUR);
    node.write_blocks(40).unwrap();
    let users = busiest(node.manifest());
    setup.whitelist = list(&users[..1]);
    let daemon = setup.start();
    caught_up(&daemon, node.manifest().totals.highest_block);

    fs::write(setup.whitelist_file(), list(&users[..2])).unwrap();
    eventually("the list is read", || daemon.status()["whitelist"]["addresses"] == 2);
    node.write_blocks(1).unwrap();
    caught_up(&daemon, node.manifest().totals.highest_block);

    let status = daemon.status()["backfill"].clone();
    assert_eq!((&status["jobs_ended"], &status["jobs_waiting"]), (&json!(0), &json!(0)));
    assert_eq!(status["read_bytes"], 0);
}

/// By hand and without a daemon, from plain files and from archives.
fn by_hand(setup: &Setup) {
    let archive = Archive::new(HOUR, 60);
    let users = archive.users[..2].iter().map(Address::to_string).collect::<Vec<_>>().join(",");
    let expected = rows_of(&archive.manifest, &archive.users[..2]);
    let of_users = ["--users", &users];

    let plain = backfill(setup, &[archive.path()], &of_users);
    assert_done(&plain, expected.len(), 0);
    assert_eq!(setup.stored(), expected);
    // It is the same however often, and from archives.
    assert_done(&backfill(setup, &[archive.path()], &of_users), 0, expected.len());
    let packed = archive.pack();
    assert_done(&backfill(setup, &[archive.path()], &of_users), 0, expected.len());

    let third = archive.users[2].to_string();
    let more = rows_of(&archive.manifest, &archive.users[2..3]);
    let files: Vec<&Path> = packed.iter().map(PathBuf::as_path).collect();
    assert_done(&backfill(setup, &files, &["--users", &third]), more.len(), 0);
    assert_eq!(setup.stored(), rows_of(&archive.manifest, &archive.users[..3]));
}

#[test]
fn without_a_daemon_the_command_stores_from_files_and_archives_and_repeats_nothing() {
    let setup = Setup::new();
    make_store(&setup);
    by_hand(&setup);
}

#[test]
fn where_there_is_no_database_none_is_made() {
    let setup = Setup::new();
    let archive = Archive::new(HOUR, 5);

    let output = backfill(&setup, &[archive.path()], &["--users", &archive.users[0].to_string()]);

    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("there is no database of nodecast in"), "{output:?}");
    assert!(!setup.database().exists());
}

#[test]
fn without_a_daemon_it_does_so_on_postgres_too() {
    let mut setup = Setup::new();
    setup.database_url = Some(database::create_on_postgres());
    make_store(&setup);
    by_hand(&setup);
}

#[test]
fn through_a_running_daemon_the_command_does_the_same() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{}\n", common::node::ALICE);
    let daemon = setup.start();

    by_hand(&setup);

    assert_eq!(daemon.status()["backfill"]["jobs_ended"], 4);
    let kept = setup.state_dir().join("backfill").read_dir().into_iter().flatten();
    assert_eq!(kept.count(), 0, "what is done is forgotten");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn events_are_cast_when_it_is_asked_for_and_then_have_their_place_in_the_order() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{}\n", common::node::ALICE);
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");
    let archive = Archive::new(HOUR, 20);
    let user = archive.users[0];
    let expected = rows_of(&archive.manifest, &[user]);
    let fills = expected.keys().filter(|id| id.topic.as_str() == "fills").count();

    let output =
        backfill(&setup, &[archive.path()], &["--users", &user.to_string(), "--broadcast"]);

    assert_done(&output, expected.len(), 0);
    let mut cast = BTreeSet::new();
    for _ in 0..fills {
        let event = receive_type(&mut client, "event");
        assert!(event["seq"].as_u64().unwrap() < BACKFILLED_SEQ, "{event}");
        cast.insert((event["block"].as_u64().unwrap(), event["index"].as_u64().unwrap()));
    }
    assert_eq!(cast.len(), fills);
    assert_eq!(setup.stored(), expected);
    // What is stored is not cast again.
    let again = backfill(&setup, &[archive.path()], &["--users", &user.to_string(), "--broadcast"]);
    assert_done(&again, 0, expected.len());
}

#[derive(diesel::QueryableByName)]
struct KeptDay {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    day: i64,
}

#[test]
fn what_is_cast_with_a_time_of_its_own_is_kept_for_it() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{}\n", common::node::ALICE);
    let _daemon = setup.start();
    let archive = Archive::new(Duration::from_secs(30 * 86_400), 20);
    let user = archive.users[0].to_string();
    let expected = rows_of(&archive.manifest, &archive.users[..1]);

    let words = ["--users", &user, "--broadcast", "--keep", "60d"];
    let output = backfill(&setup, &[archive.path()], &words);

    assert_done(&output, expected.len(), 0);
    let mut database =
        SqliteConnection::establish(&setup.database().display().to_string()).unwrap();
    let kept: Vec<KeptDay> =
        diesel::sql_query("SELECT day FROM kept_days").load(&mut database).unwrap();
    let kept: BTreeSet<i64> = kept.into_iter().map(|row| row.day).collect();
    let rows = archive.manifest.rows.iter().filter(|row| row.user == Some(archive.users[0]));
    let days: BTreeSet<i64> = rows.map(|row| row.time_ns / 86_400_000_000_000).collect();
    assert_eq!(kept, days);
}

#[test]
fn what_is_cast_live_takes_the_place_of_what_was_back_filled_before() {
    let mut setup = Setup::new();
    make_store(&setup);
    let mut node = node(setup.node(), HOUR);
    node.write_blocks(40).unwrap();
    let users = busiest(node.manifest());
    let user = users[0].to_string();
    let expected = rows_of(node.manifest(), &users[..1]);
    // Nobody has read these files yet.
    assert_done(&backfill(&setup, &[setup.node()], &["--users", &user]), expected.len(), 0);

    setup.whitelist = list(&users[..1]);
    let daemon = setup.start();

    caught_up(&daemon, node.manifest().totals.highest_block);
    assert_eq!(setup.stored(), expected);
    let seqs = history(&daemon, users[0], "seq");
    assert!(seqs.values().all(|seq| seq.as_u64().unwrap() < BACKFILLED_SEQ));
}

#[test]
fn what_is_older_than_the_retention_is_refused_unless_it_is_kept() {
    let setup = Setup::new();
    make_store(&setup);
    let archive = Archive::new(Duration::from_secs(30 * 86_400), 50);
    let user = archive.users[0].to_string();
    let expected = rows_of(&archive.manifest, &archive.users[..1]);

    let refused = backfill(&setup, &[archive.path()], &["--users", &user]);
    assert_done(&refused, 0, 0);
    // A block has a line in either topic.
    assert!(said(&refused).1.contains("100 blocks were refused"), "{}", said(&refused).1);
    assert!(said(&refused).1.contains("--keep"));

    let kept = backfill(&setup, &[archive.path()], &["--users", &user, "--keep", "60d"]);
    assert_done(&kept, expected.len(), 0);

    // Cleanup leaves them, and takes what is old and not kept.
    let mut later = node(setup.node(), 49 * HOUR);
    later.write_blocks(3).unwrap();
    let old = later.manifest().rows.len();
    let mut with_cleanup = setup;
    with_cleanup.config = "[store]\nretention = \"1d\"\nretention_interval = \"1s\"\n".to_owned();
    let daemon = with_cleanup.start();
    // Of both topics: what is read behind a younger block would be refused.
    caught_up(&daemon, later.manifest().totals.highest_block);
    later.skip(48 * 180);
    later.write_blocks(3).unwrap();
    eventually("cleanup", || daemon.status()["store"]["deleted"].as_u64() >= Some(old as u64));
    caught_up(&daemon, later.manifest().totals.highest_block);
    let mut left = expected;
    for row in &later.manifest().rows[old..] {
        left.insert(row.id, (row.user, row.body.clone()));
    }
    assert_eq!(with_cleanup.stored(), left);
}

#[test]
fn a_damaged_archive_is_named_with_its_place_and_the_others_are_done() {
    let setup = Setup::new();
    make_store(&setup);
    // Over several hours.
    let archive = Archive::new(6 * HOUR, 600);
    let user = archive.users[0];
    let packed = archive.pack();
    let whole = fs::read(&packed[0]).unwrap();
    fs::write(&packed[0], &whole[..whole.len() - 9]).unwrap();

    for daemon in [false, true] {
        let _daemon = daemon.then(|| setup.start());
        let output = backfill(&setup, &[archive.path()], &["--users", &user.to_string()]);

        let (stdout, stderr) = said(&output);
        assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
        let name = packed[0].display().to_string();
        assert!(stderr.contains(&format!("{name}: at byte ")), "{stderr}");
        assert!(
            stdout.contains(&format!("{} of {} files", packed.len() - 1, packed.len())),
            "{stdout}"
        );
    }
    let others = packed.len() - 1;
    assert!(others > 2 && !setup.stored().is_empty());
    // Once it is whole again only what it lacked is missing.
    fs::write(&packed[0], &whole).unwrap();
    let output = backfill(&setup, &[archive.path()], &["--users", &user.to_string()]);
    assert_eq!(output.status.code(), Some(0), "{:?}", said(&output));
    assert_eq!(setup.stored(), rows_of(&archive.manifest, &[user]));
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn a_command_that_is_ended_cancels_its_job_and_the_next_one_goes_on() {
    let mut setup = Setup::new();
    // So slow that it cannot be done before it is ended.
    setup.config = "[backfill]\nmax_bytes_per_second = \"64KiB\"\n".to_owned();
    setup.whitelist = format!("{}\n", common::node::ALICE);
    let archive = Archive::new(6 * HOUR, 600);
    let user = archive.users[0].to_string();
    let daemon = setup.start();

    let mut command = backfill_command(&setup, &[archive.path()], &["--users", &user]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it stores", || {
        daemon.status()["backfill"]["running"]["stored"].as_u64().is_some_and(|stored| stored > 0)
    });
    // Another one says at once that it waits, and for how many files.
    let mut command = backfill_command(&setup, &[archive.path()], &["--users", common::node::BOB]);
    let mut waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(waiting.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "waits for another back-fill\n");
    interrupt(&waiting);
    let (told, _) = said(&common::end_of(waiting));
    assert!(told.contains("; 0 of ") && !told.contains("of 0 files"), "{told}");
    interrupt(&child);
    let output = common::end_of(child);

    assert_eq!(output.status.code(), Some(130), "{:?}", said(&output));
    eventually("the job is cancelled", || {
        let status = daemon.status();
        status["backfill"]["jobs_running"] == 0
            && status["backfill"]["last"]["state"] == "cancelled"
    });
    let kept: Vec<_> = setup.state_dir().join("backfill").read_dir().unwrap().collect();
    assert_eq!(kept.len(), 1, "its progress is kept");
    assert_eq!(daemon.stop().code(), Some(0));

    // Without the daemon the same order goes on, at full speed.
    let output = backfill(&setup, &[archive.path()], &["--users", &user]);
    assert_eq!(output.status.code(), Some(0), "{:?}", said(&output));
    assert_eq!(setup.stored(), rows_of(&archive.manifest, &archive.users[..1]));
}

#[test]
fn what_cannot_be_done_is_one_clear_line() {
    let mut setup = Setup::new();
    make_store(&setup);
    let empty = setup.root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let archive = Archive::new(HOUR, 5);
    let user = archive.users[0].to_string();
    let refused = |setup: &Setup, from: &Path, more: &[&str]| {
        let output = backfill(setup, &[from], more);
        assert_eq!(output.status.code(), Some(1), "{:?}", said(&output));
        said(&output).1
    };

    assert!(refused(&setup, &empty, &["--users", &user]).contains("there is no hour file"));
    assert!(refused(&setup, archive.path(), &["--users", "me"]).contains("--users: me"));
    let broadcast = refused(&setup, archive.path(), &["--users", &user, "--broadcast"]);
    assert!(broadcast.contains("needs a running daemon"), "{broadcast}");

    // A daemon with another state directory writes to the same store.
    setup.config =
        format!("[store]\nurl = \"sqlite:{}\"\n", setup.root.path().join("db").display());
    let daemon = setup.start();
    let other = setup.root.path().join("other");
    fs::create_dir(&other).unwrap();
    let url = format!("sqlite:{}", setup.root.path().join("db").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodecast"));
    command
        .args(["backfill", "--users", &user, "--database-url", &url, "--from"])
        .arg(archive.path());
    let output = run_to_end(command.args(["--state-dir".as_ref(), other.as_os_str()]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("--state-dir"), "{:?}", said(&output));
    assert!(said(&output).1.contains(&daemon.pid().to_string()), "{:?}", said(&output));
    // The daemon itself is asked, and says what it does not find.
    assert!(refused(&setup, &empty, &["--users", &user]).contains("there is no hour file"));
}
