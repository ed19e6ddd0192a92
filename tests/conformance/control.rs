//! Pings, pongs and the end of a session: the cases 2 and 7.

use crate::{harness::Server, peer::*};

#[test]
fn pings_are_answered_with_what_they_carry_and_pongs_are_passed_over() {
    // 2.1 to 2.11.
    let server = Server::start(|_| {});
    let mut peer = Peer::connect(&server);
    for payload in
        [&b""[..], b"Hello, world!", &[0, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0, 0xff], &[0xfe; 125]]
    {
        peer.say(&frame(FIN | PING, payload));
        peer.hears(FIN | PONG, payload);
        peer.chop(&frame(FIN | PING, payload), 1);
        peer.hears(FIN | PONG, payload);
    }
    // Pongs that nobody asked for.
    peer.say(&frame(FIN | PONG, b""));
    peer.say(&frame(FIN | PONG, b"unsolicited"));
    peer.say(&frame(FIN | PING, b"asked"));
    peer.hears(FIN | PONG, b"asked");
    let pings: Vec<_> = (0..10).map(|ping| format!("payload-{ping}")).collect();
    let bytes: Vec<_> = pings.iter().flat_map(|ping| frame(FIN | PING, ping.as_bytes())).collect();
    for chop in [bytes.len(), 1] {
        peer.chop(&bytes, chop);
        for ping in &pings {
            peer.hears(FIN | PONG, ping.as_bytes());
        }
    }
    peer.leaves();
    server.settle();
}

#[test]
fn control_frames_that_are_long_or_in_parts_are_refused() {
    // 2.5, 5.1, 5.2, 7.3.6.
    let server = Server::start(|_| {});
    for opcode in [PING, PONG, CLOSE] {
        for bad in [
            frame(FIN | opcode, &[0xfe; 126]),
            frame(FIN | opcode, &[0xfe; 70_000]),
            [frame(opcode, b"frag"), frame(FIN | CONTINUATION, b"ment")].concat(),
        ] {
            let mut peer = Peer::connect(&server);
            // The header is enough.
            peer.say(&bad[..8]);
            peer.ends(1002);
        }
    }
    server.settle();
}

#[test]
fn a_close_is_answered_with_its_code_and_nothing_is_answered_behind_it() {
    // 7.1.1 to 7.1.6, 7.3.1, 7.3.3 to 7.3.5.
    let server = Server::start(|_| {});
    let closing = close(1000, b"");
    for behind in [
        vec![],
        closing.clone(),
        frame(FIN | PING, b"late"),
        frame(FIN | TEXT, b"late"),
        frame(FIN | CONTINUATION, b"late"),
    ] {
        let mut peer = Peer::connect(&server);
        peer.echoes(TEXT, b"Hello World!");
        peer.say(&[closing.clone(), behind].concat());
        peer.ends(1000);
    }
    // Within a message, of which nothing comes back.
    let mut peer = Peer::connect(&server);
    peer.say(
        &[frame(TEXT, b"fragment1"), closing, frame(FIN | CONTINUATION, b"fragment2")].concat(),
    );
    peer.ends(1000);
    // Behind a long message, which does come back.
    let mut peer = Peer::connect(&server);
    let long = vec![b'B'; 256 << 10];
    peer.say(&[frame(FIN | TEXT, &long), close(1000, b"")].concat());
    peer.hears(FIN | TEXT, &long);
    peer.ends(1000);
    // With every length of the reason.
    for length in [0, 1, 13, 122, 123] {
        let mut peer = Peer::connect(&server);
        peer.say(&close(1000, &vec![b'*'; length]));
        peer.ends(1000);
    }
    // Without a code: there is none to send back.
    let mut peer = Peer::connect(&server);
    peer.say(&frame(FIN | CLOSE, b""));
    peer.hears(FIN | CLOSE, b"");
    assert_eq!(peer.next(), None);
    server.settle();
}

#[test]
fn every_code_that_may_be_sent_is_sent_back() {
    // 7.7.1 to 7.7.13, and what was registered since.
    let server = Server::start(|_| {});
    let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    for code in valid.into_iter().chain([3000, 3999, 4000, 4999]) {
        let mut peer = Peer::connect(&server);
        peer.chop(&close(code, "µ".as_bytes()), 1);
        peer.ends(code);
    }
    server.settle();
}

#[test]
fn a_close_frame_that_is_malformed_ends_with_the_code_of_its_fault() {
    // 7.3.2, 7.5.1, 7.9.1 to 7.9.9, 7.13.
    let server = Server::start(|_| {});
    let reserved = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    let codes = reserved.map(|code| (close(code, b""), 1002));
    let others = [
        (frame(FIN | CLOSE, &[3]), 1002),
        (close(999, b"with a reason"), 1002),
        (close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"), 1007),
        // Cut within a character.
        (close(1000, b"\xce"), 1007),
    ];
    for (bad, code) in codes.into_iter().chain(others) {
        let mut peer = Peer::connect(&server);
        peer.say(&bad);
        peer.ends(code);
    }
    server.settle();
}
