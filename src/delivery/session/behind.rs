//! What a session waits for: what its answers need to know, and room on its socket.

use std::future::poll_fn;

use actix::prelude::*;
use tokio::time::Instant;

use super::{Session, hearing::Step};
use crate::{
    client::Client,
    delivery::{
        Casting,
        close::CloseReason,
        dialect::{Answer, Aside, Found, Later, Lookup},
        outlet::{Flush, Outlet},
    },
    essential::contained,
};

impl Session {
    /// Whether the client is listened to.
    pub(super) fn hears(&self) -> bool {
        self.unheard.is_none() && !self.full
    }

    /// Whether something of its own goes on when the client has read: it has to hear of room itself then, also
    /// where its shard writes.
    fn awaits_room(&self) -> bool {
        self.full || self.later.is_some() || !self.asides.is_empty()
    }

    /// Whether less waits for the client than may.
    pub(super) fn has_room(&self) -> bool {
        self.wire.waiting_bytes() < self.config.session.outbox_bytes
    }

    /// Listens no more to a client that has to read its answers first.
    pub(super) fn fill(&mut self, ctx: &mut Context<Self>) {
        let is_much = self.unread >= self.config.session.outbox_bytes;
        if self.full || !is_much || self.has_room() {
            return;
        }
        // Most often the socket takes it at once.
        self.flush(ctx);
        if !self.has_room() && !self.closing {
            self.full = true;
            self.wire.listen(false);
        }
    }

    /// Listens again to a client that has read.
    fn drain(&mut self, ctx: &mut Context<Self>) {
        if !self.full || !self.has_room() {
            return;
        }
        self.full = false;
        self.last_heard = Instant::now();
        self.wire.listen(self.hears());
        // What came before it was not listened to any more.
        self.converse(ctx);
    }

    /// Looks up what an answer needs, such as the places where subscriptions begin. Until that is there the
    /// client is not heard.
    pub(super) fn put_off(&mut self, later: Later, ctx: &mut Context<Self>) {
        let Later { lookups, answer, .. } = later;
        if lookups.is_empty() {
            self.found(answer, Vec::new(), ctx);
            debug_assert!(self.later.is_none(), "who looks nothing up puts nothing more off");
            return;
        }
        if !self.resuming {
            self.resuming = true;
            self.seat.hold(true);
        }
        let (casting, client) = (self.casting.clone(), self.wire.client().clone());
        let work = async move {
            let mut found = Vec::with_capacity(lookups.len());
            for lookup in lookups {
                found.push(casting.look_up(lookup, &client).await);
            }
            found
        };
        ctx.spawn(work.into_actor(self).map(|found, session, ctx| {
            if session.closing {
                return;
            }
            session.found(answer, found, ctx);
            session.flush(ctx);
            session.resume(ctx);
        }));
    }

    /// Goes on with an answer as soon as there is room for more of it; listens to the client again when all of
    /// it is said.
    fn resume(&mut self, ctx: &mut Context<Self>) {
        if !self.resuming || self.closing || (self.later.is_some() && !self.has_room()) {
            return;
        }
        if let Some(later) = self.later.take() {
            return self.put_off(later, ctx);
        }
        self.resuming = false;
        self.last_heard = Instant::now();
        // What the client has said meanwhile.
        if let Some(text) = self.unheard.take() {
            let step = contained(|| self.hear(&text));
            self.take(step, ctx);
        }
        self.wire.listen(self.hears());
        self.converse(ctx);
        if !self.resuming {
            self.read(ctx);
        }
        if !self.resuming {
            self.seat.hold(false);
        }
    }

    /// Does what was put off.
    fn found(&mut self, answer: Answer, found: Vec<Found>, ctx: &mut Context<Self>) {
        match contained(|| self.at_desk(|desk| answer(found, desk))) {
            Ok(Step::Answer { replies, changes, later, .. }) => {
                self.answer(replies, &changes, ctx);
                self.later = later;
            }
            Ok(_) => {}
            Err(_panicked) => {
                self.casting.stats.sessions.panics.add(1);
                self.close(&CloseReason::Internal, ctx);
            }
        }
    }

    /// Makes the frames that were asked for aside, one at a time and each when there is room for it, so that
    /// a client which does not read has one of them waiting and not all.
    pub(super) fn go_on_aside(&mut self, ctx: &mut Context<Self>) {
        if self.is_aside || self.closing || !self.has_room() {
            return;
        }
        let Some(Aside { request, frame }) = self.asides.pop_front() else { return };
        self.is_aside = true;
        let (casting, client) = (self.casting.clone(), self.wire.client().clone());
        let work =
            async move { frame(casting.info.answer(request.get().as_bytes(), &client).await) };
        ctx.spawn(work.into_actor(self).map(|frame, session, ctx| {
            session.is_aside = false;
            session.send(frame, ctx);
            session.flush(ctx);
            session.go_on_aside(ctx);
        }));
    }

    /// Goes on writing when the socket takes more. Only for who has claimed it.
    pub(super) fn wait_for_room(&mut self, ctx: &mut Context<Self>) {
        if !self.watched {
            self.watch(ctx);
        }
        let wire = self.wire.clone();
        let room = async move { poll_fn(|cx| wire.poll_writable(cx)).await };
        ctx.spawn(room.into_actor(self).map(|room, session, ctx| {
            if room.is_err() {
                return session.flushed(Flush::Broken, ctx);
            }
            session.wire.unblock();
            // Who is behind waits for his turn, so that many of them do not hold up what is live.
            if session.closing || !session.seat.writable() || session.awaits_room() {
                session.flush(ctx);
            }
            session.drain(ctx);
            session.go_on_aside(ctx);
            if session.later.is_some() {
                session.resume(ctx);
            }
        }));
    }

    /// Ends a session that is behind, or is not listened to before it has read, and whose socket takes
    /// nothing for too long. A slow one that takes what it can may stay: what it has to get waits in the
    /// log and in the store. So may one that does not have to get everything.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        self.watched = true;
        let taken = self.wire.received_bytes();
        ctx.run_later(self.config.session.stall_timeout, move |session, ctx| {
            session.watched = false;
            if session.closing || !session.wire.is_awaited() {
                return;
            }
            let has_to_read = session.awaits_room() || session.seat.needs_everything();
            if has_to_read && session.wire.received_bytes() == taken {
                session.close(&CloseReason::SlowConsumer, ctx);
            } else {
                session.watch(ctx);
            }
        });
    }
}

impl Casting {
    async fn look_up(&self, lookup: Lookup, client: &Client) -> Found {
        match lookup {
            Lookup::Place { from, wanted } => Found::Place(self.pages.start(from, &wanted).await),
            Lookup::Newest { rows, user } => Found::Newest(self.info.newest(rows, user).await),
            Lookup::Add { users } => {
                Found::Added(self.listing.clone().add(users, client.to_string()).await)
            }
        }
    }
}
