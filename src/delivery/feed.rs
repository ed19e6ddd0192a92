//! A session whose client reads a response body: Server-Sent Events, or one answer to a long poll.
//!
//! Place in the pipeline: as `Session`, but what the client wants is known from its request, and it
//! says nothing more.
//! Invariants: a feed ends with its body, and its body with the feed; a client that takes nothing for
//! `session.stall_timeout` is cut off, whatever HTTP would do.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::prelude::*;
use bytes::Bytes;
use slog::debug;

use super::{
    Casting,
    body::Body,
    close::CloseReason,
    dialect::Dialect,
    members::Members,
    outlet::{Flush, Outlet},
    peer::Peer,
    replay::{ResumeError, Since, Start},
    seat::Seat,
    session::{LINGER, Told},
    set::EnterError,
    subscription::{SubscribeError, Wanted},
};
use crate::{client::Client, config::Config, event::Cursor};

/// What the feeds of one HTTP worker need; every worker has its own.
#[derive(Clone)]
pub struct Feeds {
    casting: Arc<Casting>,
    members: Rc<RefCell<Members>>,
}

/// What a client asks for by its request.
pub struct Request {
    /// One for each topic.
    pub wanted: Vec<Wanted>,
    pub from: Since,
    pub dialect: &'static dyn Dialect,
    /// Events that it takes at most.
    pub limit: usize,
    /// Who has asked.
    pub client: Client,
    pub peer: Peer,
}

/// Why a feed does not begin.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("{0}")]
    Enter(#[from] EnterError),
    #[error("{0}")]
    Resume(#[from] ResumeError),
    #[error("{0}")]
    Subscribe(#[from] SubscribeError),
}

/// A feed's end that the request holds; the feed ends with it.
pub struct Handle {
    pub body: Rc<Body>,
    /// It begins exactly where its client asked; otherwise some events come again.
    pub recovered: bool,
    feed: Addr<Feed>,
}

/// The actor behind a response body.
pub struct Feed {
    seat: Seat,
    body: Rc<Body>,
    request: Request,
    casting: Arc<Casting>,
    /// Holds for all its life, whatever is reloaded.
    config: Arc<Config>,
    closing: bool,
}

/// The client has taken all that was queued.
#[derive(Message)]
#[rtype(result = "()")]
struct Room;

/// The request is over.
#[derive(Message)]
#[rtype(result = "()")]
struct Over;

/// Takes what is queued, and how far the client is with that: both of one moment.
#[derive(Message)]
#[rtype(result = "(Vec<Bytes>, Cursor)")]
struct TakeAnswer;

/// Looks at a client in each `session.stall_timeout`.
const LOOKS: u32 = 4;

/// Whether a client stalls, look by look.
#[derive(Default)]
struct Stall {
    /// What it has taken in all, and at how many looks since it was no more; none while nothing waits.
    waits: Option<(u64, u32)>,
}

impl Stall {
    /// Notes what a client has taken for whom something waits. Gives whether that was no more for
    /// `session.stall_timeout`.
    fn look(&mut self, taken: Option<u64>) -> bool {
        self.waits = taken.map(|taken| match self.waits {
            Some((before, looks)) if before == taken => (taken, looks + 1),
            _ => (taken, 0),
        });
        self.waits.is_some_and(|(_, looks)| looks >= LOOKS)
    }
}

impl Request {
    /// Its answer goes on, and may wait for its client. That of a poll leaves as one.
    fn is_stream(&self) -> bool {
        self.limit == usize::MAX
    }
}

impl Feeds {
    pub fn new(casting: Arc<Casting>, members: Rc<RefCell<Members>>) -> Self {
        Self { casting, members }
    }

    /// Begins a feed.
    ///
    /// # Errors
    /// Nothing has begun then.
    pub async fn begin(&self, request: Request) -> Result<Handle, FeedError> {
        let config = self.casting.config.get();
        let permit = self.casting.sessions.enter(request.client.clone(), &config.session)?;
        request.peer.bound_send_buffer(config.session.send_buffer_bytes);
        debug!(self.casting.logger, "feed begins"; "client" => %request.client);
        request.peer.becomes_session();
        let starts = self.casting.sessions.unless_shut(self.starts(&request)).await??;
        let (most, stats) = (config.session.outbox_bytes, self.casting.stats.clone());
        let body = Body::new(&config.session, request.limit, stats, permit);
        let mut seat = Seat::new(self.members.clone(), self.casting.clone(), most / 2);
        // Refused before the answer begins, if at all.
        let mut changes = Vec::new();
        for (number, (wanted, start)) in request.wanted.iter().zip(&starts).enumerate() {
            let change =
                seat.subscriptions.begin(&number.to_string(), wanted.clone(), &config.session);
            let mut change =
                change.inspect_err(|error| error.count(&self.casting.stats.sessions))?;
            change.begins = (request.from != Since::Now).then(|| start.place());
            change.heard = start.heard(&request.from, change.wanted.topic);
            changes.push(change);
        }
        // Before any event can be queued. Several topics begin where the first of them does.
        let now = seat.settle();
        let exact = starts.iter().all(|start| start.exact);
        let first = starts.iter().min_by_key(|start| start.seq);
        let first = first.map(|start| match request.from {
            // That is said and done in one moment, which the search was not.
            Since::Now => Start { exact, ..Start::at(now()) },
            _ => Start { exact, ..start.clone() },
        });
        if let Some(frame) = first.and_then(|start| request.dialect.begins(&start)) {
            body.force(frame);
        }
        let casting = self.casting.clone();
        let feed = Feed::create(|ctx| {
            seat.take(ctx.address().recipient(), body.clone(), request.dialect);
            seat.apply(&changes);
            Feed { seat, body: body.clone(), request, casting, config, closing: false }
        });
        Ok(Handle { body, recovered: exact, feed })
    }

    /// Where each of its topics begins.
    async fn starts(&self, request: &Request) -> Result<Vec<Start>, ResumeError> {
        let mut starts = Vec::new();
        for wanted in &request.wanted {
            starts.push(self.casting.pages.start(request.from.clone(), wanted).await?);
        }
        Ok(starts)
    }
}

impl Handle {
    /// What is said to the feed when its client has taken all.
    pub fn drained(&self) {
        self.feed.do_send(Room);
    }

    /// Takes what is queued, and how far the client is with that. None: it is gone.
    pub async fn take(&self) -> Option<(Vec<Bytes>, Cursor)> {
        if self.body.ended().is_none()
            && let Ok(answer) = self.feed.send(TakeAnswer).await
        {
            return Some(answer);
        }
        // It has ended, if only while it was asked.
        self.body.ended().map(|delivered| (self.body.take_frames(), delivered))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.body.leave();
        self.feed.do_send(Over);
    }
}

impl Feed {
    fn send(&self, frames: impl IntoIterator<Item = Bytes>) {
        frames.into_iter().for_each(|frame| self.body.force(frame));
        self.body.flush();
    }

    /// Cuts a client off that stalls.
    fn watch(&self, ctx: &mut Context<Self>) {
        let mut stall = Stall::default();
        ctx.run_interval(self.config.session.stall_timeout / LOOKS, move |feed, ctx| {
            let waits = (feed.body.waiting_bytes() > 0).then(|| feed.body.taken_bytes());
            if stall.look(waits) && !feed.closing {
                feed.end(&CloseReason::SlowConsumer, ctx);
                feed.request.peer.cut();
            }
        });
    }

    /// The client has closed, has its answer, or takes nothing of it for longer than HTTP waits.
    fn over(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.closing, true) {
            let stats = &self.casting.stats.sessions;
            if self.request.peer.has_stalled() {
                stats.endings.slow_consumer.add(1);
                stats.slow_consumers.add(1);
            } else {
                stats.endings.client.add(1);
            }
        }
        self.body.leave();
        ctx.stop();
    }

    fn end(&mut self, reason: &CloseReason, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.closing, true) {
            return;
        }
        reason.log(&self.request.client, &self.casting.logger);
        let stats = &self.casting.stats.sessions;
        reason.counter(&stats.endings).add(1);
        if matches!(reason, CloseReason::SlowConsumer) {
            stats.slow_consumers.add(1);
        }
        let delivered = self.seat.delivered()();
        self.seat.leave();
        let is_dropped = reason.drops_queue() && self.request.is_stream();
        if is_dropped {
            self.body.abandon();
        }
        self.send(self.request.dialect.farewell(reason));
        self.body.end(delivered);
        if is_dropped {
            // Its client is slow: it has so long to take the end. Over before that, we are too.
            ctx.run_later(LINGER, |feed, ctx| {
                feed.request.peer.cut();
                ctx.stop();
            });
        } else {
            // The body goes on to its end without us.
            ctx.stop();
        }
    }
}

