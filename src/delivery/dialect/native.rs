//! The native protocol, on `/v1/ws`. `docs/protocol.md` has the whole of it, with examples.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use serde_json::value::RawValue;

use super::{
    Desk, Dialect, Resume, Skipped, encode,
    object::{self, ObjectError},
};
use crate::{
    delivery::{
        close::CloseReason,
        frame,
        policy::Policy,
        replay::{ResumeError, Since, Start, Wanted},
        subscription::{Conditions, KEYS, MAX_LINGER_MS, SubscribeError, Subscription, Users},
    },
    event::{Address, Cursor, Timestamp, Topic},
    router::{ledger::Gap, log::LogEvent},
    stats::Stats,
    store::StoreError,
};

pub const ENCODING: usize = 1;
/// Of events that come from the past.
pub const REPLAYED: usize = 2;

/// Of the protocol; grows when an existing client could misunderstand us.
const VERSION: u32 = 1;
const SERVER: &str = concat!("nodecast/", env!("CARGO_PKG_VERSION"));
/// Most of the last events that a subscription may begin with.
const MAX_LAST: usize = 10_000;
/// Longest id of a subscription or a ping, in bytes: we send it back.
const MAX_ID_BYTES: usize = 128;

pub struct Native;

/// What is looked at first: which frame it is, and whom an error concerns.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    id: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    id: Box<RawValue>,
    topic: String,
    users: Option<Vec<Address>>,
    #[serde(rename = "where", default)]
    conditions: BTreeMap<String, Values>,
    from: Option<Box<RawValue>>,
    policy: Option<Box<RawValue>>,
    linger_ms: Option<Box<RawValue>>,
}

/// Where a subscription begins, when that is no word and no cursor.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Past {
    Last(usize),
    Block(u64),
    Time(i64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsubscribe {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    id: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    /// Sent back as it is.
    id: Option<Box<RawValue>>,
}

/// A string, or a list of them.
struct Values(Vec<String>);

/// Everything we say beside events.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Say<'a> {
    Hello {
        server: &'a str,
        version: u32,
        epoch: String,
        run: String,
        cursor: String,
        topics: &'a [Topic],
        limits: Limits,
    },
    Ack {
        id: &'a RawValue,
        cursor: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
        #[serde(skip_serializing_if = "Policy::is_default")]
        policy: Policy,
        #[serde(skip_serializing_if = "is_zero")]
        linger_ms: u16,
    },
    Live {
        cursor: String,
    },
    Subscriptions {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        subscriptions: Vec<Listed<'a>>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    Heartbeat {
        cursor: String,
        seq: u64,
        lag_ms: Option<u64>,
    },
    Gap {
        topic: Option<Topic>,
        from: Option<u64>,
        to: Option<u64>,
        closed: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        #[serde(flatten)]
        skipped: Option<SkippedOf<'a>>,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        code: &'a str,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        oldest: Option<String>,
    },
    Bye {
        code: Option<u16>,
        reason: &'a str,
        retry_after_ms: Option<u64>,
    },
}

/// What a gap is more that a subscription has made itself.
#[derive(Serialize)]
struct SkippedOf<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    skipped: bool,
    until: String,
}

#[derive(Serialize)]
struct Limits {
    max_subscriptions: usize,
    max_users: usize,
    max_users_per_subscription: usize,
    max_frame_bytes: usize,
    outbox_bytes: usize,
    ping_interval_ms: u128,
    pong_timeout_ms: u128,
    heartbeat_interval_ms: u128,
}

/// A subscription as `list` shows it: what `subscribe` would take.
#[derive(Serialize)]
struct Listed<'a> {
    id: &'a RawValue,
    topic: Topic,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<Vec<Address>>,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    conditions: Option<&'a BTreeMap<&'static str, Vec<String>>>,
    #[serde(skip_serializing_if = "Policy::is_default")]
    policy: Policy,
    #[serde(skip_serializing_if = "is_zero")]
    linger_ms: u16,
}

/// Whether live events do not wait, which needs not to be shown.
fn is_zero(linger_ms: &u16) -> bool {
    *linger_ms == 0
}

