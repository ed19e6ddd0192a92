//! What one session that is behind gets at one time, and by what that ends.

use std::sync::Arc;

use super::{Member, Members, pull::TOLD_GAPS};
use crate::{
    delivery::{
        Casting,
        index::SessionId,
        replay::{Behind, Page, Place, Waits},
    },
    event::{Topic, position_of},
    router::{
        ledger::Gap,
        log::{LogEvent, Notice},
    },
    stats::Stats,
};

/// Most events that are looked at for one session before the next has its turn.
const SLICE_EVENTS: usize = 512;
/// Most bytes that are queued for a session that is behind. The rest waits where it is, in the log
/// or the store.
const QUEUED_BYTES: usize = 256 << 10;

/// What a slice ended with.
pub(super) enum Ended {
    /// More can be done when the others had their turn and the socket has taken this.
    Slice,
    Joined,
    Waits(Waits),
    /// A page has to be read first.
    Needs(u64),
    /// The store does not hold all of it any more.
    Lost,
}

impl Members {
    /// Looks at what follows, from the store and then from the log. Gives how many events that were.
    pub(super) fn slice(&self, id: SessionId, behind: &mut Behind) -> (usize, Ended) {
        let here = (self.position, self.done);
        let Casting { log, pages, stats, .. } = &*self.casting;
        let Some(member) = self.members.get(&id) else { return (0, Ended::Waits(Waits::Room)) };
        let mut looked_at = 0;
        loop {
            if looked_at >= SLICE_EVENTS || member.is_full() {
                return (looked_at, Ended::Slice);
            }
            match behind.place {
                Place::Seq(seq) => {
                    if let Some(segment) = log.find(seq) {
                        let slice = log.read(segment, 1);
                        if slice.missed > 0 {
                            // It has left between the two questions.
                            continue;
                        }
                        let Some(heads) = log.heads_before(segment) else { continue };
                        member.tell_unheard(behind, &heads.positions, stats);
                        if !behind.from_store {
                            behind.cursor.positions.clone_from(&heads.positions);
                        }
                        let events = slice.segments.first().map_or(&[][..], |one| &one.events);
                        let done = events.partition_point(|event| event.sequenced.seq <= seq);
                        behind.place = Place::Log { segment, done };
                        continue;
                    }
                    let covers = |page: &Arc<Page>| (page.after..page.through).contains(&seq);
                    let page = behind.page.take().filter(covers).or_else(|| pages.shelved(seq));
                    let Some(page) = page else { return (looked_at, Ended::Needs(seq)) };
                    let told = seq.max(behind.told_deleted);
                    if let Some(deleted) = page.deleted_seq.filter(|deleted| *deleted > told) {
                        if !member.send_kept(behind) {
                            return (looked_at, Ended::Slice);
                        }
                        // Said once, and what is left follows: deleted is what is old by its own time.
                        behind.told_deleted = deleted;
                        return (looked_at, Ended::Lost);
                    }
                    let from = page.count_through(seq);
                    let most = (SLICE_EVENTS - looked_at).min(page.events.len() - from);
                    let batch = &page.events[from..from + most];
                    let most = member.tell_before(behind, batch, stats);
                    let cast = member.cast_past(behind, &page.events[from..from + most], stats);
                    looked_at += most;
                    let done = from + cast;
                    let at = match page.events[from..done].last() {
                        _ if done == page.events.len() => page.through,
                        Some(last) => last.sequenced.seq,
                        None => seq,
                    };
                    behind.advance_cursor(page.events[from..done].last(), at);
                    behind.place = Place::Seq(at);
                    behind.page = Some(page);
                    behind.from_store = true;
                    if cast < most {
                        return (looked_at, Ended::Slice);
                    }
                }
                Place::Log { segment, done }
                    if (segment, done) == here
                        && !self.is_telling()
                        && !behind.begins_above(behind.cursor.seq) =>
                {
                    let is_all = member.send_kept(behind);
                    return (looked_at, if is_all { Ended::Joined } else { Ended::Slice });
                }
                Place::Log { segment, done } if (segment, done) >= here => {
                    return (looked_at, Ended::Waits(Waits::Shard));
                }
                Place::Log { segment, done } => {
                    let slice = log.read(segment, 1);
                    let Some(found) = slice.segments.first().filter(|_| slice.missed == 0) else {
                        // It has left meanwhile, and is in the store.
                        behind.place = Place::Seq(behind.cursor.seq);
                        continue;
                    };
                    if done == 0 {
                        let most = SLICE_EVENTS - looked_at;
                        let (told, is_all) =
                            member.tell_past(behind, segment, &found.notices, most);
                        looked_at += told;
                        if !is_all {
                            return (looked_at, Ended::Slice);
                        }
                    }
                    let is_here = segment == here.0;
                    let end = if is_here { here.1 } else { found.events.len() };
                    let most = (SLICE_EVENTS - looked_at).min(end - done);
                    let cast = member.cast_past(behind, &found.events[done..done + most], stats);
                    // An empty segment is work, too.
                    looked_at += most.max(1);
                    let done = done + cast;
                    if let Some(last) = found.events[..done].last() {
                        behind.advance_cursor(Some(last), last.sequenced.seq);
                    }
                    behind.place = match done < found.events.len() || is_here {
                        true => Place::Log { segment, done },
                        false => {
                            // How far topics came in it is known at its end.
                            behind.cursor = found.cursor();
                            Place::Log { segment: segment + 1, done: 0 }
                        }
                    };
                    if cast < most {
                        return (looked_at, Ended::Slice);
                    }
                }
            }
        }
    }
}

