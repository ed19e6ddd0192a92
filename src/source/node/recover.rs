//! A line of a file, whole or damaged, to blocks and candidates.
//!
//! Place in the pipeline: the rules of the `Parser`; the actor only carries batches through them.
//!
//! A node that crashes in mid-line appends to the same line when it is back, and a power loss
//! leaves runs of NUL bytes. So whatever in a line is a whole block is used: it starts where the
//! line starts, where a block before it ended, or at `{"local_time"`. The rest is reported.
//!
//! Invariants: no line makes this panic or leaves a trace in the next one; a block that is refused
//! leaves no candidates; the work on a line is bounded by [`MAX_ATTEMPTS`] times its length.

use std::{ops::Range, sync::Arc};

use memchr::memmem;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    blocks::BlockIndexes,
    fills,
    line::{Envelope, LineFault, read_object, skip_space},
    misc,
};
use crate::{
    event::{KeyReader, Timestamp, Topic},
    source::{BodyPlace, Candidate, Disbelief, Form, Horizon, OpenBlock, ParsedBlock},
};

/// How every block starts that a node writes.
const BLOCK_START: &[u8] = b"{\"local_time\"";

/// Places of a damaged line at which a block is looked for, before only the last one is tried. A
/// crash makes two.
const MAX_ATTEMPTS: usize = 64;

/// What the lines of a batch gave.
#[derive(Debug, Default)]
pub struct ParsedLines {
    pub blocks: Vec<ParsedBlock>,
    pub candidates: Vec<Candidate>,
    /// Elements of the blocks, skipped ones too.
    pub elements: u64,
    /// Elements that are not what their topic promises.
    pub skipped: u64,
    /// Blocks that are older than what is kept. The elements of refused blocks are not counted.
    pub old_blocks: u64,
    /// Blocks that are not believed for another reason.
    pub refused: Vec<RefusedBlock>,
}

/// A whole block that is not believed.
#[derive(Debug)]
pub struct RefusedBlock {
    /// Its bytes in the buffer.
    pub place: Range<usize>,
    pub position: u64,
    pub time: Timestamp,
    pub why: Disbelief,
}

impl ParsedLines {
    pub fn refused_blocks(&self) -> u64 {
        self.old_blocks + self.refused.len() as u64
    }
}

/// What became of a line.
#[derive(Debug)]
pub enum LineOutcome {
    /// White space: nothing.
    Blank,
    Whole,
    /// Damaged: some blocks could be used, the bytes of `lost` could not. They are places in the
    /// buffer, without those of NUL bytes.
    Recovered {
        lost: Vec<Range<usize>>,
    },
    /// Nothing could be used. `None`: NUL bytes only.
    Malformed {
        fault: Option<LineFault>,
    },
}

/// Parses the lines of one stream, in their order.
pub struct LineParser {
    kind: Kind,
    form: Form,
    horizon: Arc<Horizon>,
    /// For streaming files.
    indexes: BlockIndexes,
    /// Digests of the elements of one line; kept for its allocation.
    digests: Vec<u64>,
}

/// Whose rules read the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fills,
    Misc,
}

impl LineParser {
    /// Goes on from the open blocks of a checkpoint.
    pub fn new(topic: Topic, form: Form, horizon: Arc<Horizon>, open: &[OpenBlock]) -> Self {
        let kind = if topic == fills::TOPIC { Kind::Fills } else { Kind::Misc };
        let indexes = BlockIndexes::resume(open);
        Self { kind, form, horizon, indexes, digests: Vec::new() }
    }

    /// Reads the keys of this stream's bodies.
    pub fn key_reader(&self) -> KeyReader {
        match self.kind {
            Kind::Fills => fills::read_keys,
            Kind::Misc => misc::read_keys,
        }
    }

    /// The blocks that may still grow.
    pub fn open_blocks(&self) -> Vec<OpenBlock> {
        self.indexes.open()
    }

    /// Parses the line that lies at `line` in `buffer`, without its newline.
    pub fn parse(
        &mut self,
        buffer: &[u8],
        line: Range<usize>,
        now: Timestamp,
        parsed: &mut ParsedLines,
    ) -> LineOutcome {
        // Places count from the buffer's start and end with the line.
        let text = &buffer[..line.end];
        let start = skip_space(text, line.start);
        if start == text.len() {
            return LineOutcome::Blank;
        }
        let first = self.object(text, start, now, parsed);
        if matches!(first, Ok(end) if skip_space(text, end) == text.len()) {
            return LineOutcome::Whole;
        }
        self.recover(text, start, first, now, parsed)
    }

