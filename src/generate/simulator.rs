//! The simulated node: takes blocks from the chain, lets things go wrong, and writes.
//!
//! Invariants: local times never go back; every block that was written is in the manifest once,
//! however often it was written; what was cut by a crash is written again whole.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    block::{Block, Elements},
    chain::Chain,
    manifest::{FILLS, Gap, MISC, Manifest, ManifestFile, Row, Totals},
    plan::{Plan, PlanError},
    text::mix,
    users::Users,
    writer::{HourFile, Kind, NodeWriter},
};
use crate::event::{EventId, Topic};

/// How long the node is away after a crash, and before it repeats blocks. Short, so that in a paced
/// run its local times do not leave the clock on the wall far behind.
const RESTART_NS: i64 = 500_000_000;

/// The longest sleep of a paced run: how late it may notice that it is to stop.
const SLICE: Duration = Duration::from_millis(50);

const HOUR_NS: i64 = 3_600_000_000_000;

/// Where the rows of the manifest go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Into [`Simulator::manifest`].
    Keep,
    /// Into this file, readable by [`Manifest::load`] after [`Simulator::finish`].
    Write(PathBuf),
    /// Nowhere; totals and gaps are kept all the same.
    Forget,
}

/// Why a simulated node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the manifest cannot be created: {0}")]
    Manifest(#[source] io::Error),
}

pub struct Simulator {
    plan: Plan,
    chain: Chain,
    writer: NodeWriter,
    kinds: Vec<Kind>,
    /// Chances of this node, not of the chain.
    rng: fastrand::Rng,
    /// Ordinal of the next new block.
    next: u64,
    /// Local time of the last line.
    local_ns: i64,
    /// New blocks until each fault; `None`: never.
    until_crash: Option<u32>,
    until_rewind: Option<u32>,
    until_gap: Option<u32>,
    manifest: Manifest,
    rows: Rows,
    manifest_file: Option<ManifestFile>,
    /// Buffers that are used again for each block.
    block: Block,
    statuses: Elements,
    lines: Lines,
}

/// Lines of one block and kind, with their files.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Each line's file and end in `bytes`.
    ends: Vec<(HourFile, usize)>,
}

/// What decides the file of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileBy {
    /// The time of writing: the rule.
    LocalTime,
    /// The time of the block, as a node does that catches up.
    BlockTime,
}

impl Simulator {
    /// Makes a node that keeps its manifest in memory. Nothing is written yet.
    ///
    /// # Errors
    /// When the plan is invalid.
    pub fn new(plan: Plan, directory: &Path) -> Result<Self, StartError> {
        Self::with_rows(plan, directory, Rows::Keep)
    }

    /// Makes a node whose manifest goes to `rows`.
    ///
    /// # Errors
    /// When the plan is invalid or the manifest's file cannot be created.
    pub fn with_rows(plan: Plan, directory: &Path, rows: Rows) -> Result<Self, StartError> {
        plan.validate()?;
        let mut kinds = vec![Kind::Fills, Kind::Misc];
        if plan.order_statuses {
            kinds.push(Kind::OrderStatuses);
        }
        let mut writer = NodeWriter::new(directory, &kinds, plan.streaming);
        if plan.faults.torn {
            writer = writer.torn(mix(plan.node_seed, 1));
        }
        let manifest_file = match &rows {
            Rows::Write(path) => Some(ManifestFile::create(path).map_err(StartError::Manifest)?),
            Rows::Keep | Rows::Forget => None,
        };
        let mut rng = fastrand::Rng::with_seed(mix(plan.node_seed, 2));
        Ok(Self {
            chain: Chain::new(&plan),
            writer,
            kinds,
            next: 0,
            local_ns: 0,
            until_crash: distance(&mut rng, plan.faults.crash_every),
            until_rewind: distance(&mut rng, plan.faults.rewind_every),
            until_gap: distance(&mut rng, plan.faults.gap_every),
            rng,
            manifest: Manifest::default(),
            rows,
            manifest_file,
            block: Block::default(),
            statuses: Elements::default(),
            lines: Lines::default(),
            plan,
        })
    }

    pub fn users(&self) -> &Users {
        self.chain.users()
    }

    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The files, for tests that look at them or spoil them.
    pub fn writer(&mut self) -> &mut NodeWriter {
        &mut self.writer
    }

    /// What a correct reader has found when all bytes have arrived, see [`Self::finish`].
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn into_manifest(self) -> Manifest {
        self.manifest
    }

