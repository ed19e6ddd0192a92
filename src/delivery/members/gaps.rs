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
        ledger::Gap,
        log::{Log, LogEvent, Notice},
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
            let gaps = open.between(topic, heard, head, TOLD_GAPS);
            told += gaps.len();
            self.queue_gaps(&gaps);
        }
        behind.heard.raise(heads);
        told
    }

    fn queue_gaps(&self, gaps: &[Gap]) {
        let frames = gaps.iter().filter_map(|gap| self.dialect.gap(gap, false));
        frames.for_each(|frame| self.wire.force(frame));
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
        let heads = first.cursor().positions;
        let told = self.tell_gaps(behind, &heads, open);
        if told > 0 {
            // Nothing lies between: who has no room for the event itself is not told them again.
            behind.pass_gaps(&heads, open);
        }
        let next = |(topic, heard)| open.next_end(topic, heard).map(|end| (topic, end));
        let next: Vec<_> = behind.heard.iter().filter_map(next).collect();
        if next.is_empty() {
            return (told, events.len());
        }
        let is_beyond = |event: &LogEvent| {
            let id = &event.sequenced.event.id;
            position_of(&next, id.topic).is_some_and(|end| id.position >= end)
        };
        // The first one goes in any case: its gaps were told just now.
        let before = events.iter().skip(1).position(is_beyond).map_or(events.len(), |at| at + 1);
        (told, before)
    }

    /// Begins a segment of the log of which so many events are done. Gives how many gaps were told; none
    /// where it is not known any more what lies before it.
    pub(super) fn enter(
        &self,
        behind: &mut Behind,
        (segment, done): (u64, usize),
        log: &Log,
        open: &OpenGaps,
    ) -> Option<usize> {
        if behind.told.is_some_and(|(entered, _)| entered == segment) {
            return Some(0);
        }
        let heads = log.heads_before(segment)?;
        let mut told = 0;
        if behind.told.is_none_or(|(entered, _)| entered + 1 != segment) {
            // Segments were passed over, and with them the notices of gaps that lie before what had come.
            for (topic, heard) in behind.heard.iter() {
                let gaps = open.noticed_since(topic, behind.untold_since, heard, TOLD_GAPS);
                told += gaps.len();
                self.queue_gaps(&gaps);
            }
        }
        told += self.tell_gaps(behind, &heads.positions, open);
        if done == 0 {
            behind.cursor.positions.clone_from(&heads.positions);
        }
        behind.told = Some((segment, if done == 0 { 0 } else { usize::MAX }));
        Some(told)
    }

    /// Queues what the books do not say of the notices of a segment: so many at most, and as long as there is
    /// room. Gives how many were looked at, and whether no more are left.
    pub(super) fn tell_notices(
        &self,
        behind: &mut Behind,
        notices: &[Notice],
        most: usize,
    ) -> (usize, bool) {
        let Behind { told: Some((_, told)), heard, room, .. } = behind else {
            return (0, true);
        };
        let from = *told;
        while let Some(notice) = notices.get(*told) {
            if *told - from >= most || self.is_full(*room) {
                return (*told - from, false);
            }
            *told += 1;
            let (gap, closed) = notice.gap();
            // One that lies ahead of what had come is told where it ends, if it is open still.
            let is_behind = heard.of(gap.topic).is_some_and(|heard| gap.last <= heard);
            if (is_behind || closed && self.topics.contains(&gap.topic))
                && let Some(frame) = self.dialect.gap(gap, closed)
            {
                self.wire.force(frame);
            }
        }
        (*told - from, true)
    }
}
