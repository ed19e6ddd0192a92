//! Sizes, reserved bits and reserved opcodes: the cases 1, 3, 4 and 9.

use crate::{harness::Server, peer::*};

#[test]
fn messages_of_every_size_come_back_however_they_arrive() {
    // 1.1 and 1.2: where the length changes its form.
    let server = Server::start(|_| {});
    let mut peer = Peer::connect(&server);
    for opcode in [TEXT, BINARY] {
        for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
            peer.echoes(opcode, &vec![b'*'; size]);
        }
        for (size, piece) in [(0, 1), (125, 1), (126, 1), (128, 1), (65_535, 997), (65_536, 997)] {
            let payload = vec![b'*'; size];
            peer.chop(&frame(FIN | opcode, &payload), piece);
            peer.hears(FIN | opcode, &payload);
        }
    }
    // No text: any bytes.
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    peer.echoes(BINARY, &bytes);
    peer.leaves();
    server.settle();
}

#[test]
fn messages_up_to_the_limit_come_back_and_one_byte_more_is_too_big() {
    // 9: up to what this server takes.
    const LIMIT: usize = 1 << 20;
    let server = Server::start(|session| session.max_frame_bytes = LIMIT);
    let mut peer = Peer::connect(&server);
    let payload: Vec<u8> = (b'a'..=b'z').cycle().take(LIMIT).collect();

    peer.echoes(TEXT, &payload);
    peer.echoes(BINARY, &payload);
    for size in [64, 4 << 10, 64 << 10, LIMIT / 2 + 1] {
        peer.say(&fragmented(BINARY, &payload, size));
        peer.hears(FIN | BINARY, &payload);
    }
    peer.chop(&frame(FIN | TEXT, &payload), 60_000);
    peer.hears(FIN | TEXT, &payload);
    peer.leaves();

    for opcode in [TEXT, BINARY] {
        // By the header alone, of one frame or of the fragment that is too much.
        let mut peer = Peer::connect(&server);
        peer.say(&frame(FIN | opcode, &vec![b'a'; LIMIT + 1])[..14]);
        peer.ends(1009);
        let mut peer = Peer::connect(&server);
        peer.say(&frame(opcode, &payload));
        peer.say(&frame(CONTINUATION, b"a")[..6]);
        peer.ends(1009);
    }
    server.settle();
    assert_eq!(server.stats.sessions.endings.too_big.get(), 4);
}

#[test]
fn a_length_that_is_longer_than_it_must_be_is_refused() {
    // RFC 6455, 5.2; Autobahn does not ask.
    let server = Server::start(|_| {});
    for header in [
        &[FIN | TEXT, 0x80 | 126, 0, 125][..],
        &[FIN | TEXT, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        &[FIN | BINARY, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 1],
    ] {
        let mut peer = Peer::connect(&server);
        peer.say(header);
        peer.ends(1002);
    }
    // And one without a mask.
    let mut peer = Peer::connect(&server);
    peer.say(&[FIN | TEXT, 1, b'x']);
    peer.ends(1002);
    server.settle();
}

#[test]
fn reserved_bits_close_the_session_whatever_frame_they_are_on() {
    // 3.1 to 3.7. Nothing was negotiated.
    let server = Server::start(|_| {});
    let text = b"Hello, world!";
    for (bits, opcode, payload) in [
        (1, TEXT, &text[..]),
        (2, TEXT, text),
        (3, TEXT, text),
        (4, TEXT, text),
        (4, BINARY, text),
        (5, BINARY, &[0, 0xff, 0xfe]),
        (6, PING, text),
        (4, PONG, text),
        (7, CLOSE, &[]),
    ] {
        for chop in [usize::MAX, 1] {
            let mut peer = Peer::connect(&server);
            let bad = frame(FIN | bits << 4 | opcode, payload);
            peer.echoes(TEXT, text);
            peer.chop(&bad, chop.min(bad.len()));
            peer.say(&frame(FIN | PING, b""));
            peer.ends(1002);
        }
    }
    // On a fragment that is not the first one.
    let mut peer = Peer::connect(&server);
    peer.say(&[frame(TEXT, b"a"), frame(FIN | 0x40 | CONTINUATION, b"b")].concat());
    peer.ends(1002);
    server.settle();
}

#[test]
fn reserved_opcodes_close_the_session_with_and_without_a_payload() {
    // 4.1 and 4.2.
    let server = Server::start(|_| {});
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"reserved"] {
            let mut peer = Peer::connect(&server);
            peer.say(&frame(FIN | opcode, payload));
            peer.ends(1002);

            let mut peer = Peer::connect(&server);
            peer.echoes(TEXT, b"Hello, world!");
            peer.chop(&frame(FIN | opcode, payload), 1);
            peer.say(&frame(FIN | PING, b""));
            peer.ends(1002);
        }
    }
    server.settle();
}
