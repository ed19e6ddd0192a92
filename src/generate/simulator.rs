//! The simulated node: takes blocks from the chain, lets things go wrong, and writes. `pace` lets it
//! do so in real time, `record` keeps the manifest.
//!
//! Invariants: local times never go back; every block that was written is in the manifest once,
//! however often it was written; what was cut by a crash is written again whole.

mod pace;
mod record;

use std::{io, path::Path};

use self::record::Record;
pub use self::record::Rows;
use super::{
    block::{Block, Elements},
    chain::Chain,
    manifest::Manifest,
    plan::{Plan, PlanError},
    text::mix,
    users::Users,
    writer::{HourFile, Kind, NodeWriter},
};

/// How long the node is away after a crash, and before it repeats blocks. Short, so that in a paced
/// run its local times do not leave the clock on the wall far behind.
const RESTART_NS: i64 = 500_000_000;

const HOUR_NS: i64 = 3_600_000_000_000;

/// Why a simulated node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the manifest cannot be created: {0}")]
    Manifest(#[source] io::Error),
}

/// One node of the chain, with its files and its mishaps.
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
    until_crash: Countdown,
    until_rewind: Countdown,
    until_gap: Countdown,
    record: Record,
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
        let record = Record::new(rows).map_err(StartError::Manifest)?;
        let mut rng = fastrand::Rng::with_seed(mix(plan.node_seed, 2));
        Ok(Self {
            chain: Chain::new(&plan),
            writer,
            kinds,
            next: 0,
            local_ns: 0,
            until_crash: Countdown::new(plan.faults.crash_every, &mut rng),
            until_rewind: Countdown::new(plan.faults.rewind_every, &mut rng),
            until_gap: Countdown::new(plan.faults.gap_every, &mut rng),
            rng,
            record,
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
        self.record.manifest()
    }

    pub fn into_manifest(self) -> Manifest {
        self.record.into_manifest()
    }

    /// Writes the next block, with the faults that are due, and gives its number.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_block(&mut self) -> io::Result<u64> {
        if self.until_rewind.is_due(&mut self.rng) {
            let back = self.rng.u64(100..400);
            self.rewind(back)?;
        }
        self.read(self.next);
        if self.until_crash.is_due(&mut self.rng) {
            self.write_cut()?;
        }
        self.write(FileBy::LocalTime)?;
        self.record.note_block(&self.block)?;
        self.next += 1;
        // Last, so that a paced run sees the next block's time and is really silent in the gap.
        if self.until_gap.is_due(&mut self.rng) {
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
        self.record.finish()
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
            if self.record.manifest().has(self.chain.number(ordinal)) {
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
        self.record.note_bytes(self.writer.written_bytes());
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

/// Counts the new blocks until a fault that comes now and then.
struct Countdown {
    /// Blocks between two of them on average; 0: it never comes.
    every: u32,
    left: u32,
}

impl Countdown {
    fn new(every: u32, rng: &mut fastrand::Rng) -> Self {
        let mut countdown = Self { every, left: 0 };
        countdown.draw(rng);
        countdown
    }

    /// Draws the blocks until the next fault: half to one and a half times the mean.
    fn draw(&mut self, rng: &mut fastrand::Rng) {
        if self.every > 0 {
            self.left = self.every / 2 + rng.u32(..=self.every);
        }
    }

    /// Tells whether the fault is due at this block, and draws the next.
    fn is_due(&mut self, rng: &mut fastrand::Rng) -> bool {
        if self.every == 0 {
            return false;
        }
        if self.left == 0 {
            self.draw(rng);
            return true;
        }
        self.left -= 1;
        false
    }
}
