//! What one session has asked for.
//!
//! Place in the pipeline: a dialect changes it as its client says; each [`Change`] goes on to the
//! shard's index, which answers who wants an event.
//! Invariant: bounded by the limits of `session.*`.

mod conditions;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

pub use self::conditions::{Conditions, INDEXED, KEYS, MAX_VALUE_BYTES, written};
use super::{policy::Policy, view::Views};
use crate::{
    config::SessionConfig,
    event::{Address, Cursor, Topic},
    stats::SessionStats,
};

/// Most values of one subscription, of all its keys together.
const MAX_VALUES_OF_ONE: usize = 1_000;
/// Most values of all subscriptions of a session.
const MAX_VALUES: usize = 100_000;

/// Longest time for which live events may wait, so that several go out in one write.
pub const MAX_LINGER_MS: u16 = 1_000;

/// Whose events a subscription asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Users {
    All,
    Listed(BTreeSet<Address>),
}

impl Users {
    /// How many are named.
    pub fn named(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Listed(listed) => listed.len(),
        }
    }
}

/// What is subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub topic: Topic,
    pub users: Users,
    /// None when it asks for nothing beside topic and users.
    pub conditions: Option<Arc<Conditions>>,
    pub policy: Policy,
    /// How long its live events may wait.
    pub linger_ms: u16,
    /// What it gets of an event.
    pub views: Views,
}

impl Wanted {
    /// Everything of these users, however slow its client is.
    pub fn new(topic: Topic, users: Users) -> Self {
        let (policy, views) = (Policy::default(), Views::default());
        Self { topic, users, conditions: None, policy, linger_ms: 0, views }
    }
}

/// What a client asked for under one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its number in this session; never used twice.
    pub key: u32,
    pub wanted: Wanted,
}

/// What the index has to learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub key: u32,
    pub wanted: Wanted,
    /// It begins behind this place in the order of arrival; none: behind what is delivered now.
    pub begins: Option<Cursor>,
    /// Its client knows of the gaps of the topic up to this position; none: it asks for none of the past.
    pub heard: Option<u64>,
}

impl Change {
    /// The coins by which it is found, if it asks for everybody; none: by its users, or always.
    pub fn coins(&self) -> Option<&[Box<str>]> {
        match self.wanted.users {
            Users::All => self.wanted.conditions.as_ref()?.indexed(),
            Users::Listed(_) => None,
        }
    }

    /// By how many users or coins it is found.
    pub fn places(&self) -> usize {
        match &self.wanted.users {
            Users::All => self.coins().map_or(1, <[_]>::len),
            Users::Listed(users) => users.len(),
        }
    }

    /// Takes so many of its places off as a change of their own; none: it has no more than that. For ends
    /// only, to which it does not matter what else was asked for.
    pub fn split(&mut self, most: usize) -> Option<Self> {
        if self.places() <= most {
            return None;
        }
        let wanted = &mut self.wanted;
        let (users, conditions) = match &mut wanted.users {
            Users::Listed(users) => {
                let first = std::iter::from_fn(|| users.pop_first()).take(most).collect();
                (Users::Listed(first), wanted.conditions.clone())
            }
            Users::All => {
                let first = Arc::make_mut(wanted.conditions.as_mut()?).split_indexed(most)?;
                (Users::All, Some(Arc::new(first)))
            }
        };
        let first = Wanted { users, conditions, ..*wanted };
        Some(Self { wanted: first, begins: self.begins.clone(), ..*self })
    }
}

/// Whether the users of a change are to be followed from now on or no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Follow,
    Unfollow,
}

/// Why a subscription is refused. The text is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    #[error("there is a subscription with this id already")]
    DuplicateId,
    #[error("a session may have at most {0} subscriptions")]
    TooManySubscriptions(usize),
    #[error("a session may name at most {0} users, in all its subscriptions together")]
    TooManyUsers(usize),
    #[error("a subscription may name at most {0} users")]
    TooManyUsersOfOne(usize),
    #[error("a session may name at most {0} values in where, in all its subscriptions together")]
    TooManyValues(usize),
    #[error("a subscription may name at most {0} values in where")]
    TooManyValuesOfOne(usize),
}

impl SubscribeError {
    /// Counts what a session is refused because it is full.
    pub fn count(&self, stats: &SessionStats) {
        match self {
            Self::TooManySubscriptions(_) => stats.refused_subscriptions.add(1),
            Self::TooManyUsers(_) => stats.refused_users.add(1),
            Self::TooManyUsersOfOne(_) => stats.refused_users_of_one.add(1),
            Self::TooManyValues(_) | Self::TooManyValuesOfOne(_) => stats.refused_values.add(1),
            Self::DuplicateId => {}
        }
    }
}

/// All subscriptions of one session, by the id that its client gave.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// Boxed, as a node of the map has room for eleven and most sessions have one.
    by_id: BTreeMap<Box<str>, Box<Subscription>>,
    next_key: u32,
    /// Users named in all of them together; one that several name counts several times.
    users: usize,
    /// Values of conditions in all of them together.
    values: usize,
}

