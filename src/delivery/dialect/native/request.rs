//! What a client of the native protocol says, and why it has no effect.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use serde_json::value::RawValue;

use crate::{
    delivery::{
        dialect::Lookup,
        policy::Policy,
        replay::{ResumeError, Since},
        subscription::{
            Conditions, KEYS, MAX_LINGER_MS, MAX_VALUE_BYTES, SubscribeError, Users, Wanted,
        },
    },
    event::{Address, Cursor, Timestamp, Topic},
    object::{self, ObjectError},
    store::StoreError,
};

/// Most of the last events that a subscription may begin with.
const MAX_LAST: usize = 10_000;
/// Longest id of a subscription or a ping, as JSON, in bytes: we send it back.
const MAX_ID_BYTES: usize = 128;
/// Most requests of one list: they are answered all at once.
pub const MAX_REQUESTS: usize = 100;

/// One request of a client, which is read and not done.
pub struct Asked {
    /// Whom an error concerns.
    pub id: Option<Box<RawValue>>,
    pub request: Result<Request, FrameError>,
}

pub enum Request {
    Subscribe {
        id: Box<RawValue>,
        wanted: Wanted,
    },
    /// A subscription that begins in the past.
    Resume {
        id: Box<RawValue>,
        from: Since,
        wanted: Wanted,
    },
    Unsubscribe {
        id: Box<RawValue>,
    },
    List {
        id: Option<Box<RawValue>>,
    },
    Ping {
        id: Option<Box<RawValue>>,
    },
}

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
enum Place {
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

/// Why a frame has no effect. The text is for the client, the code is a promise.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
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
    #[error("a value of where.{0} has at most {MAX_VALUE_BYTES} bytes")]
    LongValue(&'static str),
    #[error("an id is a string or a whole number, of at most {MAX_ID_BYTES} bytes with its quotes")]
    BadId,
    #[error("a list has 1 to {MAX_REQUESTS} requests, of which one may be of type list")]
    BadList,
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
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(error) if error.is_data() => "invalid_frame",
            Self::Invalid(_) => "invalid_json",
            Self::UnknownType(_) => "unknown_type",
            Self::UnknownTopic(..) => "unknown_topic",
            Self::UnknownKey(_) => "unknown_key",
            Self::Empty(_) => "empty_list",
            Self::LongValue(_) => "value_too_long",
            Self::BadId => "invalid_id",
            Self::BadList => "invalid_list",
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
            Self::Refused(
                SubscribeError::TooManyValues(_) | SubscribeError::TooManyValuesOfOne(_),
            ) => "too_many_values",
        }
    }
}

/// The requests of a message: one, or a list of them.
///
/// # Errors
/// None of them is to be done then.
pub fn read(text: &str, topics: &[Topic]) -> Result<Vec<Asked>, FrameError> {
    if !text.trim_ascii_start().starts_with('[') {
        return Ok(vec![Asked::read(text, topics)]);
    }
    let texts: Vec<&RawValue> = serde_json::from_str(text).map_err(ObjectError::from)?;
    if !(1..=MAX_REQUESTS).contains(&texts.len()) {
        return Err(FrameError::BadList);
    }
    let asked: Vec<_> = texts.into_iter().map(|text| Asked::read(text.get(), topics)).collect();
    // Its answer may be long, and all answers wait for their client at once.
    let of_list = |asked: &&Asked| matches!(asked.request, Ok(Request::List { .. }));
    if asked.iter().filter(of_list).count() > 1 {
        return Err(FrameError::BadList);
    }
    Ok(asked)
}

impl Asked {
    fn read(text: &str, topics: &[Topic]) -> Self {
        let head: Head = match object::read(text.as_bytes()) {
            Ok(head) => head,
            Err(error) => return Self { id: None, request: Err(error.into()) },
        };
        let request = Request::read(&head.kind, text, topics);
        Self { id: head.id.filter(|id| check_id(id).is_ok()), request }
    }