    /// Writes the next block, with the faults that are due, and gives its number.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_block(&mut self) -> io::Result<u64> {
        if count_down(&mut self.rng, &mut self.until_rewind, self.plan.faults.rewind_every) {
            let back = self.rng.u64(100..400);
            self.rewind(back)?;
        }
        self.read(self.next);
        if count_down(&mut self.rng, &mut self.until_crash, self.plan.faults.crash_every) {
            self.write_cut()?;
        }
        self.write(FileBy::LocalTime)?;
        self.note_down()?;
        self.next += 1;
        // Last, so that a paced run sees the next block's time and is really silent in the gap.
        if count_down(&mut self.rng, &mut self.until_gap, self.plan.faults.gap_every) {
            let blocks = self.rng.u64(50..300);
            self.skip(blocks);
        }
        Ok(self.block.number)
    }

    /// Writes this many new blocks.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_blocks(&mut self, blocks: u64) -> io::Result<()> {
        (0..blocks).try_for_each(|_| self.write_block().map(drop))
    }

    /// Goes back this many blocks and repeats them with the same content.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn rewind(&mut self, blocks: u64) -> io::Result<()> {
        self.local_ns += RESTART_NS;
        self.repeat(blocks, FileBy::LocalTime)
    }

    /// Repeats the last blocks into the files of their block times, as a node does that catches
    /// up: files that were pruned come into being again.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn catch_up(&mut self, blocks: u64) -> io::Result<()> {
        self.local_ns += RESTART_NS;
        self.repeat(blocks, FileBy::BlockTime)
    }

    /// Leaves out the next blocks for good.
    pub fn skip(&mut self, blocks: u64) {
        self.next += blocks;
    }

    /// Lets everything arrive that is held back, and ends the manifest's file. More blocks may
    /// follow unless the manifest goes to a file.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        if let Some(mut file) = self.manifest_file.take() {
            file.finish(&self.manifest.gaps, self.manifest.totals)?;
        }
        Ok(())
    }

    /// Writes blocks at a pace, until there are `blocks` new ones or `stop` is set.
    ///
    /// `blocks_per_second` of 0 is as fast as possible. At the rate of the plan's block interval a
    /// line is written when its local time comes.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn run(
        &mut self,
        blocks: Option<u64>,
        blocks_per_second: f64,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        self.run_watched(blocks, blocks_per_second, stop, |_| ())
    }

    /// Like [`Self::run`], and tells the number of each new block just before it is written.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn run_watched(
        &mut self,
        blocks: Option<u64>,
        blocks_per_second: f64,
        stop: &AtomicBool,
        mut about_to_write: impl FnMut(u64),
    ) -> io::Result<()> {
        let (begun, first_ns) = (Instant::now(), self.next_local_ns());
        let rate = 1.0 / self.plan.block_interval.as_secs_f64();
        let mut written = 0;
        while blocks.is_none_or(|blocks| written < blocks) {
            if blocks_per_second > 0.0 {
                let simulated_ns = (self.next_local_ns() - first_ns).max(0) as u64;
                let due = Duration::from_nanos(simulated_ns).mul_f64(rate / blocks_per_second);
                sleep_until(begun + due, stop);
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            about_to_write(self.chain.number(self.next));
            self.write_block()?;
            written += 1;
        }
        Ok(())
    }

    /// When the next line is due by this node's clock, unless a fault comes first.
    fn next_local_ns(&self) -> i64 {
        self.local_ns.max(self.chain.time_ns(self.next) + self.lag_ns(self.next))
    }

    fn lag_ns(&self, ordinal: u64) -> i64 {
        let least = self.plan.node_lag.as_nanos() as i64;
        least + (mix(self.plan.node_seed, ordinal) % least.max(1) as u64) as i64
    }

    fn read(&mut self, ordinal: u64) {
        self.chain.read(ordinal, &mut self.block);
        if self.plan.order_statuses {
            self.chain.read_statuses(ordinal, &mut self.statuses);
        }
    }

    fn repeat(&mut self, blocks: u64, file_by: FileBy) -> io::Result<()> {
        for ordinal in self.next.saturating_sub(blocks)..self.next {
            if self.manifest.has(self.chain.number(ordinal)) {
                self.read(ordinal);
                self.write(file_by)?;
            }
        }
        Ok(())
    }

    /// Writes the block that was read.
    fn write(&mut self, file_by: FileBy) -> io::Result<()> {
        self.tick();
        for place in 0..self.kinds.len() {
            let kind = self.kinds[place];
            self.compose(kind, file_by);
            self.lines.append_to(&mut self.writer, kind, usize::MAX)?;
        }
        self.close_hour();
        self.manifest.totals.bytes = self.writer.written_bytes();
        Ok(())
    }

    /// Writes the beginning of the block that was read, and dies.
    fn write_cut(&mut self) -> io::Result<()> {
        self.tick();
        for place in 0..self.kinds.len() {
            let kind = self.kinds[place];
            self.compose(kind, FileBy::LocalTime);
            let length = self.lines.bytes.len();
            // Fills are cut for certain; of the others nothing or everything may be there.
            let cut = match kind {
                Kind::Fills if length > 1 => self.rng.usize(1..length),
                _ => self.rng.usize(..=length),
            };
            self.lines.append_to(&mut self.writer, kind, cut)?;
            // Power loss: the file's length was kept, its last bytes were not.
            if self.rng.u8(..3) == 0 {
                let zeros = [0; 4_096];
                let hour = HourFile::at(self.local_ns);
                let zeros = &zeros[..self.rng.usize(1..=zeros.len())];
                self.writer.append(kind, hour, zeros)?;
            }
        }
        self.close_hour();
        self.local_ns += RESTART_NS;
        Ok(())
    }

    /// Lets the local time of the block that was read come.
    fn tick(&mut self) {
        let ordinal = self.block.number - self.plan.first_block;
        let due = self.block.time_ns + self.lag_ns(ordinal);
        self.local_ns = (self.local_ns + self.rng.i64(1_000..20_000)).max(due);
    }

    /// Puts the lines of one kind of the block that was read into `self.lines`.
    fn compose(&mut self, kind: Kind, file_by: FileBy) {
        self.lines.clear();
        let elements = match kind {
            Kind::Fills => &self.block.fills,
            Kind::Misc => &self.block.misc,
            Kind::OrderStatuses => &self.statuses,
        };
        let file = |local_ns| match file_by {
            FileBy::LocalTime => HourFile::at(local_ns),
            FileBy::BlockTime => HourFile::at(self.block.time_ns),
        };
        if self.plan.streaming {
            let mut from = 0;
            while from < elements.len() {
                let to = (from + self.rng.usize(1..=4)).min(elements.len());
                self.local_ns += self.rng.i64(1_000..50_000);
                let events = elements.slice(from, to);
                self.block.push_line(&mut self.lines.bytes, self.local_ns, events);
                self.lines.end(file(self.local_ns));
                from = to;
            }
        } else if !(self.plan.sparse_misc && kind == Kind::Misc && elements.is_empty()) {
            self.block.push_line(&mut self.lines.bytes, self.local_ns, elements.bytes());
            if file_by == FileBy::LocalTime && self.is_last_of_hour() {
                self.lines.bytes.pop();
            }
            self.lines.end(file(self.local_ns));
        }
    }

    /// Whether the block that was read ends an hour's file without a newline.
    fn is_last_of_hour(&self) -> bool {
        let ordinal = self.block.number - self.plan.first_block;
        let next_ns = self.chain.time_ns(ordinal + 1) + self.lag_ns(ordinal + 1);
        self.plan.faults.unterminated
            && !self.plan.streaming
            && HourFile::at(next_ns.max(self.local_ns)) != HourFile::at(self.local_ns)
    }

    /// After a line without newline nothing may follow in the same file.
    fn close_hour(&mut self) {
        if self.is_last_of_hour() {
            self.local_ns = (self.local_ns.div_euclid(HOUR_NS) + 1) * HOUR_NS;
        }
    }

    /// Adds the block that was written to the manifest.
    fn note_down(&mut self) -> io::Result<()> {
        let Totals { blocks, first_block, highest_block, .. } = &mut self.manifest.totals;
        let number = self.block.number;
        if *blocks == 0 {
            *first_block = number;
        } else if number > *highest_block + 1 {
            self.manifest.gaps.push(Gap { first: *highest_block + 1, last: number - 1 });
        }
        *blocks += 1;
        *highest_block = number;
        self.manifest.totals.fills += self.block.fills.len() as u64;
        self.manifest.totals.misc += self.block.misc.len() as u64;
        for (topic, elements) in [(FILLS, &self.block.fills), (MISC, &self.block.misc)] {
            self.manifest.totals.rows += elements.shares().len() as u64;
            if self.rows == Rows::Forget {
                continue;
            }
            for row in rows_of(&self.block, topic, elements) {
                match &mut self.manifest_file {
                    Some(file) => file.row(row)?,
                    None => self.manifest.rows.push(row),
                }
            }
        }
        Ok(())
    }
}