/// Why a frame has no effect. The text is for the client, the code is a promise.
#[derive(Debug, thiserror::Error)]
enum FrameError {
    #[error("{0}")]
    Invalid(#[from] ObjectError),
    #[error("unknown type {0:?}: subscribe, unsubscribe, list and ping are known")]
    UnknownType(String),
    #[error("unknown topic {0:?}: {1} are known")]
    UnknownTopic(String, String),
    #[error("unknown key {0:?} in where: {keys} are known", keys = KEYS.join(", "))]
    UnknownKey(String),
    #[error("{0} is an empty list, which nothing can match")]
    Empty(String),
    #[error("an id is a string or a whole number, of at most {MAX_ID_BYTES} bytes")]
    BadId,
    #[error("no subscription has this id")]
    UnknownId,
    #[error(
        "from is \"now\", \"oldest\", a cursor, or an object with one of last (1 to {MAX_LAST}), block \
         and time (microseconds since 1970)"
    )]
    BadFrom,
    #[error(
        "policy is \"disconnect\", \"skip\", or {{\"conflate\":KEY}} with one of coin, side, dir and user"
    )]
    BadPolicy,
    #[error("linger_ms is a whole number from 0 to {MAX_LINGER_MS}")]
    BadLinger,
    #[error("{0}")]
    NotResumed(#[from] ResumeError),
    #[error("{0}")]
    Refused(#[from] SubscribeError),
}

impl FrameError {
    fn code(&self) -> &'static str {
        match self {
            Self::Invalid(error) if error.is_data() => "invalid_frame",
            Self::Invalid(_) => "invalid_json",
            Self::UnknownType(_) => "unknown_type",
            Self::UnknownTopic(..) => "unknown_topic",
            Self::UnknownKey(_) => "unknown_key",
            Self::Empty(_) => "empty_list",
            Self::BadId => "invalid_id",
            Self::UnknownId => "unknown_id",
            Self::BadFrom => "invalid_from",
            Self::BadPolicy => "invalid_policy",
            Self::BadLinger => "invalid_linger",
            Self::NotResumed(ResumeError::Expired { .. }) => "cursor_expired",
            Self::NotResumed(ResumeError::Unavailable(StoreError::TooSlow(_))) => "too_slow",
            Self::NotResumed(ResumeError::Unavailable(_) | ResumeError::Busy) => "unavailable",
            Self::Refused(SubscribeError::DuplicateId) => "duplicate_id",
            Self::Refused(SubscribeError::TooManySubscriptions(_)) => "too_many_subscriptions",
            Self::Refused(SubscribeError::TooManyUsers(_)) => "too_many_users",
            Self::Refused(SubscribeError::TooManyUsersOfOne(_)) => "too_many_users_of_subscription",
        }
    }
}

impl Native {
    fn answer(kind: &str, text: &str, desk: &mut Desk<'_>) -> Result<(), FrameError> {
        match kind {
            "subscribe" => Self::subscribe(object::read(text.as_bytes())?, desk),
            "unsubscribe" => {
                let request: Unsubscribe = object::read(text.as_bytes())?;
                let gone = desk.subscriptions.unsubscribe(request.id.get());
                desk.changes.push(gone.ok_or(FrameError::UnknownId)?);
                let cursor = (desk.delivered)().to_string();
                let (id, policy, linger_ms) = (&*request.id, Policy::default(), 0);
                desk.say(&Say::Ack { id, cursor, from: None, recovered: None, policy, linger_ms });
                Ok(())
            }
            "list" => {
                let request: Plain = object::read(text.as_bytes())?;
                let id = request.id()?;
                let subscriptions = desk.subscriptions.iter().map(Listed::from).collect();
                let reply = Say::Subscriptions { id, subscriptions }.frame();
                desk.replies.push(reply);
                Ok(())
            }
            "ping" => {
                let request: Plain = object::read(text.as_bytes())?;
                desk.say(&Say::Pong { id: request.id()? });
                Ok(())
            }
            other => Err(FrameError::UnknownType(other.chars().take(MAX_ID_BYTES).collect())),
        }
    }

