use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
    time::SystemTime,
};

use tempfile::TempDir;

use super::*;
use crate::{
    config::StartFrom,
    event::Topic,
    source::{Density, Form},
    stats::Stats,
};

const SETTINGS: Settings = Settings {
    limits: Limits { read_bytes: 1 << 20, line_bytes: 1 << 20 },
    grace: Duration::from_secs(60),
};

/// A stream directory, its follower, and a clock that only the test moves.
struct Bench {
    directory: TempDir,
    stream: Arc<Stream>,
    stats: Arc<StreamStats>,
    follower: Follower,
    now: Instant,
    /// All marks so far, as the store would hold them.
    committed: BTreeMap<Arc<str>, (u64, u64)>,
}

fn at(name: &str) -> HourFile {
    name.parse().unwrap()
}

impl Bench {
    fn new(start: Start) -> Self {
        Self::prepared(start, |_| {})
    }

    fn prepared(start: Start, prepare: impl FnOnce(&std::path::Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("hourly")).unwrap();
        prepare(directory.path());
        let stream = Arc::new(Stream {
            name: "stream".into(),
            node: "node".into(),
            topic: Topic::new("fills"),
            form: Form::ByBlock,
            density: Density::Dense,
            directory: directory.path().to_owned(),
        });
        let stats = Stats::default().stream(&stream);
        let follower = Follower::new(stream.clone(), SETTINGS, start, stats.clone());
        let committed = BTreeMap::new();
        Self { directory, stream, stats, follower, now: Instant::now(), committed }
    }

    /// A follower past its baseline on an empty directory.
    fn started() -> Self {
        let mut bench = Self::new(Start::Configured(StartFrom::Now));
        assert_eq!(bench.turn(), "");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        at(name).path(self.directory.path())
    }

