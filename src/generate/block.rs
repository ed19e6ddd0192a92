//! One block: its elements as bytes, and who gets which of them.

use std::ops::Range;

use super::text::{push_time, push_u64};
use crate::event::Address;

/// A block of the chain. Reused from block to block, so that its buffers are allocated once.
#[derive(Clone, Debug, Default)]
pub struct Block {
    pub number: u64,
    /// Nanoseconds since 1970, UTC.
    pub time_ns: i64,
    pub fills: Elements,
    pub misc: Elements,
}

impl Block {
    /// Appends a line of this block that holds `events`, elements separated by commas.
    pub fn push_line(&self, out: &mut Vec<u8>, local_ns: i64, events: &[u8]) {
        out.extend_from_slice(br#"{"local_time":""#);
        push_time(out, local_ns);
        out.extend_from_slice(br#"","block_time":""#);
        push_time(out, self.time_ns);
        out.extend_from_slice(br#"","block_number":"#);
        push_u64(out, self.number);
        out.extend_from_slice(br#","events":["#);
        out.extend_from_slice(events);
        out.extend_from_slice(b"]}\n");
    }
}

/// The elements of a block's `events` of one topic.
#[derive(Clone, Debug, Default)]
pub struct Elements {
    /// All elements, separated by commas.
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
    shares: Vec<Share>,
    /// Bodies that do not stand in a line as they are.
    spliced: Vec<u8>,
}

/// What one user gets of one element.
#[derive(Clone, Debug)]
struct Share {
    index: u32,
    part: u32,
    user: Option<Address>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Verbatim(Range<usize>),
    Spliced(Range<usize>),
}

impl Elements {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The bytes of the elements `from..to`, with the commas between them.
    pub(super) fn slice(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.places[from].start..self.places[to - 1].end]
    }

    /// Each share: index, part, user and body.
    pub(super) fn shares(
        &self,
    ) -> impl ExactSizeIterator<Item = (u32, u32, Option<Address>, &[u8])> {
        self.shares.iter().map(|share| {
            let body = match &share.body {
                Body::Verbatim(at) => &self.bytes[at.clone()],
                Body::Spliced(at) => &self.spliced[at.clone()],
            };
            (share.index, share.part, share.user, body)
        })
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.shares.clear();
        self.spliced.clear();
    }

    /// Begins an element; what is appended to the returned buffer until [`Self::end`] is its text.
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        if !self.places.is_empty() {
            self.bytes.push(b',');
        }
        self.places.push(self.bytes.len()..self.bytes.len());
        &mut self.bytes
    }

    pub(super) fn end(&mut self) {
        let end = self.bytes.len();
        self.last_mut().end = end;
    }

    /// Gives a part of the last element's bytes to a user: the `from`th byte of the element up to
    /// `to` bytes before its end.
    pub(super) fn give_inner(&mut self, user: Address, from: usize, to: usize) {
        let element = self.last_mut().clone();
        let body = Body::Verbatim(element.start + from..element.end - to);
        self.share(0, Some(user), body);
    }

    /// Gives the whole last element to each of these users, or to nobody when there are none.
    pub(super) fn give_whole(&mut self, users: &[Address]) {
        let element = self.last_mut().clone();
        if users.is_empty() {
            self.share(0, None, Body::Verbatim(element.clone()));
        }
        for (part, user) in users.iter().enumerate() {
            self.share(part as u32, Some(*user), Body::Verbatim(element.clone()));
        }
    }

    /// Gives a user a body of its own.
    pub(super) fn give_spliced(&mut self, part: u32, user: Address, body: &[u8]) {
        let start = self.spliced.len();
        self.spliced.extend_from_slice(body);
        self.share(part, Some(user), Body::Spliced(start..self.spliced.len()));
    }

    fn share(&mut self, part: u32, user: Option<Address>, body: Body) {
        let index = self.places.len() as u32 - 1;
        self.shares.push(Share { index, part, user, body });
    }

    fn last_mut(&mut self) -> &mut Range<usize> {
        self.places.last_mut().expect("an element was begun")
    }
}
