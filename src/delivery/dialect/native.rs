//! The native protocol, on `/v1/ws`. `docs/protocol.md` has the whole of it, with examples.

mod request;
mod say;

use bytes::Bytes;
use serde_json::value::RawValue;

pub use self::say::{bye, skipped};
use self::{
    request::{Asked, FrameError, Request},
    say::{Limits, Listed, Say},
};
use super::{Desk, Dialect, Found, Later, Shown, Skipped, encode};
use crate::{
    delivery::{
        close::CloseReason,
        frame,
        policy::Policy,
        replay::{ResumeError, Since, Start},
        subscription::Wanted,
        view::View,
    },
    event::Cursor,
    router::ledger::Gap,
    stats::Stats,
};

pub const ENCODING: usize = 1;
/// Of events that come from the past.
pub const REPLAYED: usize = 2;

/// Of the protocol; grows when an existing client could misunderstand us.
const VERSION: u32 = 1;
const SERVER: &str = concat!("nodecast/", env!("CARGO_PKG_VERSION"));

pub struct Native;

impl Native {
    /// Does what is asked for, in order, with what was found of the past.
    fn answer(asked: Vec<Asked>, found: Vec<Found>, desk: &mut Desk<'_>) {
        let mut found = found.into_iter();
        for Asked { id, request } in asked {
            let done = request.and_then(|request| Self::perform(request, &mut found, desk));
            if let Err(error) = done {
                Self::refuse(id.as_deref(), &error, desk);
            }
        }
    }

    fn perform(
        request: Request,
        found: &mut impl Iterator<Item = Found>,
        desk: &mut Desk<'_>,
    ) -> Result<(), FrameError> {
        match request {
            Request::Subscribe { id, wanted } => Self::begin(&id, wanted, None, desk),
            Request::Resume { id, from, wanted } => {
                let Some(Found::Place(start)) = found.next() else {
                    unreachable!("each place is looked for")
                };
                Self::begin(&id, wanted, Some((&start?, &from)), desk)
            }
            Request::Unsubscribe { id } => {
                let gone = desk.subscriptions.unsubscribe(id.get()).ok_or(FrameError::UnknownId)?;
                // What the same message has begun never was.
                match desk.changes.iter().position(|change| change.key == gone.key) {
                    Some(begun) => drop(desk.changes.remove(begun)),
                    None => desk.changes.push(gone),
                }
                let cursor = (desk.delivered)().to_string();
                let (id, policy, linger_ms) = (&*id, Policy::default(), 0);
                desk.say(&Say::Ack { id, cursor, from: None, recovered: None, policy, linger_ms });
                Ok(())
            }
            Request::List { id } => {
                let subscriptions = desk.subscriptions.iter().map(Listed::from).collect();
                let reply = Say::Subscriptions { id: id.as_deref(), subscriptions }.frame();
                desk.replies.push(reply);
                Ok(())
            }
            Request::Ping { id } => {
                desk.say(&Say::Pong { id: id.as_deref() });
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
        change.begins = past.map(|(start, _)| start.place());
        change.heard = past.and_then(|(start, from)| start.heard(from, change.wanted.topic));
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

impl Dialect for Native {
    fn encoding(&self) -> usize {
        ENCODING
    }

    fn slot(&self, _view: View, replayed: bool) -> usize {
        if replayed { REPLAYED } else { ENCODING }
    }

    fn event(&self, event: Shown<'_>, replayed: bool) -> Bytes {
        event.event().frame(self.slot(event.view, replayed), |event| {
            let cursor = event.cursor();
            frame::text(|out| encode::native_event(&event.sequenced, &cursor, replayed, out))
        })
    }

    fn greet(&self, desk: &mut Desk<'_>) {
        let cursor = (desk.cursor)();
        desk.say(&Say::Hello {
            server: SERVER,
            version: VERSION,
            // As in cursors: the numbers may be beyond what JavaScript keeps exactly.
            epoch: format!("{:x}", cursor.epoch),
            run: format!("{:x}", cursor.run),
            cursor: cursor.to_string(),
            topics: desk.topics,
            limits: Limits::from(desk.limits),
        });
    }

    fn receive(&self, text: &str, desk: &mut Desk<'_>) {
        let asked = match request::read(text, desk.topics) {
            Ok(read) => read,
            Err(error) => return Self::refuse(None, &error, desk),
        };
        let lookups: Vec<_> = asked.iter().filter_map(Asked::lookup).collect();
        if asked.len() == 1 && lookups.is_empty() {
            return Self::answer(asked, Vec::new(), desk);
        }
        let requests = asked.len() as u64;
        let answer = Box::new(|found, desk: &mut Desk<'_>| Self::answer(asked, found, desk));
        desk.later = Some(Later { requests, lookups, answer });
    }

    fn live(&self, cursor: &Cursor) -> Option<Bytes> {
        Some(Say::Live { cursor: cursor.to_string() }.frame())
    }

    fn heartbeat(&self, delivered: &Cursor, stats: &Stats) -> Option<Bytes> {
        let (cursor, lag_ms) = (delivered.to_string(), stats.lag_ms());
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

impl Desk<'_> {
    fn say(&mut self, what: &Say<'_>) {
        self.replies.push(what.frame());
    }
}
