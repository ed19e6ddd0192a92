//! Brings what is appended to the log to the sessions of one HTTP worker.
//!
//! Place in the pipeline: `Router` -[`Appended`]-> **`Shard`** -> outboxes; one per worker thread,
//! on the thread of its sessions. The rules are in [`Members`].
//! Invariant: between two turns the thread serves everything else, so that heartbeats and control
//! frames get through however much there is to deliver. A panic in a turn ends the process.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use actix::prelude::*;
use tokio::time::Instant;

use super::{
    Casting,
    close::CloseReason,
    index::SessionId,
    members::{Fetch, Members},
    relief,
};
use crate::{
    essential::essential,
    fail_point,
    roll_call::RollCall,
    router::readers::{Appended, Purpose},
};

/// Every session is to end, spread over this time, and those that come later at once.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct SendAway {
    pub reason: CloseReason,
    pub over: Duration,
}

/// No other session is sent away.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct LetStay;

/// There is something to do besides the log: somebody who is behind can be moved on, or is to leave.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Pull;

/// Asks for the outboxes in which something waits.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Waiting")]
pub struct GetWaiting;

/// What waits for the sessions of one shard.
#[derive(Debug, Default, MessageResponse)]
pub struct Waiting {
    /// Bytes of each for which something waits.
    pub outboxes: Vec<(usize, SessionId)>,
    /// Bytes of those that are told to close: they are about to be dropped, or to leave.
    pub leaving_bytes: usize,
}

/// These sessions are to end: the most waits for them, and too much for all.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Evict(pub Vec<SessionId>);

/// After how long a read of the store is tried again; it doubles up to the second one.
const RETRY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];

/// Casts the log to the sessions of one HTTP worker.
pub struct Shard {
    casting: Arc<Casting>,
    members: Rc<RefCell<Members>>,
    /// Another turn is under way.
    continuing: bool,
    /// When the next sessions are sent away.
    parting: Option<SpawnHandle>,
    /// Rings when what waits in an outbox has to go.
    alarm: Option<(Instant, SpawnHandle)>,
}

impl Shard {
    pub fn new(casting: Arc<Casting>, members: Rc<RefCell<Members>>) -> Self {
        Self { casting, members, continuing: false, parting: None, alarm: None }
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        let more = essential(|| {
            fail_point!("shard.turn");
            self.members.borrow_mut().turn()
        });
        self.continuing = more;
        if self.casting.is_too_full() {
            relief::begin(&self.casting);
        }
        self.set_alarm(ctx);
        for fetch in essential(|| self.members.borrow_mut().take_fetches()) {
            self.fetch(fetch, ctx);
        }
        if more {
            // `ctx.notify` would go on within the same poll; this lets all other tasks of the
            // thread run, and the sockets be looked at, before the next turn.
            let rest = tokio::task::yield_now().into_actor(self);
            ctx.spawn(rest.map(|(), shard, ctx| shard.turn(ctx)));
        }
    }

    /// Sends those away whose time has come, and comes back for the others.
    fn part(&mut self, ctx: &mut Context<Self>) {
        let wait = essential(|| self.members.borrow_mut().part(Instant::now()));
        self.parting = wait.map(|wait| ctx.run_later(wait, Self::part));
    }

    fn rest(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.parting.take() {
            ctx.cancel_future(timer);
        }
    }

    /// One for all sessions. That it rings where nothing waits any more does no harm.
    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        let Some(due) = essential(|| self.members.borrow().next_due()) else { return };
        if self.alarm.as_ref().is_some_and(|(at, _)| *at <= due) {
            return;
        }
        let wait = due.saturating_duration_since(Instant::now());
        let handle = ctx.run_later(wait, |shard, ctx| {
            shard.alarm = None;
            essential(|| shard.members.borrow_mut().flush_due(Instant::now()));
            shard.set_alarm(ctx);
        });
        if let Some((_, later)) = self.alarm.replace((due, handle)) {
            ctx.cancel_future(later);
        }
    }

    /// Reads a page for a session; until it is there, or it is clear that it does not come, the
    /// session waits.
    fn fetch(&self, fetch: Fetch, ctx: &mut Context<Self>) {
        let casting = self.casting.clone();
        let read = async move { casting.pages.page(fetch.after).await };
        ctx.spawn(read.into_actor(self).map(move |result, shard, ctx| {
            let failed = essential(|| shard.members.borrow_mut().fetched(fetch.session, result));
            if let Some(failures) = failed {
                let wait = (RETRY[0] * 2u32.saturating_pow(failures - 1)).min(RETRY[1]);
                ctx.run_later(wait, move |shard, _| {
                    essential(|| shard.members.borrow_mut().retry(fetch.session));
                });
            }
        }));
    }
}

impl Actor for Shard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.casting.sessions.add(ctx.address());
        let reader = self.casting.readers.register(ctx.address().recipient(), Purpose::Delivery);
        self.members.borrow_mut().hang(reader, ctx.address());
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

impl Handler<Pull> for Shard {
    type Result = ();

    fn handle(&mut self, _: Pull, ctx: &mut Self::Context) {
        self.members.borrow_mut().answer_line();
        if !self.continuing {
            self.turn(ctx);
        }
    }
}

impl Handler<SendAway> for Shard {
    type Result = ();

    fn handle(&mut self, SendAway { reason, over }: SendAway, ctx: &mut Self::Context) {
        self.rest(ctx);
        essential(|| self.members.borrow_mut().send_away(reason, over, Instant::now()));
        self.part(ctx);
    }
}

impl Handler<LetStay> for Shard {
    type Result = ();

    fn handle(&mut self, _: LetStay, ctx: &mut Self::Context) {
        self.rest(ctx);
        essential(|| self.members.borrow_mut().let_stay());
    }
}

impl Handler<GetWaiting> for Shard {
    type Result = Waiting;

    fn handle(&mut self, _: GetWaiting, _: &mut Self::Context) -> Waiting {
        essential(|| self.members.borrow().waiting())
    }
}

impl Handler<Evict> for Shard {
    type Result = ();

    fn handle(&mut self, Evict(sessions): Evict, _: &mut Self::Context) {
        essential(|| self.members.borrow_mut().evict(&sessions));
    }
}

impl Handler<RollCall> for Shard {
    type Result = ();

    fn handle(&mut self, _: RollCall, _ctx: &mut Self::Context) {}
}
