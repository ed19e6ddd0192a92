//! The distinct conditions of all subscriptions of a shard, each judged once for an event.
//!
//! Invariant: conditions that are equal have one number as long as anybody has them.

use std::{cell::Cell, collections::HashMap, sync::Arc};

use ahash::RandomState;

use crate::{delivery::subscription::Conditions, event::Event};

/// The number of some conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredicateId(u32);

#[derive(Debug, Default)]
pub struct Predicates {
    numbers: HashMap<Arc<Conditions>, PredicateId, RandomState>,
    slots: Vec<Slot>,
    free: Vec<PredicateId>,
    /// The event that is judged now: of an earlier one nothing is remembered.
    event: Cell<u64>,
}

#[derive(Debug)]
struct Slot {
    /// None: the number is free.
    conditions: Option<Arc<Conditions>>,
    uses: usize,
    /// For which event it was judged last, and how.
    judged: Cell<(u64, bool)>,
}

impl Predicates {
    /// Gives the number of conditions, which is theirs until it is given back as often.
    pub fn take(&mut self, conditions: &Arc<Conditions>) -> PredicateId {
        let id = match self.numbers.get(conditions) {
            Some(&id) => id,
            None => {
                let slot =
                    Slot { conditions: Some(conditions.clone()), uses: 0, judged: Cell::default() };
                let id = match self.free.pop() {
                    Some(id) => {
                        self.slots[id.0 as usize] = slot;
                        id
                    }
                    None => {
                        self.slots.push(slot);
                        PredicateId(self.slots.len() as u32 - 1)
                    }
                };
                self.numbers.insert(conditions.clone(), id);
                id
            }
        };
        self.slots[id.0 as usize].uses += 1;
        id
    }

    pub fn give_back(&mut self, id: PredicateId) {
        let slot = &mut self.slots[id.0 as usize];
        slot.uses -= 1;
        if slot.uses == 0
            && let Some(conditions) = slot.conditions.take()
        {
            self.numbers.remove(&conditions);
            self.free.push(id);
        }
    }

    /// Begins another event.
    pub fn next_event(&self) {
        self.event.set(self.event.get() + 1);
    }

    /// Whether the conditions hold for the event that was begun.
    pub fn hold(&self, id: PredicateId, event: &Event) -> bool {
        let slot = &self.slots[id.0 as usize];
        let (judged, holds) = slot.judged.get();
        if judged == self.event.get() {
            return holds;
        }
        let holds = slot.conditions.as_ref().is_some_and(|conditions| conditions.hold(event));
        slot.judged.set((self.event.get(), holds));
        holds
    }

    /// How many distinct ones there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }
}
