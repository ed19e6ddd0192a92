//! The follower against a model: random scripts of what a node, its operator and a dying daemon
//! do to real files, with a clock that only the script moves.
//!
//! The model keeps the content of every incarnation of every file and, per incarnation, which
//! bytes were delivered by which batch. It demands:
//! * every batch is a run of whole lines of one incarnation, at the offset it names;
//! * every mark ends a line and has the digest of the bytes before it;
//! * after a look at the directory all whole lines of all files that exist have been delivered;
//! * no byte is delivered twice, except after a truncation or by a batch that a restart lost;
//! * offsets of a file only go back when it was truncated, replaced, or the daemon restarted.

use std::{
    collections::HashMap,
    env,
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    time::SystemTime,
};

use proptest::{prelude::*, test_runner::TestRunner};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::{
    config::StartFrom,
    event::Topic,
    source::{Density, Form},
    stats::Stats,
};

const DEFAULT_CASES: u32 = 500;

#[derive(Clone, Debug)]
enum Step {
    /// A whole line, to the newest file or the one before.
    Line {
        late: bool,
        pad: u16,
    },
    /// The first part of a line, or a further part of the one that was begun.
    Part {
        share: u8,
        pad: u16,
    },
    /// The rest of it.
    Finish,
    /// The node dies in mid-line and goes on in the same file.
    Crash,
    NewHour,
    /// Day directory and first file appear in one step.
    NewDay,
    /// Cut to a share of the size; the inode stays.
    Truncate {
        file: usize,
        share: u8,
    },
    /// Other content, the inode stays.
    Rewrite {
        file: usize,
    },
    /// Other content, a new inode.
    Replace {
        file: usize,
    },
    Delete {
        file: usize,
    },
    /// A rescan and everything that it leads to.
    Look,
    /// A wake-up without a rescan, and some batches.
    Wake {
        batches: usize,
    },
    /// More than the grace goes by.
    Pass,
    Commit {
        batches: usize,
    },
    /// The daemon dies and starts from what is committed.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let pad = 0..400_u16;
    prop_oneof![
        8 => (any::<bool>(), pad.clone()).prop_map(|(late, pad)| Step::Line { late, pad }),
        6 => (any::<u8>(), pad).prop_map(|(share, pad)| Step::Part { share, pad }),
        3 => Just(Step::Finish),
        1 => Just(Step::Crash),
        2 => Just(Step::NewHour),
        1 => Just(Step::NewDay),
        1 => (0..4_usize, any::<u8>()).prop_map(|(file, share)| Step::Truncate { file, share }),
        1 => (0..4_usize).prop_map(|file| Step::Rewrite { file }),
        1 => (0..4_usize).prop_map(|file| Step::Replace { file }),
        1 => (0..4_usize).prop_map(|file| Step::Delete { file }),
        6 => Just(Step::Look),
        5 => (0..4_usize).prop_map(|batches| Step::Wake { batches }),
        2 => Just(Step::Pass),
        4 => (1..6_usize).prop_map(|batches| Step::Commit { batches }),
        2 => Just(Step::Restart),
    ]
}

#[derive(Clone, Debug)]
struct Script {
    /// Lines that are there before the first start.
    before: usize,
    read_bytes: usize,
    steps: Vec<Step>,
}

fn script() -> impl Strategy<Value = Script> {
    let steps = prop::collection::vec(step(), 1..60);
    (0..4_usize, prop_oneof![8..40_usize, 200..2_000_usize], steps)
        .prop_map(|(before, read_bytes, steps)| Script { before, read_bytes, steps })
}

/// The bytes of a file from its creation, or from a truncation, on.
#[derive(Default)]
struct Incarnation {
    content: Vec<u8>,
    /// Delivered places and the number of their batch.
    delivered: Vec<(usize, usize, usize)>,
    /// Places that were delivered before a truncation, or lie before the baseline: they need not
    /// come again, and may.
    excused: Vec<(usize, usize, usize)>,
}

impl Incarnation {
    fn holds(&self, offset: usize, bytes: &[u8]) -> bool {
        self.content.get(offset..offset + bytes.len()) == Some(bytes)
    }

    fn is_line_end(&self, offset: usize) -> bool {
        let begins_object = |rest: &[u8]| rest.first() == Some(&b'{');
        offset == 0
            || self.content[offset - 1] == b'\n'
            // A whole object may be handed on before its newline comes.
            || (self.content[offset - 1] == b'}'
                && self.content.get(offset).is_none_or(|&byte| byte == b'\n' || byte == b'{')
                && begins_object(&self.content[self.line_start(offset - 1)..]))
    }

    fn line_start(&self, offset: usize) -> usize {
        self.content[..offset].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
    }

