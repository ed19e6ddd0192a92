//! Says what it hears, text and binary: the door at which the tests of the WebSocket protocol knock.
//!
//! Place: behind `/echo`, with the feature `echo` only; all but this file is what every session runs.

use bytes::Bytes;

use super::{
    Desk, Dialect, Shown,
    hyper::{self, Hyper},
};
use crate::{
    delivery::{close::CloseReason, frame},
    event::Cursor,
    router::ledger::Gap,
    stats::Stats,
};

pub struct Echo;

impl Dialect for Echo {
    /// Nobody can subscribe here: this, and what an event looks like, is never asked for.
    fn encoding(&self) -> usize {
        hyper::ENCODING
    }

    fn event(&self, event: Shown<'_>, replayed: bool) -> Bytes {
        Hyper.event(event, replayed)
    }

    fn greet(&self, _desk: &mut Desk<'_>) {}

    fn receive(&self, text: &str, desk: &mut Desk<'_>) {
        desk.replies.push(frame::text(|out| out.extend_from_slice(text.as_bytes())));
    }

    fn receive_binary(&self, content: &[u8], desk: &mut Desk<'_>) -> Result<(), CloseReason> {
        desk.replies.push(frame::binary(content));
        Ok(())
    }

    fn heartbeat(&self, _delivered: &Cursor, _stats: &Stats) -> Option<Bytes> {
        None
    }

    fn gap(&self, _gap: &Gap, _closed: bool) -> Option<Bytes> {
        None
    }

    fn missed(&self, _delivered: &Cursor) -> Option<Bytes> {
        None
    }

    fn farewell(&self, reason: &CloseReason) -> Vec<Bytes> {
        vec![frame::close(reason.code(), reason.text())]
    }
}
