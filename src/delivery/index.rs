//! Who wants an event: the subscriptions of one shard by topic and user, or by topic and coin.
//!
//! Place in the pipeline: asked by the shard for each event, changed by its sessions.
//! Invariants: a session is named once for an event, however many of its subscriptions match; an
//! event touches only those who ask for its user or its coin, or for everything of its topic; equal
//! conditions are judged once for it, however many sessions have them; a session that leaves costs a
//! bounded amount of work at one time, and may be named until all of it is done.

mod predicates;

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use self::predicates::{PredicateId, Predicates};
use super::{
    subscription::{
        Change, ChangeKind, INDEXED, MAX_LINGER_MS, Subscriptions, Users, Wanted, written,
    },
    view::Views,
};
use crate::event::{Address, Event, Topic};

/// A session in its shard; never used twice.
pub type SessionId = u64;

/// Bits of an [`Interest`] that say how long the event may wait.
const LINGER_BITS: u32 = 10;
/// The same for what it gets of it.
const VIEW_BITS: u32 = u8::BITS;
const _: () = assert!(MAX_LINGER_MS < 1 << LINGER_BITS);

/// A session that wants an event, what it gets of it, and for how long that may wait at most: in one number,
/// as there may be thousands for each event. By order of the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interest(u64);

/// Users and coins of sessions that have left which a turn takes out: about a millisecond.
pub const FORGOTTEN_PLACES: usize = 4_096;

/// The interested sessions of one shard, by topic and by user or coin.
#[derive(Debug, Default)]
pub struct Index {
    topics: HashMap<Topic, TopicIndex, RandomState>,
    predicates: Predicates,
    /// What sessions wanted that have left.
    left: VecDeque<(SessionId, Change)>,
}

#[derive(Debug, Default)]
struct TopicIndex {
    all: Entries,
    /// Of those who ask for everybody and for certain coins.
    coins: HashMap<Box<str>, Entries, RandomState>,
    users: HashMap<Address, Entries, RandomState>,
}

/// Ordered by session and subscription, so that leaving costs a binary search.
#[derive(Debug, Default)]
struct Entries(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    session: SessionId,
    subscription: u32,
    linger_ms: u16,
    views: Views,
    predicate: Option<PredicateId>,
}

// There are a million of them.
const _: () = assert!(size_of::<Entry>() <= 24);

impl Interest {
    fn new(session: SessionId, views: Views, linger_ms: u16) -> Self {
        let rest = u64::from(views.bits()) << LINGER_BITS | u64::from(linger_ms);
        Self(session << (VIEW_BITS + LINGER_BITS) | rest)
    }

    pub fn session(self) -> SessionId {
        self.0 >> (VIEW_BITS + LINGER_BITS)
    }

    pub fn views(self) -> Views {
        Views::from_bits((self.0 >> LINGER_BITS) as u8)
    }

    pub fn linger_ms(self) -> u16 {
        (self.0 & ((1 << LINGER_BITS) - 1)) as u16
    }

    /// Of the same session.
    fn and(self, other: Self) -> Self {
        let linger_ms = self.linger_ms().min(other.linger_ms());
        Self::new(self.session(), self.views().and(other.views()), linger_ms)
    }
}

impl Index {
    /// Nobody wants anything.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Applies what a session has changed. A change that was made already changes nothing.
    pub fn apply(&mut self, session: SessionId, change: &Change) {
        let Self { topics, predicates, .. } = self;
        let topic = topics.entry(change.wanted.topic).or_default();
        match &change.wanted.users {
            Users::All => match change.coins() {
                Some(coins) => {
                    for coin in coins {
                        topic.coins.change(coin.clone(), session, change, predicates);
                    }
                }
                None => topic.all.change(session, change, predicates),
            },
            Users::Listed(users) => {
                for &user in users {
                    topic.users.change(user, session, change, predicates);
                }
            }
        }
        if topic.is_empty() {
            topics.remove(&change.wanted.topic);
        }
    }

    /// A session wants nothing any more; [`forget`](Self::forget) does the work.
    pub fn leave(&mut self, session: SessionId, subscriptions: Subscriptions) {
        self.left.extend(subscriptions.into_ends().map(|change| (session, change)));
    }

