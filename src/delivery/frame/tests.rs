use actix_http::ws::Parser;
use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::delivery::close::CloseReason;

const MAX: usize = 1_000;

/// A frame as clients write it.
fn masked(finished: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![if finished { FINISHED } else { 0 } | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Feeds bytes in chunks; gives all messages and the end, if it is one.
fn feed(bytes: &[u8], chunk: usize) -> (Vec<Inbound>, Option<CloseReason>) {
    let (mut assembler, mut buffer) = (Assembler::new(MAX), BytesMut::new());
    let mut messages = Vec::new();
    for chunk in bytes.chunks(chunk) {
        buffer.extend_from_slice(chunk);
        loop {
            match assembler.next(&mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(reason) => return (messages, Some(reason)),
            }
        }
    }
    (messages, None)
}

fn text_of(text: &str) -> Inbound {
    Inbound::Text(text.to_owned())
}

proptest! {
    #[test]
    fn fragments_cut_anywhere_are_joined_and_control_frames_come_between(
        text in "\\PC{0,100}",
        cuts in prop::collection::vec(0_usize..400, 0..5),
        chunk in 1_usize..64,
    ) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        cuts.push(text.len());
        let (mut bytes, mut from) = (Vec::new(), 0);
        for (ordinal, &to) in cuts.iter().enumerate() {
            let opcode = if ordinal == 0 { TEXT } else { 0 };
            // A character may be cut in the middle: only the whole has to be UTF-8.
            bytes.extend(masked(ordinal + 1 == cuts.len(), opcode, &text.as_bytes()[from..to]));
            bytes.extend(masked(true, PING, b"between"));
            from = to;
        }

        let (messages, end) = feed(&bytes, chunk);

        prop_assert_eq!(end, None);
        let (pings, others): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| matches!(message, Inbound::Ping(_)));
        prop_assert_eq!(pings.len(), cuts.len());
        prop_assert_eq!(others, vec![Inbound::Text(text)]);
    }

    #[test]
    fn no_bytes_make_it_panic_or_hold_more_than_its_cap(
        bytes in prop::collection::vec(any::<u8>(), 0..3_000),
        chunk in 1_usize..500,
    ) {
        feed(&bytes, chunk);
    }

    #[test]
    fn our_text_frames_say_their_length(length in prop_oneof![0_usize..300, 65_000_usize..66_000]) {
        let frame = text(|out| out.resize(out.len() + length, b'x'));

        let mut buffer = BytesMut::from(&frame[..]);
        let (finished, opcode, payload) =
            Parser::parse(&mut buffer, false, usize::MAX).unwrap().unwrap();
        prop_assert!(finished);
        prop_assert_eq!(u8::from(opcode), TEXT);
        prop_assert_eq!(payload.unwrap_or_default().len(), length);
        prop_assert!(buffer.is_empty());
    }
}

#[test]
fn an_oversized_message_is_refused_by_its_header() {
    let header = &masked(true, TEXT, &[0; MAX + 1])[..4];

    assert_eq!(feed(header, 100), (vec![], Some(CloseReason::TooBig)));
}

#[test]
fn fragments_together_are_bounded_too() {
    let mut bytes = masked(false, TEXT, &[b'a'; 600]);
    bytes.extend(masked(true, 0, &[b'a'; 401]));

    assert_eq!(feed(&bytes, 100).1, Some(CloseReason::TooBig));
    assert_eq!(feed(&masked(true, TEXT, &[b'a'; MAX]), 100).1, None);
}

#[test]
fn a_length_beyond_every_memory_is_refused() {
    let mut header = vec![FINISHED | TEXT, 0xff];
    header.extend_from_slice(&[0xff; 12]);

    assert_eq!(feed(&header, 100).1, Some(CloseReason::TooBig));
}

#[test]
fn text_that_is_not_utf8_is_told_apart_from_broken_frames() {
    assert_eq!(feed(&masked(true, TEXT, b"\xff"), 9).1, Some(CloseReason::NotUtf8));
    let mut close = 1000_u16.to_be_bytes().to_vec();
    close.push(0xff);
    assert_eq!(feed(&masked(true, CLOSE, &close), 9).1, Some(CloseReason::NotUtf8));
}

#[test]
fn frames_that_break_the_protocol_are_refused() {
    let mut reserved = masked(true, TEXT, b"x");
    reserved[0] |= 0x40;
    let mut unmasked = masked(true, TEXT, b"x");
    unmasked[1] &= 0x7f;
    for (bytes, what) in [
        (reserved, "the reserved bits are set"),
        (unmasked, "frames of clients carry a mask"),
        (masked(true, 0, b"x"), "a continuation without a beginning"),
        (
            [masked(false, TEXT, b"x"), masked(true, TEXT, b"x")].concat(),
            "a new message inside of a message",
        ),
        (masked(false, PING, b"x"), "a control frame is short and whole"),
        (masked(true, PING, &[0; 126]), "a control frame is short and whole"),
        (masked(true, 0x3, b""), "unknown opcode"),
        (masked(true, 0xb, b""), "unknown opcode"),
        (masked(true, CLOSE, b"x"), "a close code has two bytes"),
        (vec![FINISHED | TEXT, 0xfe, 0, 125], "a length is written as short as it can be"),
        (masked(true, CLOSE, &1005_u16.to_be_bytes()), "a close code that nobody may send"),
    ] {
        assert_eq!(feed(&bytes, 100).1, Some(CloseReason::Protocol(what)));
    }
}

#[test]
fn what_clients_say_is_understood() {
    let mut bytes = masked(true, TEXT, "{\"ä\":1}".as_bytes());
    bytes.extend(masked(true, 2, b"\x00"));
    bytes.extend(masked(true, PONG, b""));
    bytes.extend(masked(true, CLOSE, &4321_u16.to_be_bytes()));
    bytes.extend(masked(true, CLOSE, b""));

    assert_eq!(
        feed(&bytes, 3).0,
        [
            text_of("{\"ä\":1}"),
            Inbound::Binary(vec![0]),
            Inbound::Pong,
            Inbound::Close(Some(4321)),
            Inbound::Close(None),
        ]
    );
}
