//! Events over plain HTTP: as a stream (`/v1/stream`) or by long polls (`/v1/poll`).
//!
//! Invariant: like frames, nothing is copied and no JSON is parsed.

use std::{net::SocketAddr, ops::Range};

use memchr::memmem;

use super::swarm::BUFFER_BYTES;
use crate::traffic::{Traffic, Wish};

/// Most events of one answer to a poll: it has to fit into what is read at once.
const POLL_LIMIT: u64 = 200;
/// Room that such an answer has in the buffer of all clients.
const ANSWER_BYTES: usize = BUFFER_BYTES / 2;
/// What an event's frame has at most besides its bytes in the node's file.
const ENVELOPE_BYTES: usize = 400;

/// Most events that a poll asks for: as many as find room where answers are read.
pub fn poll_limit(traffic: &Traffic) -> u64 {
    let fit = ANSWER_BYTES / (traffic.event_bytes + ENVELOPE_BYTES);
    (fit as u64).clamp(1, POLL_LIMIT)
}

const CHUNKED: &[u8] = b"transfer-encoding: chunked";
const LENGTH: &[u8] = b"content-length: ";
/// What stands before the events of an answer, and what between the last one and the cursor.
const EVENTS: &[u8] = br#"{"events":["#;
const CURSOR: &[u8] = br#"],"cursor":""#;
const EVENT: &[u8] = br#"{"type":""#;

/// What a server sends that is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("the request was answered with {0:?}")]
    Status(String),
    #[error("an answer without {0}")]
    Lacks(&'static str),
    #[error("a chunk without a length")]
    NoChunk,
}

/// The request of a stream that begins now, or behind a cursor.
pub fn stream_request(server: SocketAddr, traffic: &Traffic, wish: Wish, from: &str) -> String {
    let query = traffic.query(wish);
    format!("GET /v1/stream?topic=fills{query}&cursor={from} HTTP/1.1\r\nHost: {server}\r\n\r\n")
}

/// The request of a poll.
pub fn poll_request(
    server: SocketAddr,
    traffic: &Traffic,
    wish: Wish,
    from: &str,
    timeout: &str,
) -> String {
    let (query, limit) = (traffic.query(wish), poll_limit(traffic));
    format!(
        "GET /v1/poll?topic=fills{query}&cursor={from}&timeout={timeout}&limit={limit} HTTP/1.1\r\n\
         Host: {server}\r\n\r\n"
    )
}

/// The length of the head with which `bytes` begin; `None` while it is not whole.
///
/// # Errors
/// When the answer is not 200.
pub fn head(bytes: &[u8]) -> Result<Option<usize>, HttpError> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    if !bytes.starts_with(b"HTTP/1.1 200 ") {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(HttpError::Status(String::from_utf8_lossy(line).into_owned()));
    }
    Ok(Some(end + 4))
}

/// Takes the lengths of chunks out of what was read.
#[derive(Debug, Default)]
pub struct Chunks {
    /// Of the present chunk, with the end of its line.
    left: usize,
    /// Digits of a length that is not whole.
    length: Vec<u8>,
}

impl Chunks {
    /// Of a stream with this head.
    ///
    /// # Errors
    /// When it is not chunked.
    pub fn of(head: &[u8]) -> Result<Self, HttpError> {
        match memmem::find(head, CHUNKED) {
            Some(_) => Ok(Self::default()),
            None => Err(HttpError::Lacks("chunks")),
        }
    }

    /// Moves the content to the front. Gives how much that is.
    ///
    /// # Errors
    /// Where a length should stand and does not.
    pub fn join(&mut self, bytes: &mut [u8]) -> Result<usize, HttpError> {
        const LINE_END: usize = 2;
        let (mut content, mut at) = (0, 0);
        while at < bytes.len() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len() - at);
                // The end of the line is no content.
                let keep = taken.min(self.left.saturating_sub(LINE_END));
                bytes.copy_within(at..at + keep, content);
                content += keep;
                at += taken;
                self.left -= taken;
                continue;
            }
            let byte = bytes[at];
            at += 1;
            match byte {
                b'\n' => {
                    let digits = std::str::from_utf8(&self.length).unwrap_or_default();
                    let length = usize::from_str_radix(digits, 16);
                    self.left = length.map_err(|_| HttpError::NoChunk)? + LINE_END;
                    self.length.clear();
                }
                b'\r' => {}
                digit => self.length.push(digit),
            }
        }
        Ok(content)
    }
}

