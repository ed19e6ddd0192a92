//! Passes over what a simulated node has written, compared with its manifest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    time::Duration,
};

use ahash::HashSet;
use lz4_flex::frame::FrameEncoder;
use tempfile::TempDir;

use super::*;
use crate::{
    backfill::{Users, edge, find},
    event::{Address, EventId},
    generate::{Faults, Manifest, Plan, Simulator},
    whitelist::Whitelist,
};

type Rows = BTreeMap<EventId, (Option<Address>, String)>;

/// Seconds into an hour at which the node begins, so that it crashes in the first block of the next
/// hour: a file then begins with a torn line.
const CRASH_AT_HOUR: u64 = 2_495;

/// More than an hour of blocks with everything that a node does to its files, which end where the
/// hours do: how a test ends must not depend on the time of day.
fn written(streaming: bool) -> (TempDir, Manifest) {
    written_from(CRASH_AT_HOUR, streaming)
}

fn written_from(seconds_into_hour: u64, streaming: bool) -> (TempDir, Manifest) {
    let directory = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3_600);
    let now = Timestamp::now();
    let into_this_hour = Duration::from_micros(now.0 as u64 % hour.as_micros() as u64);
    let start = now.minus(into_this_hour + 3 * hour).plus(Duration::from_secs(seconds_into_hour));
    let plan = Plan {
        seed: 7,
        users: 30,
        start: Some(start),
        block_interval: Duration::from_secs(10),
        streaming,
        faults: Faults { torn: true, crash_every: 40, rewind_every: 90, ..Faults::default() },
        ..Plan::default()
    };
    let mut simulator = Simulator::new(plan, directory.path()).unwrap();
    simulator.write_blocks(400).unwrap();
    simulator.finish().unwrap();
    (directory, simulator.into_manifest())
}

fn scope(users: Users) -> Scope {
    let edge = Timestamp::now().minus(Duration::from_secs(86_400));
    Scope { users, edge, height: None, max_line_bytes: 64 << 20 }
}

fn everybody() -> Users {
    Users::Listed(Whitelist::all().into())
}

fn pass(directory: &Path, users: Users, done: &BTreeMap<PathBuf, u64>, at: Option<Place>) -> Pass {
    Pass::new(scope(users), find(&[directory.to_owned()]).unwrap(), done, at)
}

fn add(rows: &mut Rows, events: Vec<Event>) {
    for event in events {
        let body = String::from_utf8(event.body.to_vec()).unwrap();
        rows.insert(event.id, (event.user, body));
    }
}

fn run_out(pass: &mut Pass) -> (Rows, Vec<FileFault>) {
    let (mut rows, mut faults) = (Rows::new(), Vec::new());
    loop {
        match pass.step() {
            Step::Events(events) => add(&mut rows, events),
            Step::FileDone => {}
            Step::Fault(fault) => faults.push(fault),
            Step::End => return (rows, faults),
        }
    }
}

fn expected(manifest: &Manifest, wanted: impl Fn(&EventId, Option<Address>) -> bool) -> Rows {
    let rows = manifest.rows.iter().filter(|row| wanted(&row.id, row.user));
    rows.map(|row| (row.id, (row.user, row.body.clone()))).collect()
}

