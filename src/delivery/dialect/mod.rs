//! Dialects: what clients speak. One file each; nothing else knows a protocol.
//!
//! Place in the pipeline: the session hands over what its client said, a dialect answers with
//! frames and changes of the subscriptions; the shard asks it for the frame of an event.
//! Invariants: a dialect has no state and touches no socket: what a client asked for stands in its
//! `Subscriptions`; what a dialect says about a message is a function of it and of them.

#[cfg(feature = "echo")]
mod echo;
pub mod encode;
mod hyper;
mod native;
pub mod object;
pub mod plain;
pub mod sse;

use bytes::Bytes;

use super::{
    close::CloseReason,
    replay::{ResumeError, Since, Start, Wanted},
    subscription::{Change, SubscribeError, Subscriptions},
};
use crate::{
    config::SessionConfig,
    event::{Cursor, Topic},
    router::{
        ledger::Gap,
        log::{ENCODINGS, LogEvent},
    },
    stats::Stats,
};

/// What a client is connected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    Socket,
    /// An answer of HTTP that goes on.
    Stream,
    /// One answer of HTTP, which is awaited.
    Answer,
}

/// How a kind of client writes and is written to. It holds no state: sessions share it.
pub trait Dialect: Sync {
    /// Its number, of no other dialect: of its encoding of an event, as a rule; below [`ENCODINGS`].
    fn encoding(&self) -> usize;

    fn transport(&self) -> Transport {
        Transport::Socket
    }

    /// The frame of an event, live or from the past: the same for every session.
    fn event(&self, event: &LogEvent, replayed: bool) -> Bytes;

    /// Where its events keep the frame that [`event`](Self::event) gives.
    fn slot(&self, _replayed: bool) -> usize {
        self.encoding()
    }

    /// What a client is told when it has connected.
    fn greet(&self, desk: &mut Desk<'_>);

    /// Does what a client says. Where a subscription begins in the past, or several requests have come in
    /// one message, it puts a [`Resume`] on the desk instead, and nothing is done yet.
    fn receive(&self, text: &str, desk: &mut Desk<'_>);

    /// Does what a client says in a binary message.
    ///
    /// # Errors
    /// [`CloseReason::NotText`] where every message is text.
    fn receive_binary(&self, _content: &[u8], _desk: &mut Desk<'_>) -> Result<(), CloseReason> {
        Err(CloseReason::NotText)
    }

    /// What a client that subscribes by its request is told first: where it begins.
    fn begins(&self, _start: &Start) -> Option<Bytes> {
        None
    }

    /// A session that got what had been is live from here on. None: nothing is said.
    fn live(&self, _cursor: &Cursor) -> Option<Bytes> {
        None
    }

    /// "You have everything up to here", sent by a timer. None: nothing is said.
    fn heartbeat(&self, _delivered: &Cursor, _stats: &Stats) -> Option<Bytes> {
        None
    }

    /// A hole in a topic was found, or filled.
    fn gap(&self, gap: &Gap, closed: bool) -> Option<Bytes>;

    /// Events behind `delivered` were deleted before they could be sent. None: the dialect cannot say
    /// so, and the session closes instead.
    fn missed(&self, delivered: &Cursor) -> Option<Bytes>;

    /// A subscription has passed over what its client was too slow for. Only for dialects in which one may
    /// ask for that.
    fn skipped(&self, _skipped: &Skipped<'_>) -> Option<Bytes> {
        None
    }

    /// The last frames of a session: a farewell if the dialect has one, then the close frame.
    fn farewell(&self, reason: &CloseReason) -> Vec<Bytes>;
}

/// A stretch that a subscription does not get.
#[derive(Debug)]
pub struct Skipped<'a> {
    /// As the client calls the subscription.
    pub id: &'a str,
    pub topic: Topic,
    /// Up to where it got everything.
    pub from: &'a Cursor,
    /// Behind which it goes on.
    pub to: &'a Cursor,
}

/// What lies before a dialect when it answers a client.
pub struct Desk<'a> {
    pub subscriptions: &'a mut Subscriptions,
    pub limits: &'a SessionConfig,
    pub topics: &'a [Topic],
    pub stats: &'a Stats,
    /// What is subscribed to now starts behind it.
    pub cursor: &'a dyn Fn() -> Cursor,
    /// "Delivered up to here" to this session.
    pub delivered: &'a dyn Fn() -> Cursor,
    /// Frames to send, in order.
    pub replies: Vec<Bytes>,
    /// What the index has to learn, in order.
    pub changes: Vec<Change>,
    /// What is put off. Nothing else of this client is heard before it is done.
    pub resume: Option<Resume>,
}

/// A message that is answered as a whole, when every place in the past is found that it asks for: so no
/// event of one of its subscriptions comes before the answer to another one.
pub struct Resume {
    /// As how many messages it counts.
    pub requests: u64,
    pub pasts: Vec<Past>,
    pub answer: Answer,
}

/// Does what was put off, with what was found for each of the places, in their order.
pub type Answer = Box<dyn FnOnce(Vec<Found>, &mut Desk<'_>)>;

/// A subscription that begins in the past.
#[derive(Debug)]
pub struct Past {
    pub from: Since,
    pub wanted: Wanted,
}

/// What was found for one.
#[derive(Debug)]
pub struct Found {
    pub past: Past,
    pub start: Result<Start, ResumeError>,
}

impl Desk<'_> {
    /// Counts what a session is refused because it is full.
    fn count_refusal(&self, error: &SubscribeError) {
        error.count(&self.stats.sessions);
    }
}

/// Where a client has connected: it decides what the first frame may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/ws`: the first frame fixes the dialect.
    Open,
    /// `/v1/ws`: the native protocol.
    Native,
    /// `/echo`: says what it hears.
    #[cfg(feature = "echo")]
    Echo,
}

impl Door {
    pub fn of_path(path: &str) -> Option<Self> {
        match path {
            "/ws" => Some(Self::Open),
            "/v1/ws" => Some(Self::Native),
            #[cfg(feature = "echo")]
            "/echo" => Some(Self::Echo),
            _ => None,
        }
    }

    /// The dialect before the client has said anything.
    pub fn dialect(self) -> &'static dyn Dialect {
        match self {
            Self::Open => &hyper::Hyper,
            Self::Native => &native::Native,
            #[cfg(feature = "echo")]
            Self::Echo => &echo::Echo,
        }
    }

    /// The dialect of a session whose first frame is `_first`. A dialect that shares `/ws` is
    /// recognised here.
    pub fn settle(self, _first: &str) -> &'static dyn Dialect {
        self.dialect()
    }
}

const _: () = assert!(hyper::ENCODING < ENCODINGS && native::REPLAYED < ENCODINGS);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_dialect_has_a_number_of_its_own() {
        // What is encoded once for all who speak a dialect is found by it.
        let all: [&dyn Dialect; 4] = [&hyper::Hyper, &native::Native, &plain::Plain, &sse::Sse];

        let numbers: BTreeSet<_> = all.iter().map(|dialect| dialect.encoding()).collect();

        assert_eq!(numbers.len(), all.len());
        assert!(numbers.iter().all(|number| *number < ENCODINGS));
    }
}