    fn subscribe(request: Subscribe, desk: &mut Desk<'_>) -> Result<(), FrameError> {
        check_id(&request.id)?;
        let topic = desk.topics.iter().copied().find(|topic| topic.as_str() == request.topic);
        let topic = topic.ok_or_else(|| {
            let known: Vec<_> = desk.topics.iter().map(|topic| topic.as_str()).collect();
            let named = request.topic.chars().take(MAX_ID_BYTES).collect();
            FrameError::UnknownTopic(named, known.join(", "))
        })?;
        let users = match request.users {
            None => Users::All,
            Some(users) if users.is_empty() => return Err(FrameError::Empty("users".to_owned())),
            Some(users) => Users::Listed(users.into_iter().collect()),
        };
        let conditions = conditions(request.conditions)?.map(Arc::new);
        let policy = match request.policy {
            None => Policy::default(),
            Some(asked) => serde_json::from_str(asked.get()).map_err(|_| FrameError::BadPolicy)?,
        };
        let linger_ms = match request.linger_ms {
            None => 0,
            Some(asked) => serde_json::from_str(asked.get())
                .ok()
                .filter(|linger| *linger <= MAX_LINGER_MS)
                .ok_or(FrameError::BadLinger)?,
        };
        let wanted = Wanted { topic, users, conditions, policy, linger_ms };
        match from(request.from.as_deref(), desk.topics)? {
            Since::Now => Self::begin(&request.id, wanted, None, desk),
            from => {
                let id = request.id.get().into();
                desk.resume = Some(Resume { id, from, wanted });
                Ok(())
            }
        }
    }

    /// Begins a subscription now, or at a place in the past and by what that was found.
    fn begin(
        id: &RawValue,
        wanted: Wanted,
        past: Option<(&Start, &Since)>,
        desk: &mut Desk<'_>,
    ) -> Result<(), FrameError> {
        let Wanted { policy, linger_ms, .. } = wanted;
        let mut change = desk.subscriptions.begin(id.get(), wanted, desk.limits)?;
        change.begins = past.map(|(start, _)| start.seq);
        desk.changes.push(change);
        let cursor = match past {
            None => (desk.cursor)().to_string(),
            Some((start, _)) => start.cursor.to_string(),
        };
        let recovered = past.map(|(start, _)| start.exact);
        let from = past.map(|(start, from)| by_what(from, start));
        desk.say(&Say::Ack { id, cursor, from, recovered, policy, linger_ms });
        Ok(())
    }

    /// Tells a client why its frame has no effect.
    fn refuse(id: Option<&RawValue>, error: &FrameError, desk: &mut Desk<'_>) {
        desk.stats.sessions.bad_frames.add(1);
        if let FrameError::Refused(refused) = error {
            desk.count_refusal(refused);
        }
        let oldest = match error {
            FrameError::NotResumed(ResumeError::Expired { oldest }) => Some(oldest.to_string()),
            _ => None,
        };
        desk.say(&Say::Error { id, code: error.code(), message: error.to_string(), oldest });
    }
}

/// The frame of a gap that a subscription has made itself.
pub fn skipped(gap: &Skipped<'_>, id: Option<&RawValue>) -> Bytes {
    let (topic, cursor) = (Some(gap.topic), Some(gap.from.to_string()));
    let skipped = Some(SkippedOf { id, skipped: true, until: gap.to.to_string() });
    Say::Gap { topic, from: None, to: None, closed: false, cursor, skipped }.frame()
}

/// How old the newest line of a node is: what a client has to add to its own delay. None as long as no
/// line was read.
fn lag_ms(stats: &Stats) -> Option<u64> {
    let streams = stats.streams();
    let newest = streams.iter().map(|stream| stream.last_written.get()).max()?;
    (newest > 0).then(|| Timestamp::now().since(Timestamp(newest)).as_millis() as u64)
}

