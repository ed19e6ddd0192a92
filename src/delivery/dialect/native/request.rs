//! What a client of the native protocol says, and why it has no effect.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use serde_json::value::RawValue;

use crate::{
    delivery::{
        dialect::object::{self, ObjectError},
        policy::Policy,
        replay::{ResumeError, Since, Wanted},
        subscription::{Conditions, KEYS, MAX_LINGER_MS, MAX_VALUE_BYTES, SubscribeError, Users},
    },
    event::{Address, Cursor, Timestamp, Topic},
    store::StoreError,
};

/// Most of the last events that a subscription may begin with.
const MAX_LAST: usize = 10_000;
/// Longest id of a subscription or a ping, in bytes: we send it back.
pub const MAX_ID_BYTES: usize = 128;

/// What is looked at first: which frame it is, and whom an error concerns.
#[derive(Deserialize)]
pub struct Head {
    #[serde(rename = "type")]
    pub kind: String,
    pub id: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
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
pub struct Unsubscribe {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    pub id: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain {
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
pub fn check_id(id: &RawValue) -> Result<(), FrameError> {
    let text = id.get().as_bytes();
    let fits = match text {
        [b'"', inner @ .., b'"'] => !inner.is_empty(),
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    if fits && text.len() <= MAX_ID_BYTES { Ok(()) } else { Err(FrameError::BadId) }
}

impl Plain {
    pub fn id(&self) -> Result<Option<&RawValue>, FrameError> {
        self.id.as_deref().map(check_id).transpose()?;
        Ok(self.id.as_deref())
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
    pub fn read(self, topics: &[Topic]) -> Result<(Box<RawValue>, Since, Wanted), FrameError> {
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
        let wanted = Wanted { topic, users, conditions, policy, linger_ms };
        Ok((self.id, from(self.from.as_deref(), topics)?, wanted))
    }
}
