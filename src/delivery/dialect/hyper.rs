//! The protocol of the older service, on `/ws`.
//!
//! `{"action":"subscribe","event":"fill"}` asks for the fills of all listed users, with
//! `"user":"0x.."` or `"users":["0x.."]` for those of some; `unsubscribe` takes it back. Nothing is
//! acknowledged. `docs/protocol.md` has the whole of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Deserialize;

use super::{Desk, Dialect, Shown, encode};
use crate::{
    delivery::{
        close::CloseReason,
        frame,
        subscription::{SubscribeError, Users},
    },
    event::{Address, Cursor, Topic},
    object::{self, ObjectError},
    router::ledger::Gap,
};

pub const ENCODING: usize = 0;

pub struct Hyper;

/// Longest part of an unknown name that is repeated to the client, in characters.
const ECHO_CHARS: usize = 64;

/// Unknown fields are passed over, as the older service does.
#[derive(Deserialize)]
struct Request {
    action: String,
    event: String,
    /// The users of both fields count together. Null and an empty list are as good as left out:
    /// the older service knows neither field, and everybody is meant.
    user: Option<Address>,
    users: Option<Vec<Address>>,
}

enum Action {
    Subscribe,
    Unsubscribe,
}

/// Why a request has no effect. The text is for the client.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("{0}")]
    Object(#[from] ObjectError),
    #[error("unknown action {0:?}: subscribe and unsubscribe are known")]
    UnknownAction(String),
    #[error("unknown event {0:?}: fill and misc are known")]
    UnknownEvent(String),
    #[error("{0}")]
    Refused(#[from] SubscribeError),
}

impl Hyper {
    fn answer(text: &str, desk: &mut Desk<'_>) -> Result<(), RequestError> {
        let request: Request = object::read(text.as_bytes())?;
        let echo = |name: &str| name.chars().take(ECHO_CHARS).collect();
        let action = match &*request.action {
            "subscribe" => Action::Subscribe,
            "unsubscribe" => Action::Unsubscribe,
            other => return Err(RequestError::UnknownAction(echo(other))),
        };
        let topic = topic(&request.event, desk.topics)
            .ok_or_else(|| RequestError::UnknownEvent(echo(&request.event)))?;
        let users: BTreeSet<Address> =
            request.users.into_iter().flatten().chain(request.user).collect();
        // Two subscriptions a topic: "everybody", and the users that were named one by one.
        let (all, listed) = ("all ".to_owned() + topic.as_str(), topic.as_str());
        let subscriptions = &mut *desk.subscriptions;
        match action {
            Action::Subscribe if users.is_empty() => {
                match subscriptions.subscribe(&all, topic, Users::All, None, desk.limits) {
                    Ok(change) => desk.changes.push(change),
                    // Asking twice is asking once.
                    Err(SubscribeError::DuplicateId) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Action::Subscribe => {
                desk.changes.push(subscriptions.add_users(listed, topic, users, desk.limits)?);
            }
            Action::Unsubscribe if users.is_empty() => {
                desk.changes.extend(subscriptions.unsubscribe(&all));
                desk.changes.extend(subscriptions.unsubscribe(listed));
            }
            Action::Unsubscribe => {
                desk.changes.extend(subscriptions.remove_users(listed, &users));
            }
        }
        Ok(())
    }
}

/// The topic that clients call `event`.
fn topic(event: &str, topics: &[Topic]) -> Option<Topic> {
    topics.iter().copied().find(|topic| encode::older_name(*topic) == event)
}

impl Dialect for Hyper {
    fn encoding(&self) -> usize {
        ENCODING
    }

    fn event(&self, event: Shown<'_>, _replayed: bool) -> Bytes {
        event
            .event()
            .frame(ENCODING, |event| frame::text(|out| encode::older_event(&event.sequenced, out)))
    }

    fn greet(&self, _desk: &mut Desk<'_>) {}

    fn receive(&self, text: &str, desk: &mut Desk<'_>) {
        let Err(error) = Self::answer(text, desk) else { return };
        desk.stats.sessions.bad_frames.add(1);
        if let RequestError::Refused(refused) = &error {
            desk.count_refusal(refused);
        }
        if desk.limits.replies {
            let reply = serde_json::json!({ "error": error.to_string() });
            desk.replies
                .push(frame::text(|out| out.extend_from_slice(reply.to_string().as_bytes())));
        }
    }

    fn gap(&self, _gap: &Gap, _closed: bool) -> Option<Bytes> {
        None
    }

    fn missed(&self, _delivered: &Cursor) -> Option<Bytes> {
        None
    }

    fn farewell(&self, reason: &CloseReason) -> Vec<Bytes> {
        let (code, text) = match reason {
            // H32. The native protocol says 1001, and tells a drain from a stop.
            CloseReason::ShuttingDown | CloseReason::Draining => {
                (Some(1000), CloseReason::ShuttingDown.text())
            }
            other => (other.code(), other.text()),
        };
        vec![frame::close(code, text)]
    }
}