    /// Whether sessions that have left are still in it.
    pub fn is_leaving(&self) -> bool {
        !self.left.is_empty()
    }

    /// Takes those out who have left, so many users and coins of theirs at most.
    pub fn forget(&mut self, most: usize) {
        let mut left = most;
        while left > 0 {
            let Some((session, mut change)) = self.left.pop_front() else { break };
            let portion = change.split(left);
            self.apply(session, portion.as_ref().unwrap_or(&change));
            if portion.is_some() {
                self.left.push_front((session, change));
                return;
            }
            left = left.saturating_sub(change.places().max(1));
        }
        if self.left.is_empty() {
            // Many that left at once need no place any more.
            self.left = VecDeque::new();
        }
    }

    /// Writes the sessions that want `event` into `sessions`, in ascending order, each with all that its
    /// subscriptions get of it, and the shortest of the times that they allow.
    pub fn interested(&self, event: &Event, sessions: &mut Vec<Interest>) {
        sessions.clear();
        let Some(topic) = self.topics.get(&event.id.topic) else { return };
        self.predicates.next_event();
        topic.all.matching(event, &self.predicates, sessions);
        let of_all = sessions.len();
        if !topic.coins.is_empty()
            && let Some(coin) = event.key(INDEXED)
            && let Some(entries) = topic.coins.get(&*written(coin))
        {
            entries.matching(event, &self.predicates, sessions);
        }
        if let Some(user) = event.user
            && let Some(entries) = topic.users.get(&user)
        {
            entries.matching(event, &self.predicates, sessions);
        }
        if sessions.len() > of_all {
            // Ordered runs: this sort sees that.
            sessions.sort();
        }
        sessions.dedup_by(|other, first| {
            let is_same = other.session() == first.session();
            if is_same {
                *first = first.and(*other);
            }
            is_same
        });
    }
}

impl TopicIndex {
    fn is_empty(&self) -> bool {
        self.all.0.is_empty() && self.coins.is_empty() && self.users.is_empty()
    }
}

/// Entries by what they are found by; one that has none is forgotten.
trait ChangeOne<K> {
    fn change(&mut self, key: K, session: SessionId, change: &Change, predicates: &mut Predicates);
}

impl<K: Eq + std::hash::Hash> ChangeOne<K> for HashMap<K, Entries, RandomState> {
    fn change(&mut self, key: K, session: SessionId, change: &Change, predicates: &mut Predicates) {
        match change.kind {
            ChangeKind::Follow => {
                self.entry(key).or_default().change(session, change, predicates);
            }
            ChangeKind::Unfollow => {
                if let Some(entries) = self.get_mut(&key) {
                    entries.change(session, change, predicates);
                    if entries.0.is_empty() {
                        self.remove(&key);
                    }
                }
            }
        }
    }
}

impl Entries {
    fn change(&mut self, session: SessionId, change: &Change, predicates: &mut Predicates) {
        let subscription = change.key;
        let Wanted { linger_ms, views, .. } = change.wanted;
        let found = self
            .0
            .binary_search_by_key(&(session, subscription), |one| (one.session, one.subscription));
        match (change.kind, found) {
            (ChangeKind::Follow, Err(place)) => {
                let predicate = change.wanted.conditions.as_ref().map(|one| predicates.take(one));
                if self.0.is_empty() {
                    // Most users are asked for by one session: room for more would double the index.
                    self.0.reserve_exact(1);
                }
                self.0.insert(place, Entry { session, subscription, linger_ms, views, predicate });
            }
            (ChangeKind::Unfollow, Ok(place)) => {
                let gone = self.0.remove(place);
                gone.predicate.into_iter().for_each(|id| predicates.give_back(id));
            }
            (ChangeKind::Follow, Ok(_)) | (ChangeKind::Unfollow, Err(_)) => {}
        }
    }

    fn matching(&self, event: &Event, predicates: &Predicates, sessions: &mut Vec<Interest>) {
        let wants = |entry: &&Entry| entry.predicate.is_none_or(|id| predicates.hold(id, event));
        let interest = |entry: &Entry| Interest::new(entry.session, entry.views, entry.linger_ms);
        sessions.extend(self.0.iter().filter(wants).map(interest));
    }
}

#[cfg(test)]
mod tests;
