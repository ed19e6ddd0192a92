//! A session that is behind: where it stands, and which events it still gets.
//!
//! A plain type beside `Members`, which moves it on.

use std::{collections::HashMap, mem, sync::Arc};

use ahash::RandomState;
use bytes::Bytes;

use super::{
    Page,
    heard::Heard,
    kept::{Kept, Slot},
    want::{Cause, Fate, Special, Want},
};
use crate::{
    delivery::{
        dialect::puts_together,
        index::{Index, Interest},
        policy::Policy,
        subscription::{Change, ChangeKind, Subscriptions},
        view::Views,
    },
    event::{Cursor, Event, Timestamp, Topic, position_of},
    router::{
        gaps::OpenGaps,
        log::{LogEvent, block_around},
    },
    stats::Stats,
};

/// A place in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind this `seq`, wherever that is.
    Seq(u64),
    /// In the log: so many events of this segment are done.
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
    /// Everything up to here was looked at.
    pub cursor: Cursor,
    /// The `seq` behind which those begin that came together with the next event, where the cursor stands among
    /// them: the store is read from there on, as some frames show them as one. Else the cursor's own.
    block_from: u64,
    pub waits: Waits,
    /// Its socket has just become able to take something again.
    pub has_room: bool,
    cause: Cause,
    /// What may still be replaced by something newer; never empty.
    pub kept: Option<Box<Kept>>,
    /// Up to where its client knows that retention has deleted.
    pub told_deleted: u64,
    /// It is in the line.
    pub in_line: bool,
    /// Its client is told when it is live again.
    pub announces: bool,
    /// It has one of the places of those who need the store.
    pub admitted: bool,
    /// Up to where its client knows of the gaps of the topics that it follows.
    pub heard: Heard,
    /// Since when there are gaps that the live ones were told and it was not, wherever they lie.
    pub untold_since: Timestamp,
    /// The segment of the log that it has begun, and how many of its notices are told: of one that it did
    /// not begin at its first event, `usize::MAX`.
    pub told: Option<(u64, usize)>,
    /// The page it reads from.
    pub page: Option<Arc<Page>>,
    /// Most bytes that are queued for it where little is left for all together.
    pub room: usize,
    /// Reads of the store that have failed since one succeeded.
    pub failures: u32,
    /// Its own subscriptions by their number; made when it is first moved on.
    wants: Option<Index>,
    /// The subscriptions that are known here.
    begins: HashMap<u32, Want, RandomState>,
    /// Reused from event to event.
    matching: Vec<Interest>,
}

impl Behind {
    /// Of what is deleted, `deleted` and what lies below is no loss to it.
    pub fn new(place: Place, cursor: Cursor, deleted: u64, cause: Cause) -> Self {
        Self {
            has_room: false,
            room: usize::MAX,
            cause,
            kept: None,
            told_deleted: deleted,
            place,
            block_from: cursor.seq,
            cursor,
            waits: Waits::No,
            in_line: false,
            announces: false,
            admitted: false,
            heard: Heard::default(),
            untold_since: Timestamp::now(),
            told: None,
            page: None,
            failures: 0,
            wants: None,
            begins: HashMap::default(),
            matching: Vec::new(),
        }
    }

    /// "Delivered up to here": what is kept is not.
    pub fn delivered(&self) -> Cursor {
        let Some((seq, first)) = self.kept.as_ref().and_then(|kept| kept.first()) else {
            return self.cursor.clone();
        };
        let mut cursor = Cursor { seq: seq - 1, ..first.cursor.clone() };
        for (topic, position) in &mut cursor.positions {
            // A subscription may have begun further in the past since.
            *position = self.cursor.position(*topic).unwrap_or(0).min(*position);
        }
        cursor
    }

