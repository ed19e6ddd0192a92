//! Why a request is not answered, in the words of the official protocol: `{"code":..,"msg":..,"data":..}`.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::{
    event::{Address, AddressError},
    object::ObjectError,
    store::StoreError,
};

/// Longest text of a client that is repeated to it.
const MAX_REPEATED_CHARS: usize = 64;

/// Most of what an upstream says that stands in a message.
const MAX_SAID_CHARS: usize = 256;

/// Why a request is not answered. The text is for people.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    #[error("the body is not JSON: {0}")]
    NotJson(#[source] ObjectError),
    /// It is not what its type needs.
    #[error("{0}")]
    Invalid(#[source] ObjectError),
    #[error("user: {0}")]
    User(#[from] AddressError),
    #[error("{name}: {text} is no time in milliseconds since 1970")]
    Time { name: &'static str, text: String },
    #[error("the body must be here within {} ms", .0.as_millis())]
    BodyTooSlow(Duration),
    #[error("the body must not be longer than {0} bytes")]
    BodyTooLong(usize),
    #[error("the body cannot be read")]
    BodyUnread,
    #[error("info requests are posted: POST /info")]
    NotPosted,
    /// Nothing here answers this type, and nobody is set who could.
    #[error(
        "requests of the type {0:?} are not answered here: the operator can set official.info_upstream \
         (--info-upstream URL), to which they are passed on then"
    )]
    Unsupported(String),
    /// Nothing is kept of this user, and nothing was.
    #[error("user {0} is not on the whitelist of this daemon, and nothing is stored of this user")]
    NotListed(Address),
    #[error("other clients are still taking their answers; try again later")]
    NoRoom,
    #[error("the answer was not found within {0:?}: ask for a shorter time")]
    TooSlow(Duration),
    #[error("the store does not answer at the moment; try again later")]
    Unavailable,
    #[error("the store could not answer this request")]
    StoreFailed,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// Why the upstream did not answer a request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("too many requests are passed on to the upstream; try again later")]
    Busy,
    #[error("the upstream gives no answer within {0:?}")]
    TooSlow(Duration),
    #[error("the upstream gives no answer: {0}")]
    Unreachable(String),
    #[error("the upstream gives no answer: it is longer than {0} bytes")]
    TooLong(usize),
    #[error("the upstream gives no answer: it is not JSON")]
    NotJson,
    #[error("the upstream gives no answer: it is no list of coins")]
    NotMeta,
    /// Nobody is followed elsewhere.
    #[error(
        "the upstream gives no answer, but the status {0}: set official.info_upstream to where it is"
    )]
    Elsewhere(u16),
    #[error("{}", .0.text())]
    Refused(Said),
}

/// What the upstream has said instead of an answer: it goes to the client as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Of HTTP.
    pub status: u16,
    /// `Content-Type` and `Retry-After`, where there is one that can be read.
    pub content_type: Option<String>,
    pub retry_after: Option<String>,
    pub body: Bytes,
}

/// The Rust SDK reads a number, a text and a text.
#[derive(Serialize)]
struct Body<'a> {
    code: u16,
    msg: &'a str,
    data: &'static str,
}

impl InfoError {
    pub fn unsupported(kind: &str) -> Self {
        Self::Unsupported(kind.chars().take(MAX_REPEATED_CHARS).collect())
    }

    /// Of HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotJson(_) | Self::BodyUnread => 400,
            Self::NotListed(_) => 404,
            Self::NotPosted => 405,
            Self::BodyTooSlow(_) => 408,
            Self::BodyTooLong(_) => 413,
            Self::Invalid(_)
            | Self::User(_)
            | Self::Time { .. }
            | Self::Unsupported(_)
            | Self::TooSlow(_) => 422,
            Self::StoreFailed => 500,
            Self::NoRoom | Self::Unavailable => 503,
            Self::Upstream(error) => error.status(),
        }
    }

    /// A promise to programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "invalid_json",
            Self::Invalid(_) | Self::User(_) | Self::Time { .. } => "invalid_request",
            Self::BodyTooSlow(_) | Self::BodyTooLong(_) | Self::BodyUnread => "unread_body",
            Self::NotPosted => "method_not_allowed",
            Self::Unsupported(_) => "unsupported_type",
            Self::NotListed(_) => "not_listed",
            Self::NoRoom => "busy",
            Self::TooSlow(_) => "too_slow",
            Self::Unavailable => "unavailable",
            Self::StoreFailed => "store_failed",
            Self::Upstream(error) => error.code(),
        }
    }

    /// What a client of HTTP gets that the upstream has not spoken to.
    pub fn body(&self) -> Vec<u8> {
        let body = Body { code: self.status(), msg: &self.to_string(), data: self.code() };
        serde_json::to_vec(&body).expect("a number and texts are written to memory")
    }
}

impl UpstreamError {
    pub fn status(&self) -> u16 {
        match self {
            Self::Busy => 503,
            Self::TooSlow(_) => 504,
            Self::Refused(said) => said.status,
            _ => 502,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::TooSlow(_) => "upstream_too_slow",
            Self::Refused(_) => "upstream_refused",
            _ => "upstream_failed",
        }
    }
}

impl Said {
    fn text(&self) -> String {
        match self.body.is_empty() {
            true => format!("the upstream answers with status {}", self.status),
            false => String::from_utf8_lossy(&self.body).chars().take(MAX_SAID_CHARS).collect(),
        }
    }
}

impl From<ObjectError> for InfoError {
    fn from(error: ObjectError) -> Self {
        match error.is_data() {
            true => Self::Invalid(error),
            false => Self::NotJson(error),
        }
    }
}

impl From<StoreError> for InfoError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooSlow(limit) => Self::TooSlow(limit),
            StoreError::Unavailable(_) | StoreError::LeaseLost(_) | StoreError::Failed(_) => {
                Self::Unavailable
            }
            StoreError::Refused(_) | StoreError::Unusable(_) | StoreError::Denied(_) => {
                Self::StoreFailed
            }
        }
    }
}
