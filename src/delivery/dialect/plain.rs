//! Events as plain JSON texts, for the answers to long polls: the native protocol's, without frames.

use bytes::Bytes;

use super::{
    Desk, Dialect, Shown, Transport,
    native::{self, Native},
};
use crate::{
    delivery::{close::CloseReason, frame},
    event::Cursor,
    router::ledger::Gap,
};

pub struct Plain;

impl Dialect for Plain {
    /// Events have no encoding of their own; this is the number of no other dialect.
    fn encoding(&self) -> usize {
        native::REPLAYED
    }

    fn transport(&self) -> Transport {
        Transport::Answer
    }

    fn event(&self, event: Shown<'_>, replayed: bool) -> Bytes {
        frame::payload(&Native.event(event, replayed))
    }

    fn greet(&self, _desk: &mut Desk<'_>) {}

    fn receive(&self, _text: &str, _desk: &mut Desk<'_>) {}

    fn gap(&self, gap: &Gap, closed: bool) -> Option<Bytes> {
        Native.gap(gap, closed).map(|frame| frame::payload(&frame))
    }

    fn missed(&self, delivered: &Cursor) -> Option<Bytes> {
        Native.missed(delivered).map(|frame| frame::payload(&frame))
    }

    fn farewell(&self, _reason: &CloseReason) -> Vec<Bytes> {
        Vec::new()
    }
}