/// The message with which a stream's content begins, and its length; an empty message is a comment.
/// `None` while it is not whole.
pub fn message(bytes: &[u8]) -> Option<(Range<usize>, usize)> {
    let end = memmem::find(bytes, b"\n\n")?;
    let data = match memmem::find(&bytes[..end], b"data: ") {
        Some(at) => at + 6..end,
        None => end..end,
    };
    Some((data, end + 2))
}

/// A whole answer to a poll.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub events: Range<usize>,
    pub cursor: Range<usize>,
    pub end: usize,
}

/// The answer with which `bytes` begin; `None` while it is not whole.
///
/// # Errors
/// When it is none.
pub fn answer(bytes: &[u8]) -> Result<Option<Answer>, HttpError> {
    let Some(start) = head(bytes)? else { return Ok(None) };
    let length = memmem::find(&bytes[..start], LENGTH).ok_or(HttpError::Lacks("a length"))?;
    let digits = bytes[length + LENGTH.len()..start].split(|byte| *byte == b'\r').next();
    let length = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
    let end = start + length.ok_or(HttpError::Lacks("a length"))?;
    if bytes.len() < end {
        return Ok(None);
    }
    let body = &bytes[start..end];
    let cursor = memmem::rfind(body, CURSOR).ok_or(HttpError::Lacks("a cursor"))?;
    if !body.starts_with(EVENTS) || !body.ends_with(b"\"}") {
        return Err(HttpError::Lacks("events"));
    }
    let (events, behind) = (start + EVENTS.len()..start + cursor, start + cursor + CURSOR.len());
    Ok(Some(Answer { events, cursor: behind..end - 2, end }))
}

/// The messages in the list of an answer.
pub fn messages(events: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts = memmem::find_iter(events, EVENT).peekable();
    std::iter::from_fn(move || {
        let start = starts.next()?;
        // A comma stands between two.
        let end = starts.peek().map_or(events.len(), |next| next - 1);
        Some(&events[start..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        let text = b"4\r\nid: \r\n12\r\n7\nevent: live\ndata\r\n6\r\n: {}\n\n\r\n0\r\n";
        for cut in 0..text.len() {
            let mut chunks = Chunks::default();
            let mut joined = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                let mut part = part.to_vec();
                let length = chunks.join(&mut part).unwrap();
                joined.extend_from_slice(&part[..length]);
            }
            assert_eq!(joined, b"id: 7\nevent: live\ndata: {}\n\n", "cut at {cut}");
        }
        assert_eq!(Chunks::default().join(&mut b"no\r\n".to_vec()), Err(HttpError::NoChunk));
    }

    #[test]
    fn a_message_is_the_data_between_two_empty_lines() {
        let text = b": heartbeat\nid: 1.2\n\nid: 1.3\ndata: {\"type\":\"event\"}\n\nid";

        let (comment, first) = message(text).unwrap();
        let (data, second) = message(&text[first..]).unwrap();

        assert!(comment.is_empty());
        assert_eq!(&text[first..][data], br#"{"type":"event"}"#);
        assert_eq!(message(&text[first + second..]), None);
    }

    #[test]
    fn an_answer_is_events_and_a_cursor() {
        let body = r#"{"events":[{"type":"event","x":1},{"type":"event","x":2}],"cursor":"1.2.3"}"#;
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let bytes = text.as_bytes();

        for cut in 0..bytes.len() {
            assert_eq!(answer(&bytes[..cut]), Ok(None));
        }
        let found = answer(bytes).unwrap().unwrap();

        assert_eq!(&bytes[found.cursor.clone()], b"1.2.3");
        assert_eq!(found.end, bytes.len());
        let events: Vec<_> = messages(&bytes[found.events]).collect();
        assert_eq!(events, [br#"{"type":"event","x":1}"#, br#"{"type":"event","x":2}"#]);
        let refused = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(answer(refused), Err(HttpError::Status(_))));
    }
}