    /// The first byte of a whole line that was never delivered.
    fn missing(&self) -> Option<usize> {
        let end = self.line_start(self.content.len());
        let mut delivered = vec![false; self.content.len()];
        for &(start, end, _) in self.delivered.iter().chain(&self.excused) {
            delivered[start..end].fill(true);
        }
        // The newline of a line that was handed on without it is never delivered.
        (0..end).find(|&at| {
            let own_newline = self.content[at] == b'\n' && at > 0 && delivered[at - 1];
            !delivered[at] && !own_newline
        })
    }
}

struct World {
    directory: TempDir,
    stream: Arc<Stream>,
    stats: Arc<StreamStats>,
    settings: Settings,
    follower: Follower,
    now: Instant,
    modified: SystemTime,
    /// Every incarnation of every file, newest last.
    incarnations: HashMap<HourFile, Vec<Incarnation>>,
    existing: Vec<HourFile>,
    day: u32,
    hour: u8,
    /// The file of the line that was begun, and what is still to be written of it.
    begun: Option<(HourFile, Vec<u8>)>,
    lines_written: usize,
    /// Marks of all batches so far; those below `committed_batches` are in `committed`.
    sent: Vec<Vec<FileMark>>,
    committed_batches: usize,
    committed: BTreeMap<Arc<str>, (u64, u64)>,
    /// End of the last delivery of a file, and how often it may go back.
    last_end: HashMap<HourFile, (usize, usize)>,
}

