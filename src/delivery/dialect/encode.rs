//! The JSON texts of an event, as live frames and history answers show it.
//!
//! Place in the pipeline: used by the dialects for frames and by HTTP for pages, so that both show
//! the same bytes.
//! Invariant: a body is copied, never re-serialised; no number passes through a float.

use std::io::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::{Address, Cursor, Event, SequencedEvent, Topic};

/// The topics of the older service. They are part of its protocol, and so stand here and not with
/// a source.
pub const OLDER_TOPICS: [Topic; 2] = [FILLS, MISC];

const FILLS: Topic = Topic::new("fills");
const MISC: Topic = Topic::new("misc");

/// Why writing into a `Vec` cannot fail.
pub const IN_MEMORY: &str = "writing to memory does not fail";

/// Room for everything beside the body, so that a text is one allocation.
const ENVELOPE_BYTES: usize = 384;

/// Writes an event as the older service shows it, in WebSocket frames and in pages alike:
///
/// `{"user":"0x..","event":"fill","block":923950857,"data":{..}}`
///
/// `user` is null where an event concerns nobody. A fill's `data` is its body; a misc event's is
/// the content of `inner` with `hash` and `time` behind it:
///
/// `{"LedgerUpdate":{..},"hash":"0x..","time":"2025-11-05T16:09:18.466557521"}`
pub fn older_event(event: &SequencedEvent, out: &mut Vec<u8>) {
    let event = &event.event;
    out.reserve(event.body.len() + ENVELOPE_BYTES);
    out.extend_from_slice(b"{\"user\":");
    user(event.user, out);
    let name = older_name(event.id.topic);
    write!(out, ",\"event\":\"{name}\",\"block\":{},\"data\":", event.id.position)
        .expect(IN_MEMORY);
    older_data(event, out);
    out.push(b'}');
}

/// Writes an event as the native protocol shows it, in frames and in pages alike:
///
/// `{"type":"event","topic":"fills","cursor":"1.a.b.c.fills-d","seq":1,"block":2,"index":3,
/// "part":0,"time":4,"user":"0x..","late":false,"replayed":false,"data":{..}}`
///
/// `time` is in microseconds since 1970; `data` is the body as the node wrote it. Names of topics
/// need no escapes: sources make them, never a client. A back-filled event has the cursor `null`: nobody
/// can resume behind it.
pub fn native_event(event: &SequencedEvent, cursor: &Cursor, replayed: bool, out: &mut Vec<u8>) {
    let is_backfilled = event.is_backfilled();
    let (seq, late, event) = (event.seq, event.late, &event.event);
    let id = &event.id;
    out.reserve(event.body.len() + ENVELOPE_BYTES);
    write!(out, "{{\"type\":\"event\",\"topic\":\"{}\",\"cursor\":", id.topic).expect(IN_MEMORY);
    match is_backfilled {
        true => out.extend_from_slice(b"null"),
        false => write!(out, "\"{cursor}\"").expect(IN_MEMORY),
    }
    write!(
        out,
        ",\"seq\":{seq},\"block\":{},\"index\":{},\"part\":{},\"time\":{},\"user\":",
        id.position, id.index, id.part, event.time.0
    )
    .expect(IN_MEMORY);
    user(event.user, out);
    write!(out, ",\"late\":{late},\"replayed\":{replayed},\"data\":").expect(IN_MEMORY);
    out.extend_from_slice(&event.body);
    out.push(b'}');
}

/// The name under which the older service shows a topic; others keep their own.
pub fn older_name(topic: Topic) -> &'static str {
    if topic == FILLS { "fill" } else { topic.as_str() }
}

fn user(user: Option<Address>, out: &mut Vec<u8>) {
    match user {
        Some(user) => write!(out, "\"{user}\"").expect(IN_MEMORY),
        None => out.extend_from_slice(b"null"),
    }
}

/// The parts of a misc body, `{"time":"..","hash":"0x..","inner":{VARIANT:{..}}}`, as slices of it.
#[derive(Deserialize)]
struct MiscBody<'a> {
    #[serde(borrow)]
    time: &'a RawValue,
    #[serde(borrow)]
    hash: &'a RawValue,
    #[serde(borrow)]
    inner: &'a RawValue,
}

