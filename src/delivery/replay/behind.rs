//! A session that is behind: where it stands, and what it still wants.
//!
//! A plain type beside `Members`, which moves it on.

use std::{collections::HashMap, sync::Arc};

use ahash::RandomState;

use super::Page;
use crate::{
    delivery::{
        index::{Index, SessionId},
        subscription::{Change, ChangeKind, Subscriptions},
    },
    event::{Cursor, Event},
    router::log::LogEvent,
};

/// A place in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind this `seq`, wherever that is.
    Seq(u64),
    /// In the log: so many events of this segment are done, and what it tells besides too, if any.
    Log { segment: u64, done: usize },
}

/// What keeps a session from being moved on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Nothing: it is in the line.
    No,
    /// Its socket takes no more.
    Room,
    /// A page is being read, or as many as may already use the store.
    Page,
    /// Its shard has not come this far.
    Shard,
}

/// What a session needs that is not live.
pub struct Behind {
    pub place: Place,
    /// "Delivered up to here."
    pub cursor: Cursor,
    pub waits: Waits,
    /// Up to where its client knows that retention has deleted.
    pub told_deleted: u64,
    /// It is in the line.
    pub in_line: bool,
    /// Its client is told when it is live again.
    pub announces: bool,
    /// It has one of the places of those who need the store.
    pub admitted: bool,
    /// Some of what it got came from the store, which gives events only: of gaps it knows nothing.
    pub from_store: bool,
    /// The page it reads from.
    pub page: Option<Arc<Page>>,
    /// Reads of the store that have failed since one succeeded.
    pub failures: u32,
    /// Its own subscriptions by their number; made when it is first moved on.
    wants: Option<Index>,
    /// Behind which `seq` each subscription begins that is known here.
    begins: HashMap<u32, u64, RandomState>,
    /// Reused from event to event.
    matching: Vec<SessionId>,
}

impl Behind {
    /// Of what is deleted, `deleted` and what lies below is no loss to it.
    pub fn new(place: Place, cursor: Cursor, deleted: u64) -> Self {
        Self {
            told_deleted: deleted,
            place,
            cursor,
            waits: Waits::No,
            in_line: false,
            announces: false,
            admitted: false,
            from_store: false,
            page: None,
            failures: 0,
            wants: None,
            begins: HashMap::default(),
            matching: Vec::new(),
        }
    }

    /// Goes back behind an earlier `seq` for the subscriptions that `begin` now; what the others have got
    /// is not sent again.
    pub fn go_back(&mut self, seq: u64, begin: &[(u32, u64)], all: &Subscriptions) {
        let sent = self.cursor.seq;
        let is_new = |key: u32| begin.iter().any(|(begun, _)| *begun == key);
        for (_, other) in all.iter().filter(|(_, other)| !is_new(other.key)) {
            let begins = self.begins.entry(other.key).or_default();
            *begins = sent.max(*begins);
        }
        self.place = Place::Seq(seq);
        self.page = None;
        self.cursor.seq = seq;
    }

    /// Lets a subscription begin behind a `seq`, if it is new.
    pub fn begin(&mut self, subscription: u32, seq: u64) {
        self.begins.entry(subscription).or_insert(seq);
    }

    /// Whether it knows what it wants.
    pub fn is_ready(&self) -> bool {
        self.wants.is_some()
    }

    pub fn learn(&mut self, subscriptions: &Subscriptions) {
        let wants = self.wants.get_or_insert_default();
        for (_, subscription) in subscriptions.iter() {
            wants.apply(subscription.key.into(), &subscription.change(ChangeKind::Follow));
            self.begins.entry(subscription.key).or_default();
        }
    }

    pub fn apply(&mut self, change: &Change) {
        if let Some(wants) = &mut self.wants {
            wants.apply(change.key.into(), change);
        }
    }

    /// Moves the cursor on to an event, or behind one to the end of a stretch.
    pub fn advance_cursor(&mut self, last: Option<&LogEvent>, seq: u64) {
        if let Some(last) = last {
            self.cursor = last.cursor();
        }
        self.cursor.seq = seq;
    }

    /// Whether a subscription begins above a `seq` only: until there it must not be live.
    pub fn begins_above(&self, seq: u64) -> bool {
        self.begins.values().any(|begin| *begin > seq)
    }

    /// Whether a subscription of this session wants an event.
    pub fn wants(&mut self, event: &Event, seq: u64) -> bool {
        let Some(wants) = &self.wants else { return false };
        wants.interested(event, &mut self.matching);
        let begins = &self.begins;
        self.matching.iter().any(|key| begins.get(&(*key as u32)).is_none_or(|begin| seq > *begin))
    }
}
