//! Who wants an event: the subscriptions of one shard by topic and user.
//!
//! Place in the pipeline: asked by the shard for each event, changed by its sessions.
//! Invariant: a session is named once for an event, however many of its subscriptions match.

use std::{collections::HashMap, sync::Arc};

use ahash::RandomState;

use super::subscription::{Change, ChangeKind, Conditions, Users};
use crate::event::{Address, Event, Topic};

/// A session in its shard; never used twice.
pub type SessionId = u64;

/// The interested sessions of one shard, by topic and user.
#[derive(Debug, Default)]
pub struct Index {
    topics: HashMap<Topic, TopicIndex, RandomState>,
}

#[derive(Debug, Default)]
struct TopicIndex {
    all: Entries,
    users: HashMap<Address, Entries, RandomState>,
}

/// Ordered by session and subscription, so that leaving costs a binary search.
#[derive(Debug, Default)]
struct Entries(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    session: SessionId,
    subscription: u32,
    conditions: Option<Arc<Conditions>>,
}

impl Index {
    /// Nobody wants anything.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Applies what a session has changed. A change that was made already changes nothing.
    pub fn apply(&mut self, session: SessionId, change: &Change) {
        let topic = self.topics.entry(change.topic).or_default();
        match (&change.users, change.kind) {
            (Users::All, ChangeKind::Follow) => topic.all.add(session, change),
            (Users::All, ChangeKind::Unfollow) => topic.all.remove(session, change.key),
            (Users::Listed(users), ChangeKind::Follow) => {
                for &user in users {
                    topic.users.entry(user).or_default().add(session, change);
                }
            }
            (Users::Listed(users), ChangeKind::Unfollow) => {
                for user in users {
                    let Some(entries) = topic.users.get_mut(user) else { continue };
                    entries.remove(session, change.key);
                    if entries.0.is_empty() {
                        topic.users.remove(user);
                    }
                }
            }
        }
        if topic.all.0.is_empty() && topic.users.is_empty() {
            self.topics.remove(&change.topic);
        }
    }

    /// Writes the sessions that want `event` into `sessions`, in ascending order.
    pub fn interested(&self, event: &Event, sessions: &mut Vec<SessionId>) {
        sessions.clear();
        let Some(topic) = self.topics.get(&event.id.topic) else { return };
        topic.all.matching(event, sessions);
        if let Some(user) = event.user
            && let Some(entries) = topic.users.get(&user)
        {
            entries.matching(event, sessions);
            // Two ordered runs, or one: this sort sees that.
            sessions.sort();
        }
        sessions.dedup();
    }
}

impl Entries {
    fn find(&self, session: SessionId, subscription: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&(session, subscription), |entry| {
            (entry.session, entry.subscription)
        })
    }

    fn add(&mut self, session: SessionId, change: &Change) {
        if let Err(place) = self.find(session, change.key) {
            let conditions = change.conditions.clone();
            self.0.insert(place, Entry { session, subscription: change.key, conditions });
        }
    }

    fn remove(&mut self, session: SessionId, subscription: u32) {
        if let Ok(place) = self.find(session, subscription) {
            self.0.remove(place);
        }
    }

    fn matching(&self, event: &Event, sessions: &mut Vec<SessionId>) {
        let wants = |entry: &&Entry| entry.conditions.as_ref().is_none_or(|c| c.hold(event));
        sessions.extend(self.0.iter().filter(wants).map(|entry| entry.session));
    }
}

#[cfg(test)]
mod tests;
