//! What several sessions get of a burst, put together once for all of them.
//!
//! A frame is encoded once for all workers. But if each of them counted, session by session, who still has it,
//! they would wait for each other: with ten thousand sessions of two workers that was a quarter of the
//! program's part of a delivery. A bundle is a copy for the sessions of one worker, and one piece of a write.

use std::{collections::HashMap, rc::Rc};

use ahash::RandomState;

use super::burst::{BURST_EVENTS, Burst, Share};
use crate::delivery::{bundle::Bundle, view::Views};

/// Most bytes of a bundle.
const BUNDLE_BYTES: usize = 64 << 10;
/// Sessions from which on a frame is copied for them.
const AUDIENCE: usize = 4;
/// Most kinds of sessions that bundles are made for. More have little in common.
const KINDS: usize = 64;

const _: () = assert!(BURST_EVENTS <= u32::BITS as usize);

/// Sessions of one kind get the same bytes of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub encoding: usize,
    pub packs_from: usize,
    views: Views,
    /// A bit for each event.
    events: u32,
}

/// The bundles of one burst.
#[derive(Debug, Default)]
pub(super) struct Bundles(HashMap<Kind, Known, RandomState>);

#[derive(Debug)]
enum Known {
    /// To one session: as long as it is the only one, a bundle gains nothing.
    One,
    /// What all others get; none, if it would be too long or has no frames.
    Several(Option<Rc<Bundle>>),
}

impl Kind {
    /// The kind of a session that gets these events of a burst. None: nobody looks for others of it.
    pub fn of(encoding: usize, packs_from: usize, shares: &[Share], burst: &Burst) -> Option<Self> {
        let first = shares.first()?;
        let views = first.interest.views();
        let is_alike = shares.iter().all(|share| share.interest.views() == views);
        if !is_alike || burst.audience(first.at) < AUDIENCE {
            return None;
        }
        let bits = shares.iter().map(|share| 1 << (share.at % BURST_EVENTS));
        Some(Self { encoding, packs_from, views, events: bits.sum() })
    }
}

impl Bundles {
    /// Forgets the last burst.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Gives what a session of this kind gets, if it is not the first one.
    pub fn get(
        &mut self,
        kind: Kind,
        make: impl FnOnce() -> Option<Bundle>,
    ) -> Option<&Rc<Bundle>> {
        if self.0.len() >= KINDS && !self.0.contains_key(&kind) {
            return None;
        }
        let mut is_new = false;
        let known = self.0.entry(kind).or_insert_with(|| {
            is_new = true;
            Known::One
        });
        if is_new {
            return None;
        }
        if let Known::One = known {
            let bundle = make().filter(|bundle| bundle.bytes().len() <= BUNDLE_BYTES);
            *known = Known::Several(bundle.map(Rc::new));
        }
        match known {
            Known::Several(bundle) => bundle.as_ref(),
            Known::One => None,
        }
    }
}
