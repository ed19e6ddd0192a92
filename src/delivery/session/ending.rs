//! How a session ends: its farewell, and the wait for its client to close too.

use actix::prelude::*;

use super::{LINGER, Session};
use crate::delivery::{
    close::CloseReason,
    frame::Inbound,
    outlet::{Flush, Outlet},
};

impl Session {
    /// Says farewell and ends: at once when the client is gone, else when it has closed too, or
    /// after [`LINGER`].
    pub(super) fn close(&mut self, reason: &CloseReason, ctx: &mut Context<Self>) {
        if self.closing {
            return;
        }
        self.closing = true;
        // Its own farewell is waited for, whatever kept us from listening.
        (self.full, self.resuming, self.unheard) = (false, false, None);
        self.wire.listen(true);
        self.seat.leave();
        let stats = &self.casting.stats.sessions;
        reason.counter(&stats.endings).add(1);
        match reason {
            CloseReason::SlowConsumer => stats.slow_consumers.add(1),
            CloseReason::PingTimeout => stats.ping_timeouts.add(1),
            CloseReason::Protocol(_)
            | CloseReason::NotText
            | CloseReason::NotUtf8
            | CloseReason::NotDeflate
            | CloseReason::TooBig => stats.bad_frames.add(1),
            // What was missed is counted where it is found.
            CloseReason::ShuttingDown
            | CloseReason::Draining
            | CloseReason::Evicted
            | CloseReason::Internal
            | CloseReason::Missed
            | CloseReason::TooMany
            | CloseReason::Idle
            | CloseReason::Client(_) => {}
        }
        reason.log(self.wire.client(), &self.casting.logger);
        if reason.drops_queue() {
            self.wire.abandon();
        }
        for last in self.dialect.farewell(reason) {
            self.wire.force(last);
        }
        self.flush(ctx);
        self.find_end(ctx);
        // A client that answers no ping would not take the close frame later either, and one that
        // closed first waits for the end of our stream only.
        let gone = matches!(reason, CloseReason::PingTimeout)
            || (matches!(reason, CloseReason::Client(_)) && !self.wire.is_awaited());
        if gone {
            self.wire.cut();
            ctx.stop();
        } else {
            ctx.run_later(LINGER, |session, ctx| {
                session.wire.cut();
                ctx.stop();
            });
        }
    }

    /// After our close frame only the client's own, or the end of its stream, is of interest.
    pub(super) fn find_end(&mut self, ctx: &mut Context<Self>) {
        loop {
            match self.assembler.next(&mut self.inbound) {
                Ok(Some(Inbound::Close(_))) if self.is_drained() => return ctx.stop(),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => return self.inbound.clear(),
            }
        }
    }

    fn is_drained(&self) -> bool {
        self.wire.flush() == Flush::Drained
    }
}