impl Subscriptions {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Those that begin with these letters, in order.
    pub fn ids_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = self.by_id.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(id, _)| &**id).take_while(move |id| id.starts_with(prefix))
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Users named in all of them together.
    pub fn users(&self) -> usize {
        self.users
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Subscription)> {
        self.by_id.iter().map(|(id, subscription)| (&**id, &**subscription))
    }

    /// Adds a subscription to everything that is wanted, however slow its client is.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn subscribe(
        &mut self,
        id: &str,
        topic: Topic,
        users: Users,
        conditions: Option<Arc<Conditions>>,
        limits: &SessionConfig,
    ) -> Result<Change, SubscribeError> {
        self.begin(id, Wanted { conditions, ..Wanted::new(topic, users) }, limits)
    }

    /// Adds a subscription.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn begin(
        &mut self,
        id: &str,
        wanted: Wanted,
        limits: &SessionConfig,
    ) -> Result<Change, SubscribeError> {
        if self.by_id.contains_key(id) {
            return Err(SubscribeError::DuplicateId);
        }
        if self.by_id.len() >= limits.max_subscriptions {
            return Err(SubscribeError::TooManySubscriptions(limits.max_subscriptions));
        }
        may_name(wanted.users.named(), limits)?;
        let named = self.users + wanted.users.named();
        if named > limits.max_users {
            return Err(SubscribeError::TooManyUsers(limits.max_users));
        }
        let of_one = named_values(wanted.conditions.as_ref());
        if of_one > MAX_VALUES_OF_ONE {
            return Err(SubscribeError::TooManyValuesOfOne(MAX_VALUES_OF_ONE));
        }
        let values = self.values + of_one;
        if values > MAX_VALUES {
            return Err(SubscribeError::TooManyValues(MAX_VALUES));
        }
        (self.users, self.values) = (named, values);
        let key = self.next_key;
        self.next_key += 1;
        let subscription = Subscription { key, wanted };
        let change = subscription.change(ChangeKind::Follow);
        self.by_id.insert(id.into(), Box::new(subscription));
        Ok(change)
    }

    /// Adds users to a subscription without conditions, which begins with this if need be.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn add_users(
        &mut self,
        id: &str,
        topic: Topic,
        users: BTreeSet<Address>,
        limits: &SessionConfig,
    ) -> Result<Change, SubscribeError> {
        let Some(subscription) = self.by_id.get_mut(id) else {
            return self.subscribe(id, topic, Users::Listed(users), None, limits);
        };
        let mut change = subscription.change_of(ChangeKind::Follow, Users::All);
        if let Users::Listed(listed) = &mut subscription.wanted.users {
            let new: BTreeSet<_> = users.difference(listed).copied().collect();
            may_name(listed.len() + new.len(), limits)?;
            let named = self.users + new.len();
            if named > limits.max_users {
                return Err(SubscribeError::TooManyUsers(limits.max_users));
            }
            self.users = named;
            listed.extend(&new);
            change.wanted.users = Users::Listed(new);
        }
        Ok(change)
    }

    /// Takes users out of a subscription, which ends when none is left.
    pub fn remove_users(&mut self, id: &str, users: &BTreeSet<Address>) -> Option<Change> {
        let subscription = self.by_id.get_mut(id)?;
        let Users::Listed(listed) = &mut subscription.wanted.users else { return None };
        let gone: BTreeSet<_> = users.intersection(listed).copied().collect();
        listed.retain(|user| !gone.contains(user));
        self.users -= gone.len();
        let is_empty = listed.is_empty();
        let change = subscription.change_of(ChangeKind::Unfollow, Users::Listed(gone));
        if is_empty {
            self.by_id.remove(id);
        }
        Some(change)
    }

    /// Ends all of them.
    pub fn into_ends(self) -> impl Iterator<Item = Change> {
        self.by_id.into_values().map(|one| one.into_change(ChangeKind::Unfollow))
    }

    pub fn unsubscribe(&mut self, id: &str) -> Option<Change> {
        let gone = self.by_id.remove(id)?;
        self.users -= gone.wanted.users.named();
        self.values -= named_values(gone.wanted.conditions.as_ref());
        Some(gone.into_change(ChangeKind::Unfollow))
    }
}

fn named_values(conditions: Option<&Arc<Conditions>>) -> usize {
    conditions.map_or(0, |conditions| conditions.values())
}

/// Whether one subscription may name so many users.
fn may_name(users: usize, limits: &SessionConfig) -> Result<(), SubscribeError> {
    let most = limits.max_users_per_subscription;
    if users > most { Err(SubscribeError::TooManyUsersOfOne(most)) } else { Ok(()) }
}

impl Subscription {
    pub fn change(&self, kind: ChangeKind) -> Change {
        self.clone().into_change(kind)
    }

    fn change_of(&self, kind: ChangeKind, users: Users) -> Change {
        let conditions = self.wanted.conditions.clone();
        let wanted = Wanted { users, conditions, ..self.wanted };
        Self { wanted, ..*self }.into_change(kind)
    }

    fn into_change(self, kind: ChangeKind) -> Change {
        Change { kind, key: self.key, wanted: self.wanted, begins: None, heard: None }
    }
}

#[cfg(test)]
mod tests;
