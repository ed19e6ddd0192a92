//! Text is UTF-8: the cases 6.

use crate::{harness::Server, peer::*};

/// Each of it a text.
const VALID: &[&[u8]] = &[
    // 6.1, 6.2, 6.5
    b"",
    "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
    "κόσμε".as_bytes(),
    "𝄞 €ä".as_bytes(),
    // 6.7: the first of each length.
    b"\0",
    b"\xc2\x80",
    b"\xe0\xa0\x80",
    b"\xf0\x90\x80\x80",
    // 6.9, 6.11: the last of each length, and around what is no character.
    b"\x7f",
    b"\xdf\xbf",
    b"\xef\xbf\xbf",
    b"\xf4\x8f\xbf\xbf",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    // 6.22: characters that mean nothing.
    b"\xef\xbf\xbe",
    b"\xf0\x9f\xbf\xbe\xf0\x9f\xbf\xbf\xf3\xaf\xbf\xbe\xf4\x8f\xbf\xbe",
    b"\xef\xb7\x90\xef\xb7\xaf",
    // 6.23
    b"\xef\xbf\xbd",
];

/// None of it is a text, and the last byte shows it, whatever follows.
const INVALID: &[&[u8]] = &[
    // 6.8, 6.10, 6.16: bytes that no text has.
    b"\xf8",
    b"\xfc",
    b"\xf7",
    b"\xfb",
    b"\xfd",
    b"\xfe",
    b"\xff",
    b"\xf5",
    // 6.11.5: behind the last character.
    b"\xf4\x90",
    // 6.12: continuations of nothing.
    b"\x80",
    b"\xbf",
    b"\xc2\x80\x80",
    b"\xf0\x90\x80\x80\x80",
    // 6.13, 6.15: beginnings that nothing continues.
    b"\xc2 ",
    b"\xdf ",
    b"\xe0 ",
    b"\xef ",
    b"\xf0 ",
    b"\xf4 ",
    b"\xe1\x80 ",
    b"\xf1\x80\x80 ",
    b"\xdf\xc2",
    b"\xe1\x80\xe1",
    // 6.17 to 6.19: longer than they must be.
    b"\xc0",
    b"\xc1",
    b"\xe0\x80",
    b"\xe0\x9f",
    b"\xf0\x80",
    b"\xf0\x8f",
    // 6.20, 6.21: surrogates.
    b"\xed\xa0",
    b"\xed\xad",
    b"\xed\xb0",
    b"\xed\xbf",
];

/// Each could become a text, but ends too soon.
const CUT: &[&[u8]] = &[
    // 6.14, 6.6: all the beginnings.
    b"\xc2",
    b"\xdf",
    b"\xe0",
    b"\xe0\xa0",
    b"\xef\xbf",
    b"\xed\x9f",
    b"\xf0",
    b"\xf0\x90",
    b"\xf0\x90\x80",
    b"\xf4\x8f\xbf",
];

#[test]
fn a_text_comes_back_wherever_its_characters_are_cut() {
    // 6.2, 6.5, 6.7, 6.9, 6.11, 6.22, 6.23.
    let server = Server::start(|_| {});
    let mut peer = Peer::connect(&server);
    for text in VALID {
        let text = &[b"<", *text, b">"].concat();
        peer.echoes(TEXT, text);
        peer.chop(&frame(FIN | TEXT, text), 1);
        peer.hears(FIN | TEXT, text);
        for size in 1..text.len().min(5) {
            peer.say(&fragmented(TEXT, text, size));
            peer.hears(FIN | TEXT, text);
            peer.chop(&fragmented(TEXT, text, size), 1);
            peer.hears(FIN | TEXT, text);
        }
    }
    peer.leaves();
    server.settle();
}

#[test]
fn what_is_no_text_is_refused_by_the_byte_that_shows_it() {
    // 6.3, 6.4, 6.8 and those that follow. The strict answer: nothing behind that byte is waited for.
    let server = Server::start(|_| {});
    let before = "κόσμε".as_bytes();
    for bad in INVALID {
        let text = &[before, *bad].concat();
        let rest = [text, &b"edited"[..]].concat();
        println!("{bad:x?}");

        // In a whole message.
        let mut peer = Peer::connect(&server);
        peer.say(&frame(FIN | TEXT, &rest));
        peer.ends(1007);
        // In a fragment that is not the last one.
        let mut peer = Peer::connect(&server);
        peer.say(&frame(TEXT, text));
        peer.ends(1007);
        // In a fragment of its own byte, behind others.
        let mut peer = Peer::connect(&server);
        let (last, others) = text.split_last().unwrap();
        peer.say(&frame(TEXT, others));
        peer.say(&frame(FIN | PING, b"between"));
        peer.hears(FIN | PONG, b"between");
        peer.say(&frame(CONTINUATION, &[*last]));
        peer.ends(1007);
        // In a frame of which the rest does not come.
        let mut peer = Peer::connect(&server);
        let whole = frame(FIN | TEXT, &rest);
        peer.chop(&whole[..6 + text.len()], 1);
        peer.ends(1007);
    }
    server.settle();
}

#[test]
fn a_text_that_ends_within_a_character_is_refused_at_its_end() {
    // 6.6, 6.14.
    let server = Server::start(|_| {});
    for cut in CUT {
        println!("{cut:x?}");
        let mut peer = Peer::connect(&server);
        peer.say(&frame(FIN | TEXT, cut));
        peer.ends(1007);
        // As long as something may follow there is nothing wrong.
        let mut peer = Peer::connect(&server);
        peer.say(&frame(TEXT, cut));
        peer.say(&frame(FIN | PING, b"between"));
        peer.hears(FIN | PONG, b"between");
        peer.say(&frame(FIN | CONTINUATION, b""));
        peer.ends(1007);
    }
    // Bytes of a binary message are what they are.
    let mut peer = Peer::connect(&server);
    for bytes in INVALID.iter().chain(CUT) {
        peer.echoes(BINARY, bytes);
    }
    peer.leaves();
    server.settle();
}
