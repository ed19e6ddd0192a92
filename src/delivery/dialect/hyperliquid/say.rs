//! What the official protocol says beside events.

use std::fmt::Display;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    delivery::frame,
    event::{Cursor, Topic},
};

/// Everything we say beside events. `gap` and `status` are ours: clients pass over channels that they do not
/// know.
#[derive(Serialize)]
#[serde(
    tag = "channel",
    content = "data",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Say<'a> {
    Pong,
    SubscriptionResponse {
        method: &'a str,
        subscription: &'a RawValue,
    },
    Post {
        id: &'a RawValue,
        response: Response,
    },
    Error(&'a str),
    /// Positions that did not come; without them, what was deleted before it could be sent.
    Gap {
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<Topic>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
        closed: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    /// How the session stands.
    Status {
        /// What had been was sent, and what follows is live.
        #[serde(skip_serializing_if = "Option::is_none")]
        live: Option<bool>,
        /// False: some of what had been comes again.
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
        #[serde(flatten)]
        delivered: Option<Delivered>,
        #[serde(skip_serializing_if = "Option::is_none")]
        lag_ms: Option<u64>,
    },
}

/// "You have everything up to here."
#[derive(Serialize)]
pub struct Delivered {
    cursor: String,
    seq: u64,
}

/// What comes of a request for information.
#[derive(Serialize)]
#[serde(tag = "type", content = "payload", rename_all = "camelCase")]
pub enum Response {
    Info(Answer),
    Error(String),
}

/// An answer, and to which request.
#[derive(Serialize)]
pub struct Answer {
    #[serde(rename = "type")]
    kind: Box<RawValue>,
    data: Box<RawValue>,
}

impl From<&Cursor> for Delivered {
    fn from(cursor: &Cursor) -> Self {
        Self { cursor: cursor.to_string(), seq: cursor.seq }
    }
}

impl<'a> Say<'a> {
    pub fn acknowledged(method: &'a str, subscription: &'a RawValue) -> Self {
        Self::SubscriptionResponse { method, subscription }
    }

    pub fn frame(&self) -> Bytes {
        frame::text(|out| {
            serde_json::to_writer(out, self).expect("our own frames have string keys only");
        })
    }
}

impl Response {
    pub fn error(why: &impl Display) -> Self {
        Self::Error(why.to_string())
    }

    /// What was asked for by `payload`.
    pub fn info(payload: &RawValue, answer: Bytes) -> Self {
        #[derive(serde::Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: Box<RawValue>,
        }
        let kind = serde_json::from_str::<Kind>(payload.get()).map(|named| named.kind);
        let data =
            String::from_utf8(answer.into()).ok().and_then(|text| RawValue::from_string(text).ok());
        match (kind, data) {
            (Ok(kind), Some(data)) => Self::Info(Answer { kind, data }),
            // Of an upstream: our own answers are JSON.
            _ => Self::Error("the answer is not JSON".to_owned()),
        }
    }
}
