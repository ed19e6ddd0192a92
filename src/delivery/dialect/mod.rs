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
mod hyperliquid;
mod native;
pub mod plain;
pub mod sse;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    close::CloseReason,
    replay::{ResumeError, Since, Start},
    subscription::{Change, SubscribeError, Subscriptions, Wanted},
    view::View,
};
use crate::{
    config::SessionConfig,
    event::{Address, Cursor, Topic},
    object,
    official::{
        Admission, Rows,
        info::{InfoError, Newest},
    },
    router::{
        ledger::Gap,
        log::{ENCODINGS, LogEvent},
    },
    stats::Stats,
    store::StoreError,
    whitelist::AddError,
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
    /// Its number, of no other dialect that shows events: of its encoding of an event, as a rule; below
    /// [`ENCODINGS`]. Sessions with the same number are sent the same bytes.
    fn encoding(&self) -> usize;

    fn transport(&self) -> Transport {
        Transport::Socket
    }

    /// The frame of an event in one of its views, live or from the past: the same for every session. Empty:
    /// that view does not show this event.
    fn event(&self, event: Shown<'_>, replayed: bool) -> Bytes;

    /// Where its events keep the frame that [`event`](Self::event) gives.
    fn slot(&self, _view: View, _replayed: bool) -> usize {
        self.encoding()
    }

    /// What a client is told when it has connected.
    fn greet(&self, desk: &mut Desk<'_>);

    /// Does what a client says. Where something has to be looked up first, it puts [`Later`] on the desk
    /// instead, and nothing is done yet.
    fn receive(&self, text: &str, desk: &mut Desk<'_>);

    /// Answers what may be answered while another answer is put off, as it has nothing to do with it. None:
    /// the message waits, and with it all that follows.
    fn meanwhile(&self, _text: &str) -> Option<Bytes> {
        None
    }

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

    /// Whether a client that wants nothing, and to whom nothing was said for a time, is sent away.
    fn closes_idle(&self) -> bool {
        false
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

/// An event among those that came with it, and how it is shown.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    pub events: &'a [LogEvent],
    pub at: usize,
    pub view: View,
}

impl<'a> Shown<'a> {
    pub fn event(self) -> &'a LogEvent {
        &self.events[self.at]
    }
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
    /// Whether the events of all users are kept.
    pub keeps_all: bool,
    /// Whether the events of this one are kept.
    pub is_listed: &'a dyn Fn(&Address) -> bool,
    /// What becomes of a subscription to others.
    pub admission: &'a dyn Fn() -> Admission,
    /// What is subscribed to now starts behind it.
    pub cursor: &'a dyn Fn() -> Cursor,
    /// "Delivered up to here" to this session.
    pub delivered: &'a dyn Fn() -> Cursor,
    /// Frames to send, in order.
    pub replies: Vec<Bytes>,
    /// What the index has to learn, in order.
    pub changes: Vec<Change>,
    /// What is put off. Nothing else of this client is heard before it is done; an answer that was put off may
    /// put off more of itself.
    pub later: Option<Later>,
    /// What is spoken from now on, if another one.
    pub speaks: Option<&'static dyn Dialect>,
    /// Frames for which the client need not stop talking: they are made one after the other, while it has
    /// room for them.
    pub asides: Vec<Aside>,
    /// How many more of them may be asked for.
    pub free_asides: usize,
}

/// A message that is answered as a whole, when everything is looked up that it asks for: so no event of one
/// of its subscriptions comes before the answer to another one.
pub struct Later {
    /// As how many messages it counts.
    pub requests: u64,
    pub lookups: Vec<Lookup>,
    pub answer: Answer,
}

/// Does what was put off, with what was found for each of the lookups, in their order.
pub type Answer = Box<dyn FnOnce(Vec<Found>, &mut Desk<'_>)>;

/// What an answer needs to know.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Where a subscription begins in the past.
    Place { from: Since, wanted: Wanted },
    /// The newest of what has been of a user.
    Newest { rows: Rows, user: Address },
    /// Users are put on the whitelist.
    Add { users: BTreeSet<Address> },
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    Place(Result<Start, ResumeError>),
    Newest(Result<Newest, StoreError>),
    Added(Result<(), AddError>),
}

/// A request for information that is answered by one frame.
pub struct Aside {
    /// JSON, as the client has sent it.
    pub request: Box<RawValue>,
    pub frame: Box<dyn FnOnce(Result<Bytes, InfoError>) -> Bytes>,
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
    /// `/ws`: the first frame with a `method` or an `action` fixes the dialect.
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

    /// The dialect of a session whose client says this first. None: it belongs to no protocol, and what comes
    /// next may decide.
    pub fn settle(self, first: &str) -> Option<&'static dyn Dialect> {
        #[derive(Deserialize)]
        struct Names {
            method: Option<IgnoredAny>,
            action: Option<IgnoredAny>,
        }
        if self != Self::Open {
            return Some(self.dialect());
        }
        match object::read(first.as_bytes()).ok()? {
            Names { method: Some(_), .. } => Some(hyperliquid::PLAIN),
            Names { action: Some(_), .. } => Some(&hyper::Hyper),
            Names { method: None, action: None } => None,
        }
    }
}

/// Whether a dialect shows several events of a topic as one: where they came together they have to be read together.
pub fn puts_together(topic: Topic) -> bool {
    hyperliquid::puts_together(topic)
}

const _: () = assert!(hyper::ENCODING < ENCODINGS && native::REPLAYED < ENCODINGS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_has_a_number_of_its_own() {
        // What is encoded once for all who speak a dialect is found by it.
        let all: [&dyn Dialect; 6] = [
            &hyper::Hyper,
            &native::Native,
            &plain::Plain,
            &sse::Sse,
            hyperliquid::PLAIN,
            hyperliquid::EXTENDED,
        ];

        let numbers: BTreeSet<_> = all.iter().map(|dialect| dialect.encoding()).collect();

        assert_eq!(numbers.len(), all.len());
        assert!(numbers.iter().all(|number| *number < ENCODINGS));
    }
}
