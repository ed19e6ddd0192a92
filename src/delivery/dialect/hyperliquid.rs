//! The official protocol of Hyperliquid, on `/ws`, as far as what a node writes can serve it.
//!
//! `{"method":"subscribe","subscription":{"type":"userFills","user":"0x.."}}`; `docs/official.md` has the whole
//! of it, and what is more here or missing. It shares `/ws` with the older service, whose requests have no
//! `method`.

mod feed;
mod frames;
mod post;
mod refused;
mod request;
mod say;
mod subscribe;

use std::collections::VecDeque;

use bytes::Bytes;

use self::{
    feed::Feed,
    refused::{Fault, Refused},
    request::Method,
    say::Say,
    subscribe::{Entry, Subscribe},
};
use super::{Desk, Dialect, Found, Later, Lookup, Shown};
use crate::{
    delivery::{close::CloseReason, frame, view::View},
    event::{Cursor, Topic},
    official::Rows,
    router::ledger::Gap,
    stats::Stats,
};

/// What is spoken to who knows the official protocol only. Some of its clients complain of each message of a
/// channel that they do not know.
pub const PLAIN: &dyn Dialect = &Hyperliquid { is_extended: false };

/// The same with our own channels, for who has used a field of ours once.
pub const EXTENDED: &dyn Dialect = &Hyperliquid { is_extended: true };

struct Hyperliquid {
    is_extended: bool,
}

/// Whether several events of a topic are shown as one.
pub fn puts_together(topic: Topic) -> bool {
    Feed::ALL.iter().any(|feed| feed.puts_together() && feed.is_made_of(topic))
}

impl Hyperliquid {
    fn subscribe(asked: Subscribe, desk: &mut Desk<'_>) {
        let strangers = match asked.check(desk).and_then(|()| asked.strangers(desk)) {
            Ok(strangers) => strangers,
            Err(error) => return Self::refuse(&asked, error, desk),
        };
        if strangers.is_empty() {
            return Self::start(asked, desk);
        }
        // Nobody is listed for what its client has no room for.
        if let Err(error) = Self::has_room(&asked, desk) {
            return Self::refuse(&asked, error, desk);
        }
        // All else follows when they are listed, so that nothing is missing between what has been and what
        // is live.
        let answer =
            Box::new(move |mut found: Vec<Found>, desk: &mut Desk<'_>| match found.pop() {
                Some(Found::Added(Err(error))) => Self::refuse(&asked, error.into(), desk),
                _ => Self::start(asked, desk),
            });
        let lookups = vec![Lookup::Add { users: strangers }];
        desk.later = Some(Later { requests: 1, lookups, answer });
    }

    /// Whether its client may have all of it.
    fn has_room(asked: &Subscribe, desk: &mut Desk<'_>) -> Result<(), Refused> {
        let (mut tried, mut outcome) = (Vec::new(), Ok(()));
        for Entry { id, wanted, .. } in asked.entries(desk.topics) {
            if let Err(error) = desk.subscriptions.begin(&id, wanted, desk.limits) {
                outcome = Err(error.into());
                break;
            }
            tried.push(id);
        }
        for id in tried {
            // Nobody has heard of it.
            desk.subscriptions.unsubscribe(&id);
        }
        outcome
    }

    fn start(asked: Subscribe, desk: &mut Desk<'_>) {
        if asked.is_extended {
            desk.speaks = Some(EXTENDED);
        }
        let mut entries = VecDeque::from(asked.entries(desk.topics));
        if !asked.needs_lookups() {
            desk.tell(&Say::acknowledged("subscribe", &asked.text));
            let begun = entries.drain(..).try_for_each(|entry| Self::add(entry, None, desk));
            if let Err(error) = begun {
                Self::take_back(&asked, error, desk);
            }
            return;
        }
        Self::look_up(asked, entries, true, desk);
    }

    /// Goes on with the next entries when it is known where they begin. So each user has his snapshot, however
    /// many there are, and no more of them wait for the client than one.
    fn look_up(asked: Subscribe, left: VecDeque<Entry>, is_first: bool, desk: &mut Desk<'_>) {
        let lookups = asked.lookups(&left);
        let answer = Box::new(move |found, desk: &mut Desk<'_>| {
            Self::begin(asked, left, is_first, found, desk);
        });
        desk.later = Some(Later { requests: 1, lookups, answer });
    }

    fn begin(
        asked: Subscribe,
        mut left: VecDeque<Entry>,
        is_first: bool,
        found: Vec<Found>,
        desk: &mut Desk<'_>,
    ) {
        if is_first {
            desk.tell(&Say::acknowledged("subscribe", &asked.text));
            let is_exact =
                |found: &Found| !matches!(found, Found::Place(Ok(start)) if !start.exact);
            if !found.iter().all(is_exact) {
                // Each of its topics has a place of its own: how far all of them are, the next status tells.
                let recovered = Some(false);
                desk.tell(&Say::Status { live: None, recovered, delivered: None, lag_ms: None });
            }
        }
        for (found, entry) in found.into_iter().zip(&mut std::iter::from_fn(|| left.pop_front())) {
            if let Err(error) = Self::begin_one(&asked, entry, found, desk) {
                return Self::take_back(&asked, error, desk);
            }
        }
        if !left.is_empty() {
            Self::look_up(asked, left, false, desk);
        }
    }

    fn begin_one(
        asked: &Subscribe,
        entry: Entry,
        found: Found,
        desk: &mut Desk<'_>,
    ) -> Result<(), Refused> {
        let user = entry.user;
        match found {
            Found::Place(start) => {
                let start = start?;
                let heard =
                    asked.from.as_ref().and_then(|from| start.heard(from, entry.wanted.topic));
                Self::add(entry, Some((start.place(), heard)), desk)
            }
            Found::Newest(newest) => {
                let newest = newest?;
                // What has begun before may not have come this far yet, and a cursor is for all.
                let told = match desk.subscriptions.is_empty() {
                    true => newest.cursor.clone(),
                    false => (desk.delivered)(),
                };
                let told = if told.seq < newest.cursor.seq { &told } else { &newest.cursor };
                // Behind what its client gets first.
                Self::add(entry, Some((newest.cursor.clone(), None)), desk)?;
                if let (Feed::Rows(rows), Some(user)) = (asked.feed, user) {
                    desk.replies.push(frames::snapshot(rows, user, &newest.items, told));
                }
                Ok(())
            }
            // It is asked for before all entries.
            Found::Added(added) => Ok(added?),
        }
    }

    fn add(
        Entry { id, wanted, .. }: Entry,
        begins: Option<(Cursor, Option<u64>)>,
        desk: &mut Desk<'_>,
    ) -> Result<(), Refused> {
        let mut change = desk.subscriptions.begin(&id, wanted, desk.limits)?;
        if let Some((begins, heard)) = begins {
            (change.begins, change.heard) = (Some(begins), heard);
        }
        desk.changes.push(change);
        Ok(())
    }

    /// All of it or nothing.
    fn take_back(asked: &Subscribe, error: Refused, desk: &mut Desk<'_>) {
        desk.replies.clear();
        Self::end(asked, desk);
        Self::refuse(asked, error, desk);
    }

    /// Gives whether there was anything to end.
    fn end(asked: &Subscribe, desk: &mut Desk<'_>) -> bool {
        let mut is_there = false;
        let ids: Vec<_> = desk.subscriptions.ids_of(&asked.name).map(str::to_owned).collect();
        for id in ids {
            let Some(gone) = desk.subscriptions.unsubscribe(&id) else { continue };
            is_there = true;
            // What the same message has begun never was.
            match desk.changes.iter().position(|change| change.key == gone.key) {
                Some(begun) => drop(desk.changes.remove(begun)),
                None => desk.changes.push(gone),
            }
        }
        is_there
    }

    fn unsubscribe(asked: &Subscribe, desk: &mut Desk<'_>) {
        match Self::end(asked, desk) {
            true => desk.tell(&Say::acknowledged("unsubscribe", &asked.text)),
            false => Self::refuse(asked, Refused::AlreadyUnsubscribed, desk),
        }
    }

    /// A message of one of our own channels, if its client knows them.
    fn own(&self, what: &Say<'_>) -> Option<Bytes> {
        self.is_extended.then(|| what.frame())
    }

    fn refuse(asked: &Subscribe, why: Refused, desk: &mut Desk<'_>) {
        if let Refused::Limit(error) = &why {
            desk.count_refusal(error);
        }
        Self::fault(&Fault::Refused { why, subscription: Some(asked.text.clone()) }, desk);
    }

    fn fault(fault: &Fault, desk: &mut Desk<'_>) {
        desk.stats.sessions.bad_frames.add(1);
        desk.tell(&Say::Error(&fault.to_string()));
    }
}

