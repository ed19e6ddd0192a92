//! What waits for its commit, and what is committed together.
//!
//! Place: the plain data of [`Committer`](super::Committer), which knows the store. Invariant: a batch
//! takes whole segments, in the order of the log.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;

use crate::{
    event::SequencedEvent,
    router::{
        ledger::{BlockRange, Gap},
        log::{Notice, Segment},
    },
    source::Progress,
};

/// Segments that wait for their commit, in the order of the log.
#[derive(Default)]
pub struct Waiting {
    pub segments: VecDeque<Arc<Segment>>,
    pub events: usize,
    /// An empty segment counts as one event, so that a batch is bounded in any case.
    pub weight: usize,
    pub bytes: usize,
    /// Since when the first has waited, and the first that somebody waits for.
    pub since: Option<Instant>,
    pub awaited_since: Option<Instant>,
}

/// What is committed together.
pub struct Batch {
    pub segments: Vec<Arc<Segment>>,
    /// Kept while the same content is tried again.
    pub number: Option<u64>,
}

impl Waiting {
    /// Adds what was appended to the log.
    pub fn push(&mut self, segment: Arc<Segment>, now: Instant) {
        self.since.get_or_insert(now);
        // A source reads nothing of a new stream before its starting point is in the store.
        let is_baseline = segment.progress.state.last_position.is_none();
        if is_baseline || !segment.events.is_empty() {
            self.awaited_since.get_or_insert(now);
        }
        self.events += segment.events.len();
        self.weight += weight(&segment);
        self.bytes += body_bytes(&segment);
        self.segments.push_back(segment);
    }

    /// Takes whole segments until the limits are reached, at least one if there is one. What stays
    /// has waited long enough already.
    pub fn take(&mut self, max_weight: usize, max_bytes: usize) -> Vec<Arc<Segment>> {
        let (mut taken, mut taken_weight, mut taken_bytes) = (Vec::new(), 0, 0);
        while taken_weight < max_weight
            && taken_bytes < max_bytes
            && let Some(segment) = self.segments.pop_front()
        {
            self.events -= segment.events.len();
            taken_weight += weight(&segment);
            taken_bytes += body_bytes(&segment);
            taken.push(segment);
        }
        self.weight -= taken_weight;
        self.bytes -= taken_bytes;
        if self.segments.is_empty() {
            *self = Self::default();
        }
        taken
    }
}

/// Puts the halves of a refused part on the stack, or the row that cannot be halved aside.
pub fn halve<'e>(
    part: &'e [&'e SequencedEvent],
    reason: String,
    parts: &mut Vec<&'e [&'e SequencedEvent]>,
    refused: &mut Vec<(&'e SequencedEvent, String)>,
) {
    match part {
        [] => {}
        [row] => refused.push((row, reason)),
        rows => {
            let (first, second) = rows.split_at(rows.len() / 2);
            parts.extend([second, first]);
        }
    }
}

/// What is committed with the events of a batch.
#[derive(Default)]
pub struct Contents<'b> {
    pub seen: Vec<&'b BlockRange>,
    pub gaps_opened: Vec<&'b Gap>,
    pub gaps_closed: Vec<&'b Gap>,
    pub progress: Vec<&'b Progress>,
    pub last_seq: u64,
}

impl<'b> Contents<'b> {
    pub fn of(segments: &'b [Arc<Segment>]) -> Self {
        let mut contents = Self::default();
        for segment in segments {
            contents.seen.extend(&segment.seen);
            for notice in &segment.notices {
                match notice {
                    Notice::GapOpened(gap) => contents.gaps_opened.push(gap),
                    Notice::GapClosed(gap) => contents.gaps_closed.push(gap),
                }
            }
            contents.progress.push(&segment.progress);
        }
        contents.last_seq = last_seq(segments);
        contents
    }
}

pub fn events_of(segments: &[Arc<Segment>]) -> impl Iterator<Item = &SequencedEvent> {
    segments.iter().flat_map(|segment| segment.events.iter().map(|event| &event.sequenced))
}

pub fn last_seq(segments: &[Arc<Segment>]) -> u64 {
    events_of(segments).map(|event| event.seq).max().unwrap_or(0)
}

fn weight(segment: &Segment) -> usize {
    segment.events.len().max(1)
}

fn body_bytes(segment: &Segment) -> usize {
    segment.events.iter().map(|event| event.sequenced.event.body.len()).sum()
}