/// Reads where a subscription shall begin.
fn from(asked: Option<&RawValue>, topics: &[Topic]) -> Result<Since, FrameError> {
    let Some(asked) = asked else { return Ok(Since::Now) };
    if let Ok(text) = serde_json::from_str::<String>(asked.get()) {
        return match &*text {
            "now" => Ok(Since::Now),
            "oldest" => Ok(Since::Oldest),
            cursor => {
                Cursor::parse(cursor, topics).map(Since::Cursor).map_err(|_| FrameError::BadFrom)
            }
        };
    }
    match object::read(asked.get().as_bytes()) {
        Ok(Past::Last(count)) if (1..=MAX_LAST).contains(&count) => Ok(Since::Last(count)),
        Ok(Past::Block(block)) => Ok(Since::Block(block)),
        Ok(Past::Time(time)) => Ok(Since::Time(Timestamp(time))),
        Ok(Past::Last(_)) | Err(_) => Err(FrameError::BadFrom),
    }
}

/// By what the place was found.
fn by_what(from: &Since, start: &Start) -> &'static str {
    match from {
        Since::Now => "now",
        Since::Oldest => "oldest",
        Since::Cursor(_) if start.exact => "cursor",
        Since::Cursor(_) => "position",
        Since::Last(_) => "last",
        Since::Block(_) => "block",
        Since::Time(_) => "time",
    }
}

fn conditions(asked: BTreeMap<String, Values>) -> Result<Option<Conditions>, FrameError> {
    let mut conditions = Conditions::default();
    for (key, Values(values)) in asked {
        let known = KEYS.into_iter().find(|known| *known == key);
        let known = known
            .ok_or_else(|| FrameError::UnknownKey(key.chars().take(MAX_ID_BYTES).collect()))?;
        if values.is_empty() {
            return Err(FrameError::Empty(format!("where.{known}")));
        }
        conditions.0.insert(known, values);
    }
    Ok((!conditions.0.is_empty()).then_some(conditions))
}

