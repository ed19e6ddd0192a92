//! The newest events by key, of what a slow session has missed.
//!
//! Place in the pipeline: filled as a session that is behind reads on; taken out in their order when it
//! has come to the end, or when something else has to go behind them.
//! Invariants: they leave in the order of `seq`; bounded in keys and bytes by who fills it; their bytes
//! count among those that wait for clients.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ahash::RandomState;
use bytes::Bytes;

use crate::{event::Cursor, stats::Stats};

/// Most events that are kept for one session.
const MAX_EVENTS: usize = 10_000;

/// A subscription, and one value of its key.
pub type Slot = (u32, Arc<str>);

/// An event that is the newest of a value.
pub struct Newest {
    pub frame: Bytes,
    pub cursor: Cursor,
    /// What it came for. Of some of them there may be a newer one.
    slots: Vec<Slot>,
    /// For how many of them it is the newest.
    uses: usize,
}

/// The newest event of each value.
pub struct Kept {
    events: BTreeMap<u64, Newest>,
    newest: HashMap<Slot, u64, RandomState>,
    bytes: usize,
    stats: Arc<Stats>,
}

impl Kept {
    pub fn new(stats: Arc<Stats>) -> Self {
        Self { events: BTreeMap::new(), newest: HashMap::default(), bytes: 0, stats }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The one that goes first, and its `seq`.
    pub fn first(&self) -> Option<(u64, &Newest)> {
        self.events.first_key_value().map(|(seq, first)| (*seq, first))
    }

    /// Whether one has to go before another is kept.
    pub fn is_full(&self, max_bytes: usize) -> bool {
        self.events.len() >= MAX_EVENTS || self.bytes >= max_bytes
    }

    /// Keeps an event in place of the older ones of the same values. A second time changes nothing.
    pub fn keep(&mut self, seq: u64, frame: Bytes, cursor: Cursor, slots: Vec<Slot>) {
        if self.events.contains_key(&seq) {
            return;
        }
        for slot in &slots {
            if let Some(older) = self.newest.insert(slot.clone(), seq) {
                self.give_up(older);
            }
        }
        self.add_bytes(frame.len() as i64);
        let uses = slots.len();
        self.events.insert(seq, Newest { frame, cursor, slots, uses });
    }

    /// Takes the first one out: it is sent.
    pub fn pop(&mut self) -> Option<Newest> {
        let (seq, first) = self.events.pop_first()?;
        for slot in &first.slots {
            if self.newest.get(slot) == Some(&seq) {
                self.newest.remove(slot);
            }
        }
        self.add_bytes(-(first.frame.len() as i64));
        Some(first)
    }

    /// A subscription wants nothing any more.
    pub fn forget(&mut self, subscription: u32) {
        let gone: Vec<_> = self.newest.extract_if(|slot, _| slot.0 == subscription).collect();
        for (_, seq) in gone {
            self.give_up(seq);
        }
    }

    /// An event is not the newest of one of its values any more.
    fn give_up(&mut self, seq: u64) {
        let Some(event) = self.events.get_mut(&seq) else { return };
        event.uses -= 1;
        if event.uses == 0
            && let Some(gone) = self.events.remove(&seq)
        {
            self.add_bytes(-(gone.frame.len() as i64));
            self.stats.sessions.conflated.add(1);
        }
    }

    fn add_bytes(&mut self, more: i64) {
        self.bytes = self.bytes.saturating_add_signed(more as isize);
        self.stats.sessions.outbox_bytes.add(more);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stats.sessions.outbox_bytes.add(-(self.bytes as i64));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn kept() -> (Kept, Arc<Stats>) {
        let stats = Arc::new(Stats::default());
        (Kept::new(stats.clone()), stats)
    }

    fn keep(kept: &mut Kept, seq: u64, slots: &BTreeSet<(u32, u8)>) {
        let cursor = Cursor { epoch: 1, run: 1, seq, positions: vec![] };
        let slots = slots.iter().map(|(key, value)| (*key, value.to_string().into())).collect();
        kept.keep(seq, Bytes::from(vec![0; seq as usize]), cursor, slots);
    }

    proptest! {
        #[test]
        fn what_leaves_is_the_newest_of_each_value_in_order(
            events in prop::collection::vec(
                (prop::collection::btree_set((0_u32..3, 0_u8..4), 1..4), 0_u8..10), 1..60),
        ) {
            // Slow and obvious: who has which value, and nothing else.
            let mut model: Vec<(u64, BTreeSet<(u32, u8)>)> = Vec::new();
            let (mut kept, stats) = kept();
            for (seq, (slots, what)) in (1..).zip(&events) {
                for (_, older) in &mut model {
                    older.retain(|slot| !slots.contains(slot));
                }
                model.push((seq, slots.clone()));
                keep(&mut kept, seq, slots);
                // Once more, as where it is read again.
                keep(&mut kept, seq, slots);
                match what {
                    0 => {
                        model.iter_mut().for_each(|(_, slots)| slots.retain(|slot| slot.0 != 1));
                        kept.forget(1);
                    }
                    1 => {
                        model.retain(|(_, slots)| !slots.is_empty());
                        let first = model.remove(0);
                        prop_assert_eq!(kept.pop().unwrap().cursor.seq, first.0);
                        if model.is_empty() {
                            prop_assert!(kept.first().is_none());
                        }
                    }
                    _ => {}
                }
                model.retain(|(_, slots)| !slots.is_empty());
                let bytes = model.iter().map(|(seq, _)| *seq as usize).sum::<usize>();
                prop_assert_eq!(kept.bytes(), bytes);
                prop_assert_eq!(stats.sessions.outbox_bytes.get(), bytes as i64);
            }

            let left: Vec<_> = std::iter::from_fn(|| kept.pop()).map(|one| one.cursor.seq).collect();
            prop_assert_eq!(left, model.into_iter().map(|(seq, _)| seq).collect::<Vec<_>>());
            prop_assert!(kept.newest.is_empty());
        }
    }

    #[test]
    fn what_is_dropped_waits_for_nobody() {
        let (mut kept, stats) = kept();
        keep(&mut kept, 7, &[(0, 0)].into());
        assert_eq!(stats.sessions.outbox_bytes.get(), 7);

        drop(kept);

        assert_eq!(stats.sessions.outbox_bytes.get(), 0);
    }
}