    /// Goes back behind an earlier `seq` for the subscriptions that `begin` now; what the others have got
    /// is not sent again.
    pub fn go_back<'c>(
        &mut self,
        seq: u64,
        begin: impl Iterator<Item = &'c Change> + Clone,
        all: &Subscriptions,
    ) {
        self.cursor = self.delivered();
        let sent = self.cursor.seq;
        // It is found again.
        self.kept = None;
        let is_new = |key: u32| begin.clone().any(|change| change.key == key);
        for (_, other) in all.iter().filter(|(_, other)| !is_new(other.key)) {
            let want = self.begins.entry(other.key).or_default();
            want.begins = sent.max(want.begins);
        }
        let block_from = self.block_from;
        self.go_to(seq.min(sent));
        self.block_from = block_from.min(seq);
        self.cursor.seq = seq.min(sent);
        // In another store the cursor counts by its blocks, and those of now would pass over what is to come.
        // Without any a topic begins at its beginning.
        for change in begin {
            let Some(begins) = &change.begins else { continue };
            let positions = &mut self.cursor.positions;
            match begins.position(change.wanted.topic) {
                None => positions.retain(|(topic, _)| *topic != change.wanted.topic),
                Some(named) => {
                    let known =
                        positions.iter_mut().find(|(topic, _)| *topic == change.wanted.topic);
                    known.into_iter().for_each(|(_, position)| *position = named.min(*position));
                }
            }
        }
    }

    /// Lets a subscription begin behind a `seq`, if it is new.
    pub fn begin(&mut self, change: &Change, seq: u64, all: &Subscriptions) {
        let want = self.begins.entry(change.key).or_insert_with(|| {
            let asked = change.begins.is_some();
            Want { begins: seq, asked, special: None }
        });
        if !change.wanted.policy.is_default() {
            let mut all = all.iter();
            let found = all.find(|(_, subscription)| subscription.key == change.key);
            want.special = found.and_then(|(id, subscription)| Special::of(id, subscription));
        }
    }

    /// Whether it knows what it wants.
    pub fn is_ready(&self) -> bool {
        self.wants.is_some()
    }

    /// Its socket takes something again. Gives whether that is what it has waited for.
    pub fn note_room(&mut self) -> bool {
        let has_waited = self.waits == Waits::Room && self.is_ready();
        if has_waited {
            self.waits = Waits::No;
            self.has_room = true;
        }
        has_waited
    }

    /// Its client knows of the gaps of a topic up to this position, and is to hear of the others before any
    /// cursor that lies beyond them. So does the one that it would be told now: 0 is before the first block.
    pub fn will_hear(&mut self, topic: Topic, position: u64) {
        if self.heard.lower(topic, position) {
            self.told = None;
        }
        let positions = &mut self.cursor.positions;
        positions.retain(|(known, _)| *known != topic || position > 0);
        for (_, known) in positions.iter_mut().filter(|(known, _)| *known == topic) {
            *known = position.min(*known);
        }
    }

    /// Moves the cursor behind the gaps in front of the next event, which its client was told.
    pub fn pass_gaps(&mut self, heads: &[(Topic, u64)], open: &OpenGaps) {
        for (topic, position) in &mut self.cursor.positions {
            let head = position_of(heads, *topic).unwrap_or(0);
            *position = open.last_end(*topic, *position, head).unwrap_or(*position);
        }
    }

    /// Goes on behind a `seq`, wherever that is, and not with what follows its place.
    pub fn go_to(&mut self, seq: u64) {
        self.block_from = seq;
        self.place = Place::Seq(seq);
        self.told = None;
        self.page = None;
    }

    /// Goes on from where the cursor stands, as its segment has left the log.
    pub fn leave_log(&mut self) {
        self.place = Place::Seq(self.cursor.seq);
        self.told = None;
        self.page = None;
    }

    /// Behind which `seq` the store is read for what follows another one.
    pub fn read_from(&self, seq: u64) -> u64 {
        self.block_from.min(seq)
    }

    /// Goes on without what came before `seq`: it is more than a page holds.
    pub fn read_from_here(&mut self, seq: u64) {
        self.block_from = seq;
    }

    pub fn learn(&mut self, subscriptions: &Subscriptions) {
        let wants = self.wants.get_or_insert_default();
        for (id, subscription) in subscriptions.iter() {
            wants.apply(subscription.key.into(), &subscription.change(ChangeKind::Follow));
            let want = self.begins.entry(subscription.key).or_default();
            want.special = Special::of(id, subscription);
        }
    }

    /// Learns of a change; `all` is what holds afterwards.
    pub fn apply(&mut self, change: &Change, all: &Subscriptions) {
        if let Some(wants) = &mut self.wants {
            wants.apply(change.key.into(), change);
        }
        let is_gone = || all.iter().all(|(_, subscription)| subscription.key != change.key);
        if change.kind == ChangeKind::Unfollow && is_gone() {
            self.begins.remove(&change.key);
            if let Some(kept) = &mut self.kept {
                kept.forget(change.key);
                self.kept.take_if(|kept| kept.first().is_none());
            }
        }
    }

    /// Moves the cursor on to an event, or behind one to the end of a stretch.
    pub fn advance_cursor(&mut self, last: Option<&LogEvent>, seq: u64) {
        if let Some(last) = last {
            let before = mem::replace(&mut self.cursor, last.cursor());
            // A page does not know of all topics.
            let Cursor { positions, .. } = &mut self.cursor;
            for (topic, position) in before.positions {
                if position_of(positions, topic).is_none() {
                    positions.push((topic, position));
                }
            }
        }
        self.cursor.seq = seq;
    }

    /// Its cursor stands in front of one of these, or behind them all.
    pub fn note_block(&mut self, events: &[LogEvent], next: usize) {
        let here = self.cursor.seq;
        let next = (next < events.len()).then_some(next);
        let next = next.filter(|next| puts_together(events[*next].sequenced.event.id.topic));
        let first = next.map(|next| events[block_around(events, next).start].sequenced.seq);
        self.block_from = first.map_or(here, |first| here.min(first - 1));
    }

    /// Whether a subscription begins above a `seq` only: until there it must not be live.
    pub fn begins_above(&self, seq: u64) -> bool {
        self.begins.values().any(|want| want.begins > seq)
    }

    /// Whether no subscription wants anything up to a `seq`.
    pub fn wants_nothing_up_to(&self, seq: u64) -> bool {
        self.is_ready()
            && self.kept.is_none()
            && self.begins.values().all(|want| want.begins >= seq)
    }

    /// Whether all that its client has not taken has to be sent.
    pub fn needs_everything(&self) -> bool {
        let mut all = self.begins.values();
        self.cause != Cause::Slow
            || !self.is_ready()
            || all.any(|want| want.asked || want.special.is_none())
    }

    /// Lets the subscriptions begin behind a `seq` that pass over what they have missed, and gives them: of
    /// those that have something to miss, as they begin below and are not waiting for their beginning.
    pub fn skip_to(&mut self, seq: u64) -> Vec<(Box<str>, Topic)> {
        let mut skipped = Vec::new();
        let passed = self.cursor.seq;
        if self.cause != Cause::Slow || passed >= seq {
            return skipped;
        }
        for want in self.begins.values_mut() {
            if let Some(special) = &want.special
                && special.policy == Policy::Skip
                && !want.asked
                && want.begins <= passed
            {
                want.begins = seq;
                skipped.push((special.id.clone(), special.topic));
            }
        }
        skipped
    }

    /// What becomes of an event, by all subscriptions of this session.
    pub fn fate(&mut self, event: &Event, seq: u64) -> Fate {
        let Some(wants) = &self.wants else { return Fate::Pass };
        wants.interested(event, &mut self.matching);
        let (mut slots, mut views, mut all) = (Vec::new(), Views::NONE, Views::NONE);
        for one in &self.matching {
            let key = one.session() as u32;
            let want = self.begins.get(&key);
            if want.is_some_and(|want| seq <= want.begins) {
                continue;
            }
            let special = want.filter(|want| self.cause == Cause::Slow && !want.asked);
            let special = special.and_then(|want| want.special.as_ref());
            all = all.and(one.views());
            let value = match special.map(|special| special.policy) {
                // What has no value is like nothing else.
                Some(Policy::Conflate(by)) => by.value(event),
                _ => None,
            };
            match value {
                Some(value) => slots.push((key, value)),
                None => views = views.and(one.views()),
            }
        }
        match (views.is_empty(), slots.is_empty()) {
            // What one gets the others need not keep.
            (false, _) => Fate::Send(all),
            (true, true) => Fate::Pass,
            (true, false) => Fate::Keep(slots),
        }
    }

    /// Keeps an event until something newer comes in its place.
    pub fn keep(
        &mut self,
        seq: u64,
        frame: Bytes,
        cursor: Cursor,
        slots: Vec<Slot>,
        stats: &Arc<Stats>,
    ) {
        let kept = self.kept.get_or_insert_with(|| Box::new(Kept::new(stats.clone())));
        kept.keep(seq, frame, cursor, slots);
    }

    /// The first one that was kept is queued.
    pub fn kept_is_sent(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.pop();
        }
        self.kept.take_if(|kept| kept.first().is_none());
    }
}

#[cfg(test)]
mod tests;