impl Actor for Feed {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.config.session.heartbeat_interval, |feed, _| {
            // Who takes nothing needs no sign of life.
            if !feed.closing && feed.body.waiting_bytes() == 0 {
                let delivered = feed.seat.delivered_now();
                feed.send(feed.request.dialect.heartbeat(&delivered, &feed.casting.stats));
            }
        });
        self.watch(ctx);
        let peer = self.request.peer.clone();
        let gone = async move { peer.gone().await };
        ctx.spawn(gone.into_actor(self).map(|(), feed, ctx| {
            feed.over(ctx);
        }));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if !self.closing {
            self.casting.stats.sessions.endings.lost.add(1);
        }
    }
}

impl Handler<Told> for Feed {
    type Result = ();

    fn handle(&mut self, told: Told, ctx: &mut Self::Context) {
        match told {
            // The connection asks for more by itself.
            Told::Blocked => {}
            Told::Behind => {
                self.seat.learn();
                match self.body.flush() {
                    Flush::Drained => self.seat.room(),
                    // Told when it is drained.
                    Flush::Blocked => drop(self.body.claim_wait()),
                    Flush::Broken => ctx.stop(),
                }
            }
            Told::Broken => ctx.stop(),
            Told::Close(reason) => self.end(&reason, ctx),
        }
    }
}

impl Handler<Room> for Feed {
    type Result = ();

    fn handle(&mut self, _: Room, _: &mut Self::Context) {
        self.seat.room();
    }
}

impl Handler<Over> for Feed {
    type Result = ();

    fn handle(&mut self, _: Over, ctx: &mut Self::Context) {
        self.over(ctx);
    }
}

impl Handler<TakeAnswer> for Feed {
    type Result = MessageResult<TakeAnswer>;

    fn handle(&mut self, _: TakeAnswer, _: &mut Self::Context) -> Self::Result {
        MessageResult((self.body.take_frames(), self.seat.delivered()()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_nothing_of_what_waits_for_all_looks_of_a_timeout_stalls() {
        let mut stall = Stall::default();
        // It takes something each time, or nothing waits.
        for taken in [Some(1), Some(2), None, Some(2), None, None, None, None, None] {
            assert!(!stall.look(taken));
        }
        // The first look only sees that something waits.
        for _ in 0..LOOKS {
            assert!(!stall.look(Some(2)));
        }
        assert!(stall.look(Some(2)));
        assert!(!stall.look(Some(3)), "it has taken something");
    }
}
