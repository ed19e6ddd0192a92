//! Pings: who gives no sign of life is gone.
//!
//! Invariants: a ping stands behind all that was queued before it, in our outbox and in the kernel, and who
//! takes of that what it can is given the time; who takes nothing, or has been sent everything and answers
//! nothing, ends.

use actix::prelude::*;
use tokio::time::Instant;

use super::Session;
use crate::delivery::{close::CloseReason, frame, outlet::Outlet};

/// A ping that is not answered yet.
struct Ping {
    asked: Instant,
    /// It has reached the client's machine when that has taken so many bytes.
    end: u64,
    /// How many it had taken when this was last looked at.
    taken: u64,
    /// Then the ping still stood behind something.
    queued: bool,
}

impl Session {
    /// Asks for a sign of life, and ends the session when none comes.
    pub(super) fn ping(&mut self, ctx: &mut Context<Self>) {
        // Who is not listened to cannot answer, and one question at a time is enough.
        let is_asked = self.asked.is_some_and(|asked| self.last_heard < asked);
        if self.closing || !self.hears() || is_asked {
            return;
        }
        let asked = Instant::now();
        self.asked = Some(asked);
        let taken = self.wire.received_bytes();
        let ahead = self.wire.taken_bytes() + self.wire.waiting_bytes() as u64;
        let ping = frame::ping();
        let end = ahead + ping.len() as u64;
        // It is no answer: events that wait are no reason not to listen.
        self.wire.force(ping);
        self.flush(ctx);
        self.await_pong(Ping { asked, end, taken, queued: taken < ahead }, ctx);
    }

    fn await_pong(&self, ping: Ping, ctx: &mut Context<Self>) {
        ctx.run_later(self.config.session.pong_timeout, move |session, ctx| {
            if session.closing || !session.hears() || session.last_heard >= ping.asked {
                return;
            }
            let taken = session.wire.received_bytes();
            let queued = taken < ping.end || session.wire.is_awaited();
            // It has come to the ping at the end of this time only, or has not yet.
            if taken > ping.taken && (queued || ping.queued) {
                session.await_pong(Ping { taken, queued, ..ping }, ctx);
            } else {
                session.close(&CloseReason::PingTimeout, ctx);
            }
        });
    }
}