impl Member {
    /// Queues the gaps that are open, that its client does not know of, and that had been noticed when
    /// topics had come this far.
    fn tell_unheard(&self, behind: &mut Behind, heads: &[(Topic, u64)], stats: &Stats) {
        let unheard = &mut behind.unheard;
        if unheard.is_empty() {
            return;
        }
        let is_new = |gap: &Gap| {
            position_of(unheard, gap.topic).is_some_and(|heard| gap.last > heard)
                && position_of(heads, gap.topic).is_some_and(|head| gap.last <= head)
        };
        let gaps = stats.router.gaps.newest(TOLD_GAPS, is_new);
        let frames = gaps.iter().filter_map(|gap| self.dialect.gap(gap, false));
        frames.for_each(|frame| self.wire.force(frame));
        heads.iter().for_each(|&(topic, head)| behind.has_heard(topic, head));
    }

    /// Queues the gaps before the first of these events, which come from the store. Gives how many of them
    /// come before the next gap: no cursor beyond one is sent without it.
    fn tell_before(&self, behind: &mut Behind, events: &[LogEvent], stats: &Stats) -> usize {
        let Some(first) = events.first().filter(|_| !behind.unheard.is_empty()) else {
            return events.len();
        };
        self.tell_unheard(behind, &first.cursor().positions, stats);
        let next = |&(topic, heard): &(Topic, u64)| {
            stats.router.gaps.next_end(topic, heard).map(|end| (topic, end))
        };
        let next: Vec<_> = behind.unheard.iter().filter_map(next).collect();
        let is_beyond = |event: &LogEvent| {
            let id = &event.sequenced.event.id;
            position_of(&next, id.topic).is_some_and(|end| id.position >= end)
        };
        events.iter().skip(1).position(is_beyond).map_or(events.len(), |before| before + 1)
    }

    /// Queues what its dialect has for the notices of a segment that it was not told, of the topics it
    /// follows: so many at most, and as long as there is room. Gives how many that were, and whether no
    /// more are left.
    fn tell_past(
        &self,
        behind: &mut Behind,
        segment: u64,
        notices: &[Notice],
        most: usize,
    ) -> (usize, bool) {
        if behind.told.0 != segment {
            behind.told = (segment, 0);
        }
        let before = behind.told.1;
        while let Some(notice) = notices.get(behind.told.1) {
            if behind.told.1 - before >= most || self.is_full() {
                return (behind.told.1 - before, false);
            }
            let (gap, closed) = notice.gap();
            if self.topics.contains(&gap.topic)
                && let Some(frame) = self.dialect.gap(gap, closed)
            {
                self.wire.force(frame);
            }
            behind.has_heard(gap.topic, gap.last);
            behind.told.1 += 1;
        }
        (behind.told.1 - before, true)
    }

    /// Whether as much waits as may for who is behind.
    fn is_full(&self) -> bool {
        self.wire.waiting_bytes() >= QUEUED_BYTES.min(self.max_queued)
    }
}
