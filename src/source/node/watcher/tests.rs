use std::{
    fs::{self, OpenOptions},
    io::Write,
    time::Duration,
};

use tempfile::TempDir;

use super::*;
use crate::{
    config::StartFrom,
    source::{BatchLost, StreamState},
    testing::{Probe, ProbeHandle, log, recorded_log},
};

const FILLS: &str = "node_fills_by_block";
const MISC: &str = "misc_events_by_block";

/// A node directory and a watcher with a probe on each side.
struct Bench {
    node: TempDir,
    budget: Arc<Budget>,
    batches: ProbeHandle<RawBatch>,
    lost: ProbeHandle<BatchLost>,
    stats: Arc<Stats>,
}

fn config() -> SourceConfig {
    SourceConfig {
        // Long enough that in most tests inotify alone can be quick enough.
        rescan_interval: Duration::from_secs(3_600),
        from: StartFrom::Oldest,
        ..SourceConfig::default()
    }
}

impl Bench {
    fn new(budget_bytes: usize) -> Self {
        let lost = Probe::<BatchLost>::start();
        Self {
            node: tempfile::tempdir().unwrap(),
            budget: Budget::new(budget_bytes, lost.recipient()),
            batches: Probe::<RawBatch>::start(),
            lost,
            stats: Arc::default(),
        }
    }

