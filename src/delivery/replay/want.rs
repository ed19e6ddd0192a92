//! What a session that is behind wants, and what becomes of an event by it.

use super::kept::Slot;
use crate::{
    delivery::{
        policy::Policy,
        subscription::{Subscription, Wanted},
        view::Views,
    },
    event::Topic,
};

/// What becomes of an event.
#[derive(Debug)]
pub enum Fate {
    /// No subscription wants it.
    Pass,
    Send(Views),
    /// Only the newest of these values are sent.
    Keep(Vec<Slot>),
}

/// One subscription of a session that is behind.
#[derive(Default)]
pub(super) struct Want {
    /// The `seq` behind which it begins.
    pub begins: u64,
    /// It has asked for the past, and gets all of it: that it is behind is no fault of its client.
    pub asked: bool,
    /// None: it gets everything.
    pub special: Option<Box<Special>>,
}

/// A subscription that does not need everything.
pub(super) struct Special {
    pub policy: Policy,
    pub topic: Topic,
    /// As its client calls it.
    pub id: Box<str>,
}

/// Why a session is not live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its client takes too little: policies decide what it gets.
    Slow,
    /// It has asked for the past, or its shard has missed something: it gets all of it.
    Past,
}

impl Special {
    pub fn of(id: &str, subscription: &Subscription) -> Option<Box<Self>> {
        let Wanted { policy, topic, .. } = subscription.wanted;
        (!policy.is_default()).then(|| Box::new(Self { policy, topic, id: id.into() }))
    }
}