    /// Uses what can be used of a damaged line, of whose start one knows what it is.
    #[cold]
    fn recover(
        &mut self,
        text: &[u8],
        line_start: usize,
        first: Result<usize, LineFault>,
        now: Timestamp,
        parsed: &mut ParsedLines,
    ) -> LineOutcome {
        let (mut lost, mut attempts) = (Vec::new(), 0);
        // What lies before `settled` is used, noted as lost, or nothing; a block is looked for
        // from `from` on.
        let (mut settled, mut from, mut good, mut fault) = match first {
            Ok(end) => (end, end, true, None),
            Err(fault) => (line_start, line_start + 1, false, Some(fault)),
        };
        loop {
            let next = if attempts < MAX_ATTEMPTS {
                memmem::find(&text[from..], BLOCK_START).map(|ahead| from + ahead)
            } else {
                memmem::rfind(&text[from..], BLOCK_START).map(|ahead| from + ahead)
            };
            let Some(start) = next else { break };
            attempts += 1;
            match self.object(text, start, now, parsed) {
                Ok(end) => {
                    push_lost(text, settled..start, &mut lost);
                    good = true;
                    (settled, from) = (end, end);
                }
                Err(new) => {
                    fault.get_or_insert(new);
                    from = start + 1;
                }
            }
        }
        push_lost(text, settled..text.len(), &mut lost);
        if good {
            return LineOutcome::Recovered { lost };
        }
        LineOutcome::Malformed { fault: fault.filter(|_| !lost.is_empty()) }
    }

    /// Parses the object at `start`; gives the position behind it.
    fn object(
        &mut self,
        text: &[u8],
        start: usize,
        now: Timestamp,
        parsed: &mut ParsedLines,
    ) -> Result<usize, LineFault> {
        let first_candidate = parsed.candidates.len();
        self.digests.clear();
        let (mut count, mut skipped) = (0_u32, 0_u64);
        let candidates = &mut parsed.candidates;
        let (kind, form, digests) = (self.kind, self.form, &mut self.digests);
        let envelope = read_object(text, start, |element| {
            if form == Form::Streaming {
                digests.push(xxh3_64(&text[element.range.clone()]));
            }
            let is_event = match kind {
                Kind::Fills => match fills::pair(text, &element) {
                    Some((user, body)) => {
                        let body = BodyPlace::Slice(body.start as u32..body.end as u32);
                        candidates.push(Candidate {
                            index: count,
                            part: 0,
                            user: Some(user),
                            body,
                        });
                        true
                    }
                    None => false,
                },
                Kind::Misc => misc::push_candidates(text, element.range, count, candidates).is_ok(),
            };
            skipped += u64::from(!is_event);
            count += 1;
        });
        let envelope = match envelope {
            Ok(envelope) => envelope,
            Err(fault) => {
                parsed.candidates.truncate(first_candidate);
                return Err(fault);
            }
        };
        let Envelope { position, time, end, .. } = envelope;
        if let Err(why) = self.horizon.admit(position, time, now) {
            parsed.candidates.truncate(first_candidate);
            match why {
                Disbelief::Old => parsed.old_blocks += 1,
                Disbelief::Ahead | Disbelief::Number => {
                    parsed.refused.push(RefusedBlock { place: start..end, position, time, why });
                }
            }
            return Ok(end);
        }
        parsed.elements += u64::from(count);
        parsed.skipped += skipped;
        self.push_block(text, envelope, count, first_candidate, parsed);
        Ok(end)
    }

    fn push_block(
        &mut self,
        text: &[u8],
        envelope: Envelope,
        count: u32,
        first_candidate: usize,
        parsed: &mut ParsedLines,
    ) {
        let first = match self.form {
            Form::ByBlock => 0,
            Form::Streaming => self.indexes.place(envelope.position, &self.digests),
        };
        if first > 0 {
            for candidate in &mut parsed.candidates[first_candidate..] {
                candidate.index += first;
            }
        }
        parsed.blocks.push(ParsedBlock {
            position: envelope.position,
            time: envelope.time,
            written: envelope.written,
            indexes: first..first + count,
            complete: self.form == Form::ByBlock,
            digest: xxh3_64(&text[envelope.events]),
            candidates: first_candidate..parsed.candidates.len(),
        });
    }
}

/// Notes what of a stretch is neither white space nor NUL at its ends.
fn push_lost(text: &[u8], range: Range<usize>, lost: &mut Vec<Range<usize>>) {
    let nothing = |byte: &u8| matches!(byte, 0 | b' ' | b'\t' | b'\r' | b'\n');
    let stretch = &text[range.clone()];
    let Some(first) = stretch.iter().position(|byte| !nothing(byte)) else { return };
    let behind = stretch.iter().rposition(|byte| !nothing(byte)).map_or(first, |last| last + 1);
    lost.push(range.start + first..range.start + behind);
}

#[cfg(test)]
mod tests;
