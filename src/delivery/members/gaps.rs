//! Tells who is behind of gaps.
//!
//! Invariant: no cursor is sent beyond the end of a gap that is open before the gap is told, unless the client
//! knows it. Where a gap lies is known from the books of the Router, so that it is the same for what comes
//! from the store and from the log; the notices in the log add what the books do not say.

use super::Member;
use crate::{
    delivery::replay::Behind,
    event::{Topic, position_of},
    router::{
        gaps::OpenGaps,
        log::{Log, LogEvent, Segment},
    },
};

/// Open gaps of a topic that a session is told at most for one stretch: 100 KB.
const TOLD_GAPS: usize = 1_000;

impl Member {
    /// Queues the open gaps up to where topics have come that its client does not know. Gives their number.
    pub(super) fn tell_gaps(
        &self,
        behind: &mut Behind,
        heads: &[(Topic, u64)],
        open: &OpenGaps,
    ) -> usize {
        let mut told = 0;
        for (topic, heard) in behind.heard.iter() {
            let Some(head) = position_of(heads, topic).filter(|head| *head > heard) else {
                continue;
            };
            for gap in open.between(topic, heard, head, TOLD_GAPS) {
                told += 1;
                if let Some(frame) = self.dialect.gap(&gap, false) {
                    self.wire.force(frame);
                }
            }
        }
        behind.heard.raise(heads);
        told
    }

    /// Queues the gaps before the first of these events. Gives their number, and how many of the events come
    /// before the next gap.
    pub(super) fn tell_before(
        &self,
        behind: &mut Behind,
        events: &[LogEvent],
        open: &OpenGaps,
    ) -> (usize, usize) {
        let Some(first) = events.first() else { return (0, 0) };
        let told = self.tell_gaps(behind, &first.cursor().positions, open);
        let next = |(topic, heard)| open.next_end(topic, heard).map(|end| (topic, end));
        let next: Vec<_> = behind.heard.iter().filter_map(next).collect();
        let is_beyond = |event: &LogEvent| {
            let id = &event.sequenced.event.id;
            position_of(&next, id.topic).is_some_and(|end| id.position >= end)
        };
        if next.is_empty() {
            return (told, events.len());
        }
        // It is sent whatever ends there: that was told just now.
        let before = events.iter().skip(1).position(is_beyond).map_or(events.len(), |at| at + 1);
        (told, before)
    }

    /// Begins a segment of the log of which so many events are done. Gives whether what lies before it is
    /// still known.
    pub(super) fn enter(
        &self,
        behind: &mut Behind,
        (segment, done): (u64, usize),
        log: &Log,
        open: &OpenGaps,
    ) -> bool {
        if behind.told.is_some_and(|(entered, _)| entered == segment) {
            return true;
        }
        let Some(heads) = log.heads_before(segment) else { return false };
        self.tell_gaps(behind, &heads.positions, open);
        if done == 0 {
            behind.cursor.positions.clone_from(&heads.positions);
        }
        // Who comes from within has got its notices, or their gaps from the books.
        behind.told = Some((segment, if done == 0 { 0 } else { usize::MAX }));
        true
    }

    /// Queues what the books do not say of the notices of a segment: so many at most, and as long as there is
    /// room. Gives how many were looked at, and whether no more are left.
    pub(super) fn tell_notices(
        &self,
        behind: &mut Behind,
        segment: &Segment,
        log: &Log,
        most: usize,
    ) -> (usize, bool) {
        let Some((_, told)) = &mut behind.told else { return (0, true) };
        let from = *told;
        if segment.notices.len() <= from {
            return (0, true);
        }
        let heads = log.heads_before(segment.number).unwrap_or_default();
        while let Some(notice) = segment.notices.get(*told) {
            if *told - from >= most || self.is_full() {
                return (*told - from, false);
            }
            *told += 1;
            let (gap, closed) = notice.gap();
            // One that lies ahead of what had come is told where it ends, if it is open still.
            let is_behind =
                position_of(&heads.positions, gap.topic).is_some_and(|head| gap.last <= head);
            if (closed || is_behind)
                && self.topics.contains(&gap.topic)
                && let Some(frame) = self.dialect.gap(gap, closed)
            {
                self.wire.force(frame);
            }
        }
        (*told - from, true)
    }
}
