//! What the native protocol says beside events.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::request::MAX_REQUESTS;
use crate::{
    config::SessionConfig,
    delivery::{
        close::CloseReason,
        dialect::Skipped,
        frame,
        policy::Policy,
        subscription::{Conditions, Subscription, Users, Wanted},
    },
    event::{Address, Topic},
};

/// Everything we say beside events.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Say<'a> {
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
pub struct SkippedOf<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    skipped: bool,
    until: String,
}

#[derive(Serialize)]
pub struct Limits {
    max_subscriptions: usize,
    max_users: usize,
    max_users_per_subscription: usize,
    max_requests: usize,
    max_frame_bytes: usize,
    outbox_bytes: usize,
    ping_interval_ms: u128,
    pong_timeout_ms: u128,
    heartbeat_interval_ms: u128,
}

/// A subscription as `list` shows it: what `subscribe` would take.
#[derive(Serialize)]
pub struct Listed<'a> {
    id: &'a RawValue,
    topic: Topic,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<Vec<Address>>,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    conditions: Option<&'a Conditions>,
    #[serde(skip_serializing_if = "Policy::is_default")]
    policy: Policy,
    #[serde(skip_serializing_if = "is_zero")]
    linger_ms: u16,
}

/// Whether live events do not wait, which needs not to be shown.
fn is_zero(linger_ms: &u16) -> bool {
    *linger_ms == 0
}

/// The frame of a gap that a subscription has made itself.
pub fn skipped(gap: &Skipped<'_>, id: Option<&RawValue>) -> Bytes {
    let (topic, cursor) = (Some(gap.topic), Some(gap.from.to_string()));
    let skipped = Some(SkippedOf { id, skipped: true, until: gap.to.to_string() });
    Say::Gap { topic, from: None, to: None, closed: false, cursor, skipped }.frame()
}

/// The last message of a session, with the wait that was drawn for it.
pub fn bye(reason: &CloseReason, retry_after: Option<Duration>) -> Bytes {
    let retry_after_ms = retry_after.map(|wait| wait.as_millis() as u64);
    Say::Bye { code: reason.code(), reason: reason.text(), retry_after_ms }.frame()
}

impl Say<'_> {
    pub fn frame(&self) -> Bytes {
        frame::text(|out| {
            serde_json::to_writer(out, self).expect("our own frames have string keys only");
        })
    }
}

impl<'a> From<(&'a str, &'a Subscription)> for Listed<'a> {
    fn from((id, subscription): (&'a str, &'a Subscription)) -> Self {
        let wanted = &subscription.wanted;
        let users = match &wanted.users {
            Users::All => None,
            Users::Listed(users) => Some(users.iter().copied().collect()),
        };
        let conditions = wanted.conditions.as_deref();
        let Wanted { topic, policy, linger_ms, .. } = *wanted;
        // The key of a native subscription is the JSON text of its id.
        let id = serde_json::from_str(id).expect("an id was JSON when it came");
        Self { id, topic, users, conditions, policy, linger_ms }
    }
}

impl From<&SessionConfig> for Limits {
    fn from(limits: &SessionConfig) -> Self {
        Self {
            max_subscriptions: limits.max_subscriptions,
            max_users: limits.max_users,
            max_users_per_subscription: limits.max_users_per_subscription,
            max_requests: MAX_REQUESTS,
            max_frame_bytes: limits.max_frame_bytes,
            outbox_bytes: limits.outbox_bytes,
            ping_interval_ms: limits.ping_interval.as_millis(),
            pong_timeout_ms: limits.pong_timeout.as_millis(),
            heartbeat_interval_ms: limits.heartbeat_interval.as_millis(),
        }
    }
}