    fn append(&self, kind: &str, file: &str, text: &str) {
        let path = self.node.path().join(kind).join("hourly").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn watcher(&self, config: &SourceConfig) -> FileWatcher {
        self.watcher_from(config, Vec::new())
    }

    fn watcher_from(
        &self,
        config: &SourceConfig,
        checkpoints: Vec<StreamCheckpoint>,
    ) -> FileWatcher {
        let next = self.batches.recipient();
        let stats = self.stats.clone();
        let budget = self.budget.clone();
        FileWatcher::new(self.node.path(), config, checkpoints, 1, budget, next, stats, &log())
    }

    /// Commits everything that comes until these lines have come.
    async fn read_until(&self, bytes: usize) -> String {
        let mut lines = String::new();
        while lines.len() < bytes {
            for batch in self.batches.take_at_least(1).await {
                lines += std::str::from_utf8(&batch.lines).unwrap();
                batch.credit.done();
            }
        }
        lines
    }
}

#[actix_rt::test]
async fn lines_of_both_kinds_arrive_and_the_first_batch_of_each_carries_its_state() {
    // H01, H02
    let bench = Bench::new(1 << 20);
    bench.append(FILLS, "20260315/0", "fill\n");
    bench.append(MISC, "20260315/0", "misc\n");
    let _watcher = bench.watcher(&config()).start();

    let baselines = bench.batches.take_at_least(2).await;
    assert!(baselines.iter().all(|batch| batch.resume.is_some() && batch.lines.is_empty()));
    baselines.into_iter().for_each(|batch| batch.credit.done());
    let read = bench.batches.take_at_least(2).await;

    let topics: Vec<_> =
        read.iter().map(|batch| (batch.stream.topic.as_str(), &batch.lines[..])).collect();
    assert!(topics.contains(&("fills", b"fill\n")) && topics.contains(&("misc", b"misc\n")));
    assert!(read.iter().all(|batch| batch.resume.is_none() && batch.generation == 1));
    read.into_iter().for_each(|batch| batch.credit.done());
}

#[actix_rt::test]
async fn nothing_is_read_before_the_baseline_is_committed() {
    let bench = Bench::new(1 << 20);
    bench.append(FILLS, "20260315/0", "old\n");
    let watcher = bench.watcher(&SourceConfig { from: StartFrom::Now, ..config() }).start();
    let mut baseline = bench.batches.take_at_least(1).await;

    bench.append(FILLS, "20260315/0", "new\n");
    watcher.send(CreditReturned).await.unwrap();
    assert!(bench.batches.take().await.is_empty());

    let baseline = baseline.pop().unwrap();
    assert!(matches!(baseline.marks[..], [FileMark::At { offset: 4, .. }]));
    baseline.credit.done();
    assert_eq!(bench.read_until(4).await, "new\n");
}

// While the store is away nothing is committed, and a kind that appears then must wait alone.
#[actix_rt::test]
async fn a_new_stream_that_waits_for_its_baseline_stops_no_other() {
    let bench = Bench::new(1 << 20);
    bench.append(FILLS, "20260315/0", "first\n");
    let config = SourceConfig { rescan_interval: Duration::from_millis(20), ..config() };
    let _watcher = bench.watcher(&config).start();
    bench.read_until(6).await;
    bench.append(MISC, "20260315/0", "misc\n");
    let baseline = bench.batches.take_at_least(1).await.pop().unwrap();
    assert_eq!((baseline.stream.topic.as_str(), baseline.lines.len()), ("misc", 0));

    let mut held = Vec::new();
    for line in ["second\n", "third\n"] {
        bench.append(FILLS, "20260315/0", line);
        let batch = bench.batches.take_at_least(1).await.pop().unwrap();
        assert_eq!((batch.stream.topic.as_str(), &batch.lines[..]), ("fills", line.as_bytes()));
        held.push(batch);
    }
    // Its own commit is enough, whatever else is under way.
    baseline.credit.done();
    let misc = bench.batches.take_at_least(1).await.pop().unwrap();

    assert_eq!(&misc.lines[..], b"misc\n");
    misc.credit.done();
    held.into_iter().for_each(|batch| batch.credit.done());
}

#[actix_rt::test]
async fn reading_stops_without_credit_and_goes_on_when_it_returns() {
    let bench = Bench::new(10);
    for hour in 0..5 {
        bench.append(FILLS, &format!("20260315/{hour}"), "1234567\n");
    }
    let _watcher = bench.watcher(&config()).start();
    bench.batches.take_at_least(1).await.into_iter().for_each(|batch| batch.credit.done());

    // The read that crosses the limit is allowed.
    let mut held = bench.batches.take_at_least(2).await;
    assert!(bench.batches.take().await.is_empty());
    assert_eq!((held.len(), bench.budget.in_flight_bytes()), (2, 16));

    held.remove(0).credit.done();
    let next = bench.batches.take_at_least(1).await;
    assert_eq!(&*next[0].file, "20260315/2");
    assert!(bench.batches.take().await.is_empty(), "one more and no further");

    held.into_iter().chain(next).for_each(|batch| batch.credit.done());
    assert_eq!(bench.read_until(16).await, "1234567\n1234567\n");
    assert!(bench.lost.take().await.is_empty());
}

#[actix_rt::test]
async fn inotify_alone_finds_appended_lines_new_hours_and_new_days() {
    // H06, H08: the timer does not fire in this test.
    let bench = Bench::new(1 << 20);
    fs::create_dir_all(bench.node.path().join(FILLS)).unwrap();
    let _watcher = bench.watcher(&config()).start();
    bench.batches.take_at_least(1).await.into_iter().for_each(|batch| batch.credit.done());

    for (file, line) in [
        ("20260315/23", "a\n"),
        ("20260315/23", "b\n"),
        ("20260316/0", "c\n"),
        ("20260316/1", "d\n"),
    ] {
        bench.append(FILLS, file, line);
        assert_eq!(bench.read_until(2).await, line);
    }
}

#[actix_rt::test]
async fn directories_that_are_removed_and_made_again_are_watched_again() {
    // H13: the timer does not fire in this test.
    let bench = Bench::new(1 << 20);
    bench.append(FILLS, "20260315/0", "a\n");
    let _watcher = bench.watcher(&config()).start();
    assert_eq!(bench.read_until(2).await, "a\n");

    let hourly = bench.node.path().join(FILLS).join("hourly");
    for (removed, line) in [(hourly.join("20260315"), "b\n"), (hourly, "c\n")] {
        fs::remove_dir_all(removed).unwrap();
        bench.append(FILLS, "20260316/0", line);
        assert_eq!(bench.read_until(2).await, line);
    }
    bench.append(FILLS, "20260316/0", "d\n");
    assert_eq!(bench.read_until(2).await, "d\n");
}

#[actix_rt::test]
async fn the_timer_alone_finds_everything() {
    // H13: inotify is not available.
    let bench = Bench::new(1 << 20);
    fs::create_dir_all(bench.node.path().join(FILLS)).unwrap();
    let mut watcher =
        bench.watcher(&SourceConfig { rescan_interval: Duration::from_millis(20), ..config() });
    watcher.use_inotify = false;
    let _watcher = watcher.start();
    bench.batches.take_at_least(1).await.into_iter().for_each(|batch| batch.credit.done());

    for (file, line) in [("20260315/23", "a\n"), ("20260315/23", "b\n"), ("20260316/0", "c\n")] {
        bench.append(FILLS, file, line);
        assert_eq!(bench.read_until(2).await, line);
    }
}

#[actix_rt::test]
async fn an_overflow_of_the_queue_leads_to_a_look_at_everything() {
    // H13: the events of 40,000 changes do not fit the queue of the kernel; those of the last file
    // are among the lost ones, because the watcher cannot run in between.
    let bench = Bench::new(1 << 20);
    bench.append(FILLS, "20260315/0", "a\n");
    bench.append(FILLS, "20260315/1", "b\n");
    let _watcher = bench.watcher(&config()).start();
    bench.batches.take_at_least(1).await.into_iter().for_each(|batch| batch.credit.done());
    assert_eq!(bench.read_until(4).await, "a\nb\n");

    let hourly = bench.node.path().join(FILLS).join("hourly/20260315");
    let touch = |hour: u8| fs::write(hourly.join(hour.to_string()), "").unwrap();
    fs::create_dir(hourly.join("scratch")).unwrap();
    for _ in 0..20_000 {
        // Foreign names, alternating so that the kernel cannot merge their events.
        fs::write(hourly.join("x"), "").unwrap();
        fs::write(hourly.join("y"), "").unwrap();
    }
    touch(2);
    bench.append(FILLS, "20260315/2", "c\n");

    assert_eq!(bench.read_until(2).await, "c\n");
}

#[actix_rt::test]
async fn a_missing_node_directory_is_waited_for_and_said() {
    let bench = Bench::new(1 << 20);
    let node = bench.node.path().join("not/yet");
    let next = bench.batches.recipient();
    let config = SourceConfig {
        rescan_interval: Duration::from_millis(20),
        from: StartFrom::Now,
        ..config()
    };
    let (budget, stats) = (bench.budget.clone(), bench.stats.clone());
    let watcher = FileWatcher::new(&node, &config, Vec::new(), 1, budget, next, stats, &log());
    let address = watcher.start();
    address.send(CreditReturned).await.unwrap();
    assert!(bench.stats.streams()[0].problem().contains("not/yet"));

    fs::create_dir_all(node.join("misc_events_by_block/hourly/20260315")).unwrap();
    fs::write(node.join("misc_events_by_block/hourly/20260315/0"), "first\n").unwrap();

    // It came while we were watching: its first line is new.
    assert_eq!(bench.read_until(6).await, "first\n");
    assert!(bench.stats.streams().iter().all(|stream| stream.problem().is_empty()));
}

#[actix_rt::test]
async fn a_plain_directory_is_shown_with_the_flag_to_set() {
    let bench = Bench::new(1 << 20);
    fs::create_dir(bench.node.path().join("node_fills")).unwrap();
    let watcher = bench.watcher(&config()).start();
    watcher.send(CreditReturned).await.unwrap();

    assert!(bench.stats.streams()[0].problem().contains("--batch-by-block"));
    assert!(bench.batches.take().await.is_empty());
}

#[actix_rt::test]
async fn a_new_generation_starts_from_its_checkpoints() {
    let bench = Bench::new(1 << 20);
    bench.append(FILLS, "20260315/0", "a\n");
    let watcher = bench.watcher(&config()).start();
    bench.batches.take_at_least(1).await.into_iter().for_each(|batch| batch.credit.done());
    let committed = bench.batches.take_at_least(1).await.pop().unwrap();
    let checkpoint = StreamCheckpoint {
        name: committed.stream.name.clone(),
        state: StreamState { last_position: Some(7), ..StreamState::default() },
        files: committed.marks.clone(),
    };
    committed.credit.done();
    bench.append(FILLS, "20260315/0", "b\n");
    let lost = bench.batches.take_at_least(1).await;
    drop(lost);
    assert_eq!(bench.lost.take_at_least(1).await, [BatchLost { generation: 1 }]);

    watcher.send(Restart { generation: 2, checkpoints: vec![checkpoint] }).await.unwrap();
    let again = bench.batches.take_at_least(1).await;

    assert_eq!(again[0].lines, b"b\n"[..]);
    assert_eq!(again[0].generation, 2);
    assert_eq!(again[0].resume.as_ref().unwrap().last_position, Some(7));
    again.into_iter().for_each(|batch| batch.credit.done());
}

#[actix_rt::test]
async fn a_baseline_that_was_lost_is_sent_again_as_it_was() {
    let bench = Bench::new(1 << 20);
    bench.append(FILLS, "20260315/0", "old\n");
    let watcher = bench.watcher(&SourceConfig { from: StartFrom::Now, ..config() }).start();
    drop(bench.batches.take_at_least(1).await);
    bench.append(FILLS, "20260315/0", "new\n");
    drop(bench.batches.take().await);

    watcher.send(Restart { generation: 2, checkpoints: Vec::new() }).await.unwrap();
    let baseline = bench.batches.take_at_least(1).await;

    assert!(matches!(baseline[0].marks[..], [FileMark::At { offset: 4, .. }]));
    assert!(baseline[0].resume.is_some());
    baseline.into_iter().for_each(|batch| batch.credit.done());
    assert_eq!(bench.read_until(4).await, "new\n");
}

#[actix_rt::test]
async fn no_batch_leaves_after_the_answer_to_stop_reading() {
    let bench = Bench::new(1 << 20);
    bench.append(FILLS, "20260315/0", "a\n");
    let watcher = bench.watcher(&config()).start();
    let baseline = bench.batches.take_at_least(1).await;

    watcher.send(StopReading).await.unwrap();
    baseline.into_iter().for_each(|batch| batch.credit.done());
    bench.append(FILLS, "20260315/0", "b\n");
    watcher.send(CreditReturned).await.unwrap();

    assert!(bench.batches.take().await.is_empty());
}

#[actix_rt::test]
async fn streams_take_turns_and_other_messages_get_through_a_long_catch_up() {
    let bench = Bench::new(1 << 20);
    for file in 0..240 {
        let file = format!("202603{:02}/{}", 10 + file / 24, file % 24);
        bench.append(FILLS, &file, "f\n");
        bench.append(MISC, &file, "m\n");
    }
    let watcher = bench.watcher(&config()).start();
    bench.batches.take_at_least(2).await.into_iter().for_each(|batch| batch.credit.done());

    // Lets every actor run 64 times, not more.
    let mut read = bench.batches.take().await;
    watcher.send(StopReading).await.unwrap();
    read.extend(bench.batches.take().await);

    assert!((1..480).contains(&read.len()), "the stop came between two batches");
    for pair in read.windows(2) {
        assert_ne!(pair[0].stream.name, pair[1].stream.name);
    }
    read.into_iter().for_each(|batch| batch.credit.done());
}

#[actix_rt::test]
async fn missing_directories_are_created_when_asked_for() {
    // H09
    let bench = Bench::new(1 << 20);
    let watcher = bench.watcher(&SourceConfig { create_missing: true, ..config() }).start();
    watcher.send(CreditReturned).await.unwrap();

    assert!(bench.node.path().join(FILLS).join("hourly").is_dir());
    assert!(bench.node.path().join(MISC).join("hourly").is_dir());
}

#[actix_rt::test]
async fn the_head_of_an_over_long_line_goes_to_quarantine() {
    // H11
    let bench = Bench::new(1 << 20);
    let state = tempfile::tempdir().unwrap();
    let quarantine = Arc::new(Quarantine::open(state.path(), 1 << 20).unwrap());
    bench.append(FILLS, "20260315/0", "short\na line that is far too long");
    let watcher = bench.watcher(&SourceConfig { max_line_bytes: 8, ..config() });
    let _watcher = watcher.with_quarantine(quarantine).start();

    assert_eq!(bench.read_until(6).await, "short\n");
    assert!(bench.batches.take().await.is_empty());
    let kept = fs::read_to_string(state.path().join("quarantine.jsonl")).unwrap();
    assert!(kept.contains("over-long line") && kept.contains("20260315/0"), "{kept}");
}

#[actix_rt::test]
async fn a_wrong_node_directory_is_said_with_what_is_wrong_and_leaves_nothing_when_mended() {
    let bench = Bench::new(1 << 20);
    let root = bench.node.path();
    fs::write(root.join("file"), "").unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("node_fills_by_block/hourly/20260315")).unwrap();
    let config = SourceConfig { rescan_interval: Duration::from_millis(20), ..config() };

