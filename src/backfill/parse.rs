//! The lines of one directory to events of some users: what `Parser` and `WhitelistFilter` do to the
//! live stream.
//!
//! Invariant: a block whose beginning may be missing is passed over as a whole, wherever it comes
//! again: its elements would get other numbers than they have.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    input::Input,
    pass::{Counts, Place},
    read::Chunk,
    scope::Users,
};
use crate::{
    event::{Event, EventId, Timestamp},
    source::{
        Candidate, Form, Horizon, ParsedBlock,
        node::recover::{LineOutcome, LineParser, ParsedLines},
    },
};

/// The parser of the files of one directory.
pub struct DirectoryParser {
    directory: PathBuf,
    lines: LineParser,
    /// Whether the next block may have begun where nobody reads.
    starts_anywhere: bool,
    /// It is passed over, also when a node goes back to it: then it is written from its beginning,
    /// which is not known.
    begun_before: Option<u64>,
}

impl DirectoryParser {
    /// Goes on at a place; `None`: at the beginning of a file, with nothing known of the one before.
    pub fn new(input: &Input, horizon: Arc<Horizon>, place: Option<&Place>) -> Self {
        let open = place.map(|place| &*place.open).unwrap_or_default();
        Self {
            directory: input.directory.clone(),
            lines: LineParser::new(input.topic, input.form(), horizon, open),
            starts_anywhere: input.form() == Form::Streaming && place.is_none(),
            begun_before: place.and_then(|place| place.begun_before),
        }
    }

    /// Whether it goes on with the files of this directory.
    pub fn is_of(&self, directory: &Path) -> bool {
        self.directory == directory
    }

    /// Whether no block has come: then it is not known which one may have begun where nobody reads, and
    /// nobody can go on here.
    pub fn starts_anywhere(&self) -> bool {
        self.starts_anywhere
    }

    /// Parses a chunk. Gives the events that are wanted, and counts what cannot be used.
    pub fn parse(
        &mut self,
        chunk: &Chunk,
        input: &Input,
        users: &Users,
        counts: &mut Counts,
    ) -> Vec<Event> {
        let mut parsed = ParsedLines::default();
        let now = Timestamp::now();
        let mut start = 0;
        while start < chunk.lines.len() {
            let rest = &chunk.lines[start..];
            let end =
                memchr::memchr(b'\n', rest).map_or(chunk.lines.len(), |length| start + length);
            let outcome = self.lines.parse(&chunk.lines, start..end, now, &mut parsed);
            if matches!(outcome, LineOutcome::Recovered { .. } | LineOutcome::Malformed { .. }) {
                counts.damaged_lines += 1;
            }
            start = end + 1;
        }
        counts.refused_blocks += parsed.refused_blocks();
        let keys = self.lines.key_reader();
        let mut events = Vec::new();
        for block in &parsed.blocks {
            if self.passes_over(block) {
                continue;
            }
            for candidate in &parsed.candidates[block.candidates.clone()] {
                if !users.want(candidate.user.as_ref()) {
                    continue;
                }
                let body = candidate.body.copy_from(&chunk.lines);
                match keys(&body) {
                    Ok(keys) => {
                        let id = id_of(input, block, candidate);
                        let user = candidate.user;
                        events.push(Event { id, time: block.time, user, keys, body });
                    }
                    Err(_) => counts.damaged_lines += 1,
                }
            }
        }
        events
    }

    /// Where it stands, for one that goes on later.
    pub fn place(&self, input: &Input, offset: u64, digest: u64) -> Place {
        let open = match input.form() {
            Form::Streaming => self.lines.open_blocks(),
            Form::ByBlock => Vec::new(),
        };
        let begun_before = self.begun_before;
        Place { path: input.path.clone(), offset, digest, open, begun_before }
    }

    /// Whether the ordinals of a block are not known: it may have begun in a file that is gone.
    fn passes_over(&mut self, block: &ParsedBlock) -> bool {
        if std::mem::take(&mut self.starts_anywhere) {
            self.begun_before = Some(block.position);
        }
        self.begun_before == Some(block.position)
    }
}

fn id_of(input: &Input, block: &ParsedBlock, candidate: &Candidate) -> EventId {
    EventId {
        topic: input.topic,
        position: block.position,
        index: candidate.index,
        part: candidate.part,
    }
}
