//! One client on one socket.
//!
//! Place in the pipeline: `Shard` -> outbox -> **`Session`'s socket** -> client, and back:
//! client -> `Session` -> dialect -> subscriptions of the shard.
//! Invariants: an ordinary actor that owns its socket, so that mailbox and timers work however long
//! the socket is stalled; every session ends within a few seconds of its reason; a panic while a
//! client's frame is handled ends that session only.

mod behind;
mod ending;
mod hearing;
mod ping;

use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::Arc, time::Duration};

use actix::prelude::*;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use self::hearing::Step;
use super::{
    Casting,
    close::CloseReason,
    deflate,
    dialect::{Aside, Dialect, Door, Later},
    frame::{self, Assembler},
    members::Members,
    outbox::Full,
    outlet::{Flush, Outlet},
    rate::SharedAllowances,
    seat::Seat,
    socket::Wire,
    subscription::Change,
};
use crate::{
    config::Config,
    essential::{Panicked, contained},
};

/// How long a session waits, once it has sent or queued its close frame, for its client to take it
/// and to close too.
pub const LINGER: Duration = Duration::from_secs(5);
/// Longest answer that is compressed: longer ones would hold up all sessions of the thread.
const MAX_PACKED_BYTES: usize = 2 << 20;
/// Reads of one round: 64 KiB, then the thread's other tasks have their turn.
const READS_PER_ROUND: usize = 16;

/// What the shard tells a session.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub enum Told {
    /// The socket takes no more: wait for it.
    Blocked,
    /// The session is not live any more, and goes on when its socket has room.
    Behind,
    /// The socket is gone.
    Broken,
    /// The session is to end.
    Close(CloseReason),
}

/// What a session is made of.
pub struct Start {
    pub wire: Wire,
    pub door: Door,
    /// Whether its client may compress what it says.
    pub inflates: bool,
    /// Bytes that came together with the handshake.
    pub inbound: BytesMut,
    /// What it may send.
    pub allowances: SharedAllowances,
    pub members: Rc<RefCell<Members>>,
    pub casting: Arc<Casting>,
    /// Holds for all its life, whatever is reloaded.
    pub config: Arc<Config>,
}

/// One client with one socket.
pub struct Session {
    wire: Rc<Wire>,
    door: Door,
    dialect: &'static dyn Dialect,
    /// Whether its client has fixed the dialect.
    settled: bool,
    /// Bytes of a frame that is not complete.
    inbound: BytesMut,
    assembler: Assembler,
    seat: Seat,
    casting: Arc<Casting>,
    config: Arc<Config>,
    last_heard: Instant,
    /// When it was last asked for a sign of life.
    asked: Option<Instant>,
    /// Set when the close frame is queued: what the client says is only read to find its end.
    closing: bool,
    /// What the client may still send in this minute.
    allowances: SharedAllowances,
    /// An answer is put off; what the client says waits, but for what its dialect answers meanwhile.
    resuming: bool,
    /// The first of it.
    unheard: Option<String>,
    /// The rest of that answer, for which there was no room.
    later: Option<Later>,
    /// What was asked for aside, and whether some of it is being made.
    asides: VecDeque<Aside>,
    is_aside: bool,
    /// When its client was last told something, events apart.
    last_said: Instant,
    /// Bytes of answers that were queued while as much waited as may.
    unread: usize,
    /// That is as much again: what the client says waits, until it has read.
    full: bool,
    /// It is watched whether the socket takes anything.
    watched: bool,
}

impl Session {
    pub fn new(start: Start) -> Self {
        let Start { wire, door, inflates, inbound, allowances, members, casting, config } = start;
        Self {
            wire: Rc::new(wire),
            door,
            dialect: door.dialect(),
            settled: false,
            inbound,
            assembler: Assembler::new(config.session.max_frame_bytes).inflating(inflates),
            seat: Seat::new(members, casting.clone(), config.session.outbox_bytes / 2),
            casting,
            config,
            last_heard: Instant::now(),
            asked: None,
            closing: false,
            allowances,
            resuming: false,
            unheard: None,
            later: None,
            asides: VecDeque::new(),
            is_aside: false,
            last_said: Instant::now(),
            unread: 0,
            full: false,
            watched: false,
        }
    }

