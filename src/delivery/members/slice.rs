//! What one session that is behind gets at one time, and by what that ends.

use std::sync::Arc;

use super::{Member, Members};
use crate::delivery::{
    Casting,
    index::SessionId,
    replay::{Behind, Page, Place, Waits},
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
        let Some(member) = self.members.get(&id) else { return (0, Ended::Waits(Waits::Room)) };
        behind.room = self.casting.replay_room();
        let mut looked_at = 0;
        while looked_at < SLICE_EVENTS && !member.is_full(behind.room) {
            let most = SLICE_EVENTS - looked_at;
            let (more, ended) = match behind.place {
                Place::Seq(seq) => match self.place_in_log(seq) {
                    Some(place) => {
                        behind.place = place;
                        (0, None)
                    }
                    None => self.slice_of_store(member, behind, seq, most),
                },
                Place::Log { segment, done } => {
                    self.slice_of_log(member, behind, (segment, done), most)
                }
            };
            looked_at += more;
            if let Some(ended) = ended {
                return (looked_at, ended);
            }
        }
        (looked_at, Ended::Slice)
    }

    /// Where what follows a `seq` begins in the log, if all of it is there.
    fn place_in_log(&self, seq: u64) -> Option<Place> {
        let log = &self.casting.log;
        loop {
            let segment = log.find(seq)?;
            let slice = log.read(segment, 1);
            // Else it has left between the two questions.
            if slice.missed == 0 {
                let events = slice.segments.first().map_or(&[][..], |one| &one.events);
                let done = events.partition_point(|event| event.sequenced.seq <= seq);
                return Some(Place::Log { segment, done });
            }
        }
    }

    /// Looks at what follows a `seq` in its page.
    fn slice_of_store(
        &self,
        member: &Member,
        behind: &mut Behind,
        seq: u64,
        most: usize,
    ) -> (usize, Option<Ended>) {
        let Casting { pages, stats, .. } = &*self.casting;
        let read_from = behind.read_from(seq);
        let covers = |page: &Arc<Page>| (page.after..page.through).contains(&read_from);
        let page = behind.page.take().filter(covers).or_else(|| pages.shelved(read_from));
        let Some(page) = page else { return (0, Some(Ended::Needs(read_from))) };
        if page.through <= seq && read_from < seq {
            behind.read_from_here(seq);
            return (0, None);
        }
        let told = seq.max(behind.told_deleted);
        if let Some(deleted) = page.deleted_seq.filter(|deleted| *deleted > told) {
            if !member.send_kept(behind) {
                return (0, Some(Ended::Slice));
            }
            // Said once, and what is left follows: deleted is what is old by its own time.
            behind.told_deleted = deleted;
            return (0, Some(Ended::Lost));
        }
        let next = page.count_through(seq);
        let batch = &page.events[next..page.events.len().min(next + most)];
        let (gaps, before) = member.tell_before(behind, batch, &stats.router.gaps);
        let cast = member.cast_past(behind, &page.events, next..next + before, stats);
        let done = next + cast;
        let at = match page.events[next..done].last() {
            _ if done == page.events.len() => page.through,
            Some(last) => last.sequenced.seq,
            None => seq,
        };
        behind.advance_cursor(page.events[next..done].last(), at);
        behind.note_block(&page.events, done);
        behind.place = Place::Seq(at);
        behind.page = Some(page);
        (gaps + before, (cast < before).then_some(Ended::Slice))
    }

    /// Looks at what follows in the log behind so many events of a segment.
    fn slice_of_log(
        &self,
        member: &Member,
        behind: &mut Behind,
        (segment, done): (u64, usize),
        most: usize,
    ) -> (usize, Option<Ended>) {
        let Casting { log, stats, .. } = &*self.casting;
        let open = &stats.router.gaps;
        let here = (self.position, self.done);
        let Some(entered) = member.enter(behind, (segment, done), log, open) else {
            // It has left meanwhile, and is in the store.
            behind.leave_log();
            return (0, None);
        };
        if (segment, done) >= here {
            if (segment, done) > here || self.is_telling() || behind.begins_above(behind.cursor.seq)
            {
                return (entered, Some(Ended::Waits(Waits::Shard)));
            }
            // The live ones were told at its beginning.
            let current = self.current.as_ref().filter(|_| done > 0);
            let gaps =
                current.map_or(0, |now| member.tell_gaps(behind, &now.heads().positions, open));
            let is_all = member.send_kept(behind);
            return (entered + gaps, Some(if is_all { Ended::Joined } else { Ended::Slice }));
        }
        let slice = log.read(segment, 1);
        let Some(found) = slice.segments.first().filter(|_| slice.missed == 0) else {
            behind.leave_log();
            return (0, None);
        };
        let (told, is_all) = member.tell_notices(behind, &found.notices, most);
        if !is_all {
            return (entered + told, Some(Ended::Slice));
        }
        let is_here = segment == here.0;
        let end = if is_here { here.1 } else { found.events.len() };
        let batch = &found.events[done..end.min(done + most)];
        let (gaps, before) = member.tell_before(behind, batch, open);
        let cast = member.cast_past(behind, &found.events, done..done + before, stats);
        // An empty segment is work, too.
        let mut looked_at = entered + told + gaps + before.max(1);
        let done = done + cast;
        if let Some(last) = found.events[..done].last() {
            behind.advance_cursor(Some(last), last.sequenced.seq);
            behind.note_block(&found.events, done);
        }
        behind.place = match done < found.events.len() || is_here {
            true => Place::Log { segment, done },
            false => {
                // How far topics came in it is known at its end.
                looked_at += member.tell_gaps(behind, &found.heads().positions, open);
                behind.cursor = found.cursor();
                behind.note_block(&found.events, done);
                Place::Log { segment: segment + 1, done: 0 }
            }
        };
        (looked_at, (cast < before).then_some(Ended::Slice))
    }
}

impl Member {
    /// Whether as much waits as may for who is behind and has so much room.
    pub(super) fn is_full(&self, room: usize) -> bool {
        self.wire.waiting_bytes() >= QUEUED_BYTES.min(self.max_queued).min(room)
    }
}
