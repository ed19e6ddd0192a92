//! What a session waits for: the place where a subscription begins, and room on its socket.

use std::future::poll_fn;

use actix::prelude::*;
use tokio::time::Instant;

use super::{Session, Step};
use crate::{
    delivery::{close::CloseReason, dialect::Resume, outlet::Flush},
    essential::contained,
};

impl Session {
    /// Looks for the place where a subscription begins. Until it is found the client is not heard.
    pub(super) fn resume(&mut self, resume: Resume, ctx: &mut Context<Self>) {
        self.resuming = true;
        self.seat.hold(true);
        self.wire.listen(false);
        let casting = self.casting.clone();
        let search = async move {
            let start = casting.pages.start(resume.from.clone(), &resume.wanted).await;
            (resume, start)
        };
        ctx.spawn(search.into_actor(self).map(|(resume, start), session, ctx| {
            session.resuming = false;
            session.last_heard = Instant::now();
            session.wire.listen(true);
            if session.closing {
                return;
            }
            let dialect = session.dialect;
            match contained(|| session.at_desk(|desk| dialect.resume(resume, start, desk))) {
                Ok(Step::Answer { replies, changes, .. }) => session.answer(replies, &changes, ctx),
                Ok(_) => {}
                Err(_panicked) => {
                    session.casting.stats.sessions.panics.add(1);
                    session.close(&CloseReason::Internal, ctx);
                }
            }
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
            if session.closing || !session.seat.writable() {
                session.flush(ctx);
            }
        }));
    }

    /// Ends a session that is behind and whose socket takes nothing for too long. A slow one that takes
    /// what it can may stay: what it has to get waits in the log and in the store. So may one that does
    /// not have to get everything.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        self.watched = true;
        let taken = self.wire.received_bytes();
        ctx.run_later(self.config.session.stall_timeout, move |session, ctx| {
            session.watched = false;
            if session.closing || !session.wire.is_awaited() {
                return;
            }
            if session.wire.received_bytes() == taken && session.seat.needs_everything() {
                session.close(&CloseReason::SlowConsumer, ctx);
            } else {
                session.watch(ctx);
            }
        });
    }
}