fn pack(path: &Path) -> PathBuf {
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(&fs::read(path).unwrap()).unwrap();
    let packed = path.with_extension("lz4");
    fs::write(&packed, encoder.finish().unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    packed
}

#[test]
fn plain_and_packed_files_give_what_the_manifest_says() {
    let (directory, manifest) = written(false);
    let path = directory.path();
    let all = expected(&manifest, |_, _| true);

    let (plain, faults) = run_out(&mut pass(path, everybody(), &BTreeMap::new(), None));
    assert!(faults.is_empty());
    assert_eq!(plain, all);

    for input in find(&[path.to_owned()]).unwrap() {
        pack(&input.path);
    }
    let mut packed = pass(path, everybody(), &BTreeMap::new(), None);
    let (rows, faults) = run_out(&mut packed);
    assert!(faults.is_empty());
    assert_eq!(rows, all);
    let bytes: u64 = find(&[path.to_owned()]).unwrap().iter().map(|input| input.bytes).sum();
    assert_eq!((packed.counts.read_bytes, packed.counts.passed_bytes), (bytes, 0));
}

#[test]
fn only_the_events_of_the_wanted_users_leave() {
    let (directory, manifest) = written(false);
    let users: BTreeSet<Address> = manifest.rows.iter().filter_map(|row| row.user).collect();
    let named: HashSet<Address> = users.iter().copied().step_by(5).collect();

    let wanted = Users::Named(named.clone());
    let (rows, _) = run_out(&mut pass(directory.path(), wanted, &BTreeMap::new(), None));

    assert_eq!(rows, expected(&manifest, |_, user| user.is_some_and(|user| named.contains(&user))));
    // What concerns nobody is for those who keep everything.
    let list = Whitelist::build(vec![named.iter().copied().collect()], &Default::default());
    let listed = Users::Listed(list.into());
    assert_eq!(run_out(&mut pass(directory.path(), listed, &BTreeMap::new(), None)).0, rows);
    // Who has left the list again is not wanted any more.
    let empty = Whitelist::build(Vec::new(), &Default::default());
    let gone = Users::NamedAndListed(named, empty.into());
    assert!(run_out(&mut pass(directory.path(), gone, &BTreeMap::new(), None)).0.is_empty());
}

#[test]
fn streaming_files_give_all_but_the_block_that_may_have_begun_before() {
    for seconds in [0, 900, CRASH_AT_HOUR, 3_595] {
        let (directory, manifest) = written_from(seconds, true);
        let inputs = find(&[directory.path().to_owned()]).unwrap();

        let (rows, _) = run_out(&mut pass(directory.path(), everybody(), &BTreeMap::new(), None));

        let mut first = BTreeMap::new();
        for input in &inputs {
            // Only of the first file of a directory: later ones can begin with a torn line.
            first.entry(input.topic).or_insert_with(|| {
                let text = fs::read_to_string(&input.path).unwrap();
                let line: serde_json::Value =
                    serde_json::from_str(text.lines().next().unwrap()).unwrap();
                line["block_number"].as_u64().unwrap()
            });
        }
        assert!(inputs.len() > first.len());
        let all_but_first = expected(&manifest, |id, _| id.position != first[&id.topic]);
        assert!(rows == all_but_first, "from {seconds} seconds into the hour");
    }
}

#[test]
fn a_pass_that_is_broken_off_anywhere_goes_on_where_it_was() {
    for (streaming, packed) in [(false, false), (true, false), (true, true)] {
        let (directory, _) = written(streaming);
        let path = directory.path();
        let inputs = find(&[path.to_owned()]).unwrap();
        inputs.iter().filter(|_| packed).for_each(|input| drop(pack(&input.path)));
        let inputs = find(&[path.to_owned()]).unwrap();
        let bytes: u64 = inputs.iter().map(|input| input.bytes).sum();
        assert!(inputs.iter().any(|input| input.directory != inputs[0].directory));
        assert!(inputs.windows(2).any(|two| two[0].directory == two[1].directory));
        let (whole, _) = run_out(&mut pass(path, everybody(), &BTreeMap::new(), None));
        for steps in 0.. {
            let (mut rows, mut done, mut ended) = (Rows::new(), BTreeMap::new(), false);
            let mut first = pass(path, everybody(), &BTreeMap::new(), None);
            for _ in 0..steps {
                match first.step() {
                    Step::Events(events) => add(&mut rows, events),
                    Step::End => ended = true,
                    Step::FileDone | Step::Fault(_) => {}
                }
                done.extend(first.finished_file());
            }

            let mut second = pass(path, everybody(), &done, first.place());
            let (rest, _) = run_out(&mut second);

            rows.extend(rest);
            assert!(rows == whole, "after {steps} steps, streaming: {streaming}");
            let counts = &second.counts;
            assert_eq!(counts.files_done, inputs.len() as u64);
            assert_eq!(counts.read_bytes + counts.passed_bytes, bytes);
            // What was done is not read again, except what cannot be entered in its middle.
            let read_before = first.counts.read_bytes;
            assert!(packed || counts.passed_bytes <= read_before);
            assert!(!ended || counts.read_bytes == 0);
            if ended {
                break;
            }
        }
    }
}

#[test]
fn a_file_that_has_grown_since_it_was_done_is_read_again() {
    let (directory, manifest) = written(false);
    let path = directory.path();
    let inputs = find(&[path.to_owned()]).unwrap();
    let rows_with = |less: u64| {
        let done = inputs.iter().map(|input| (input.path.clone(), input.bytes - less)).collect();
        run_out(&mut pass(path, everybody(), &done, None)).0
    };

    assert!(rows_with(0).is_empty());
    assert_eq!(rows_with(1), expected(&manifest, |_, _| true));
}

#[test]
fn a_place_in_a_file_that_is_another_one_now_is_not_believed() {
    let (directory, manifest) = written(false);
    let path = directory.path();
    // The second hour: nobody goes back to write its blocks again.
    let file = find(&[path.to_owned()]).unwrap().swap_remove(1);
    // At its end: who believes it reads nothing of the file.
    let digest = digest_before(&file.path, file.bytes).unwrap();
    let rows_from = |digest| {
        let (open, begun_before) = (Vec::new(), None);
        let place =
            Place { path: file.path.clone(), offset: file.bytes, digest, open, begun_before };
        run_out(&mut pass(path, everybody(), &BTreeMap::new(), Some(place))).0
    };
    let all = expected(&manifest, |_, _| true);

    assert!(rows_from(digest).len() < all.len());
    assert!(rows_from(digest ^ 1) == all);
}

/// Breaks a pass off behind so many steps, and gives the rows of both parts and how much of what was
/// read the second one read again.
fn broken_off(path: &Path, steps: usize) -> (Rows, Counts) {
    let (mut rows, mut done) = (Rows::new(), BTreeMap::new());
    let mut first = pass(path, everybody(), &BTreeMap::new(), None);
    for _ in 0..steps {
        if let Step::Events(events) = first.step() {
            add(&mut rows, events);
        }
        done.extend(first.finished_file());
    }
    let mut second = pass(path, everybody(), &done, first.place());
    rows.extend(run_out(&mut second).0);
    (rows, second.counts)
}

/// A streaming file whose first block is longer than a chunk, and the hour behind it, in which the
/// node goes back to that block and writes it from its beginning. Gives the block.
fn with_a_long_first_block(directory: &Path) -> u64 {
    let (hour, now) = (Duration::from_secs(3_600), Timestamp::now());
    let into_this_hour = Duration::from_micros(now.0 as u64 % hour.as_micros() as u64);
    let start = now.minus(into_this_hour + hour + Duration::from_secs(60));
    let block_interval = Duration::from_secs(10);
    let plan = Plan {
        seed: 7,
        users: 30,
        start: Some(start),
        block_interval,
        streaming: true,
        ..Plan::default()
    };
    let mut simulator = Simulator::new(plan, directory).unwrap();
    simulator.write_blocks(12).unwrap();
    simulator.rewind(12).unwrap();
    simulator.finish().unwrap();
    fs::remove_dir_all(directory.join("misc_events_streaming")).unwrap();
    let file = find(&[directory.to_owned()]).unwrap().swap_remove(0).path;
    let text = fs::read_to_string(&file).unwrap();
    let block_of = |line: &str| -> u64 {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["block_number"].as_u64().unwrap()
    };
    let first = block_of(text.lines().next().unwrap());
    let of_first: String = text
        .lines()
        .filter(|line| block_of(line) == first)
        .skip(1)
        .map(|line| format!("{line}\n"))
        .collect();
    let rest: String = text
        .lines()
        .filter(|line| block_of(line) != first)
        .map(|line| format!("{line}\n"))
        .collect();
    let times = (600 << 10) / of_first.len() + 1;
    fs::write(&file, of_first.repeat(times) + &rest).unwrap();
    first
}

#[test]
fn the_block_that_may_have_begun_before_is_passed_over_also_when_a_pass_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let first = with_a_long_first_block(path);
    let inputs = find(&[path.to_owned()]).unwrap();
    assert_eq!(inputs.len(), 2);
    let again = fs::read_to_string(&inputs[1].path).unwrap();
    assert!(again.contains(&format!("\"block_number\":{first},")), "the node went back to it");
    let (whole, _) = run_out(&mut pass(path, everybody(), &BTreeMap::new(), None));
    assert!(!whole.is_empty() && whole.keys().all(|id| id.position != first));

    // Open, two chunks within the block, the rest of the file, its end, the next file.
    for steps in 0..8 {
        let (rows, counts) = broken_off(path, steps);

        assert!(rows == whole, "after {steps} steps");
        // From the first chunk on it does not begin anew.
        assert!(steps < 2 || counts.passed_bytes > 0, "after {steps} steps");
    }
}