    fn append(&self, name: &str, text: &str) {
        append(self.directory.path(), name, text);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// A rescan and all batches that it leads to; gives their lines.
    fn turn(&mut self) -> String {
        self.follower.rescan(self.now);
        self.read()
    }

    fn read(&mut self) -> String {
        self.batches().iter().map(|batch| String::from_utf8_lossy(&batch.lines)).collect()
    }

    fn batches(&mut self) -> Vec<Batch> {
        let mut batches = Vec::new();
        loop {
            while let Some(batch) = self.follower.next_batch(self.now) {
                for mark in &batch.marks {
                    match mark.clone() {
                        FileMark::At { file, offset, digest } => {
                            self.committed.insert(file, (offset, digest));
                        }
                        FileMark::Gone { file } => _ = self.committed.remove(&file),
                    }
                }
                batches.push(batch);
            }
            if !self.follower.awaits_commit() {
                return batches;
            }
            self.follower.baseline_committed();
        }
    }

    fn checkpoint(&self) -> Vec<FileMark> {
        let marks = self.committed.iter();
        marks
            .map(|(file, &(offset, digest))| FileMark::At { file: file.clone(), offset, digest })
            .collect()
    }

    /// A daemon that starts from what was committed.
    fn restart(&mut self) {
        let marks = self.checkpoint();
        let stats = self.stats.clone();
        self.follower = Follower::resume(self.stream.clone(), SETTINGS, &marks, self.now, stats);
    }
}

fn append(directory: &std::path::Path, name: &str, text: &str) {
    let path = at(name).path(directory);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn the_new_hour_is_read_from_zero_and_the_old_one_on() {
    // H06, H07
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\nb\nc is torn");
    assert_eq!(bench.turn(), "a\nb\n");

    bench.append("20260315/10", "e\n");
    assert_eq!(bench.turn(), "e\n");
    bench.append("20260315/9", " no more\nd\n");
    bench.append("20260315/10", "f\n");

    assert_eq!(bench.turn(), "c is torn no more\nd\nf\n");
}

#[test]
fn old_files_are_drained_before_the_new_one() {
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n");
    bench.turn();
    bench.append("20260315/10", "c\n");
    bench.append("20260315/9", "b\n");

    assert_eq!(bench.turn(), "b\nc\n");
}

#[test]
fn a_day_made_with_its_first_file_in_one_step_is_read_from_zero() {
    // H08
    let mut bench = Bench::started();
    bench.append("20260315/23", "a\n");
    bench.turn();
    let made = bench.directory.path().join("made");
    fs::create_dir(&made).unwrap();
    fs::write(made.join("0"), "b\nc\n").unwrap();
    fs::rename(made, bench.directory.path().join("hourly/20260316")).unwrap();

    assert_eq!(bench.turn(), "b\nc\n");
}

#[test]
fn the_clock_decides_nothing_about_files() {
    // H06: years that lie far from now, and a file far in the future.
    let mut bench = Bench::started();
    bench.append("19990101/3", "a\n");
    bench.append("29990101/3", "b\n");

    assert_eq!(bench.turn(), "a\nb\n");
    bench.append("19990101/4", "c\n");
    assert_eq!(bench.turn(), "c\n");
}

#[test]
fn a_finished_file_gives_its_unterminated_object_after_the_grace_only() {
    // H07
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n{\"b\":1}");
    assert_eq!(bench.turn(), "a\n");
    bench.pass(3_600);
    assert_eq!(bench.turn(), "", "the newest file is never finished");
    bench.append("20260315/10", "c\n");
    bench.append("20260315/9", " ");
    assert_eq!(bench.turn(), "c\n");
    bench.pass(59);
    assert_eq!(bench.turn(), "");

    bench.pass(1);

    assert_eq!(bench.turn(), "{\"b\":1} ");
    bench.append("20260315/9", "\nlate\n");
    assert_eq!(bench.turn(), "late\n");
}

#[test]
fn an_unparsable_end_stays_and_late_bytes_still_finish_it() {
    let mut bench = Bench::started();
    bench.append("20260315/8", "{\"a\":");
    bench.append("20260315/9", "b\n");
    bench.append("20260315/10", "c\n");
    assert_eq!(bench.turn(), "b\nc\n");
    bench.pass(600);
    assert_eq!(bench.turn(), "");
    assert_eq!(bench.stats.behind_bytes.get(), 0);

    bench.append("20260315/8", "1}\n");

    assert_eq!(bench.turn(), "{\"a\":1}\n");
}

#[test]
fn while_catching_up_the_files_times_replace_the_wait() {
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n{\"b\":1}");
    bench.append("20260315/10", "c\n");
    let earlier = SystemTime::now() - Duration::from_secs(90);
    File::options()
        .append(true)
        .open(bench.path("20260315/9"))
        .unwrap()
        .set_modified(earlier)
        .unwrap();

    assert_eq!(bench.turn(), "a\n{\"b\":1}c\n");
}

#[test]
fn every_file_is_looked_at_not_only_the_newest() {
    let mut bench = Bench::started();
    for hour in 0..6 {
        bench.append(&format!("20260315/{hour}"), "a\n");
    }
    bench.turn();
    bench.pass(120);
    bench.turn();

    bench.append("20260315/1", "late\n");
    bench.append("20260314/22", "made again\n");

    assert_eq!(bench.turn(), "made again\nlate\n");
}

#[test]
fn all_files_since_the_checkpoint_are_caught_up_in_order() {
    // H14, H16
    let mut bench = Bench::started();
    bench.append("20260315/22", "a\n");
    bench.turn();
    bench.append("20260315/22", "b\n");
    for (name, text) in [("20260315/23", "c\n"), ("20260316/0", "d\n"), ("20260316/1", "e\n")] {
        bench.append(name, text);
    }

    bench.restart();

    assert_eq!(bench.turn(), "b\nc\nd\ne\n");
    bench.restart();
    assert_eq!(bench.turn(), "");
}

#[test]
fn now_skips_what_is_there_and_its_baseline_comes_before_the_first_read() {
    let mut bench = Bench::prepared(Start::Configured(StartFrom::Now), |directory| {
        append(directory, "20260315/9", "old\n");
        append(directory, "20260315/10", "old\nto");
    });

    bench.follower.rescan(bench.now);
    let baseline = bench.follower.next_batch(bench.now).unwrap();
    bench.append("20260315/10", "rn\n");
    assert!(bench.follower.next_batch(bench.now).is_none(), "not before it is committed");

    assert!(baseline.lines.is_empty());
    let offsets: Vec<_> = baseline
        .marks
        .iter()
        .map(|mark| match mark {
            FileMark::At { file, offset, .. } => (&**file, *offset),
            FileMark::Gone { file } => (&**file, u64::MAX),
        })
        .collect();
    assert_eq!(offsets, [("20260315/9", 4), ("20260315/10", 4)]);
    bench.follower.baseline_committed();
    assert_eq!(bench.turn(), "torn\n");
}

#[test]
fn a_kill_after_the_baseline_skips_nothing() {
    let mut bench = Bench::prepared(Start::Configured(StartFrom::Now), |directory| {
        append(directory, "20260315/9", "old\n");
    });
    assert_eq!(bench.turn(), "");

    bench.append("20260315/9", "new\n");
    bench.append("20260315/10", "newer\n");
    bench.restart();

    assert_eq!(bench.turn(), "new\nnewer\n");
}

#[test]
fn a_directory_that_was_empty_at_the_start_is_read_from_zero() {
    let mut bench = Bench::started();

    bench.append("20260315/9", "a\n");
    bench.restart();

    assert_eq!(bench.turn(), "a\n");
}

#[test]
fn a_lost_baseline_is_chosen_again_as_it_was() {
    let mut bench = Bench::prepared(Start::Configured(StartFrom::Now), |directory| {
        append(directory, "20260315/9", "old\n");
    });
    bench.follower.rescan(bench.now);
    let baseline = bench.follower.baseline().unwrap().to_vec();
    bench.append("20260315/9", "new\n");

    let stats = bench.stats.clone();
    bench.follower =
        Follower::rebase(bench.stream.clone(), SETTINGS, baseline.clone(), bench.now, stats);
    bench.follower.rescan(bench.now);
    let batches = bench.batches();

    assert_eq!(batches[0].marks, baseline);
    assert_eq!(batches[1].lines, b"new\n"[..]);
}

#[test]
fn a_file_that_vanishes_while_it_is_read_is_drained() {
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n");
    bench.turn();
    bench.append("20260315/9", "b\n{\"c\":1}");
    fs::remove_file(bench.path("20260315/9")).unwrap();

    assert_eq!(bench.turn(), "b\n{\"c\":1}");
    assert!(bench.committed.is_empty(), "its mark is gone too");
    assert_eq!(bench.stats.lost_bytes.get(), 0);
}

#[test]
fn a_file_that_vanishes_unread_is_a_discontinuity_of_known_size() {
    let mut bench = Bench::started();
    bench.append("20260315/9", "lost\n");
    bench.follower.rescan(bench.now);
    fs::remove_file(bench.path("20260315/9")).unwrap();
    bench.append("20260315/10", "a\n");

    bench.follower.rescan(bench.now);
    let batches = bench.batches();

    assert_eq!(batches.len(), 1);
    assert!(batches[0].discontinuity);
    assert_eq!(batches[0].marks[0], FileMark::Gone { file: "20260315/9".into() });
    assert_eq!(bench.stats.lost_bytes.get(), 5);
    bench.append("20260315/10", "b\n");
    bench.follower.rescan(bench.now);
    assert!(!bench.batches()[0].discontinuity, "told once");
}

/// Committed alone, the mark would take the hole along: after a restart nobody would know of it.
#[test]
fn the_mark_of_a_file_that_vanished_unread_waits_for_the_lines_that_tell_of_the_hole() {
    let mut bench = Bench::started();
    bench.append("20260315/9", "lost\n");
    bench.follower.rescan(bench.now);
    fs::remove_file(bench.path("20260315/9")).unwrap();
    bench.follower.rescan(bench.now);
    assert!(bench.batches().is_empty());

    bench.append("20260315/10", "a\n");
    bench.follower.rescan(bench.now);

    let batches = bench.batches();
    assert_eq!(batches.len(), 1);
    assert!(batches[0].discontinuity);
    assert_eq!(batches[0].marks[0], FileMark::Gone { file: "20260315/9".into() });
}

#[test]
fn a_pruned_file_that_was_read_is_no_loss_and_is_read_from_zero_when_it_comes_again() {
    let mut bench = Bench::started();
    for hour in 0..4 {
        bench.append(&format!("20260315/{hour}"), "same\n");
    }
    bench.turn();
    bench.pass(120);
    bench.turn();
    fs::remove_file(bench.path("20260315/0")).unwrap();

    bench.follower.rescan(bench.now);
    let batches = bench.batches();
    assert_eq!(batches[0].marks, [FileMark::Gone { file: "20260315/0".into() }]);
    assert!(!batches[0].discontinuity);
    assert_eq!(bench.stats.lost_bytes.get(), 0);

    bench.append("20260315/0", "same\n");
    assert_eq!(bench.turn(), "same\n");
}

#[test]
fn the_file_that_was_written_when_we_stopped_is_missed_when_it_is_gone() {
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n");
    bench.turn();
    fs::remove_file(bench.path("20260315/9")).unwrap();
    bench.append("20260317/9", "b\n");

    bench.restart();
    bench.follower.rescan(bench.now);

    assert!(bench.batches()[0].discontinuity);
}

#[test]
fn a_replaced_file_is_drained_before_the_new_one_is_read_from_zero() {
    // H12
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n");
    bench.turn();
    bench.append("20260315/9", "b\n");
    let new = bench.directory.path().join("new");
    fs::write(&new, "c\nd\n").unwrap();
    fs::rename(new, bench.path("20260315/9")).unwrap();

    assert_eq!(bench.turn(), "b\nc\nd\n");
    assert_eq!(bench.stats.replacements.get(), 1);
    assert_eq!(bench.turn(), "");
}

#[test]
fn the_unfinished_line_of_a_replaced_file_is_a_discontinuity() {
    // H12
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\ncut off");
    bench.turn();
    let new = bench.directory.path().join("new");
    fs::write(&new, "c\n").unwrap();
    fs::rename(new, bench.path("20260315/9")).unwrap();

    bench.follower.rescan(bench.now);
    let batches = bench.batches();

    assert_eq!(&batches[0].lines[..], b"c\n");
    assert!(batches[0].discontinuity);
    assert_eq!(bench.stats.lost_bytes.get(), 7);
}

#[test]
fn a_file_replaced_while_we_were_down_is_read_from_zero_whatever_its_inode() {
    // H12: on many file systems the new file gets the inode of the old one.
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n");
    bench.turn();
    fs::remove_file(bench.path("20260315/9")).unwrap();
    bench.append("20260315/9", "b\nc\n");

    bench.restart();

    assert_eq!(bench.turn(), "b\nc\n");
    assert_eq!(bench.stats.truncations.get(), 1);
}

#[test]
fn a_truncated_file_is_counted_once_and_read_from_zero() {
    // H12
    let mut bench = Bench::started();
    bench.append("20260315/9", "first\nsecond\n");
    bench.turn();

    fs::write(bench.path("20260315/9"), "new\n").unwrap();

    assert_eq!(bench.turn(), "new\n");
    assert_eq!(bench.turn(), "");
    assert_eq!(bench.stats.truncations.get(), 1);
}

#[test]
fn a_directory_in_place_of_a_file_stops_no_other_file() {
    let mut bench = Bench::started();
    fs::create_dir_all(bench.path("20260315/9")).unwrap();
    bench.append("20260315/10", "a\n");

    assert_eq!(bench.turn(), "a\n");
    assert!(bench.follower.problem().unwrap().contains("20260315/9"));
    assert!(bench.stats.read_errors.get() > 0);

    fs::remove_dir(bench.path("20260315/9")).unwrap();
    bench.append("20260315/9", "b\n");
    assert_eq!(bench.turn(), "b\n");
    assert_eq!(bench.follower.problem(), None);
}

#[test]
fn a_day_that_cannot_be_listed_stops_no_other_day_and_is_no_deletion() {
    let mut bench = Bench::started();
    bench.append("20260314/9", "a\n");
    assert_eq!(bench.turn(), "a\n");
    let day = bench.directory.path().join("hourly/20260314");
    let aside = bench.directory.path().join("aside");
    fs::rename(&day, &aside).unwrap();
    fs::write(&day, "not a directory").unwrap();
    bench.append("20260315/9", "b\n");

    assert_eq!(bench.turn(), "b\n");
    assert!(bench.follower.problem().unwrap().contains("20260314"));
    fs::remove_file(&day).unwrap();
    fs::rename(&aside, &day).unwrap();
    bench.append("20260314/9", "c\n");

    assert_eq!(bench.turn(), "c\n");
    assert_eq!(bench.follower.problem(), None);
}

#[test]
fn a_file_without_permission_is_read_once_it_has_one() {
    use std::os::unix::fs::PermissionsExt;

    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n");
    let path = bench.path("20260315/9");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&path).is_ok() {
        eprintln!("SKIPPED: this user may read everything, so permissions cannot be tested");
        return;
    }

    assert_eq!(bench.turn(), "");
    assert!(bench.follower.problem().is_some());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

    assert_eq!(bench.turn(), "a\n");
    assert_eq!(bench.follower.problem(), None);
}

#[test]
fn a_stream_directory_that_vanishes_is_a_problem_and_no_deletion() {
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n");
    bench.turn();
    let aside = bench.directory.path().with_extension("aside");
    fs::rename(bench.directory.path(), &aside).unwrap();

    assert_eq!(bench.turn(), "");
    assert!(bench.follower.problem().is_some());
    fs::rename(&aside, bench.directory.path()).unwrap();
    bench.append("20260315/9", "b\n");

    assert_eq!(bench.turn(), "b\n", "the mark was kept");
    assert_eq!(bench.follower.problem(), None);
}

#[test]
fn a_woken_open_file_needs_no_rescan() {
    let mut bench = Bench::started();
    bench.append("20260315/9", "a\n");
    bench.turn();
    bench.append("20260315/9", "b\n");

    assert!(bench.follower.wake(at("20260315/9")));
    assert_eq!(bench.read(), "b\n");
    assert!(!bench.follower.wake(at("20260315/10")));
}

#[test]
fn bytes_behind_are_what_was_written_and_not_read() {
    let mut bench = Bench::started();
    bench.append("20260315/9", "12345\n");
    bench.append("20260315/10", "123\n");

    bench.follower.rescan(bench.now);
    assert_eq!(bench.stats.behind_bytes.get(), 10);
    bench.follower.next_batch(bench.now).unwrap();
    assert_eq!(bench.stats.behind_bytes.get(), 4);
    bench.read();

    assert_eq!(bench.stats.behind_bytes.get(), 0);
    assert_eq!(bench.stats.read_bytes.get(), 10);
    assert_eq!(bench.stats.file(), "20260315/10");
}

#[test]
fn an_over_long_line_is_counted_and_the_next_one_delivered() {
    // H11
    let mut bench = Bench::started();
    bench.append("20260315/9", &format!("{}\nnext\n", "x".repeat((1 << 20) + 1)));

    assert_eq!(bench.turn(), "next\n");
    assert_eq!(bench.stats.oversized_lines.get(), 1);
    let oversized = bench.follower.take_oversized();
    assert_eq!((&*oversized[0].file, oversized[0].line.offset), ("20260315/9", 0));
}

#[test]
fn old_files_are_closed_and_the_two_newest_stay_open() {
    let mut bench = Bench::started();
    for hour in 0..10 {
        bench.append(&format!("20260315/{hour}"), "a\n");
    }
    bench.turn();

    bench.pass(60);
    bench.append("20260315/3", "b\n");
    bench.turn();

    let names = bench.follower.open_files();
    assert_eq!(names, [at("20260315/3"), at("20260315/8"), at("20260315/9")]);
    bench.append("20260315/3", "c\n");
    assert!(bench.follower.wake(at("20260315/3")), "it is written again and stays open");
    bench.pass(60);
    bench.turn();
    bench.pass(60);
    bench.turn();
    assert_eq!(bench.follower.open_files(), [at("20260315/8"), at("20260315/9")]);
}

#[test]
fn a_store_without_offsets_is_sought_by_its_last_block() {
    let line = |block: u64| format!("{{\"local_time\":\"t\",\"block_number\":{block}}}\n");
    let mut bench = Bench::prepared(Start::Block(12), |directory| {
        append(directory, "20260315/9", &(line(10) + &line(11)));
        append(directory, "20260315/10", &(line(12) + &line(13)));
    });

    assert_eq!(bench.turn(), line(12) + &line(13));
}

/// What happened, as file, offset and change.
fn changes(bench: &mut Bench) -> Vec<(String, u64, Change)> {
    let changes = bench.follower.take_changes();
    changes.into_iter().map(|it| (it.file.to_string(), it.offset, it.change)).collect()
}

// H12
#[test]
fn each_change_of_a_file_is_told_once_and_status_follows_it() {
    let mut bench = Bench::started();
    let shown = |bench: &Bench| (bench.stats.file(), bench.stats.offset_bytes.get());
    bench.append("20260315/0", "first\nsecond\n");
    bench.turn();
    assert_eq!(changes(&mut bench), []);
    assert_eq!(shown(&bench), ("20260315/0".to_owned(), 13));

    fs::write(bench.path("20260315/0"), "").unwrap();
    bench.turn();
    bench.turn();
    assert_eq!(changes(&mut bench), [("20260315/0".to_owned(), 13, Change::Truncated)]);
    assert_eq!(shown(&bench), ("20260315/0".to_owned(), 0));

    bench.append("20260315/0", "third\n");
    bench.turn();
    fs::write(bench.directory.path().join("other"), "a new file\n").unwrap();
    fs::rename(bench.directory.path().join("other"), bench.path("20260315/0")).unwrap();
    assert_eq!(bench.turn(), "a new file\n");
    bench.turn();
    assert_eq!(changes(&mut bench), [("20260315/0".to_owned(), 6, Change::Replaced)]);

    bench.append("20260315/1", "next\n");
    bench.turn();
    fs::remove_file(bench.path("20260315/1")).unwrap();
    bench.turn();
    assert_eq!(changes(&mut bench), [("20260315/1".to_owned(), 5, Change::Pruned)]);
    assert_eq!(shown(&bench), ("20260315/0".to_owned(), 11));

    // An unfinished line that nobody will finish.
    bench.append("20260315/0", "torn");
    bench.turn();
    fs::remove_file(bench.path("20260315/0")).unwrap();
    bench.turn();
    let lost = Change::RemovedUnread { lost_bytes: 4 };
    assert_eq!(changes(&mut bench), [("20260315/0".to_owned(), 11, lost)]);
    assert_eq!(shown(&bench), (String::new(), 0));
}
