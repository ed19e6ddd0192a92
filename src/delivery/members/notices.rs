//! Tells the sessions that are live what is in the log besides events.

use bytes::Bytes;

use super::{Members, Work};
use crate::{
    delivery::{outbox::Full, replay::Cause},
    router::log::{ENCODINGS, Notice, Segment},
};

impl Members {
    /// Tells what is not told yet of a segment's notices, as much as fits into the turn. Gives whether that
    /// is all of them.
    pub(super) fn tell_notices(&mut self, segment: &Segment, left: &mut Work) -> bool {
        while let Some(notice) = segment.notices.get(self.told) {
            if left.is_spent() {
                return false;
            }
            left.spend(Work { events: 1, frames: self.tell(notice) });
            self.told += 1;
        }
        true
    }

    /// Whether notices of a segment are told and no event of it is done: whoever joined here would miss
    /// some.
    pub(super) fn is_telling(&self) -> bool {
        self.done == 0 && self.told > 0
    }

    /// Tells subscribers of its topic what their dialect has for a notice. Gives how many sessions were
    /// looked at: that is the work.
    fn tell(&mut self, notice: &Notice) -> usize {
        let (gap, closed) = notice.gap();
        let mut fallen = Vec::new();
        let mut frames: [Option<Option<Bytes>>; ENCODINGS] = Default::default();
        for (&id, member) in &mut self.members {
            if member.is_live()
                && member.topics.contains(&gap.topic)
                && let Some(frame) = frames[member.dialect.encoding()]
                    .get_or_insert_with(|| member.dialect.gap(gap, closed))
                    .clone()
            {
                match member.wire.push(frame) {
                    Ok(()) => member.touch(id, &mut self.flushing.touched),
                    Err(Full) => fallen.push(id),
                }
            }
        }
        for id in fallen {
            self.fall_behind(id, self.here(), self.delivered.clone(), Cause::Slow);
        }
        self.members.len()
    }
}
