//! What a subscription gets that its client is too slow for.
//!
//! Place in the pipeline: asked for with the subscription; heeded while its session is behind.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::subscription::written;
use crate::event::Event;

/// What becomes of events that a slow client could not take when they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// All of them follow, and a client that takes nothing for too long is disconnected.
    #[default]
    Disconnect,
    /// They are passed over, and the client is told so.
    Skip,
    /// Of each value of a key the newest one follows.
    Conflate(Key),
}

/// What events are told apart by when only the newest ones count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    Coin,
    Side,
    Dir,
    User,
}

impl Policy {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Key {
    /// What an event has for it, if it has anything.
    pub fn value(self, event: &Event) -> Option<Arc<str>> {
        let name = match self {
            Self::Coin => "coin",
            Self::Side => "side",
            Self::Dir => "dir",
            Self::User => return event.user.map(|user| user.to_string().into()),
        };
        event.key(name).map(|raw| written(raw).into())
    }
}