impl Dialect for Hyperliquid {
    /// Of fills; those of all others are beside it, and one of them tells the two forms apart.
    fn encoding(&self) -> usize {
        let aggregate = self.is_extended;
        frames::slot(Feed::Rows(Rows::Fills { aggregate }).view())
    }

    fn slot(&self, view: View, _replayed: bool) -> usize {
        frames::slot(view)
    }

    fn event(&self, event: Shown<'_>, _replayed: bool) -> Bytes {
        event.event().frame(frames::slot(event.view), |_| frames::of(event))
    }

    fn greet(&self, _desk: &mut Desk<'_>) {}

    fn receive(&self, text: &str, desk: &mut Desk<'_>) {
        match Method::read(text) {
            Ok(Method::Ping) => desk.tell(&Say::Pong),
            Ok(Method::Subscribe(asked)) => Self::subscribe(asked, desk),
            Ok(Method::Unsubscribe(asked)) => Self::unsubscribe(&asked, desk),
            Ok(Method::Post(post)) => post.ask(desk),
            Err(fault) => Self::fault(&fault, desk),
        }
    }

    fn meanwhile(&self, text: &str) -> Option<Bytes> {
        matches!(Method::read(text), Ok(Method::Ping)).then(|| Say::Pong.frame())
    }

    fn live(&self, cursor: &Cursor) -> Option<Bytes> {
        let (live, delivered) = (Some(true), Some(cursor.into()));
        self.own(&Say::Status { live, recovered: None, delivered, lag_ms: None })
    }

    fn heartbeat(&self, delivered: &Cursor, stats: &Stats) -> Option<Bytes> {
        let (delivered, lag_ms) = (Some(delivered.into()), stats.lag_ms());
        self.own(&Say::Status { live: None, recovered: None, delivered, lag_ms })
    }

    fn closes_idle(&self) -> bool {
        true
    }

    fn gap(&self, gap: &Gap, closed: bool) -> Option<Bytes> {
        let (topic, from, to) = (Some(gap.topic), Some(gap.first), Some(gap.last));
        self.own(&Say::Gap { topic, from, to, closed, cursor: None })
    }

    fn missed(&self, delivered: &Cursor) -> Option<Bytes> {
        let cursor = Some(delivered.to_string());
        self.own(&Say::Gap { topic: None, from: None, to: None, closed: false, cursor })
    }

    fn farewell(&self, reason: &CloseReason) -> Vec<Bytes> {
        vec![frame::close(reason.code(), reason.text())]
    }
}

impl Desk<'_> {
    fn tell(&mut self, what: &Say<'_>) {
        self.replies.push(what.frame());
    }
}

#[cfg(test)]
mod tests;