fn older_data(event: &Event, out: &mut Vec<u8>) {
    if event.id.topic == MISC
        && let Ok(parts) = serde_json::from_slice::<MiscBody<'_>>(&event.body)
        && let Some(content) = object_content(parts.inner.get())
    {
        out.push(b'{');
        out.extend_from_slice(content.as_bytes());
        if !content.is_empty() {
            out.push(b',');
        }
        write!(out, "\"hash\":{},\"time\":{}}}", parts.hash.get(), parts.time.get())
            .expect(IN_MEMORY);
    } else {
        // A shape that no node is known to write is shown whole rather than not at all.
        out.extend_from_slice(&event.body);
    }
}

/// What stands between the braces of an object.
fn object_content(raw: &str) -> Option<&str> {
    Some(raw.strip_prefix('{')?.strip_suffix('}')?.trim())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::{EventId, Keys, Timestamp};

    const USER: &str = "0x025a744111554e57c66ba2069a8081249fbe5e11";

    fn sequenced(topic: &'static str, user: Option<&str>, body: &str) -> SequencedEvent {
        SequencedEvent {
            seq: 1_773_532_800_196_239,
            late: false,
            event: Event {
                id: EventId { topic: Topic::new(topic), position: 786_814_394, index: 3, part: 1 },
                time: Timestamp(1_762_358_958_466_557),
                user: user.map(|user| user.parse().unwrap()),
                keys: Keys::default(),
                body: Bytes::copy_from_slice(body.as_bytes()),
            },
        }
    }

    fn older(event: &SequencedEvent) -> String {
        let mut out = Vec::new();
        older_event(event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_older_frame_of_a_fill_has_exactly_four_fields_and_the_body_as_it_is() {
        // H29. The order, the spacing and the decimals of the body are the node's.
        let body = r#"{"px":"12817942.2417900003", "coin":"BTC","sz":"0.10"}"#;
        let event = sequenced("fills", Some(&USER.to_uppercase().replace("0X", "0x")), body);

        assert_eq!(
            older(&event),
            format!(r#"{{"user":"{USER}","event":"fill","block":786814394,"data":{body}}}"#)
        );
    }

    #[test]
    fn the_older_frame_of_a_misc_event_holds_inner_with_hash_and_time() {
        // H04.
        let body = r#"{"time":"2025-11-05T16:09:18.466557521","hash":"0x4a","inner":{"LedgerUpdate":{"users":["a"],"delta":{"usdc":"7.0"}}}}"#;

        assert_eq!(
            older(&sequenced("misc", Some(USER), body)),
            format!(
                r#"{{"user":"{USER}","event":"misc","block":786814394,"data":{{"LedgerUpdate":{{"users":["a"],"delta":{{"usdc":"7.0"}}}},"hash":"0x4a","time":"2025-11-05T16:09:18.466557521"}}}}"#
            )
        );
    }

    #[test]
    fn a_misc_event_without_user_or_with_an_odd_inner_is_still_valid_json() {
        for (body, data) in [
            (r#"{"inner":{ },"hash":"0x1","time":"t"}"#, r#"{"hash":"0x1","time":"t"}"#),
            (
                r#"{"time":"t","hash":"0x1","inner":"Unit"}"#,
                r#"{"time":"t","hash":"0x1","inner":"Unit"}"#,
            ),
            (r#"{"inner":{"A":1}}"#, r#"{"inner":{"A":1}}"#),
        ] {
            let text = older(&sequenced("misc", None, body));

            assert_eq!(
                text,
                format!(r#"{{"user":null,"event":"misc","block":786814394,"data":{data}}}"#)
            );
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }

    #[test]
    fn the_native_frame_names_the_place_in_the_order_and_shows_the_body_as_it_is() {
        let cursor =
            Cursor { epoch: 10, run: 11, seq: 12, positions: vec![(Topic::new("misc"), 13)] };
        let mut event = sequenced("misc", None, r#"{"inner":{"A":1.50}}"#);
        event.late = true;
        let mut out = Vec::new();

        native_event(&event, &cursor, true, &mut out);

        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"type":"event","topic":"misc","cursor":"1.a.b.c.misc-d","seq":1773532800196239,"block":786814394,"index":3,"part":1,"time":1762358958466557,"user":null,"late":true,"replayed":true,"data":{"inner":{"A":1.50}}}"#
        );
    }
}
