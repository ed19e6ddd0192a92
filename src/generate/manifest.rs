//! The manifest: what a correct reader of the written files must end up with.
//!
//! Noted down by the simulator while it writes, and never parsed from files: it is what readers
//! and stores are measured by.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    iter,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::event::{Address, EventId, Topic};

// The files are those of a node, and so are the names of what is in them.
pub use crate::source::node::{FILLS, MISC};

/// All that a simulated node has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// In the order of their first complete writing. Within a block: fills, then misc.
    pub rows: Vec<Row>,
    /// Blocks between two written ones that were never written.
    pub gaps: Vec<Gap>,
    pub totals: Totals,
}

/// One event of one user: what the store holds a row of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: EventId,
    /// Time of the block, nanoseconds since 1970, UTC.
    pub time_ns: i64,
    pub user: Option<Address>,
    /// The exact bytes.
    pub body: String,
}

/// Blocks that are missing, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub first: u64,
    pub last: u64,
}

/// Sums over everything that was written; kept also when the rows are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Different blocks.
    pub blocks: u64,
    pub first_block: u64,
    /// Number of the highest block; 0 before the first.
    pub highest_block: u64,
    /// Elements of the fills of all blocks.
    pub fills: u64,
    /// Elements of the misc events of all blocks, of which some concern several users.
    pub misc: u64,
    /// Rows of both topics.
    pub rows: u64,
    /// Bytes written to files of all kinds, repetitions and ruins included.
    pub bytes: u64,
}

/// Why a manifest file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("line {line} of the manifest is malformed: {error}")]
    Malformed { line: usize, error: serde_json::Error },
    /// The simulator writes the totals last: it was killed, or is still at work.
    #[error("the manifest is not complete: it ends without totals")]
    Incomplete,
}

impl Manifest {
    /// Reads a file that the command line's `generate` wrote.
    ///
    /// # Errors
    /// When the file cannot be read, is not a manifest, or has no end yet.
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        let mut manifest = Self::default();
        let mut totals = None;
        for line in ManifestLines::open(path)? {
            match line? {
                Line::Row(row) => manifest.rows.push(row.into()),
                Line::Gap(gap) => manifest.gaps.push(gap),
                Line::Totals(read) => totals = Some(read),
            }
        }
        manifest.totals = totals.ok_or(ManifestError::Incomplete)?;
        Ok(manifest)
    }

    /// Gives the rows of such a file one by one: those of a long run need not fit into memory.
    ///
    /// # Errors
    /// When the file cannot be opened; each row can still be unreadable, and the last item is
    /// [`ManifestError::Incomplete`] when the file has no end yet.
    pub fn rows_of(
        path: &Path,
    ) -> Result<impl Iterator<Item = Result<Row, ManifestError>> + use<>, ManifestError> {
        let mut lines = ManifestLines::open(path)?;
        let mut is_complete = false;
        Ok(iter::from_fn(move || {
            loop {
                match lines.next() {
                    Some(Ok(Line::Row(row))) => return Some(Ok(row.into())),
                    Some(Ok(Line::Gap(_))) => {}
                    Some(Ok(Line::Totals(_))) => is_complete = true,
                    Some(Err(error)) => return Some(Err(error)),
                    None if is_complete => return None,
                    None => {
                        is_complete = true;
                        return Some(Err(ManifestError::Incomplete));
                    }
                }
            }
        }))
    }

    /// The rows that a daemon with this whitelist stores. Rows without a user belong to nobody's
    /// list.
    pub fn listed<'a>(&'a self, users: &'a HashSet<Address>) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(|row| row.user.is_some_and(|user| users.contains(&user)))
    }

    /// Adds what a second node of the same chain has written: the rows of both, the gaps that both
    /// have. Bytes add up.
    pub fn merge(&mut self, other: &Self) {
        let mut known: HashSet<EventId> = self.rows.iter().map(|row| row.id).collect();
        self.rows.extend(other.rows.iter().filter(|row| known.insert(row.id)).cloned());
        let first = self.totals.first_block.min(other.totals.first_block);
        let highest = self.totals.highest_block.max(other.totals.highest_block);
        let missing: Vec<u64> =
            (first..=highest).filter(|block| !self.has(*block) && !other.has(*block)).collect();
        self.totals = Totals {
            blocks: highest - first + 1 - missing.len() as u64,
            first_block: first,
            highest_block: highest,
            fills: self.elements(FILLS),
            misc: self.elements(MISC),
            rows: self.rows.len() as u64,
            bytes: self.totals.bytes + other.totals.bytes,
        };
        self.gaps = missing
            .chunk_by(|before, after| before + 1 == *after)
            .map(|run| Gap { first: run[0], last: run[run.len() - 1] })
            .collect();
    }

    /// Whether this block was written.
    pub fn has(&self, block: u64) -> bool {
        (self.totals.first_block..=self.totals.highest_block).contains(&block)
            && !self.gaps.iter().any(|gap| gap.contains(block))
    }

    fn elements(&self, topic: Topic) -> u64 {
        // Each element has a first part, with a user or without.
        self.rows.iter().filter(|row| row.id.topic == topic && row.id.part == 0).count() as u64
    }
}

impl Gap {
    pub fn contains(&self, block: u64) -> bool {
        (self.first..=self.last).contains(&block)
    }
}

/// A line of the manifest's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Row(LineRow),
    Gap(Gap),
    Totals(Totals),
}

/// A [`Row`] as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct LineRow {
    topic: String,
    block: u64,
    index: u32,
    part: u32,
    time_ns: i64,
    user: Option<Address>,
    body: String,
}

impl From<LineRow> for Row {
    fn from(line: LineRow) -> Self {
        let LineRow { topic, block, index, part, time_ns, user, body } = line;
        let id = EventId { topic: Topic::intern(&topic), position: block, index, part };
        Self { id, time_ns, user, body }
    }
}

/// The lines of a manifest's file, in their order.
struct ManifestLines(iter::Enumerate<io::Lines<BufReader<File>>>);

impl ManifestLines {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(BufReader::new(File::open(path)?).lines().enumerate()))
    }
}

impl Iterator for ManifestLines {
    type Item = Result<Line, ManifestError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (number, line) = self.0.next()?;
        Some(line.map_err(ManifestError::Io).and_then(|line| {
            serde_json::from_str(&line)
                .map_err(|error| ManifestError::Malformed { line: number + 1, error })
        }))
    }
}

/// Writes rows as they come, so that a long run needs no memory for them.
pub(super) struct ManifestFile {
    lines: BufWriter<File>,
}

impl ManifestFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { lines: BufWriter::with_capacity(1 << 20, File::create(path)?) })
    }

    pub(super) fn row(&mut self, row: Row) -> io::Result<()> {
        let EventId { topic, position, index, part } = row.id;
        let (time_ns, user, body) = (row.time_ns, row.user, row.body);
        let topic = topic.as_str().to_owned();
        self.line(&Line::Row(LineRow { topic, block: position, index, part, time_ns, user, body }))
    }

    /// Ends the file.
    pub(super) fn finish(&mut self, gaps: &[Gap], totals: Totals) -> io::Result<()> {
        for gap in gaps {
            self.line(&Line::Gap(*gap))?;
        }
        self.line(&Line::Totals(totals))?;
        self.lines.flush()
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, line)?;
        self.lines.write_all(b"\n")
    }
}
