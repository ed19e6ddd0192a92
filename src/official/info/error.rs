//! Why a request is not answered, in the words of the official protocol: `{"code":..,"msg":..,"data":..}`.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::{event::Address, store::StoreError};

/// Longest text of a client that is repeated to it.
const MAX_REPEATED_CHARS: usize = 64;

/// Why a request is not answered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct InfoError {
    /// Of HTTP.
    pub status: u16,
    /// A promise to programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// What the upstream has said instead of an answer: it goes to the client as it is.
    pub said: Option<Said>,
}

/// An answer of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `Content-Type`, where there is one that can be read.
    pub content_type: Option<String>,
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
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), said: None }
    }

    /// The request is no JSON.
    pub fn no_json(why: &str) -> Self {
        Self::new(400, "invalid_json", format!("the body is not JSON: {why}"))
    }

    /// The request is not what its type needs.
    pub fn invalid(why: &str) -> Self {
        Self::new(422, "invalid_request", why)
    }

    /// The body of the request did not come, or is too long.
    pub fn unread(status: u16, message: String) -> Self {
        Self::new(status, "unread_body", message)
    }

    /// It is no POST.
    pub fn not_posted() -> Self {
        Self::new(405, "method_not_allowed", "info requests are posted: POST /info")
    }

    /// Nothing here answers this type, and nobody is set who could.
    pub fn not_here(kind: &str) -> Self {
        let kind: String = kind.chars().take(MAX_REPEATED_CHARS).collect();
        let message = format!(
            "requests of the type {kind:?} are not answered here: the operator can set \
             official.info_upstream (--info-upstream URL), to which they are passed on then"
        );
        Self::new(422, "unsupported_type", message)
    }

    /// Nothing is kept of this user, and nothing was.
    pub fn not_listed(user: Address) -> Self {
        let message = format!(
            "user {user} is not on the whitelist of this daemon, and nothing is stored of this user"
        );
        Self::new(404, "not_listed", message)
    }

    /// Too much is under way for others.
    pub fn busy(message: &str) -> Self {
        Self::new(503, "busy", message)
    }

    /// The upstream gave no answer.
    pub fn upstream(why: &str) -> Self {
        Self::new(502, "upstream_failed", format!("the upstream gives no answer: {why}"))
    }

    pub fn upstream_too_slow(limit: Duration) -> Self {
        let message = format!("the upstream gives no answer within {limit:?}");
        Self::new(504, "upstream_too_slow", message)
    }

    /// The upstream has refused it.
    pub fn said(status: u16, said: Said) -> Self {
        let text = String::from_utf8_lossy(&said.body);
        let mut message: String = text.chars().take(4 * MAX_REPEATED_CHARS).collect();
        if message.is_empty() {
            message = format!("the upstream answers with status {status}");
        }
        Self { said: Some(said), ..Self::new(status, "upstream_refused", message) }
    }

    /// What a client of HTTP gets.
    pub fn body(&self) -> Vec<u8> {
        let body = Body { code: self.status, msg: &self.message, data: self.code };
        serde_json::to_vec(&body).expect("a number and texts are written to memory")
    }
}

impl From<StoreError> for InfoError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooSlow(limit) => Self::new(
                422,
                "too_slow",
                format!("the answer was not found within {limit:?}: ask for a shorter time"),
            ),
            StoreError::Unavailable(_) | StoreError::LeaseLost(_) | StoreError::Failed(_) => {
                let message = "the store does not answer at the moment; try again later";
                Self::new(503, "unavailable", message)
            }
            StoreError::Refused(_) | StoreError::Unusable(_) | StoreError::Denied(_) => {
                Self::new(500, "store_failed", "the store could not answer this request")
            }
        }
    }
}
