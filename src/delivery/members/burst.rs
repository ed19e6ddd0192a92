//! Who wants which of the events that are cast together, session by session.
//!
//! To go to a session is a walk through memory that was left long ago, so it is gone once for all that it gets
//! of a burst.

use crate::{
    delivery::index::{Index, Interest, SessionId},
    router::log::LogEvent,
};

/// Most events of a burst: one bit of a [`u32`] each.
pub(super) const BURST_EVENTS: usize = 32;

/// Some consecutive events of a segment, and who wants them.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// The place of the first one in its segment.
    from: usize,
    len: usize,
    /// For each event, by order of the sessions; reused from burst to burst.
    interests: Vec<Vec<Interest>>,
}

/// One of the events, as a session gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Its place in the segment.
    pub at: usize,
    pub interest: Interest,
}

/// A walk over the sessions.
pub(super) struct Walk<'a> {
    /// Those that want something and were not met yet, for each event for which there are any.
    left: Vec<(usize, &'a [Interest])>,
}

impl Burst {
    /// Takes the next of these events until they are to be queued `most` times, one at least. Gives how often
    /// they are.
    pub fn gather(
        &mut self,
        index: &Index,
        events: &[LogEvent],
        from: usize,
        most: usize,
    ) -> usize {
        (self.from, self.len) = (from, 0);
        let mut frames = 0;
        for event in events[from..].iter().take(BURST_EVENTS) {
            if self.interests.len() == self.len {
                self.interests.push(Vec::new());
            }
            let interests = &mut self.interests[self.len];
            index.interested(&event.sequenced.event, interests);
            frames += interests.len();
            self.len += 1;
            if frames >= most {
                break;
            }
        }
        frames
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many sessions want this one of its events.
    pub fn audience(&self, at: usize) -> usize {
        self.interests[at - self.from].len()
    }

    pub fn walk(&self) -> Walk<'_> {
        let lists = self.interests[..self.len].iter().enumerate();
        let left = lists.map(|(nth, interests)| (self.from + nth, &**interests));
        Walk { left: left.filter(|(_, interests)| !interests.is_empty()).collect() }
    }
}

impl Walk<'_> {
    /// Gives some of the next sessions.
    pub fn ahead(&self) -> impl Iterator<Item = SessionId> {
        let longest = self.left.iter().max_by_key(|(_, interests)| interests.len());
        longest.into_iter().flat_map(|(_, interests)| *interests).map(|one| one.session())
    }

    /// Writes what the next session gets into `shares`, by order of the events.
    pub fn next(&mut self, shares: &mut Vec<Share>) -> Option<SessionId> {
        let session = self.left.iter().map(|(_, interests)| interests[0].session()).min()?;
        shares.clear();
        self.left.retain_mut(|(at, interests)| {
            if interests[0].session() == session {
                shares.push(Share { at: *at, interest: interests[0] });
                *interests = &interests[1..];
            }
            !interests.is_empty()
        });
        Some(session)
    }
}
