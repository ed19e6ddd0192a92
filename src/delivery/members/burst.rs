//! Who wants which of the events that are cast together, session by session.
//!
//! To visit a session is a walk through memory that the processor has to fetch, so each is visited once for all
//! that it gets of a burst.

use super::Work;
use crate::{
    delivery::index::{Index, Interest, SessionId},
    router::log::LogEvent,
};

/// Most events of a burst.
pub(super) const BURST_EVENTS: usize = 32;

/// Some consecutive events of a segment, and who wants them. It is reused from burst to burst: what it keeps is
/// bounded by the frames of a turn.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// The place of the first one in its segment.
    from: usize,
    /// For one event behind the other those who want it, by order of the sessions.
    interests: Vec<Interest>,
    /// Where those of each event end.
    ends: Vec<usize>,
    of_one: Vec<Interest>,
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
    /// Those that were not met yet, for each event for which there are any.
    left: Vec<(usize, &'a [Interest])>,
}

impl Burst {
    /// Takes the next of these events, one at least, until there is as much to do as is left of a turn. Gives how
    /// much that is.
    pub fn gather(&mut self, index: &Index, events: &[LogEvent], from: usize, left: Work) -> Work {
        self.from = from;
        self.interests.clear();
        self.ends.clear();
        for event in events[from..].iter().take(left.events.min(BURST_EVENTS)) {
            index.interested(&event.sequenced.event, &mut self.of_one);
            self.interests.extend_from_slice(&self.of_one);
            self.ends.push(self.interests.len());
            if self.interests.len() >= left.frames {
                break;
            }
        }
        Work { events: self.ends.len(), frames: self.interests.len() }
    }

    pub fn walk(&self) -> Walk<'_> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        let of_each = begins.zip(&self.ends).map(|(begin, &end)| &self.interests[begin..end]);
        let left = (self.from..).zip(of_each).filter(|(_, interests)| !interests.is_empty());
        Walk { left: left.collect() }
    }

    /// At most so many sessions get exactly these.
    pub fn audience(&self, shares: &[Share]) -> usize {
        let of_one = |share: &Share| {
            let nth = share.at - self.from;
            self.ends[nth] - nth.checked_sub(1).map_or(0, |before| self.ends[before])
        };
        shares.iter().map(of_one).min().unwrap_or(0)
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
