//! The sessions of one shard, and how events reach their outboxes.
//!
//! Place in the pipeline: the rules behind `Shard`; shared with the sessions of the same thread,
//! so that a subscription begins between two turns and costs no message.
//! Invariants: a session gets an event once; it gets what follows the moment it subscribed, in the
//! order of the log; a hole in it is told to each or ends the session, never silent; a turn does a
//! bounded amount of work and flushes each outbox at most once, first those that have waited longest;
//! nothing waits in an outbox that is not flushed when there is nothing more to do.

mod bundles;
mod burst;
mod cast;
mod flush;
mod gaps;
mod linger;
mod notices;
mod parting;
mod pull;
mod slice;
mod slow;
mod warm;
mod work;

use std::{collections::HashMap, mem, rc::Rc, sync::Arc};

use actix::{Addr, Recipient};
use ahash::RandomState;
use tokio::time::Instant;

pub use self::pull::Fetch;
use self::{
    bundles::Bundles,
    burst::{BURST_EVENTS, Burst},
    flush::Flushing,
    linger::Lingering,
    parting::Parting,
    pull::CatchUp,
    work::Work,
};
use super::{
    Casting,
    close::CloseReason,
    dialect::Dialect,
    index::{FORGOTTEN_PLACES, Index, SessionId},
    outlet::Outlet,
    replay::{Behind, Heard},
    session::Told,
    shard::{Shard, Waiting},
    subscription::{Change, Subscriptions},
};
use crate::{
    event::{Cursor, Timestamp, Topic},
    router::{
        log::{Log, Segment},
        readers::Reader,
    },
};

/// Events that are queued, while there are more, before outboxes are flushed: the write is what costs,
/// so where many sessions want the same burst it must not be cut by what one turn can queue.
const MERGED_EVENTS: usize = BURST_EVENTS;

/// A session as the shard sees it.
struct Member {
    session: Recipient<Told>,
    wire: Rc<dyn Outlet>,
    dialect: &'static dyn Dialect,
    /// Topics of its subscriptions.
    topics: Vec<Topic>,
    /// From which position on its client has been told the gaps of topics whose past it has asked for, or
    /// will be.
    asked_from: Heard,
    /// In a line of outboxes to flush.
    touched: bool,
    /// By when it has to be flushed, if something waits in it that may.
    due: Option<Instant>,
    /// Told to close: once is enough.
    closing: bool,
    /// Its client is still saying where it begins: until that is heard the past does not.
    held: bool,
    /// It is not live.
    behind: Option<Box<Behind>>,
    /// Most bytes that are queued for it while it is behind.
    max_queued: usize,
    /// Its wire's; here it costs no look at that for each event.
    packs_from: usize,
}

/// The sessions of one shard and their places in the log.
pub struct Members {
    casting: Arc<Casting>,
    /// Our bell; there as soon as the shard has started.
    reader: Option<Arc<Reader>>,
    index: Index,
    members: HashMap<SessionId, Member, RandomState>,
    next_id: SessionId,
    /// The segment that is cast now or next, and how many of its events are done.
    position: u64,
    done: usize,
    /// How many of its notices are told.
    told: usize,
    /// That segment, once it has begun.
    current: Option<Arc<Segment>>,
    /// Those behind it that were read from the log in the same slice.
    pending: std::vec::IntoIter<Arc<Segment>>,
    /// Up to where events were put into outboxes.
    delivered: Cursor,
    /// What is cast at this moment; reused from burst to burst.
    burst: Burst,
    bundles: Bundles,
    lingering: Lingering,
    flushing: Flushing,
    catch_up: CatchUp,
    /// Our shard, and whether it was told that there is something to do.
    bell: Option<Addr<Shard>>,
    rung: bool,
    /// While all are sent away.
    parting: Option<Parting>,
}

impl Members {
    /// Starts behind what the log holds now.
    pub fn new(casting: Arc<Casting>) -> Self {
        let (position, delivered) = end_of(&casting.log);
        Self {
            casting,
            reader: None,
            index: Index::default(),
            members: HashMap::default(),
            next_id: 0,
            position,
            done: 0,
            told: 0,
            pending: Vec::new().into_iter(),
            current: None,
            delivered,
            burst: Burst::default(),
            bundles: Bundles::default(),
            flushing: Flushing::default(),
            catch_up: CatchUp::default(),
            lingering: Lingering::default(),
            bell: None,
            rung: false,
            parting: None,
        }
    }

    /// From now on the log's growth can wake us, and sessions that can be moved on.
    pub fn hang(&mut self, reader: Arc<Reader>, bell: Addr<Shard>) {
        self.reader = Some(reader);
        self.bell = Some(bell);
    }

    /// The bell has rung: what is appended from now on rings it again.
    pub fn answer(&self) {
        if let Some(reader) = &self.reader {
            reader.answered();
        }
    }

    /// The same of those who can be moved on.
    pub fn answer_line(&mut self) {
        self.rung = false;
    }

    pub fn join(
        &mut self,
        session: Recipient<Told>,
        wire: Rc<dyn Outlet>,
        dialect: &'static dyn Dialect,
        max_queued: usize,
    ) -> SessionId {
        let id = self.next_id;
        self.next_id += 1;
        if let Some(parting) = &self.parting {
            session.do_send(Told::Close(parting.reason.clone()));
        }
        let packs_from = wire.packs_from();
        let member = Member {
            session,
            wire,
            dialect,
            topics: Vec::new(),
            asked_from: Heard::default(),
            touched: false,
            due: None,
            closing: false,
            held: false,
            behind: None,
            max_queued,
            packs_from,
        };
        self.members.insert(id, member);
        id
    }

    pub fn speaks(&mut self, id: SessionId, dialect: &'static dyn Dialect) {
        if let Some(member) = self.members.get_mut(&id) {
            member.dialect = dialect;
        }
    }