fn rows_of(block: &Block, topic: Topic, elements: &Elements) -> impl Iterator<Item = Row> {
    elements.shares().map(move |(index, part, user, body)| Row {
        id: EventId { topic, position: block.number, index, part },
        time_ns: block.time_ns,
        user,
        body: String::from_utf8(body.to_vec()).expect("a line is made of text"),
    })
}

impl Lines {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Ends a line that goes to this file.
    fn end(&mut self, file: HourFile) {
        self.ends.push((file, self.bytes.len()));
    }

    /// Appends the first `limit` bytes of all lines to their files.
    fn append_to(&self, writer: &mut NodeWriter, kind: Kind, limit: usize) -> io::Result<()> {
        let mut from = 0;
        for &(file, end) in &self.ends {
            let to = end.min(limit);
            if from < to {
                writer.append(kind, file, &self.bytes[from..to])?;
            }
            from = end;
        }
        Ok(())
    }
}

/// Draws the blocks until the next fault: half to one and a half times the mean.
fn distance(rng: &mut fastrand::Rng, every: u32) -> Option<u32> {
    (every > 0).then(|| every / 2 + rng.u32(..=every))
}

/// Tells whether a fault is due at this block, and draws the next.
fn count_down(rng: &mut fastrand::Rng, until: &mut Option<u32>, every: u32) -> bool {
    match until {
        None => false,
        Some(0) => {
            *until = distance(rng, every);
            true
        }
        Some(blocks) => {
            *blocks -= 1;
            false
        }
    }
}

fn sleep_until(due: Instant, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(SLICE));
    }
}