    /// Reads what the client has sent and does what it says.
    fn read(&mut self, ctx: &mut Context<Self>) {
        for _ in 0..READS_PER_ROUND {
            if !self.hears() {
                return;
            }
            match self.wire.read(&mut self.inbound) {
                Ok(0) => return ctx.stop(),
                Ok(bytes) => {
                    self.last_heard = Instant::now();
                    // Who is closed already is not charged for what was under way.
                    if !self.closing && !self.allowances.take_bytes(bytes as u64, self.last_heard) {
                        self.close(&CloseReason::TooMany, ctx);
                    }
                    self.converse(ctx);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.inbound.is_empty() {
                        // An idle session holds no buffer.
                        self.inbound = BytesMut::new();
                    }
                    return;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return ctx.stop(),
            }
        }
        self.wire.rest();
    }

    /// Does what the frames say that are complete.
    fn converse(&mut self, ctx: &mut Context<Self>) {
        while !self.closing && self.hears() {
            let step = contained(|| self.step());
            if matches!(step, Ok(Step::Wait)) {
                break;
            }
            self.take(step, ctx);
        }
        if self.closing {
            self.find_end(ctx);
        } else {
            self.flush(ctx);
        }
    }

    fn take(&mut self, step: Result<Step, Panicked>, ctx: &mut Context<Self>) {
        match step {
            Ok(Step::Wait | Step::Nothing) => {}
            Ok(Step::Pong(payload)) => self.send(frame::pong(&payload), ctx),
            Ok(Step::Later(text)) => {
                self.unheard = Some(text);
                self.wire.listen(false);
            }
            Ok(Step::Answer { replies, changes, later, asides }) => {
                self.answer(replies, &changes, ctx);
                if let Some(later) = later {
                    self.put_off(later, ctx);
                }
                self.asides.extend(asides);
                self.go_on_aside(ctx);
            }
            Ok(Step::Close(reason)) => self.close(&reason, ctx),
            Err(Panicked) => {
                self.casting.stats.sessions.panics.add(1);
                self.close(&CloseReason::Internal, ctx);
            }
        }
    }

    /// Says what a dialect has to say, and lets the shard know what it has changed. In this order: the
    /// answer to a subscription goes before its events.
    fn answer(&mut self, replies: Vec<Bytes>, changes: &[Change], ctx: &mut Context<Self>) {
        replies.into_iter().for_each(|reply| self.send(reply, ctx));
        self.seat.apply(changes);
    }

    /// Queues a frame that answers its client; the caller flushes. Events may have filled the outbox, so
    /// answers have as much room again; who has used that up is not listened to before it has read, so
    /// that the answers to one message at most go beyond it.
    fn send(&mut self, frame: Bytes, ctx: &mut Context<Self>) {
        if self.closing {
            return;
        }
        let packed = (self.wire.packs_from()..=MAX_PACKED_BYTES)
            .contains(&frame.len())
            .then(|| deflate::pack(&frame, &self.casting.stats.sessions));
        let frame = packed.flatten().unwrap_or(frame);
        self.last_said = Instant::now();
        if self.has_room() {
            self.unread = 0;
        }
        self.unread += frame.len();
        if let Err(Full) = self.wire.push(frame.clone()) {
            self.wire.force(frame);
        }
        self.fill(ctx);
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        let flush = self.wire.flush();
        self.flushed(flush, ctx);
    }

    fn flushed(&mut self, flush: Flush, ctx: &mut Context<Self>) {
        match flush {
            Flush::Drained if self.closing => self.wire.end(),
            Flush::Drained => self.seat.room(),
            Flush::Blocked => {
                if self.casting.is_too_full() {
                    self.seat.ring();
                }
                if self.wire.claim_wait() {
                    self.wait_for_room(ctx);
                }
            }
            Flush::Broken => ctx.stop(),
        }
    }

    fn heartbeat(&mut self, ctx: &mut Context<Self>) {
        if self.wire.waiting_bytes() > 0 {
            self.flush(ctx);
        }
        // Who has not taken what waits needs no sign of life.
        if self.wire.waiting_bytes() > 0 {
            return;
        }
        let is_owed = self.resuming || self.is_aside || !self.asides.is_empty();
        if self.dialect.closes_idle() && self.seat.subscriptions.is_empty() && !is_owed {
            // Where nothing is wanted nothing has to be told; who pings is answered.
            if self.last_said.elapsed() >= self.config.official.idle_timeout {
                self.close(&CloseReason::Idle, ctx);
            }
            return;
        }
        if let Some(frame) = self.dialect.heartbeat(&self.seat.delivered_now(), &self.casting.stats)
        {
            self.send(frame, ctx);
            self.flush(ctx);
        }
    }

    fn greet(&mut self, ctx: &mut Context<Self>) {
        let dialect = self.dialect;
        if let Step::Answer { replies, .. } = self.at_desk(|desk| dialect.greet(desk)) {
            replies.into_iter().for_each(|reply| self.send(reply, ctx));
        }
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.seat.take(ctx.address().recipient(), self.wire.clone(), self.dialect);
        self.greet(ctx);
        // Frames may have come together with the handshake. This flushes the greeting too.
        self.converse(ctx);
        let wire = self.wire.clone();
        let readable = futures_util::stream::unfold(wire, |wire| async {
            let readable = wire.readable().await;
            Some((readable, wire))
        });
        ctx.add_stream(readable);
        ctx.run_interval(self.config.session.ping_interval, Self::ping);
        ctx.run_interval(self.config.session.heartbeat_interval, Self::heartbeat);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        if !self.closing {
            self.casting.stats.sessions.endings.lost.add(1);
        }
    }
}

impl StreamHandler<std::io::Result<()>> for Session {
    fn handle(&mut self, readable: std::io::Result<()>, ctx: &mut Self::Context) {
        match readable {
            Ok(()) => self.read(ctx),
            Err(_) => ctx.stop(),
        }
    }
}

impl Handler<Told> for Session {
    type Result = ();

    fn handle(&mut self, told: Told, ctx: &mut Self::Context) {
        match told {
            Told::Blocked => self.wait_for_room(ctx),
            Told::Behind => {
                self.seat.learn();
                self.flush(ctx);
            }
            Told::Broken => ctx.stop(),
            Told::Close(reason) => self.close(&reason, ctx),
        }
    }
}

#[cfg(test)]
mod tests;
