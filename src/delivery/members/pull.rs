//! Moves sessions on that are behind, a slice each in turn, until they are where the others are.

use std::{collections::VecDeque, mem, sync::Arc};

use slog::{debug, info, warn};

use super::{Members, slice::Ended};
use crate::{
    delivery::{
        Casting,
        close::CloseReason,
        index::SessionId,
        replay::{Behind, Cause, Page, Place, Waits},
        session::Told,
        shard::Pull,
        subscription::{Change, ChangeKind, Subscriptions},
    },
    event::position_of,
    store::StoreError,
};

/// Most events that are looked at in one turn, for all sessions that are behind: the live ones are
/// served in between.
const TURN_EVENTS: usize = 8_192;

/// What an event costs that may have to be compressed for its session alone, in events that need not.
const PACKED_COST: usize = 8;

/// A page that a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub session: SessionId,
    pub after: u64,
}

/// How sessions that are behind are moved on.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// Those that can be.
    pub line: VecDeque<SessionId>,
    /// Those that are before us: what they have of another worker we have not cast yet.
    ahead: Vec<SessionId>,
    /// Pages to be read.
    fetches: Vec<Fetch>,
    /// How many use the store, and who waits for a place there.
    admitted: usize,
    pub unadmitted: VecDeque<SessionId>,
    /// The last page that was asked for could not be read.
    unread: bool,
}

impl CatchUp {
    /// Takes a session's place at the store back. Gives whether somebody waits for it.
    fn give_back(&mut self, behind: &mut Behind, casting: &Casting) -> bool {
        behind.page = None;
        let had_one = mem::take(&mut behind.admitted);
        if had_one {
            self.admitted -= 1;
            casting.stats.sessions.replays.add(-1);
        }
        had_one && !self.unadmitted.is_empty()
    }
}

impl Members {
    fn behind_mut(&mut self, id: SessionId) -> Option<&mut Behind> {
        self.members.get_mut(&id)?.behind.as_deref_mut()
    }

    /// A session that has fallen behind says what it wants.
    pub fn learn(&mut self, id: SessionId, subscriptions: &Subscriptions) {
        if let Some(behind) = self.behind_mut(id).filter(|behind| !behind.is_ready()) {
            behind.learn(subscriptions);
        }
    }

