//! Live events over plain HTTP: as a stream of Server-Sent Events, or by long polls.
//!
//! Both are sessions as those of WebSockets are: they share filters, cursors, limits and drain.

mod poll;
mod sse;

use std::collections::BTreeSet;

use actix_web::{HttpRequest, HttpResponse, http::header};

pub use self::{poll::poll, sse::stream};
use super::{ApiState, error::ApiError, params::Params};
use crate::{
    client::Client,
    delivery::{
        feed::{FeedError, Feeds},
        peer::Peer,
        replay::{ResumeError, Since},
        subscription::{Conditions, KEYS, MAX_VALUE_BYTES, Users, Wanted},
    },
    event::{Address, Cursor, Topic},
};

/// What both kinds of request can say.
struct Asked {
    wanted: Vec<Wanted>,
    from: Since,
}

impl Asked {
    /// Reads topics, users, keys and where to begin.
    fn read(params: &mut Params, topics: &[Topic]) -> Self {
        let names: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
        let mut chosen = params.all("topic", &names.join(" or "), |name| {
            topics.iter().copied().find(|topic| topic.as_str() == name)
        });
        chosen.sort_unstable();
        chosen.dedup();
        let chosen = if chosen.is_empty() { topics.to_vec() } else { chosen };
        let users: BTreeSet<Address> = params
            .all("user", "0x and 40 hexadecimal digits", |text| text.parse().ok())
            .into_iter()
            .collect();
        let users = if users.is_empty() { Users::All } else { Users::Listed(users) };
        let mut conditions = Vec::new();
        let accepted = format!("a text of 1 to {MAX_VALUE_BYTES} bytes");
        for key in KEYS {
            let values = params.all(key, &accepted, |text| {
                (1..=MAX_VALUE_BYTES).contains(&text.len()).then(|| text.to_owned())
            });
            if !values.is_empty() {
                conditions.push((key, values));
            }
        }
        let conditions = Conditions::new(conditions).shared();
        let cursor = params
            .one("cursor", "now, oldest, or a cursor of this service", |text| since(text, topics));
        let wanted = chosen
            .into_iter()
            .map(|topic| {
                let (users, conditions) = (users.clone(), conditions.clone());
                Wanted { conditions, ..Wanted::new(topic, users) }
            })
            .collect();
        Self { wanted, from: cursor.unwrap_or(Since::Now) }
    }
}

fn since(text: &str, topics: &[Topic]) -> Option<Since> {
    match text {
        "now" => Some(Since::Now),
        "oldest" => Some(Since::Oldest),
        cursor => Cursor::parse(cursor, topics).ok().map(Since::Cursor),
    }
}

/// The feeds of the worker that serves this request.
fn feeds(http: &HttpRequest) -> Result<Feeds, ApiError> {
    // Every worker that takes connections of clients has them.
    http.app_data::<Feeds>().cloned().ok_or(ApiError::ShuttingDown)
}

fn client(state: &ApiState, http: &HttpRequest) -> Client {
    let connected = http.peer_addr().map(|address| address.ip());
    Client::of(connected, http.headers(), &state.config.get().http)
}

/// The other side of the connection that a request came by.
fn peer(http: &HttpRequest) -> Result<Peer, ApiError> {
    http.conn_data::<Peer>().cloned().ok_or(ApiError::ShuttingDown)
}

impl From<FeedError> for ApiError {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Enter(error) => Self::NoSession(error),
            FeedError::Resume(ResumeError::Expired { oldest }) => {
                Self::Expired { oldest: oldest.to_string() }
            }
            FeedError::Resume(ResumeError::Unavailable(error)) => error.into(),
            FeedError::Resume(ResumeError::Busy) => Self::Searching,
            FeedError::Subscribe(error) => Self::InvalidParameter(error.to_string()),
        }
    }
}

/// Nobody may keep the answer, and no proxy hold it back.
fn unbuffered(response: &mut actix_web::HttpResponseBuilder) {
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"));
}

type Answer = Result<HttpResponse, ApiError>;