    /// What has to be looked up before it is done.
    pub fn lookup(&self) -> Option<Lookup> {
        match &self.request {
            Ok(Request::Resume { from, wanted, .. }) => {
                Some(Lookup::Place { from: from.clone(), wanted: wanted.clone() })
            }
            _ => None,
        }
    }
}

impl Request {
    fn read(kind: &str, text: &str, topics: &[Topic]) -> Result<Self, FrameError> {
        let text = text.as_bytes();
        Ok(match kind {
            "subscribe" => {
                let (id, from, wanted) = object::read::<Subscribe>(text)?.read(topics)?;
                match from {
                    Since::Now => Self::Subscribe { id, wanted },
                    from => Self::Resume { id, from, wanted },
                }
            }
            "unsubscribe" => Self::Unsubscribe { id: object::read::<Unsubscribe>(text)?.id },
            "list" => Self::List { id: object::read::<Plain>(text)?.id()? },
            "ping" => Self::Ping { id: object::read::<Plain>(text)?.id()? },
            other => {
                return Err(FrameError::UnknownType(other.chars().take(MAX_ID_BYTES).collect()));
            }
        })
    }
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
        Ok(Place::Last(count)) if (1..=MAX_LAST).contains(&count) => Ok(Since::Last(count)),
        Ok(Place::Block(block)) => Ok(Since::Block(block)),
        Ok(Place::Time(time)) => Ok(Since::Time(Timestamp(time))),
        Ok(Place::Last(_)) | Err(_) => Err(FrameError::BadFrom),
    }
}

fn conditions(asked: BTreeMap<String, Values>) -> Result<Option<Arc<Conditions>>, FrameError> {
    let mut conditions = BTreeMap::new();
    for (key, Values(values)) in asked {
        let known = KEYS.into_iter().find(|known| *known == key);
        let known = known
            .ok_or_else(|| FrameError::UnknownKey(key.chars().take(MAX_ID_BYTES).collect()))?;
        if values.is_empty() {
            return Err(FrameError::Empty(format!("where.{known}")));
        }
        if values.iter().any(|value| value.len() > MAX_VALUE_BYTES) {
            return Err(FrameError::LongValue(known));
        }
        conditions.insert(known, values);
    }
    Ok(Conditions::new(conditions).shared())
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

impl Plain {
    fn id(self) -> Result<Option<Box<RawValue>>, FrameError> {
        self.id.as_deref().map(check_id).transpose()?;
        Ok(self.id)
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

impl Subscribe {
    /// What is subscribed to, by which id, and where it begins.
    fn read(self, topics: &[Topic]) -> Result<(Box<RawValue>, Since, Wanted), FrameError> {
        check_id(&self.id)?;
        let topic = topics.iter().copied().find(|topic| topic.as_str() == self.topic);
        let topic = topic.ok_or_else(|| {
            let known: Vec<_> = topics.iter().map(|topic| topic.as_str()).collect();
            let named = self.topic.chars().take(MAX_ID_BYTES).collect();
            FrameError::UnknownTopic(named, known.join(", "))
        })?;
        let users = match self.users {
            None => Users::All,
            Some(users) if users.is_empty() => return Err(FrameError::Empty("users".to_owned())),
            Some(users) => Users::Listed(users.into_iter().collect()),
        };
        let conditions = conditions(self.conditions)?;
        let policy = match self.policy {
            None => Policy::default(),
            Some(asked) => serde_json::from_str(asked.get()).map_err(|_| FrameError::BadPolicy)?,
        };
        let linger_ms = match self.linger_ms {
            None => 0,
            Some(asked) => serde_json::from_str(asked.get())
                .ok()
                .filter(|linger| *linger <= MAX_LINGER_MS)
                .ok_or(FrameError::BadLinger)?,
        };
        let wanted = Wanted { conditions, policy, linger_ms, ..Wanted::new(topic, users) };
        Ok((self.id, from(self.from.as_deref(), topics)?, wanted))
    }
}
