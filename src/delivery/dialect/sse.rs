//! Server-Sent Events, <https://html.spec.whatwg.org/multipage/server-sent-events.html>: the native
//! protocol's messages as the data of events.
//!
//! The `id` of each is the cursor behind it, which browsers send back as `Last-Event-ID`.

use std::io::Write;

use bytes::Bytes;

use super::{
    Desk, Dialect, Shown, Skipped, Transport,
    encode::{self, IN_MEMORY},
    native::{self, Native},
};
use crate::{
    delivery::{close::CloseReason, frame, replay::Start},
    event::Cursor,
    router::ledger::Gap,
    stats::Stats,
};

/// Live, and from the past.
const ENCODINGS: [usize; 2] = [3, 4];

pub struct Sse;

impl Dialect for Sse {
    fn encoding(&self) -> usize {
        ENCODINGS[0]
    }

    fn transport(&self) -> Transport {
        Transport::Stream
    }

    /// `id: 1.a.b.c\ndata: {..}\n\n`: an event without a name is a `message` to browsers.
    fn event(&self, event: Shown<'_>, replayed: bool) -> Bytes {
        event.event().frame(ENCODINGS[usize::from(replayed)], |event| {
            let cursor = event.cursor();
            let mut out = Vec::new();
            write!(out, "id: {cursor}\ndata: ").expect(IN_MEMORY);
            encode::native_event(&event.sequenced, &cursor, replayed, &mut out);
            out.extend_from_slice(b"\n\n");
            out.into()
        })
    }

    fn greet(&self, _desk: &mut Desk<'_>) {}

    fn receive(&self, _text: &str, _desk: &mut Desk<'_>) {}

    fn begins(&self, start: &Start) -> Option<Bytes> {
        let data = format!(
            "{{\"type\":\"ack\",\"cursor\":\"{}\",\"recovered\":{}}}",
            start.cursor, start.exact
        );
        Some(named("ack", Some(&start.cursor), data.as_bytes()))
    }

    fn live(&self, cursor: &Cursor) -> Option<Bytes> {
        let data = frame::payload(&Native.live(cursor)?);
        Some(named("live", Some(cursor), &data))
    }

    /// A comment that keeps proxies from closing; the id alone makes no event.
    fn heartbeat(&self, delivered: &Cursor, _stats: &Stats) -> Option<Bytes> {
        Some(format!(": heartbeat\nid: {delivered}\n\n").into())
    }

    fn gap(&self, gap: &Gap, closed: bool) -> Option<Bytes> {
        Some(named("gap", None, &frame::payload(&Native.gap(gap, closed)?)))
    }

    fn missed(&self, delivered: &Cursor) -> Option<Bytes> {
        Some(named("gap", None, &frame::payload(&Native.missed(delivered)?)))
    }

    fn skipped(&self, skipped: &Skipped<'_>) -> Option<Bytes> {
        Some(named("gap", Some(skipped.to), &frame::payload(&native::skipped(skipped, None))))
    }

    /// `retry` is what browsers wait before they connect again.
    fn farewell(&self, reason: &CloseReason) -> Vec<Bytes> {
        if matches!(reason, CloseReason::Client(_)) {
            return Vec::new();
        }
        // Drawn once: both have to say the same.
        let retry_after = reason.retry_after();
        let mut out = Vec::new();
        if let Some(wait) = retry_after {
            writeln!(out, "retry: {}", wait.as_millis()).expect(IN_MEMORY);
        }
        let bye = native::bye(reason, retry_after);
        out.extend_from_slice(&named("bye", None, &frame::payload(&bye)));
        vec![out.into()]
    }
}

fn named(name: &str, id: Option<&Cursor>, data: &[u8]) -> Bytes {
    let mut out = Vec::new();
    if let Some(id) = id {
        writeln!(out, "id: {id}").expect(IN_MEMORY);
    }
    write!(out, "event: {name}\ndata: ").expect(IN_MEMORY);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_lines_of_fields_that_end_with_an_empty_one() {
        let cursor = Cursor { epoch: 1, run: 2, seq: 3, positions: Vec::new() };
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();

        assert_eq!(
            text(Sse.live(&cursor).unwrap()),
            "id: 1.1.2.3\nevent: live\ndata: {\"type\":\"live\",\"cursor\":\"1.1.2.3\"}\n\n"
        );
        let bye = text(Sse.farewell(&CloseReason::SlowConsumer).remove(0));
        assert_eq!(
            bye,
            "retry: 1000\nevent: bye\ndata: {\"type\":\"bye\",\"code\":4008,\
             \"reason\":\"slow consumer\",\"retry_after_ms\":1000}\n\n"
        );
        let bye = text(Sse.farewell(&CloseReason::Draining).remove(0));
        let (retry, data) = bye.split_once('\n').unwrap();
        let wait = retry.strip_prefix("retry: ").unwrap();
        assert!(data.contains(&format!("\"retry_after_ms\":{wait}}}")), "{bye}");
    }
}
