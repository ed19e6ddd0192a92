//! What a session waits for: the places where subscriptions begin, and room on its socket.

use std::future::poll_fn;

use actix::prelude::*;
use tokio::time::Instant;

use super::{Session, Step};
use crate::{
    delivery::{
        close::CloseReason,
        dialect::{Answer, Found, Resume},
        outlet::{Flush, Outlet},
    },
    essential::contained,
};

impl Session {
    /// Whether the client is listened to.
    pub(super) fn hears(&self) -> bool {
        !self.resuming && !self.full
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

    /// Looks for the places where subscriptions begin, one after the other. Until all are found the client
    /// is not heard.
    pub(super) fn resume(&mut self, resume: Resume, ctx: &mut Context<Self>) {
        let Resume { pasts, answer, .. } = resume;
        if pasts.is_empty() {
            return self.found(answer, Vec::new(), ctx);
        }
        self.resuming = true;
        self.seat.hold(true);
        self.wire.listen(false);
        let casting = self.casting.clone();
        let search = async move {
            let mut found = Vec::with_capacity(pasts.len());
            for past in pasts {
                let start = casting.pages.start(past.from.clone(), &past.wanted).await;
                found.push(Found { past, start });
            }
            found
        };
        ctx.spawn(search.into_actor(self).map(|found, session, ctx| {
            session.resuming = false;
            session.last_heard = Instant::now();
            session.wire.listen(session.hears());
            if session.closing {
                return;
            }
            session.found(answer, found, ctx);
            // What the client has said meanwhile.
            session.converse(ctx);
            if !session.resuming {
                session.read(ctx);
            }
            if !session.resuming {
                session.seat.hold(false);
            }
        }));
    }

    /// Does what was put off.
    fn found(&mut self, answer: Answer, found: Vec<Found>, ctx: &mut Context<Self>) {
        match contained(|| self.at_desk(|desk| answer(found, desk))) {
            Ok(Step::Answer { replies, changes, .. }) => self.answer(replies, &changes, ctx),
            Ok(_) => {}
            Err(_panicked) => {
                self.casting.stats.sessions.panics.add(1);
                self.close(&CloseReason::Internal, ctx);
            }
        }
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
            if session.closing || !session.seat.writable() || session.full {
                session.flush(ctx);
            }
            session.drain(ctx);
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
            let has_to_read = session.full || session.seat.needs_everything();
            if has_to_read && session.wire.received_bytes() == taken {
                session.close(&CloseReason::SlowConsumer, ctx);
            } else {
                session.watch(ctx);
            }
        });
    }
}