impl World {
    fn new(script: &Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("hourly")).unwrap();
        let stream = Arc::new(Stream {
            name: "stream".into(),
            node: "node".into(),
            topic: Topic::new("fills"),
            form: Form::ByBlock,
            density: Density::Dense,
            directory: directory.path().to_owned(),
        });
        let settings = Settings {
            limits: Limits { read_bytes: script.read_bytes, line_bytes: 1 << 20 },
            grace: Duration::from_secs(60),
        };
        let stats = Stats::default().stream(&stream);
        let start = Start::Configured(StartFrom::Now);
        let follower = Follower::new(stream.clone(), settings, start, stats.clone());
        let mut world = Self {
            directory,
            stream,
            stats,
            settings,
            follower,
            now: Instant::now(),
            modified: SystemTime::now(),
            incarnations: HashMap::new(),
            existing: Vec::new(),
            day: 20_260_315,
            hour: 22,
            begun: None,
            lines_written: 0,
            sent: Vec::new(),
            committed_batches: 0,
            committed: BTreeMap::new(),
            last_end: HashMap::new(),
        };
        (0..script.before).for_each(|_| world.append_line(false, 7));
        world.begin();
        world
    }

    /// The first start: its baseline is committed at once.
    fn begin(&mut self) {
        self.follower.rescan(self.now);
        let baseline = self.follower.next_batch(self.now).expect("a baseline comes first");
        for mark in &baseline.marks {
            let FileMark::At { file, offset, .. } = mark else { panic!("{mark:?}") };
            let incarnation = self.current(file.parse().unwrap());
            incarnation.excused.push((0, *offset as usize, 0));
        }
        self.sent.push(baseline.marks);
        self.commit(1);
        self.follower.baseline_committed();
    }

    fn current(&mut self, file: HourFile) -> &mut Incarnation {
        self.incarnations.get_mut(&file).and_then(|all| all.last_mut()).expect("a known file")
    }

    fn path(&self, file: HourFile) -> std::path::PathBuf {
        file.path(self.directory.path())
    }

    fn newest(&self) -> HourFile {
        HourFile { day: self.day, hour: self.hour }
    }

    fn next_line(&mut self, pad: u16) -> Vec<u8> {
        self.lines_written += 1;
        let pad = "x".repeat(usize::from(pad));
        format!("{{\"n\":{},\"pad\":\"{pad}\"}}\n", self.lines_written).into_bytes()
    }

    /// Gives each write a time of its own, whatever the resolution of the file system.
    fn stamp(&mut self, path: &Path) {
        self.modified += Duration::from_millis(1);
        OpenOptions::new().append(true).open(path).unwrap().set_modified(self.modified).unwrap();
    }

    fn append(&mut self, file: HourFile, bytes: &[u8]) {
        let path = self.path(file);
        if !self.existing.contains(&file) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            self.existing.push(file);
            self.incarnations.entry(file).or_default().push(Incarnation::default());
            self.may_go_back(file);
        }
        let mut opened = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        opened.write_all(bytes).unwrap();
        self.current(file).content.extend_from_slice(bytes);
        self.stamp(&path);
    }

    fn may_go_back(&mut self, file: HourFile) {
        self.last_end.entry(file).or_default().1 += 1;
    }

    fn append_line(&mut self, late: bool, pad: u16) {
        let newest = self.newest();
        let before = self.existing.iter().copied().filter(|&file| file < newest).max();
        let file = before.filter(|_| late).unwrap_or(newest);
        if self.begun.as_ref().is_some_and(|(begun, _)| *begun == file) {
            self.finish();
        }
        let line = self.next_line(pad);
        self.append(file, &line);
    }

    fn finish(&mut self) {
        if let Some((file, rest)) = self.begun.take()
            && self.existing.contains(&file)
        {
            self.append(file, &rest);
        }
    }

    fn append_part(&mut self, share: u8, pad: u16) {
        let (file, rest) = match self.begun.take() {
            Some(begun) => begun,
            None => (self.newest(), self.next_line(pad)),
        };
        let cut = rest.len() * usize::from(share) / 255;
        self.append(file, &rest[..cut]);
        self.begun = (cut < rest.len()).then(|| (file, rest[cut..].to_vec()));
    }

    fn picked(&self, file: usize) -> Option<HourFile> {
        // Counted from the newest, where most happens.
        let mut existing = self.existing.clone();
        existing.sort();
        existing.into_iter().rev().nth(file)
    }

    /// The file starts a new life; its begun line goes with the old one.
    fn reincarnate(&mut self, file: HourFile, incarnation: Incarnation) {
        self.begun = self.begun.take().filter(|(begun, _)| *begun != file);
        self.incarnations.entry(file).or_default().push(incarnation);
        self.may_go_back(file);
    }

    fn truncate(&mut self, file: HourFile, share: u8) {
        let path = self.path(file);
        let old = self.current(file);
        let size = old.content.len() * usize::from(share) / 255;
        let clip = |places: &[(usize, usize, usize)]| -> Vec<(usize, usize, usize)> {
            places
                .iter()
                .map(|&(start, end, batch)| (start.min(size), end.min(size), batch))
                .collect()
        };
        let mut excused = clip(&old.delivered);
        excused.extend(clip(&old.excused));
        let content = old.content[..size].to_vec();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(size as u64).unwrap();
        self.reincarnate(file, Incarnation { content, excused, ..Incarnation::default() });
        self.stamp(&path);
    }

    fn rewrite(&mut self, file: HourFile, new_inode: bool) {
        let path = self.path(file);
        let content = [self.next_line(3), self.next_line(90), b"{\"torn\"".to_vec()].concat();
        if new_inode {
            let new = self.directory.path().join("new");
            fs::write(&new, &content).unwrap();
            fs::rename(&new, &path).unwrap();
        } else {
            fs::write(&path, &content).unwrap();
        }
        self.reincarnate(file, Incarnation { content, ..Incarnation::default() });
        self.stamp(&path);
    }

    fn delete(&mut self, file: HourFile) {
        fs::remove_file(self.path(file)).unwrap();
        self.begun = self.begun.take().filter(|(begun, _)| *begun != file);
        self.existing.retain(|existing| *existing != file);
    }

    fn new_day(&mut self) {
        self.day += 1;
        self.hour = 0;
        let line = self.next_line(5);
        let made = self.directory.path().join("made");
        fs::create_dir(&made).unwrap();
        fs::write(made.join("0"), &line).unwrap();
        fs::rename(&made, self.directory.path().join(format!("hourly/{}", self.day))).unwrap();
        let file = self.newest();
        self.existing.push(file);
        self.incarnations
            .entry(file)
            .or_default()
            .push(Incarnation { content: line, ..Incarnation::default() });
        let path = self.path(file);
        self.stamp(&path);
    }

    fn read(&mut self, most: usize) -> Result<(), TestCaseError> {
        for _ in 0..most {
            let Some(batch) = self.follower.next_batch(self.now) else { return Ok(()) };
            self.receive(batch)?;
        }
        Ok(())
    }

    fn receive(&mut self, batch: Batch) -> Result<(), TestCaseError> {
        let number = self.sent.len();
        if !batch.lines.is_empty() {
            let file: HourFile = batch.file.parse().unwrap();
            let (start, end) = (batch.offset as usize, batch.offset as usize + batch.lines.len());
            let all = self.incarnations.get_mut(&file).unwrap();
            let found = all.iter_mut().rev().find(|life| life.holds(start, &batch.lines));
            let Some(life) = found else {
                return Err(TestCaseError::fail(format!("invented: {batch:?}")));
            };
            prop_assert!(life.is_line_end(start) && life.is_line_end(end), "torn: {batch:?}");
            let repeated = life.delivered.iter().find(|&&(from, to, _)| from < end && start < to);
            prop_assert!(repeated.is_none(), "twice: {batch:?}, first {repeated:?}");
            life.delivered.push((start, end, number));
            let (last_end, may_go_back) = self.last_end.entry(file).or_default();
            if start < *last_end {
                prop_assert!(*may_go_back > 0, "{batch:?} lies before {last_end}");
                *may_go_back -= 1;
            }
            *last_end = end;
        }
        for mark in &batch.marks {
            let FileMark::At { file, offset, digest } = mark else { continue };
            let known = self.incarnations[&file.parse().unwrap()].iter().any(|life| {
                let offset = *offset as usize;
                offset <= life.content.len()
                    && life.is_line_end(offset)
                    && xxh3_64(&life.content[offset.saturating_sub(4_096)..offset]) == *digest
            });
            prop_assert!(known, "no line ends there: {mark:?}");
        }
        self.sent.push(batch.marks);
        Ok(())
    }

    fn look(&mut self) -> Result<(), TestCaseError> {
        self.follower.rescan(self.now);
        self.read(usize::MAX)?;
        prop_assert!(!self.follower.has_work(), "nothing is left to do");
        prop_assert_eq!(self.follower.problem(), None);
        for file in self.existing.clone() {
            let life = self.current(file);
            if let Some(at) = life.missing() {
                let line = String::from_utf8_lossy(&life.content[at..]).into_owned();
                return Err(TestCaseError::fail(format!("lost in {file} at {at}: {line}")));
            }
        }
        Ok(())
    }

    fn commit(&mut self, batches: usize) {
        let next = self.sent.len().min(self.committed_batches + batches);
        for mark in self.sent[self.committed_batches..next].iter().flatten() {
            match mark.clone() {
                FileMark::At { file, offset, digest } => {
                    self.committed.insert(file, (offset, digest));
                }
                FileMark::Gone { file } => _ = self.committed.remove(&file),
            }
        }
        self.committed_batches = next;
    }

    fn restart(&mut self) {
        self.sent.truncate(self.committed_batches);
        let lost = self.committed_batches;
        for life in self.incarnations.values_mut().flatten() {
            life.delivered.retain(|&(_, _, batch)| batch < lost);
            life.excused.retain(|&(_, _, batch)| batch < lost);
        }
        self.last_end.values_mut().for_each(|(_, may_go_back)| *may_go_back += 1);
        let marks: Vec<FileMark> = self
            .committed
            .iter()
            .map(|(file, &(offset, digest))| FileMark::At { file: file.clone(), offset, digest })
            .collect();
        let (stream, stats) = (self.stream.clone(), self.stats.clone());
        self.follower = Follower::resume(stream, self.settings, &marks, self.now, stats);
    }

    fn play(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Line { late, pad } => self.append_line(late, pad),
            Step::Part { share, pad } => self.append_part(share, pad),
            Step::Finish => self.finish(),
            Step::Crash => self.begun = None,
            Step::NewHour if self.hour < 23 => self.hour += 1,
            Step::NewHour | Step::NewDay => self.new_day(),
            Step::Truncate { file, share } => {
                self.picked(file).into_iter().for_each(|file| self.truncate(file, share));
            }
            Step::Rewrite { file } => {
                self.picked(file).into_iter().for_each(|file| self.rewrite(file, false));
            }
            Step::Replace { file } => {
                self.picked(file).into_iter().for_each(|file| self.rewrite(file, true));
            }
            Step::Delete { file } => {
                self.picked(file).into_iter().for_each(|file| self.delete(file))
            }
            Step::Look => self.look()?,
            Step::Wake { batches } => {
                self.follower.wake(self.newest());
                self.read(batches)?;
            }
            Step::Pass => {
                self.now += Duration::from_secs(61);
                self.modified += Duration::from_secs(61);
            }
            Step::Commit { batches } => self.commit(batches),
            Step::Restart => self.restart(),
        }
        Ok(())
    }
}

/// `NODECAST_MODEL_CASES` sets the number of scripts.
fn cases() -> u32 {
    env::var("NODECAST_MODEL_CASES")
        .ok()
        .map_or(DEFAULT_CASES, |cases| cases.parse().expect("NODECAST_MODEL_CASES is a number"))
}

#[test]
fn whatever_happens_to_the_files_no_line_is_lost_torn_or_repeated() {
    // H06, H08, H10, H12, H14, H16
    let config = ProptestConfig { cases: cases(), ..ProptestConfig::default() };
    let played = TestRunner::new(config).run(&script(), |script| {
        let mut world = World::new(&script);
        for step in &script.steps {
            world.play(step)?;
        }
        world.finish();
        world.look()
    });

    if let Err(failure) = played {
        panic!("{failure}");
    }
}
