//! Connections that are no sessions, or not yet: how many there may be, and how long each may take to
//! say what it wants.
//!
//! Place in the pipeline: between the listener and HTTP. A connection leaves with its handshake; one whose
//! answer is a session (a stream, a long poll) leaves for as long as that lasts.
//! Invariants: who is let in beyond the bound is told so and not left waiting; HTTP itself bounds the time
//! of a connection's first request head, and [`Visit`] that of every later one, so that nobody keeps a
//! place by asking slowly.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::server::KEEP_ALIVE;
use crate::stats::Stats;

/// Most refused clients that are answered at one time; more of them only find their connection closed.
const MOST_LINGERING: usize = 256;

/// How long that may take.
const LINGER: Duration = Duration::from_secs(1);

/// What a client is told that is one too many.
const REFUSAL: &str =
    r#"{"code":"too_many_connections","message":"as many connections are open as are allowed"}"#;

/// How the answer begins by which a request is given up: HTTP's own for a head, and that of a route for a
/// body.
const TIMED_OUT: &[u8] = b"HTTP/1.1 408";

/// The connections of all workers that are no sessions.
pub struct Lobby {
    open: AtomicUsize,
    lingering: AtomicUsize,
    stats: Arc<Stats>,
}

/// A connection's place among them.
pub struct Place(Arc<Lobby>);

impl Lobby {
    pub fn new(stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), lingering: AtomicUsize::new(0), stats })
    }

    /// Takes a place; none when so many are taken.
    pub fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        let place = self.enter_in_any_case();
        if self.open.load(Ordering::Relaxed) > most {
            self.stats.connections.too_many.add(1);
            return None;
        }
        Some(place)
    }

    /// Takes a place, whoever is there already.
    fn enter_in_any_case(self: &Arc<Self>) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.stats.connections.open.add(1);
        Place(self.clone())
    }

    /// Tells a client that it is one too many.
    pub async fn refuse(&self, mut socket: TcpStream) {
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
             cache-control: no-store\r\ncontent-length: {}\r\nretry-after: 5\r\nconnection: close\r\n\r\n{REFUSAL}",
            REFUSAL.len()
        );
        // Nobody waits for long who has to be told so often.
        if self.lingering.fetch_add(1, Ordering::Relaxed) < MOST_LINGERING {
            drop(timeout(LINGER, turn_away(&mut socket, answer.as_bytes())).await);
        }
        self.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers, and reads until the client ends: what it sends to a closed socket may cost it the answer.
async fn turn_away(socket: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut passed_over = [0; 1_024];
    socket.write_all(answer).await?;
    socket.shutdown().await?;
    while socket.read(&mut passed_over).await? > 0 {}
    Ok(())
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.stats.connections.open.add(-1);
    }
}

/// How far a connection is with its requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was asked yet: HTTP watches the time.
    First,
    /// A request is being answered.
    Served,
    /// It was answered, and nothing else has come.
    Idle,
    /// The next one has begun.
    Asking,
    /// It did not come in time: the connection ends.
    GivenUp,
}

/// One connection's stay.
pub struct Visit {
    lobby: Arc<Lobby>,
    place: RefCell<Option<Place>>,
    stage: Cell<Stage>,
    /// Until when the next request has to be complete.
    deadline: Cell<Option<Instant>>,
    /// Rings then. Made where it is waited for: a request may be over after the runtime of its thread.
    alarm: RefCell<Option<Pin<Box<Sleep>>>>,
    /// Most time for a request head.
    patience: Duration,
    /// The connection is gone.
    is_over: Cell<bool>,
}

impl Visit {
    pub fn new(place: Place, patience: Duration) -> Self {
        Self {
            lobby: place.0.clone(),
            place: RefCell::new(Some(place)),
            stage: Cell::new(Stage::First),
            deadline: Cell::new(None),
            alarm: RefCell::new(None),
            patience,
            is_over: Cell::new(false),
        }
    }

    /// Whether the time for a request is over. Registers for that moment.
    pub fn is_late(&self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline.get() else { return false };
        let is_early = {
            let mut alarm = self.alarm.borrow_mut();
            let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if alarm.deadline() != deadline {
                alarm.as_mut().reset(deadline);
            }
            alarm.as_mut().poll(cx).is_pending()
        };
        if is_early {
            return false;
        }
        self.no_deadline();
        // Who has asked for nothing else was only idle, and knows that connections end.
        if self.stage.replace(Stage::GivenUp) == Stage::Asking {
            self.lobby.stats.connections.too_slow.add(1);
        }
        true
    }

    /// The client has said something.
    pub fn heard(&self) {
        if self.stage.get() == Stage::Idle {
            self.stage.set(Stage::Asking);
            self.set_deadline(self.patience);
        }
    }

    /// Something is said to the client.
    pub fn said(&self, bytes: &[u8]) {
        if bytes.starts_with(TIMED_OUT) && self.stage.replace(Stage::GivenUp) != Stage::GivenUp {
            self.no_deadline();
            self.lobby.stats.connections.too_slow.add(1);
        }
    }

    fn set_deadline(&self, wait: Duration) {
        self.deadline.set(Some(Instant::now() + wait));
    }

    fn no_deadline(&self) {
        self.deadline.set(None);
        self.alarm.take();
    }

    /// From here on the connection is a session's, until its answer ends.
    pub fn becomes_session(&self) {
        self.place.take();
    }

    /// The connection is gone, or is none of HTTP's any more.
    pub fn ends(&self) {
        self.is_over.set(true);
        self.place.take();
        self.no_deadline();
    }
}

/// A request that is being answered.
pub struct Served(Rc<Visit>);

impl Served {
    pub fn new(visit: Rc<Visit>) -> Self {
        visit.stage.set(Stage::Served);
        visit.no_deadline();
        Self(visit)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let visit = &self.0;
        if visit.is_over.get() || visit.stage.get() == Stage::GivenUp {
            return;
        }
        visit.stage.set(Stage::Idle);
        // HTTP ends who is idle; but not who has sent a part of the next request together with the last one.
        visit.set_deadline(KEEP_ALIVE + visit.patience);
        visit.place.borrow_mut().get_or_insert_with(|| visit.lobby.enter_in_any_case());
    }
}

/// The body of an answer; its request is being answered as long as it lives.
pub struct Answer {
    body: BoxBody,
    _served: Option<Served>,
}

impl Answer {
    pub fn new(body: BoxBody, served: Option<Served>) -> Self {
        Self { body, _served: served }
    }
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_end_after_the_runtime_of_its_thread() {
        let place = Lobby::new(Arc::default()).enter(1).unwrap();
        let visit = Rc::new(Visit::new(place, LINGER));
        let served = Served::new(visit.clone());
        visit.becomes_session();

        drop(served);

        assert!(visit.deadline.get().is_some(), "the next request is waited for");
        assert_eq!(visit.lobby.open.load(Ordering::Relaxed), 1, "and has its place");
    }
}