    let parent = format!("give its parent {}", root.display());
    for (name, expected) in [
        ("file", "is not a directory"),
        ("empty", "none of node_fills_by_block, node_fills_streaming, misc_events_by_block"),
        ("node_fills_by_block", parent.as_str()),
        ("node_fills_by_block/hourly", parent.as_str()),
    ] {
        let (log, said) = recorded_log();
        let stats = Arc::<Stats>::default();
        let (budget, next) = (bench.budget.clone(), bench.batches.recipient());
        let node = root.join(name);
        let seen = stats.clone();
        let watcher = FileWatcher::new(&node, &config, Vec::new(), 1, budget, next, stats, &log);
        let address = watcher.start();
        address.send(CreditReturned).await.unwrap();
        // It looks again, and has said it.
        address.send(Restart { generation: 1, checkpoints: Vec::new() }).await.unwrap();

        let told = said.with("WARN");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(expected) && told[0].contains(name), "{told:?}");
        let problems: Vec<_> = seen.streams().iter().map(|stream| stream.problem()).collect();
        assert!(problems.len() == 2 && problems[0].contains(expected), "{problems:?}");

        if name == "empty" {
            // A kind comes that nobody expected there: the others are no longer shown as missing.
            fs::create_dir(node.join("node_fills_streaming")).unwrap();
            bench.batches.take_at_least(1).await.into_iter().for_each(|it| it.credit.done());
            let names: Vec<_> =
                seen.streams().iter().map(|stream| stream.stream.name.to_string()).collect();
            assert_eq!(names, [node.join("node_fills_streaming").display().to_string()]);
        }
        address.send(StopReading).await.unwrap();
    }
}
