//! Takes lines apart: blocks, and who is concerned by which bytes.
//!
//! Place in the pipeline: `FileWatcher` -> **`Parser`** -> `WhitelistFilter`, one per node
//! directory; it serves all streams of the directory, each with its own state.
//! Invariants: every batch goes on, emptied ones too; a line that cannot be used is counted, set
//! aside and logged, and the next one is parsed; the identity of every element is set here, before
//! anybody asks who is listed.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use actix::prelude::*;
use slog::{Logger, error, info, o, warn};

use super::recover::{LineOutcome, LineParser, ParsedLines, RefusedBlock};
use crate::{
    event::Timestamp,
    fail_point,
    roll_call::RollCall,
    source::{
        Horizon, ParsedBatch, Progress, RawBatch, StreamState, consecutive,
        quarantine::{Quarantine, Refused},
    },
    stats::{Stats, StreamStats},
};

/// Damaged lines and refused blocks of one stream that are logged one by one in each
/// [`LOG_PERIOD`]; the others are logged as a number at its end, and so are blocks that are too old. A node that writes garbage must not fill the disk with our log.
const LOGGED_LINES: u32 = 10;
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// The actor.
pub struct Parser {
    next: Recipient<ParsedBatch>,
    horizon: Arc<Horizon>,
    quarantine: Arc<Quarantine>,
    stats: Arc<Stats>,
    /// By the name of the stream.
    streams: HashMap<Arc<str>, Following>,
    logger: Logger,
}

/// One stream that is being followed.
struct Following {
    lines: LineParser,
    /// `open` is filled when a batch leaves.
    state: StreamState,
    stats: Arc<StreamStats>,
    said: Said,
}

/// What the log was told of one stream in this period, and what it was not.
#[derive(Debug, Default)]
struct Said {
    lines: LogLimit,
    /// Blocks older than what is kept, not told yet, and the batch of the first of them. Whole
    /// files of them are ordinary.
    old_blocks: u64,
    old_from: Option<(Arc<str>, u64)>,
}

/// Bounds how often damaged lines and refused blocks are logged.
#[derive(Debug, Default)]
struct LogLimit {
    logged: u32,
    hushed: u64,
}

impl Parser {
    pub fn new(
        next: Recipient<ParsedBatch>,
        horizon: Arc<Horizon>,
        quarantine: Arc<Quarantine>,
        stats: Arc<Stats>,
        logger: &Logger,
    ) -> Self {
        let logger = logger.new(o!("actor" => "parser"));
        Self { next, horizon, quarantine, stats, streams: HashMap::new(), logger }
    }

    fn parse(&mut self, batch: RawBatch) -> ParsedBatch {
        let stream = batch.stream.clone();
        let mut following = match self.streams.remove(&stream.name) {
            Some(following) if batch.resume.is_none() => following,
            // A new generation goes on from its checkpoint, whatever came since; the log knows what
            // it was told.
            earlier => {
                self.follow(&batch, earlier.map(|following| following.said).unwrap_or_default())
            }
        };
        let parsed = self.parse_lines(&batch, &mut following);
        for block in &parsed.refused {
            self.note_refused(&batch, block, &mut following);
        }
        if parsed.old_blocks > 0 {
            following.said.old_blocks += parsed.old_blocks;
            following.said.old_from.get_or_insert_with(|| (batch.file.clone(), batch.offset));
        }
        for block in &parsed.blocks {
            following.note(block.position);
        }
        following.count(&parsed, batch.read_at);
        following.state.open = following.lines.open_blocks();
        let state = following.state.clone();
        let keys = following.lines.key_reader();
        self.streams.insert(stream.name.clone(), following);
        ParsedBatch {
            generation: batch.generation,
            buffer: batch.lines,
            blocks: parsed.blocks,
            candidates: parsed.candidates,
            keys,
            file: batch.file,
            offset: batch.offset,
            progress: Progress { stream, files: batch.marks, state },
            discontinuity: batch.discontinuity,
            read_at: batch.read_at,
            credit: batch.credit,
        }
    }

    /// Starts to follow a stream, or starts anew.
    fn follow(&self, batch: &RawBatch, said: Said) -> Following {
        let stream = &batch.stream;
        let state = batch.resume.clone().unwrap_or_default();
        let lines = LineParser::new(stream.topic, stream.form, self.horizon.clone(), &state.open);
        Following { lines, state, stats: self.stats.stream(stream), said }
    }

    fn parse_lines(&self, batch: &RawBatch, following: &mut Following) -> ParsedLines {
        // The places of candidates are 32 bits wide.
        assert!(u32::try_from(batch.lines.len()).is_ok(), "a read is far below 4 GiB");
        let mut parsed = ParsedLines::default();
        let mut start = 0;
        while start < batch.lines.len() {
            let rest = &batch.lines[start..];
            let end =
                memchr::memchr(b'\n', rest).map_or(batch.lines.len(), |length| start + length);
            let outcome =
                following.lines.parse(&batch.lines, start..end, batch.read_at, &mut parsed);
            self.note_outcome(batch, start..end, outcome, following);
            start = end + 1;
        }
        parsed
    }