#[test]
fn a_damaged_archive_is_a_fault_with_its_place_and_the_rest_is_read() {
    let (directory, manifest) = written(false);
    let fills = find(&[directory.path().join("node_fills_by_block")]).unwrap();
    let packed = pack(&fills[0].path);
    let whole = fs::read(&packed).unwrap();
    fs::write(&packed, &whole[..whole.len() / 2]).unwrap();

    let (rows, faults) = run_out(&mut pass(directory.path(), everybody(), &BTreeMap::new(), None));

    let said = faults[0].to_string();
    assert_eq!(faults.len(), 1);
    assert!(said.contains("lz4: at byte ") && faults[0].at > 0, "{said}");
    let misc = |id: &EventId| id.topic.as_str() == "misc";
    let all_misc = expected(&manifest, |id, _| misc(id));
    assert_eq!(rows.iter().filter(|(id, _)| misc(id)).count(), all_misc.len());
}

#[test]
fn blocks_beyond_the_edge_are_refused_and_counted() {
    let (directory, manifest) = written(false);
    let middle = manifest.rows[manifest.rows.len() / 2].time_ns / 1_000;
    let scope = Scope { edge: Timestamp(middle), ..scope(everybody()) };
    let inputs = find(&[directory.path().to_owned()]).unwrap();

    let mut pass = Pass::new(scope, inputs, &BTreeMap::new(), None);
    let (rows, _) = run_out(&mut pass);

    let young: BTreeSet<EventId> = manifest
        .rows
        .iter()
        .filter(|row| row.time_ns / 1_000 > middle + 60_000_000)
        .map(|row| row.id)
        .collect();
    assert!(!young.is_empty() && young.iter().all(|id| rows.contains_key(id)));
    assert!(rows.len() < manifest.rows.len() && pass.counts.refused_blocks > 0);
}

#[test]
fn the_edge_counts_back_from_the_newest_block_or_from_now() {
    let (now, day) = (Timestamp(100 * 86_400_000_000), Duration::from_secs(86_400));
    let old = now.minus(50 * day);

    assert_eq!(edge(None, now, 7 * day, None), now.minus(7 * day));
    assert_eq!(edge(Some(old), now, 7 * day, None), old.minus(7 * day));
    assert_eq!(edge(Some(now.plus(day)), now, 7 * day, Some(30 * day)), now.minus(30 * day));
}