    /// Holds a session's past back, so that several subscriptions which are asked for together begin
    /// together; or lets it begin.
    pub fn hold(&mut self, id: SessionId, held: bool) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.held = held;
        let waits = member.behind.as_ref().map(|behind| behind.waits);
        if !held && waits == Some(Waits::No) {
            self.enqueue(id);
        }
    }

    /// The socket of a session has taken all that was queued: it is moved on.
    pub fn room(&mut self, id: SessionId) {
        if self.behind_mut(id).is_some_and(Behind::note_room) {
            self.enqueue(id);
        }
    }

    /// Whether a session has to be sent all that it has missed.
    pub fn needs_everything(&self, id: SessionId) -> bool {
        let behind = self.members.get(&id).and_then(|member| member.behind.as_ref());
        behind.is_some_and(|behind| behind.needs_everything())
    }

    /// Puts a session where changes of its subscriptions want it.
    pub(super) fn place(&mut self, id: SessionId, changes: &[Change], all: &Subscriptions) {
        let delivered = self.cursor();
        if let Some(behind) = self.behind_mut(id) {
            changes.iter().for_each(|change| behind.apply(change, all));
        }
        let follows = || changes.iter().filter(|change| change.kind == ChangeKind::Follow);
        let now = delivered.seq;
        let begins = |change: &Change| change.begins.as_ref().map_or(now, |cursor| cursor.seq);
        let Some(lowest) = follows().map(begins).min() else { return };
        let of_past = follows().any(|change| change.begins.is_some());
        if self.behind_mut(id).is_none() {
            if !of_past && !self.is_telling() && !follows().any(|one| self.was_told_ahead(one)) {
                // Live from here on.
                return;
            }
            self.begin_behind(id, self.here(), delivered.clone(), Cause::Past);
        }
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(behind) = &mut member.behind else { return };
        behind.announces |= of_past;
        for change in follows() {
            let topic = change.wanted.topic;
            match change.heard {
                // Once for all subscriptions that begin there.
                Some(position) if member.asked_from.lower(topic, position) => {
                    behind.will_hear(topic, position);
                }
                Some(_) => {}
                None if member.topics.contains(&topic) => {}
                None => {
                    behind.heard.lower(topic, delivered.position(topic).unwrap_or(0));
                }
            }
        }
        if lowest < behind.cursor.seq {
            behind.go_back(lowest, follows(), all);
        }
        follows().for_each(|change| behind.begin(change, begins(change), all));
        if !behind.is_ready() && behind.waits == Waits::No {
            behind.learn(all);
        }
        if behind.waits == Waits::No {
            self.enqueue(id);
        }
    }

    /// Whether those who are live were told a gap of its topic that lies ahead, as a segment tells all of its
    /// own at its beginning.
    fn was_told_ahead(&self, change: &Change) -> bool {
        let heads = self.current.as_ref().filter(|_| self.told > 0).map(|current| current.heads());
        heads.is_some_and(|heads| {
            let here = self.delivered.position(change.wanted.topic).unwrap_or(0);
            let next = self.casting.stats.router.gaps.next_end(change.wanted.topic, here);
            next.is_some_and(|end| position_of(&heads.positions, change.wanted.topic) >= Some(end))
        })
    }

    /// A page that a session waited for has come, or not.
    pub fn fetched(&mut self, id: SessionId, result: Result<Arc<Page>, StoreError>) -> Option<u32> {
        // Who has given his place back meanwhile does not wait for it any more.
        let behind = self.members.get_mut(&id)?.behind.as_mut().filter(|one| one.admitted)?;
        match result {
            Ok(page) => {
                behind.page = Some(page);
                behind.failures = 0;
                if mem::take(&mut self.catch_up.unread) {
                    info!(self.casting.logger, "what has been is read again from the store");
                }
                self.retry(id);
                None
            }
            Err(error) => {
                behind.failures += 1;
                self.casting.stats.sessions.replay_failures.add(1);
                let failures = behind.failures;
                if mem::replace(&mut self.catch_up.unread, true) {
                    debug!(self.casting.logger, "page not read"; "error" => %error);
                } else {
                    warn!(self.casting.logger, "what has been cannot be read from the store: sessions wait";
                        "after" => behind.cursor.seq, "error" => %error);
                }
                Some(failures)
            }
        }
    }

    /// Moves a session on that waited for the store, if it still does.
    pub fn retry(&mut self, id: SessionId) -> bool {
        let behind = self.behind_mut(id).filter(|behind| behind.waits == Waits::Page);
        let Some(behind) = behind else { return false };
        behind.waits = Waits::No;
        self.enqueue(id);
        true
    }

    /// The pages to be read since this was last asked.
    pub fn take_fetches(&mut self) -> Vec<Fetch> {
        mem::take(&mut self.catch_up.fetches)
    }

    /// Moves those on who are in the line, a bounded amount. They come back into it when their
    /// sockets have taken what is queued.
    pub(super) fn pull(&mut self) {
        for id in mem::take(&mut self.catch_up.ahead) {
            let behind = self.behind_mut(id).filter(|behind| behind.waits == Waits::Shard);
            if let Some(behind) = behind {
                behind.waits = Waits::No;
                behind.in_line = true;
                // Without ringing: this turn looks at it, and the next one when more was cast.
                self.catch_up.line.push_back(id);
            }
        }
        self.admit();
        let mut looked_at = 0;
        while looked_at < TURN_EVENTS {
            let Some(id) = self.catch_up.line.pop_front() else { break };
            looked_at += self.advance(id).max(1);
        }
    }

    /// Who wants nothing is not behind.
    pub(super) fn forget_behind(&mut self, id: SessionId) {
        let member = self.members.get_mut(&id);
        if let Some(mut behind) = member.and_then(|member| member.behind.take()) {
            if behind.waits == Waits::Page && !behind.admitted {
                self.catch_up.unadmitted.retain(|waiting| *waiting != id);
            }
            self.give_back(&mut behind);
            self.casting.stats.sessions.behind.add(-1);
        }
    }

    /// Who is not moved on keeps no place at the store from the others.
    pub(super) fn release_place(&mut self, id: SessionId) {
        let behind = self.members.get_mut(&id).and_then(|member| member.behind.as_deref_mut());
        if behind.is_some_and(|behind| self.catch_up.give_back(behind, &self.casting)) {
            self.ring();
        }
    }

    /// Gives the place of a session at the store to the next one.
    fn give_back(&mut self, behind: &mut Behind) {
        if self.catch_up.give_back(behind, &self.casting) {
            self.ring();
        }
    }

    /// Moves those on for whom there is a place at the store now. Some of them will need none any more,
    /// so this is asked in each turn.
    fn admit(&mut self) {
        let mut free = max_admitted(&self.casting).saturating_sub(self.catch_up.admitted);
        while free > 0 {
            let Some(next) = self.catch_up.unadmitted.pop_front() else { return };
            free -= usize::from(self.retry(next));
        }
    }

    /// Whether somebody waits for a place at the store and one is free.
    pub(super) fn can_admit(&self) -> bool {
        !self.catch_up.unadmitted.is_empty() && self.catch_up.admitted < max_admitted(&self.casting)
    }

    pub(super) fn enqueue(&mut self, id: SessionId) {
        let Some(behind) = self.behind_mut(id) else { return };
        if mem::replace(&mut behind.in_line, true) {
            return;
        }
        self.catch_up.line.push_back(id);
        self.ring();
    }

    /// Lets our shard take a turn.
    pub fn ring(&mut self) {
        if let Some(bell) = &self.bell
            && !mem::replace(&mut self.rung, true)
        {
            bell.do_send(Pull);
        }
    }

    /// Does a slice for one session. Gives what that was, in events that were looked at.
    fn advance(&mut self, id: SessionId) -> usize {
        let Some(behind) = self.behind_mut(id) else { return 0 };
        behind.in_line = false;
        let Some(member) = self.members.get_mut(&id) else { return 0 };
        if member.closing || member.held {
            self.release_place(id);
            return 0;
        }
        let Some(mut behind) = member.behind.take() else { return 0 };
        let Some(member) = self.members.get(&id) else { return 0 };
        if mem::take(&mut behind.has_room) {
            self.skip_missed(member, &mut behind);
        }
        let (looked_at, ended) = self.slice(id, &mut behind);
        let cost = if member.packs_from == usize::MAX { 1 } else { PACKED_COST };
        let looked_at = looked_at * cost;
        if matches!(behind.place, Place::Log { .. }) {
            self.give_back(&mut behind);
        }
        if !behind.admitted {
            // Pages in use are bounded by the places.
            behind.page = None;
        }
        let Some(member) = self.members.get_mut(&id) else { return looked_at };
        match ended {
            Ended::Slice => {}
            Ended::Joined => {
                self.casting.stats.sessions.behind.add(-1);
                member.wire.joined();
                if behind.announces
                    && let Some(frame) = member.dialect.live(&behind.cursor)
                {
                    // It finds room: little is queued for who has just caught up, or it waits.
                    member.wire.force(frame);
                }
                member.touch(id, &mut self.flushing.touched);
                return looked_at;
            }
            Ended::Waits(waits) => {
                behind.waits = waits;
                if waits == Waits::Shard {
                    self.catch_up.ahead.push(id);
                }
            }
            Ended::Needs(after) => {
                behind.waits = Waits::Page;
                if behind.admitted || self.catch_up.admitted < max_admitted(&self.casting) {
                    if !mem::replace(&mut behind.admitted, true) {
                        self.catch_up.admitted += 1;
                        self.casting.stats.sessions.replays.add(1);
                    }
                    self.catch_up.fetches.push(Fetch { session: id, after });
                } else {
                    self.catch_up.unadmitted.push_back(id);
                }
            }
            Ended::Lost => match member.dialect.missed(&behind.cursor) {
                Some(frame) => member.wire.force(frame),
                None => {
                    member.closing = true;
                    member.session.do_send(Told::Close(CloseReason::Missed));
                }
            },
        }
        member.behind = Some(behind);
        member.touch(id, &mut self.flushing.late);
        looked_at
    }
}

/// How many sessions of one worker may use the store at one time.
fn max_admitted(casting: &Casting) -> usize {
    let config = casting.config.get();
    config.session.max_replays.div_ceil(config.http.workers.max(1))
}
