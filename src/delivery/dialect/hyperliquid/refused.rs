//! Why a message has no effect, in the words of the official service as far as it has some.

use serde_json::value::RawValue;

use crate::{
    delivery::{replay::ResumeError, subscription::SubscribeError},
    event::{Address, Cursor},
    object::ObjectError,
    official::Refusal,
    store::StoreError,
    whitelist::AddError,
};

/// Most users of one subscription that begins with snapshots: their client is not heard before it has them all.
pub const MAX_SNAPSHOTS: usize = 100;

/// Longest request for information, in bytes: many may wait for their answer.
pub const MAX_POST_BYTES: usize = 16 << 10;

/// Longest text that is repeated to a client of what is not understood, in bytes.
pub const MAX_ECHO_BYTES: usize = 64 << 10;

/// Why a message has no effect. Clients find theirs in the text by its JSON.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("Error parsing JSON into valid websocket request: {0}")]
    Request(String),
    /// Without its text where that is long.
    #[error("Invalid subscription{}", behind(" ", .0.as_deref()))]
    Subscription(Option<Box<RawValue>>),
    #[error("{why}{}", behind(": ", subscription.as_deref()))]
    Refused { why: Refused, subscription: Option<Box<RawValue>> },
}

/// Why there is no such subscription.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("Already subscribed")]
    AlreadySubscribed,
    #[error("Already unsubscribed")]
    AlreadyUnsubscribed,
    #[error("Invalid subscription, this daemon does not follow the files that it would come from")]
    NotFollowed,
    #[error("Invalid subscription, with snapshots it may name at most {MAX_SNAPSHOTS} users")]
    TooManySnapshots,
    #[error("Invalid subscription, {0}")]
    BadField(ObjectError),
    #[error("Invalid subscription, cursor is none that was given here")]
    BadCursor,
    #[error("Invalid subscription, trades and aggregated fills begin at no cursor")]
    NoCursor,
    #[error(
        "Invalid subscription, trades need the events of all users, and only those of some are kept here"
    )]
    NotAllKept,
    #[error(
        "Invalid subscription, user {first} {} not on the whitelist of this daemon{why}",
        beside(*others)
    )]
    Unlisted { first: Address, others: usize, why: Refusal },
    #[error("Not subscribed, {0}")]
    NotAdded(#[from] AddError),
    #[error("Not subscribed, {0}")]
    Limit(SubscribeError),
    /// The cursor in the text can be begun at.
    #[error(
        "Not subscribed, events behind this cursor have been deleted; what is still there begins behind {0}"
    )]
    Expired(Cursor),
    #[error("Not subscribed, {0}")]
    NotResumed(ResumeError),
    #[error("Not subscribed, what has been cannot be read at the moment: {0}")]
    Unavailable(#[from] StoreError),
}

/// Why a request for information is not passed on, or its answer not given.
#[derive(Debug, thiserror::Error)]
pub enum PostFault {
    #[error(
        "only requests of type info are answered here, such as {{\"type\":\"info\",\"payload\":{{..}}}}"
    )]
    NotInfo,
    #[error("a request may have at most {MAX_POST_BYTES} bytes")]
    TooLong,
    #[error("too many requests are waiting for their answer")]
    TooMany,
    #[error("the answer is too long for a message: ask for less, or by POST /info")]
    LongAnswer,
}

impl Fault {
    pub fn request(text: &str) -> Self {
        Self::Request(text.chars().take(MAX_ECHO_BYTES / 4).collect())
    }

    pub fn subscription(text: &RawValue) -> Self {
        Self::Subscription(echo(text))
    }

    /// Of what is not understood, and may be long.
    pub fn refused(why: Refused, text: &RawValue) -> Self {
        Self::Refused { why, subscription: echo(text) }
    }
}

fn echo(text: &RawValue) -> Option<Box<RawValue>> {
    (text.get().len() <= MAX_ECHO_BYTES).then(|| text.to_owned())
}

fn behind(mark: &str, text: Option<&RawValue>) -> String {
    text.map_or_else(String::new, |text| format!("{mark}{text}"))
}

/// How many others share what is said of a user, and the verb.
fn beside(others: usize) -> String {
    match others {
        0 => "is".to_owned(),
        others => format!("and {others} more of its users are"),
    }
}

impl From<SubscribeError> for Refused {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::DuplicateId => Self::AlreadySubscribed,
            other => Self::Limit(other),
        }
    }
}

impl From<ResumeError> for Refused {
    fn from(error: ResumeError) -> Self {
        match error {
            ResumeError::Expired { oldest } => Self::Expired(oldest),
            other => Self::NotResumed(other),
        }
    }
}