    /// Counts a line, and sets aside and logs what could not be used of it.
    fn note_outcome(
        &self,
        batch: &RawBatch,
        line: Range<usize>,
        outcome: LineOutcome,
        following: &mut Following,
    ) {
        if matches!(outcome, LineOutcome::Blank) {
            return;
        }
        following.stats.lines.add(1);
        let offset = batch.offset + line.start as u64;
        match outcome {
            LineOutcome::Blank | LineOutcome::Whole => {}
            LineOutcome::Recovered { lost } => {
                following.stats.recovered_lines.add(1);
                let lost_bytes: usize = lost.iter().map(Range::len).sum();
                for place in lost {
                    self.set_aside("damaged part of a line", batch, place);
                }
                if following.said.lines.admit() {
                    warn!(self.logger, "damaged line recovered"; "stream" => %batch.stream.name,
                        "file" => %batch.file, "offset_bytes" => offset, "lost_bytes" => lost_bytes);
                }
            }
            LineOutcome::Malformed { fault } => {
                following.stats.malformed_lines.add(1);
                let error = match fault {
                    Some(fault) => {
                        self.set_aside("malformed line", batch, line);
                        fault.to_string()
                    }
                    None => "NUL bytes only".to_owned(),
                };
                if following.said.lines.admit() {
                    warn!(self.logger, "malformed line skipped"; "stream" => %batch.stream.name,
                        "file" => %batch.file, "offset_bytes" => offset, "error" => error);
                }
            }
        }
    }

    /// Sets a block aside that is not believed, and logs it.
    fn note_refused(&self, batch: &RawBatch, block: &RefusedBlock, following: &mut Following) {
        let reason = block.why.to_string();
        self.set_aside(&format!("refused block: {reason}"), batch, block.place.clone());
        if following.said.lines.admit() {
            warn!(self.logger, "block refused"; "stream" => %batch.stream.name,
                "file" => %batch.file, "offset_bytes" => batch.offset + block.place.start as u64,
                "block" => block.position, "block_time" => %block.time, "reason" => reason);
        }
    }

    /// Ends a period of the log: what was not told one by one is told as a number.
    fn sum_up(&mut self) {
        for (stream, following) in &mut self.streams {
            let Said { lines, old_blocks, old_from } = std::mem::take(&mut following.said);
            if lines.hushed > 0 {
                warn!(self.logger, "more damaged lines were not logged one by one";
                    "stream" => %stream, "lines" => lines.hushed);
            }
            if let Some((file, offset)) = old_from {
                info!(self.logger, "blocks older than what is kept were passed over";
                    "stream" => %stream, "from_file" => %file, "offset_bytes" => offset,
                    "blocks" => old_blocks);
            }
        }
    }

    fn set_aside(&self, reason: &str, batch: &RawBatch, place: Range<usize>) {
        let origin = batch.stream.directory.join("hourly").join(&*batch.file);
        let refused = Refused {
            reason,
            origin: &origin.to_string_lossy(),
            offset_bytes: batch.offset + place.start as u64,
            content: &batch.lines[place],
        };
        if let Err(error) = self.quarantine.put(refused) {
            error!(self.logger, "quarantine cannot be written"; "error" => %error);
        }
    }
}

impl Following {
    /// Notes the block of a line, from which density is learned.
    fn note(&mut self, position: u64) {
        self.state.consecutive =
            consecutive(self.state.consecutive, self.state.last_position, position);
        self.state.last_position = Some(position);
    }

    fn count(&self, parsed: &ParsedLines, read_at: Timestamp) {
        self.stats.elements.add(parsed.elements);
        self.stats.skipped_elements.add(parsed.skipped);
        self.stats.refused_blocks.add(parsed.refused_blocks());
        self.stats.candidates.add(parsed.candidates.len() as u64);
        if let Some(last) = parsed.blocks.last() {
            // Only a block that was taken makes a stream fresh: lines of which every one is lost
            // must not look like health. A block without events counts.
            self.stats.last_line_at.set(read_at.0);
            self.stats.last_written.set(last.written.0);
            self.stats.last_block_time.set(last.time.0);
            self.stats.last_position.set(last.position as i64);
        }
    }
}

impl LogLimit {
    fn admit(&mut self) -> bool {
        let admitted = self.logged < LOGGED_LINES;
        if admitted {
            self.logged += 1;
        } else {
            self.hushed += 1;
        }
        admitted
    }
}

impl Actor for Parser {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Also when nothing more comes, the log has to say what it does not hold.
        ctx.run_interval(LOG_PERIOD, |parser, _ctx| parser.sum_up());
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.sum_up();
    }
}

impl Handler<RawBatch> for Parser {
    type Result = ();

    fn handle(&mut self, batch: RawBatch, _ctx: &mut Self::Context) {
        fail_point!("parser.handle");
        let parsed = self.parse(batch);
        fail_point!("parser.send");
        self.next.do_send(parsed); // Also when it is empty: it carries the position to commit.
    }
}

impl Handler<RollCall> for Parser {
    type Result = ();

    fn handle(&mut self, _: RollCall, _ctx: &mut Self::Context) {}
}

#[cfg(test)]
mod tests;
