//! Messages in several frames: the cases 5 and 10.

use crate::{harness::Server, peer::*};

/// What is said, what comes back, and how it ends: `None` as the client wishes.
type Case<'a> = (&'a str, Vec<Vec<u8>>, Vec<(u8, &'a [u8])>, Option<u16>);

#[test]
fn fragments_are_joined_and_whatever_breaks_a_message_closes_the_session() {
    let server = Server::start(|_| {});
    let (part, end) = (|text| frame(TEXT, text), |text| frame(FIN | CONTINUATION, text));
    let more = |text| frame(CONTINUATION, text);
    let (whole, ping) = (|text| frame(FIN | TEXT, text), |text| frame(FIN | PING, text));
    let (text, pong) = (FIN | TEXT, FIN | PONG);
    let cases: Vec<Case<'_>> = vec![
        ("5.1", vec![frame(PING, b"frag"), end(b"ment")], vec![], Some(1002)),
        ("5.2", vec![frame(PONG, b"frag"), end(b"ment")], vec![], Some(1002)),
        ("5.3 to 5.5", vec![part(b"frag"), end(b"ment")], vec![(text, b"fragment")], None),
        (
            "5.6 to 5.8",
            vec![part(b"frag"), ping(b"ping"), end(b"ment")],
            vec![(pong, b"ping"), (text, b"fragment")],
            None,
        ),
        ("5.9 to 5.11", vec![end(b"nothing"), whole(b"Hello")], vec![], Some(1002)),
        ("5.12 to 5.14", vec![more(b"nothing"), whole(b"Hello")], vec![], Some(1002)),
        (
            "5.15",
            vec![part(b"frag"), end(b"ment"), more(b"nothing"), whole(b"Hello")],
            vec![(text, b"fragment")],
            Some(1002),
        ),
        (
            "5.16",
            vec![more(b"nothing"), part(b"frag"), end(b"ment"), more(b"nothing"), part(b"frag")],
            vec![],
            Some(1002),
        ),
        (
            "5.17",
            vec![end(b"nothing"), part(b"frag"), end(b"ment"), end(b"nothing"), part(b"frag")],
            vec![],
            Some(1002),
        ),
        ("5.18", vec![part(b"frag"), whole(b"ment")], vec![], Some(1002)),
        ("5.18, binary", vec![part(b"frag"), frame(FIN | BINARY, b"m")], vec![], Some(1002)),
        (
            "5.19 and 5.20",
            vec![part(b"1"), more(b"2"), ping(b"a"), more(b"3"), more(b"4"), ping(b"b"), end(b"5")],
            vec![(pong, b"a"), (pong, b"b"), (text, b"12345")],
            None,
        ),
        (
            "fragments without content",
            vec![part(b""), more(b""), ping(b""), more(b"x"), end(b"")],
            vec![(pong, b""), (text, b"x")],
            None,
        ),
        ("nothing in two parts", vec![part(b""), end(b"")], vec![(text, b"")], None),
        (
            "a message behind a message",
            vec![frame(BINARY, b"a"), end(b"b"), whole(b"c"), part(b"d"), end(b"e")],
            vec![(FIN | BINARY, b"ab"), (text, b"c"), (text, b"de")],
            None,
        ),
    ];
    for (name, frames, answers, code) in &cases {
        let bytes = frames.concat();
        let longest = frames.iter().map(Vec::len).max().unwrap();
        // In one piece, frame by frame, byte by byte.
        for pieces in [vec![&bytes[..]], frames.iter().map(|one| &one[..]).collect(), vec![]] {
            println!("{name}, {} pieces", pieces.len());
            let mut peer = Peer::connect(&server);
            pieces.iter().for_each(|piece| peer.chop(piece, longest.max(piece.len())));
            if pieces.is_empty() {
                peer.chop(&bytes, 1);
            }
            for (first, payload) in answers {
                peer.hears(*first, payload);
            }
            match code {
                Some(code) => peer.ends(*code),
                None => peer.leaves(),
            }
        }
    }
    server.settle();
}

#[test]
fn a_message_that_a_library_cuts_into_frames_comes_back_whole() {
    // 10.1, and with other sizes.
    let server = Server::start(|_| {});
    let mut peer = Peer::connect(&server);
    let payload: Vec<u8> = (b' '..=b'~').cycle().take(65_536).collect();
    for size in [1_300, 65_535, 100] {
        for opcode in [TEXT, BINARY] {
            peer.say(&fragmented(opcode, &payload, size));
            peer.hears(FIN | opcode, &payload);
        }
    }
    peer.leaves();
    server.settle();
}
