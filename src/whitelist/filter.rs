//! Keeps the events whose user is listed and drops the others.
//!
//! Place in the pipeline: `Parser` -> **`WhitelistFilter`** -> `Router`, one per node directory.
//! Invariants: batches leave in the order in which they arrived, emptied ones too; bodies are
//! copied out of the read buffer, which is let go here; received = accepted + rejected + false
//! positives + malformed.

use std::sync::Arc;

use actix::prelude::*;
use slog::{Logger, debug, error, o, warn};

use super::set::{Verdict, Whitelist};
use crate::{
    event::{Event, EventId},
    fail_point,
    roll_call::RollCall,
    source::{
        Block, Candidate, EventBatch, ParsedBatch, ParsedBlock,
        quarantine::{Quarantine, Refused},
    },
    stats::Stats,
};

/// Malformed bodies of one batch that are logged one by one.
const LOGGED_BODIES: u64 = 3;

/// Replaces the whole whitelist; it holds from the next batch on.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ReplaceWhitelist(pub Arc<Whitelist>);

/// The actor.
pub struct WhitelistFilter {
    list: Arc<Whitelist>,
    next: Recipient<EventBatch>,
    quarantine: Arc<Quarantine>,
    stats: Arc<Stats>,
    logger: Logger,
}

/// What one batch counted; added to the shared counters once.
#[derive(Default)]
struct Counts {
    accepted: u64,
    rejected: u64,
    false_positives: u64,
    malformed: u64,
}

impl WhitelistFilter {
    pub fn new(
        list: Arc<Whitelist>,
        next: Recipient<EventBatch>,
        quarantine: Arc<Quarantine>,
        stats: Arc<Stats>,
        logger: &Logger,
    ) -> Self {
        let logger = logger.new(o!("actor" => "whitelist_filter"));
        Self { list, next, quarantine, stats, logger }
    }

    fn filter(&self, mut batch: ParsedBatch) -> EventBatch {
        let mut counts = Counts::default();
        let blocks: Vec<_> = batch
            .blocks
            .iter()
            .map(|block| self.filter_block(&batch, block, &mut counts))
            .collect();
        self.stats.filter.received.add(batch.candidates.len() as u64);
        self.stats.filter.accepted.add(counts.accepted);
        self.stats.filter.rejected.add(counts.rejected);
        self.stats.filter.false_positives.add(counts.false_positives);
        self.stats.filter.malformed.add(counts.malformed);
        if counts.malformed > LOGGED_BODIES {
            warn!(self.logger, "more malformed bodies were not logged one by one";
                "file" => %batch.file, "bodies" => counts.malformed - LOGGED_BODIES);
        }
        batch.credit.resize(held_bytes(&blocks));
        EventBatch {
            generation: batch.generation,
            blocks,
            progress: batch.progress,
            discontinuity: batch.discontinuity,
            read_at: batch.read_at,
            credit: batch.credit,
        }
    }

    fn filter_block(&self, batch: &ParsedBatch, block: &ParsedBlock, counts: &mut Counts) -> Block {
        let candidates = &batch.candidates[block.candidates.clone()];
        let wanted = |candidate: &&Candidate| self.wants(candidate, counts);
        let wanted: Vec<_> = candidates.iter().filter(wanted).collect();
        let mut events = Vec::with_capacity(wanted.len());
        for candidate in wanted {
            match self.read_event(batch, block, candidate) {
                Ok(event) => events.push(event),
                Err((body, error)) => {
                    counts.malformed += 1;
                    self.set_aside(batch, candidate, &body, &error, counts.malformed);
                }
            }
        }
        counts.accepted += events.len() as u64;
        Block {
            position: block.position,
            time: block.time,
            written: block.written,
            indexes: block.indexes.clone(),
            complete: block.complete,
            digest: block.digest,
            events,
        }
    }

    #[inline]
    fn wants(&self, candidate: &Candidate, counts: &mut Counts) -> bool {
        let verdict = match &candidate.user {
            Some(user) => self.list.contains(user),
            // Only those who keep everything get what concerns nobody.
            None if self.list.is_all() => Verdict::Listed,
            None => Verdict::Rejected,
        };
        match verdict {
            Verdict::Listed => return true,
            Verdict::Rejected => counts.rejected += 1,
            Verdict::FalsePositive => counts.false_positives += 1,
        }
        false
    }

    /// Copies one event out of the buffer; gives the body back when it is not valid JSON.
    fn read_event(
        &self,
        batch: &ParsedBatch,
        block: &ParsedBlock,
        candidate: &Candidate,
    ) -> Result<Event, (bytes::Bytes, serde_json::Error)> {
        let body = candidate.body.copy_from(&batch.buffer);
        let keys = match (batch.keys)(&body) {
            Ok(keys) => keys,
            Err(error) => return Err((body, error)),
        };
        let id = EventId {
            topic: batch.progress.stream.topic,
            position: block.position,
            index: candidate.index,
            part: candidate.part,
        };
        Ok(Event { id, time: block.time, user: candidate.user, keys, body })
    }

    /// Keeps a body that is not valid JSON for people.
    fn set_aside(
        &self,
        batch: &ParsedBatch,
        candidate: &Candidate,
        body: &[u8],
        fault: &serde_json::Error,
        ordinal: u64,
    ) {
        let stream = &batch.progress.stream;
        let offset = batch.offset + u64::from(candidate.body.start());
        if ordinal <= LOGGED_BODIES {
            warn!(self.logger, "malformed body dropped"; "stream" => %stream.name,
                "file" => %batch.file, "offset_bytes" => offset, "error" => %fault);
        }
        let origin = stream.directory.join("hourly").join(&*batch.file);
        let refused = Refused {
            reason: "malformed body",
            origin: &origin.to_string_lossy(),
            offset_bytes: offset,
            content: body,
        };
        if let Err(error) = self.quarantine.put(refused) {
            error!(self.logger, "quarantine cannot be written"; "error" => %error);
        }
    }
}

/// What a batch holds of memory once the read buffer is gone.
fn held_bytes(blocks: &[Block]) -> usize {
    let events = blocks.iter().flat_map(|block| &block.events).map(Event::cost_bytes);
    size_of::<EventBatch>() + size_of_val(blocks) + events.sum::<usize>()
}

impl Actor for WhitelistFilter {
    type Context = Context<Self>;
}

impl Handler<ParsedBatch> for WhitelistFilter {
    type Result = ();

    fn handle(&mut self, batch: ParsedBatch, _ctx: &mut Self::Context) {
        fail_point!("filter.handle");
        let batch = self.filter(batch);
        fail_point!("filter.send");
        self.next.do_send(batch); // Also when it is empty: it carries the position to commit.
    }
}

impl Handler<ReplaceWhitelist> for WhitelistFilter {
    type Result = ();

    fn handle(&mut self, message: ReplaceWhitelist, _ctx: &mut Self::Context) {
        self.list = message.0;
        debug!(self.logger, "whitelist replaced"; "whitelist" => ?self.list);
    }
}

impl Handler<RollCall> for WhitelistFilter {
    type Result = ();

    fn handle(&mut self, _: RollCall, _ctx: &mut Self::Context) {}
}

#[cfg(test)]
mod tests;