    pub fn leave(&mut self, id: SessionId, subscriptions: Subscriptions) {
        self.forget_behind(id);
        if let Some(mut member) = self.members.remove(&id) {
            member.forget_due(id, &mut self.lingering);
        }
        self.index.leave(id, subscriptions);
        self.index.forget(FORGOTTEN_PLACES);
        if self.index.is_leaving() {
            self.ring();
        }
    }

    /// Fixes where a subscription that is made now begins, for the cursor its client is told.
    pub fn settle(&mut self) {
        if self.index.is_empty() {
            self.listen(true);
            self.skip();
        }
    }

    /// Applies what a session has changed; `subscriptions` is what holds afterwards.
    pub fn change(&mut self, id: SessionId, changes: &[Change], subscriptions: &Subscriptions) {
        if changes.is_empty() {
            return;
        }
        for change in changes {
            self.index.apply(id, change);
        }
        self.place(id, changes, subscriptions);
        if subscriptions.is_empty() {
            self.forget_behind(id);
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.topics = subscriptions.iter().map(|(_, one)| one.wanted.topic).collect();
            member.topics.sort_unstable();
            member.topics.dedup();
            member.asked_from.keep(&member.topics);
            if let Some(behind) = &mut member.behind {
                behind.heard.keep(&member.topics);
            }
        }
    }

    /// "Delivered up to here", as far as outboxes go.
    pub fn cursor(&self) -> Cursor {
        let (next, head) = end_of(&self.casting.log);
        // The head of the log also knows how far the topics came in segments without events.
        let caught_up = self.current.is_none() && next == self.position;
        if caught_up { head } else { self.delivered.clone() }
    }

    /// "Delivered up to here" to one session.
    pub fn cursor_of(&self, id: SessionId) -> Cursor {
        let behind = self.members.get(&id).and_then(|member| member.behind.as_ref());
        behind.map_or_else(|| self.cursor(), |behind| behind.delivered())
    }

    /// Puts what the log has into outboxes, a bounded amount. Gives whether more is there.
    pub fn turn(&mut self) -> bool {
        self.index.forget(FORGOTTEN_PLACES);
        if self.index.is_empty() {
            // Nobody is to be served until a subscription settles.
            self.burst = Burst::default();
            self.listen(false);
            self.skip();
            self.release();
            self.flush();
            return self.has_due();
        }
        let mut left = Work::TURN;
        let more = loop {
            if left.is_spent() {
                break true;
            }
            let Some(segment) = self.segment() else { break false };
            if !self.tell_notices(&segment, &mut left) {
                break true;
            }
            while self.done < segment.events.len() && !left.is_spent() {
                let cast = self.cast(&segment.events, left);
                left.spend(cast);
                self.done += cast.events;
                self.delivered = segment.events[self.done - 1].cursor();
            }
            if self.done < segment.events.len() {
                break true;
            }
            if !segment.events.is_empty() {
                let took = Timestamp::now().since(segment.read_at);
                self.casting.stats.sessions.cast_durations.observe(took);
            }
            self.delivered = segment.cursor();
            self.current = None;
            (self.done, self.told) = (0, 0);
            self.position += 1;
            // An empty segment is work, too.
            left.spend(Work { events: 1, frames: 0 });
        };
        self.pull();
        self.flushing.unflushed += Work::TURN.events - left.events;
        if !more || self.flushing.unflushed >= MERGED_EVENTS {
            self.release();
        }
        self.flush();
        more || self.has_due()
            || !self.catch_up.line.is_empty()
            || self.can_admit()
            || self.index.is_leaving()
    }

    /// What waits, and for whom.
    pub fn waiting(&self) -> Waiting {
        let mut waiting = Waiting::default();
        for (&id, member) in &self.members {
            member.wire.count();
            let kept = member.behind.as_ref().and_then(|behind| behind.kept.as_ref());
            match member.wire.waiting_bytes() + kept.map_or(0, |kept| kept.bytes()) {
                0 => {}
                bytes if member.closing => waiting.leaving_bytes += bytes,
                bytes => waiting.outboxes.push((bytes, id)),
            }
        }
        waiting
    }

    /// Tells sessions to close because the most waits for them.
    pub fn evict(&mut self, sessions: &[SessionId]) {
        for id in sessions {
            if let Some(member) = self.members.get_mut(id)
                && !mem::replace(&mut member.closing, true)
            {
                member.session.do_send(Told::Close(CloseReason::Evicted));
            }
        }
    }

    fn listen(&self, listening: bool) {
        if let Some(reader) = &self.reader {
            reader.listen(listening);
        }
    }

    fn skip(&mut self) {
        self.current = None;
        self.pending = Vec::new().into_iter();
        (self.done, self.told) = (0, 0);
        (self.position, self.delivered) = end_of(&self.casting.log);
    }

    /// Gives the segment to go on with.
    fn segment(&mut self) -> Option<Arc<Segment>> {
        if let Some(current) = &self.current {
            return Some(current.clone());
        }
        if self.pending.len() == 0 {
            let slice = self.casting.log.read(self.position, Work::TURN.events);
            if slice.missed > 0 {
                self.missed(slice.missed);
                self.position += slice.missed;
            }
            self.pending = slice.segments.into_iter();
        }
        let segment = self.pending.next()?;
        self.current = Some(segment.clone());
        Some(segment)
    }
}

/// The number behind the last segment, and the cursor that belongs to it.
fn end_of(log: &Log) -> (u64, Cursor) {
    let mut next = log.state().next;
    loop {
        let head = log.head();
        let after = log.state().next;
        if after == next {
            return (next, head);
        }
        next = after;
    }
}

#[cfg(test)]
mod tests;
