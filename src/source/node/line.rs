//! The envelope of a line: its times, its block, and where its events stand.
//!
//! Place in the pipeline: rules of the `Parser`, for every kind of file. A line as nodes write it:
//!
//! ```json
//! {"local_time":"2026-03-15T00:00:00.196239755","block_time":"2026-03-14T23:59:59.991006841","block_number":923950857,"events":[...]}
//! ```
//!
//! That writing is read by comparison; any other order, white space or further keys by a full
//! parse, with the same result. Invariant: what is read is one JSON object whose brackets match;
//! the inside of its events is handed out as places and is not proven further.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Deserializer, value::RawValue};

use super::{
    elements::{ArrayFault, Element, walk},
    json::place_in,
};
use crate::{event::Timestamp, source::MAX_POSITION};

/// Why bytes are not a block.
#[derive(Debug, thiserror::Error)]
pub enum LineFault {
    #[error("not a block in JSON: {0}")]
    Envelope(#[from] serde_json::Error),
    #[error("{0} is not a time")]
    Time(&'static str),
    #[error("block_number {0} is above {MAX_POSITION}")]
    Number(u64),
    #[error("events is not a list")]
    NoList,
    #[error(transparent)]
    Events(#[from] ArrayFault),
}

/// A line without its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub position: u64,
    /// `block_time`.
    pub time: Timestamp,
    /// `local_time`.
    pub written: Timestamp,
    /// Place of the events' content, between `[` and `]`.
    pub events: std::ops::Range<usize>,
    /// Behind the object.
    pub end: usize,
}

/// Reads the object that starts at `start` and hands out its elements. Elements before a fault
/// have been handed out by then. Places count from the start of `buffer`, whose end is the end of
/// the line.
pub fn read_object(
    buffer: &[u8],
    start: usize,
    mut each: impl FnMut(Element),
) -> Result<Envelope, LineFault> {
    if let Some((mut envelope, open)) = compact_head(buffer, start) {
        let end = walk(buffer, open, &mut each)?;
        envelope.events = open + 1..end - 1;
        let close = skip_space(buffer, end);
        if buffer.get(close) == Some(&b'}') {
            envelope.end = close + 1;
            return Ok(envelope);
        }
        // More keys follow, or nothing does: the full parse tells. It hands out no element twice.
        let (full, _) = full_head(buffer, start)?;
        return Ok(full);
    }
    let (mut envelope, open) = full_head(buffer, start)?;
    let end = walk(buffer, open, &mut each)?;
    envelope.events = open + 1..end - 1;
    Ok(envelope)
}

/// Position of the first byte from `at` on that is no white space of JSON.
pub fn skip_space(bytes: &[u8], at: usize) -> usize {
    let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    at + bytes[at..].iter().take_while(space).count()
}

/// The usual writing up to the `[` of the events, whose position is given as well.
#[inline]
fn compact_head(buffer: &[u8], start: usize) -> Option<(Envelope, usize)> {
    let rest = buffer[start..].strip_prefix(b"{\"local_time\":\"")?;
    let (written, rest) = quoted_time(rest)?;
    let rest = rest.strip_prefix(b",\"block_time\":\"")?;
    let (time, rest) = quoted_time(rest)?;
    let rest = rest.strip_prefix(b",\"block_number\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // A leading zero is no JSON, and what may not fit is left to the full parse.
    if digits == 0 || digits > 19 || (digits > 1 && rest[0] == b'0') {
        return None;
    }
    let position =
        rest[..digits].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    if position > MAX_POSITION {
        return None;
    }
    let rest = rest[digits..].strip_prefix(b",\"events\":")?;
    let open = buffer.len() - rest.len();
    let envelope = Envelope { position, time, written, events: open..open, end: open };
    (rest.first() == Some(&b'[')).then_some((envelope, open))
}

/// A time up to its closing quote, and what stands behind the quote.
#[inline]
fn quoted_time(text: &[u8]) -> Option<(Timestamp, &[u8])> {
    // The longest time has 29 characters.
    let length = text.iter().take(30).position(|&byte| byte == b'"')?;
    Some((Timestamp::parse_node(&text[..length]).ok()?, &text[length + 1..]))
}

#[derive(Deserialize)]
struct AnyEnvelope<'j> {
    #[serde(borrow)]
    local_time: Cow<'j, str>,
    #[serde(borrow)]
    block_time: Cow<'j, str>,
    block_number: u64,
    #[serde(borrow)]
    events: &'j RawValue,
}

/// Any writing of an envelope, by a full parse.
#[cold]
fn full_head(buffer: &[u8], start: usize) -> Result<(Envelope, usize), LineFault> {
    // A derived reader would take an array of the values as well.
    if buffer.get(start) != Some(&b'{') {
        return Err(LineFault::Envelope(serde::de::Error::custom("a block is an object")));
    }
    let mut objects = Deserializer::from_slice(&buffer[start..]).into_iter::<AnyEnvelope<'_>>();
    let Some(object) = objects.next() else { return Err(LineFault::NoList) };
    let object = object?;
    if object.block_number > MAX_POSITION {
        return Err(LineFault::Number(object.block_number));
    }
    let time = |name, text: &str| {
        Timestamp::parse_node(text.as_bytes()).map_err(|_| LineFault::Time(name))
    };
    if !object.events.get().starts_with('[') {
        return Err(LineFault::NoList);
    }
    let events = place_in(buffer, object.events.get());
    let envelope = Envelope {
        position: object.block_number,
        time: time("block_time", &object.block_time)?,
        written: time("local_time", &object.local_time)?,
        events: events.start + 1..events.end - 1,
        end: start + objects.byte_offset(),
    };
    Ok((envelope, events.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = r#""local_time":"2026-03-15T00:00:00.196239755""#;
    const BLOCK: &str = r#""block_time":"2026-03-14T23:59:59.991006841""#;
    const NUMBER: &str = r#""block_number":923950857"#;
    const EVENTS: &str = r#""events":[[1],{"a":"]}"}]"#;

    fn read(line: &str) -> Result<(Envelope, usize), LineFault> {
        let mut elements = 0;
        let envelope = read_object(line.as_bytes(), 0, |_| elements += 1)?;
        Ok((envelope, elements))
    }

    #[test]
    fn every_writing_of_an_envelope_is_the_same() {
        for line in [
            format!("{{{LOCAL},{BLOCK},{NUMBER},{EVENTS}}}"),
            format!("{{{LOCAL},{BLOCK},{NUMBER},{EVENTS} }}"),
            format!("{{{LOCAL},{BLOCK},{NUMBER},{EVENTS},\"more\":[[{{}}]]}}"),
            format!("{{{EVENTS},{NUMBER},{BLOCK},{LOCAL}}}"),
            format!("{{ {LOCAL}, {BLOCK},\t{NUMBER}, {EVENTS}}}"),
            format!("{{\"x\":{{\"events\":[]}},{LOCAL},{BLOCK},{NUMBER},{EVENTS}}}"),
            format!("{{{LOCAL},{BLOCK},\"block_number\": 923950857,{EVENTS}}}")
                .replace(":00:00", ":00:00"),
        ] {
            let (envelope, elements) = read(&line).unwrap();

            assert_eq!(envelope.position, 923_950_857, "{line}");
            assert_eq!(envelope.time.to_string(), "2026-03-14T23:59:59.991006Z");
            assert_eq!(envelope.written.to_string(), "2026-03-15T00:00:00.196239Z");
            assert_eq!(&line[envelope.events], r#"[1],{"a":"]}"}"#);
            assert_eq!(envelope.end, line.len());
            assert_eq!(elements, 2);
        }
    }

    #[test]
    fn what_stands_behind_the_object_is_left() {
        let line = format!("{{{LOCAL},{BLOCK},{NUMBER},{EVENTS}}}");

        assert_eq!(read(&format!("{line}{line}")).unwrap().0.end, line.len());
        assert_eq!(read(&format!("{line}x")).unwrap().0.end, line.len());
    }

    #[test]
    fn a_block_number_that_is_not_exact_everywhere_is_refused_in_either_writing() {
        let whole = format!("{{{LOCAL},{BLOCK},{NUMBER},{EVENTS}}}");
        for line in [whole.clone(), whole.replace(":923950857", ": 923950857")] {
            let with = |number: u64| line.replace("923950857", &number.to_string());

            assert_eq!(read(&with(MAX_POSITION)).unwrap().0.position, MAX_POSITION);
            for number in [MAX_POSITION + 1, 1 << 63, u64::MAX] {
                let fault = read(&with(number)).unwrap_err();
                assert!(matches!(fault, LineFault::Number(found) if found == number), "{fault}");
            }
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let whole = format!("{{{LOCAL},{BLOCK},{NUMBER},{EVENTS}}}");
        for line in [
            String::new(),
            "{}".to_owned(),
            "[]".to_owned(),
            format!("[{},[]]", "\"2026-03-15T00:00:00\",\"2026-03-15T00:00:00\",7"),
            whole.replace("03-15", "13-15"),
            whole.replace("923950857", "-1"),
            whole.replace("923950857", "007"),
            whole.replace("923950857", "99999999999999999999"),
            whole.replace("923950857", "18446744073709551615"),
            whole.replace("923950857", "9223372036854775808"),
            whole.replace("[1]", "[1}"),
            whole.replace(EVENTS, "\"events\":{}"),
            whole.replace(EVENTS, "\"events\":null"),
            format!("{{{LOCAL},{BLOCK},{EVENTS}}}"),
            format!("{{{LOCAL},{BLOCK},{NUMBER},{EVENTS},}}"),
        ] {
            assert!(read(&line).is_err(), "{line}");
        }
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{}", &whole[..end]);
        }
    }
}
