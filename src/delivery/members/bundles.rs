//! What several sessions get of a burst, put together once for all of them.
//!
//! A frame is encoded once for all workers. But if each of them counted, session by session, who still has it,
//! they would wait for each other: with ten thousand sessions of two workers that was a quarter of the
//! program's part of a delivery. A bundle is a copy for the sessions of one worker, and one piece of a write.

use std::{collections::HashMap, rc::Rc};

use ahash::RandomState;

use super::burst::{BURST_EVENTS, Burst, Share};
use crate::delivery::{bundle::Bundle, view::Views};

/// Most bytes of a bundle: 32 frames of a fill are 20 KB, and a client that is too slow for it gets a copy of
/// its own.
pub(super) const BUNDLE_BYTES: usize = 64 << 10;
/// Where no event of a session is wanted by more, copies are not looked for.
const AUDIENCE: usize = 4;
/// Most kinds of sessions that are known at one time.
const KINDS: usize = 64;

// Each event of a burst has a bit.
const _: () = assert!(BURST_EVENTS <= u32::BITS as usize);

/// Sessions of one kind get the same bytes of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    encoding: usize,
    packs_from: usize,
    views: Views,
    /// A bit for each event.
    events: u32,
}

/// The bundles of one burst.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    kinds: HashMap<Kind, Known, RandomState>,
    /// Kinds of which one session was met.
    single: usize,
}

#[derive(Debug)]
enum Known {
    /// By one session: as long as it is the only one, a bundle gains nothing.
    Single,
    /// What all others get. None, if it would be too long or has no frames: they get it frame by frame.
    Several(Option<Rc<Bundle>>),
}

impl Kind {
    /// The kind of a session that gets these events of a burst, with an encoding, and compressed from some length
    /// on. None: nobody looks for others of it.
    pub fn of(encoding: usize, packs_from: usize, shares: &[Share], burst: &Burst) -> Option<Self> {
        let views = shares.first()?.interest.views();
        let is_alike = shares.iter().all(|share| share.interest.views() == views);
        if !is_alike || burst.audience(shares) < AUDIENCE {
            return None;
        }
        // Events of a burst are consecutive.
        let bit = |share: &Share| 1_u32 << (share.at % BURST_EVENTS);
        let events = shares.iter().map(bit).fold(0, |bits, bit| bits | bit);
        Some(Self { encoding, packs_from, views, events })
    }
}

impl Bundles {
    /// Forgets the last burst.
    pub fn clear(&mut self) {
        self.kinds.clear();
        self.single = 0;
    }

    /// Gives what a session of this kind gets, made for the second one. None: it gets it frame by frame.
    pub fn get(
        &mut self,
        kind: Kind,
        make: impl FnOnce() -> Option<Bundle>,
    ) -> Option<&Rc<Bundle>> {
        if !self.kinds.contains_key(&kind) {
            self.meet(kind);
            return None;
        }
        let known = self.kinds.get_mut(&kind)?;
        if let Known::Single = known {
            *known = Known::Several(make().map(Rc::new));
            self.single -= 1;
        }
        match known {
            Known::Several(bundle) => bundle.as_ref(),
            Known::Single => None,
        }
    }

    /// Notes a new kind, instead of those of which only one session was met if there are too many.
    fn meet(&mut self, kind: Kind) {
        if self.kinds.len() >= KINDS && self.single > 0 {
            self.kinds.retain(|_, known| matches!(known, Known::Several(_)));
            self.single = 0;
        }
        if self.kinds.len() < KINDS {
            self.kinds.insert(kind, Known::Single);
            self.single += 1;
        }
    }
}

#[cfg(test)]
mod tests;
