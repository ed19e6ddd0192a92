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
    /// Who was given a number last: the places of one subscription come one after the other, and to find
    /// equal conditions takes reading all of them.
    last: Option<(Arc<Conditions>, PredicateId)>,
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
        let last = self.last.as_ref().filter(|(last, _)| Arc::ptr_eq(last, conditions));
        let last = last.map(|(_, id)| *id);
        let id = match last.or_else(|| self.numbers.get(conditions).copied()) {
            Some(id) => id,
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
        if last.is_none() {
            self.last = Some((conditions.clone(), id));
        }
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
            self.last.take_if(|(_, last)| *last == id);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn coin(name: &str) -> Arc<Conditions> {
        Arc::new(Conditions::new([("coin", vec![name.to_owned()])]))
    }

    #[test]
    fn a_number_that_is_given_anew_is_not_taken_for_the_last_one() {
        let mut predicates = Predicates::default();
        let (btc, eth) = (coin("BTC"), coin("ETH"));
        let first = predicates.take(&btc);
        assert_eq!([predicates.take(&btc), predicates.take(&coin("BTC"))], [first; 2]);
        (0..3).for_each(|_| predicates.give_back(first));
        assert_eq!(predicates.len(), 0);

        assert_eq!(predicates.take(&eth), first, "the place is free");
        assert_ne!(predicates.take(&btc), first);
        assert_eq!(predicates.len(), 2);
    }
}
