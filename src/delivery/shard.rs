//! Brings what is appended to the log to the sessions of one HTTP worker.
//!
//! Place in the pipeline: `Router` -[`Appended`]-> **`Shard`** -> outboxes; one per worker thread,
//! on the thread of its sessions. The rules are in [`Members`].
//! Invariant: between two turns the thread serves everything else, so that heartbeats and control
//! frames get through however much there is to deliver. A panic in a turn ends the process.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::prelude::*;

use super::{Casting, close::CloseReason, members::Members};
use crate::{
    essential::essential,
    fail_point,
    roll_call::RollCall,
    router::readers::{Appended, Purpose},
};

/// Every session is to end, and those that come later.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct CloseAll {
    pub reason: CloseReason,
}

/// Casts the log to the sessions of one HTTP worker.
pub struct Shard {
    casting: Arc<Casting>,
    members: Rc<RefCell<Members>>,
    /// Another turn is under way.
    continuing: bool,
}

impl Shard {
    pub fn new(casting: Arc<Casting>, members: Rc<RefCell<Members>>) -> Self {
        Self { casting, members, continuing: false }
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        let more = essential(|| {
            fail_point!("shard.turn");
            self.members.borrow_mut().turn()
        });
        self.continuing = more;
        if more {
            // `ctx.notify` would go on within the same poll; this lets all other tasks of the
            // thread run, and the sockets be looked at, before the next turn.
            let rest = tokio::task::yield_now().into_actor(self);
            ctx.spawn(rest.map(|(), shard, ctx| shard.turn(ctx)));
        }
    }
}

impl Actor for Shard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.casting.sessions.add(ctx.address());
        let reader = self.casting.readers.register(ctx.address().recipient(), Purpose::Delivery);
        self.members.borrow_mut().hang(reader);
        // What was appended before the bell was hung.
        self.turn(ctx);
    }
}

impl Handler<Appended> for Shard {
    type Result = ();

    fn handle(&mut self, _: Appended, ctx: &mut Self::Context) {
        self.members.borrow().answer();
        if !self.continuing {
            self.turn(ctx);
        }
    }
}

impl Handler<CloseAll> for Shard {
    type Result = ();

    fn handle(&mut self, close: CloseAll, _: &mut Self::Context) {
        self.members.borrow_mut().close_all(&close.reason);
    }
}

impl Handler<RollCall> for Shard {
    type Result = ();

    fn handle(&mut self, _: RollCall, _ctx: &mut Self::Context) {}
}
