//! What becomes of the events that a slow session has missed, by the policies of its subscriptions.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::{Member, Members};
use crate::{
    delivery::{
        dialect::Skipped,
        replay::{Behind, Fate},
        view::Views,
    },
    router::log::LogEvent,
    stats::Stats,
};

/// Most bytes that are kept of the newest events by key for one session; the oldest go before that.
const KEPT_BYTES: usize = 512 << 10;

impl Members {
    /// The socket of a session that was too slow has room again: those of its subscriptions that pass over
    /// what they have missed go on with what comes now.
    pub(super) fn skip_missed(&self, member: &Member, behind: &mut Behind) {
        let here = self.cursor();
        let open = &self.casting.stats.router.gaps;
        let from = behind.delivered();
        for (id, topic) in behind.skip_to(here.seq) {
            member.tell_gaps(behind, &here.positions, open);
            self.casting.stats.sessions.skips.add(1);
            let skipped = Skipped { id: &id, topic, from: &from, to: &here };
            if let Some(frame) = member.dialect.skipped(&skipped) {
                // It finds room: the outbox is empty.
                member.wire.force(frame);
            }
        }
        if behind.cursor.seq < here.seq && behind.wants_nothing_up_to(here.seq) {
            member.tell_gaps(behind, &here.positions, open);
            behind.go_to(here.seq);
            behind.cursor = here;
        }
    }
}

impl Member {
    /// Queues what the session wants of a range of these, or keeps it. Gives how many are done with.
    pub(super) fn cast_past(
        &self,
        behind: &mut Behind,
        events: &[LogEvent],
        range: Range<usize>,
        stats: &Arc<Stats>,
    ) -> usize {
        for (done, at) in range.clone().enumerate() {
            let event = &events[at];
            let seq = event.sequenced.seq;
            match behind.fate(&event.sequenced.event, seq) {
                Fate::Pass => {}
                Fate::Send(views) => {
                    let mut frames = self.frames(events, at, views, true, stats);
                    let Some(first) = frames.next() else { continue };
                    if self.wire.waiting_bytes() >= behind.room {
                        return done;
                    }
                    // Whatever is sent stands behind all that came before it.
                    if !self.send_kept(behind) || self.wire.push(first).is_err() {
                        return done;
                    }
                    frames.for_each(|frame| self.wire.force(frame));
                }
                Fate::Keep(slots) => {
                    while behind.kept.as_ref().is_some_and(|kept| kept.is_full(KEPT_BYTES)) {
                        if !self.send_first(behind) {
                            return done;
                        }
                    }
                    // Only the native protocol has policies, and one view.
                    let views = Views::default();
                    let mut frames = self.frames(events, at, views, true, stats);
                    if let Some(frame) = frames.next() {
                        behind.keep(seq, frame, event.cursor(), slots, stats);
                    }
                }
            }
        }
        range.len()
    }

    /// Queues all that is kept. Gives whether all of it found room.
    pub(super) fn send_kept(&self, behind: &mut Behind) -> bool {
        while behind.kept.is_some() {
            if !self.send_first(behind) {
                return false;
            }
        }
        true
    }

    fn send_first(&self, behind: &mut Behind) -> bool {
        let frame: Option<Bytes> =
            behind.kept.as_ref().and_then(|kept| Some(kept.first()?.1.frame.clone()));
        if frame.is_some_and(|frame| self.wire.push(frame).is_err()) {
            return false;
        }
        behind.kept_is_sent();
        true
    }
}