/// An id is its JSON text to us: `"a"` and `1` are sent back as they came, and are told apart.
fn check_id(id: &RawValue) -> Result<(), FrameError> {
    let text = id.get().as_bytes();
    let fits = match text {
        [b'"', inner @ .., b'"'] => !inner.is_empty(),
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    if fits && text.len() <= MAX_ID_BYTES { Ok(()) } else { Err(FrameError::BadId) }
}

impl Dialect for Native {
    fn encoding(&self) -> usize {
        ENCODING
    }

    fn slot(&self, replayed: bool) -> usize {
        if replayed { REPLAYED } else { ENCODING }
    }

    fn event(&self, event: &LogEvent, replayed: bool) -> Bytes {
        event.frame(self.slot(replayed), |event| {
            let cursor = event.cursor();
            frame::text(|out| encode::native_event(&event.sequenced, &cursor, replayed, out))
        })
    }

    fn greet(&self, desk: &mut Desk<'_>) {
        let cursor = (desk.cursor)();
        let limits = desk.limits;
        desk.say(&Say::Hello {
            server: SERVER,
            version: VERSION,
            // As in cursors: the numbers may be beyond what JavaScript keeps exactly.
            epoch: format!("{:x}", cursor.epoch),
            run: format!("{:x}", cursor.run),
            cursor: cursor.to_string(),
            topics: desk.topics,
            limits: Limits {
                max_subscriptions: limits.max_subscriptions,
                max_users: limits.max_users,
                max_users_per_subscription: limits.max_users_per_subscription,
                max_frame_bytes: limits.max_frame_bytes,
                outbox_bytes: limits.outbox_bytes,
                ping_interval_ms: limits.ping_interval.as_millis(),
                pong_timeout_ms: limits.pong_timeout.as_millis(),
                heartbeat_interval_ms: limits.heartbeat_interval.as_millis(),
            },
        });
    }

    fn receive(&self, text: &str, desk: &mut Desk<'_>) {
        let head: Result<Head, _> = object::read(text.as_bytes());
        let (id, outcome) = match head {
            Ok(head) => (head.id, Self::answer(&head.kind, text, desk)),
            Err(error) => (None, Err(error.into())),
        };
        if let Err(error) = outcome {
            Self::refuse(id.as_deref().filter(|id| check_id(id).is_ok()), &error, desk);
        }
    }

    fn resume(&self, resume: Resume, start: Result<Start, ResumeError>, desk: &mut Desk<'_>) {
        let Resume { id, from, wanted } = resume;
        let id: Box<RawValue> = serde_json::from_str(&id).expect("an id was JSON when it came");
        let outcome = start
            .map_err(FrameError::from)
            .and_then(|start| Self::begin(&id, wanted, Some((&start, &from)), desk));
        if let Err(error) = outcome {
            Self::refuse(Some(&id), &error, desk);
        }
    }

    fn live(&self, cursor: &Cursor) -> Option<Bytes> {
        Some(Say::Live { cursor: cursor.to_string() }.frame())
    }

    fn heartbeat(&self, delivered: &Cursor, stats: &Stats) -> Option<Bytes> {
        let (cursor, lag_ms) = (delivered.to_string(), lag_ms(stats));
        Some(Say::Heartbeat { cursor, seq: delivered.seq, lag_ms }.frame())
    }

    fn gap(&self, gap: &Gap, closed: bool) -> Option<Bytes> {
        let (from, to) = (Some(gap.first), Some(gap.last));
        Some(
            Say::Gap { topic: Some(gap.topic), from, to, closed, cursor: None, skipped: None }
                .frame(),
        )
    }

    fn missed(&self, delivered: &Cursor) -> Option<Bytes> {
        let cursor = Some(delivered.to_string());
        let (topic, from, to, closed) = (None, None, None, false);
        Some(Say::Gap { topic, from, to, closed, cursor, skipped: None }.frame())
    }

    fn skipped(&self, gap: &Skipped<'_>) -> Option<Bytes> {
        Some(skipped(gap, serde_json::from_str(gap.id).ok()))
    }

    fn farewell(&self, reason: &CloseReason) -> Vec<Bytes> {
        let close = frame::close(reason.code(), reason.text());
        if matches!(reason, CloseReason::Client(_)) {
            return vec![close];
        }
        vec![bye(reason, reason.retry_after()), close]
    }
}

/// The last message of a session, with the wait that was drawn for it.
pub fn bye(reason: &CloseReason, retry_after: Option<Duration>) -> Bytes {
    let retry_after_ms = retry_after.map(|wait| wait.as_millis() as u64);
    Say::Bye { code: reason.code(), reason: reason.text(), retry_after_ms }.frame()
}

impl Desk<'_> {
    fn say(&mut self, what: &Say<'_>) {
        self.replies.push(what.frame());
    }
}

impl Say<'_> {
    fn frame(&self) -> Bytes {
        frame::text(|out| {
            serde_json::to_writer(out, self).expect("our own frames have string keys only");
        })
    }
}

impl Plain {
    fn id(&self) -> Result<Option<&RawValue>, FrameError> {
        self.id.as_deref().map(check_id).transpose()?;
        Ok(self.id.as_deref())
    }
}

impl<'a> From<(&'a str, &'a Subscription)> for Listed<'a> {
    fn from((id, subscription): (&'a str, &'a Subscription)) -> Self {
        let users = match &subscription.users {
            Users::All => None,
            Users::Listed(users) => Some(users.iter().copied().collect()),
        };
        let conditions = subscription.conditions.as_ref().map(|conditions| &conditions.0);
        let Subscription { policy, linger_ms, .. } = *subscription;
        // The key of a native subscription is the JSON text of its id.
        let id = serde_json::from_str(id).expect("an id was JSON when it came");
        Self { id, topic: subscription.topic, users, conditions, policy, linger_ms }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValuesVisitor;

        impl<'de> Visitor<'de> for ValuesVisitor {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, value: &str) -> Result<Values, E> {
                Ok(Values(vec![value.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<Values, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(values)).map(Values)
            }
        }

        deserializer.deserialize_any(ValuesVisitor)
    }
}
