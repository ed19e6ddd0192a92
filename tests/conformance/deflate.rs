//! Compression (RFC 7692): the cases 12 and 13, what breaks it, and that events are compressed once.
//!
//! The client here frames, compresses and inflates by itself. It keeps nothing between messages, unless a
//! test is about that.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::{
    harness::{ALICE, FILLS, Server, event},
    peer::*,
};

const PACKED: u8 = 0x40;
const PLAIN_ANSWER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const LIMIT: usize = 256 << 10;

/// A server that compresses whatever gets smaller.
fn server() -> Server {
    Server::start(|session| {
        session.compression = true;
        session.compress_min_bytes = 0;
        session.max_frame_bytes = LIMIT;
    })
}

fn offering(server: &Server, path: &str, offer: &str) -> Peer {
    Peer::connect_with(server, path, &format!("Sec-WebSocket-Extensions: {offer}\r\n"))
}

fn deflating(server: &Server) -> Peer {
    let peer = offering(server, "/echo", "permessage-deflate");
    assert_eq!(agreed(&peer).as_deref(), Some(PLAIN_ANSWER));
    peer
}

/// What the answer to the handshake says of extensions.
fn agreed(peer: &Peer) -> Option<String> {
    let mut lines = peer.accepted.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"))
        .map(|(_, value)| value.to_owned())
}

/// What one compressor makes of a message that follows others, or none.
fn deflate(state: &mut Compress, plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(plain.len() + 1_000);
    state.compress_vec(plain, &mut packed, FlushCompress::Sync).unwrap();
    assert!(packed.ends_with(&[0, 0, 0xff, 0xff]), "the buffer was too small");
    packed.truncate(packed.len() - 4);
    packed
}

fn packed(plain: &[u8], level: u32) -> Vec<u8> {
    deflate(&mut Compress::new(Compression::new(level), false), plain)
}

/// Inflates a message by itself.
fn inflated(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(2 << 20);
    let bytes = [packed, &[0, 0, 0xff, 0xff]].concat();
    Decompress::new(false).decompress_vec(&bytes, &mut plain, FlushDecompress::Sync).unwrap();
    assert!(plain.len() < plain.capacity());
    plain
}

impl Peer {
    /// The next frame is a message with this content; gives whether it was compressed.
    #[track_caller]
    fn hears_either(&mut self, opcode: u8, payload: &[u8]) -> bool {
        let (first, content) = self.next().expect("a message");
        let is_packed = first & PACKED != 0;
        assert_eq!(first & !PACKED, FIN | opcode, "{:?}", String::from_utf8_lossy(&content));
        let plain = if is_packed { inflated(&content) } else { content };
        assert!(
            plain == payload,
            "{} bytes are not the {} that were said",
            plain.len(),
            payload.len()
        );
        is_packed
    }
}

/// A compressed message in fragments of at most this size: only the first one says so.
fn packed_frames(opcode: u8, packed: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = fragmented(opcode, packed, size.min(packed.len()));
    bytes[0] |= PACKED;
    bytes
}

/// Text like events, which gets smaller but not much.
fn text(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut text = String::new();
    while text.len() < size {
        let (price, hash) = (random.u32(..), random.u128(..));
        text += &format!(r#"{{"coin":"BTC","px":"{price}","hash":"0x{hash:x}","dir":"Kauf µ"}},"#);
    }
    while !text.is_char_boundary(size) {
        text.insert(0, ' ');
    }
    text.as_bytes()[..size].to_vec()
}

#[test]
fn compressed_messages_come_back_whatever_their_size_and_however_they_are_cut() {
    // 12.1 to 12.5.
    let server = server();
    let mut peer = deflating(&server);
    for size in [16, 64, 256, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10, 128 << 10, LIMIT] {
        let plain = text(size);
        for level in [0, 1, 6, 9] {
            let packed = packed(&plain, level);
            // Stored as it is, it is longer than a message may be.
            if packed.len() > LIMIT {
                continue;
            }
            for (opcode, fragment) in
                [(TEXT, usize::MAX), (BINARY, usize::MAX), (TEXT, 256), (BINARY, 1_000), (TEXT, 7)]
            {
                if packed.len() / fragment > 2_000 {
                    continue;
                }
                peer.say(&packed_frames(opcode, &packed, fragment));
                let is_packed = peer.hears_either(opcode, &plain);
                assert_eq!(is_packed, size > 64, "{size} bytes");
            }
        }
        let packed = packed(&plain, 6);
        peer.chop(&packed_frames(TEXT, &packed, 500), 900);
        peer.hears_either(TEXT, &plain);
    }
    peer.leaves();
    server.settle();
}

#[test]
fn what_does_not_get_smaller_and_what_is_short_comes_back_as_it_is() {
    let server = Server::start(|session| {
        session.compression = true;
        session.compress_min_bytes = 200;
    });
    let mut peer = deflating(&server);
    let mut noise = [0; 5_000];
    fastrand::Rng::with_seed(3).fill(&mut noise);
    let short = vec![b'x'; 190];

    // Said compressed or not: that is for each message to decide.
    for content in [&noise[..], &short, b"", b"x"] {
        peer.say(&packed_frames(BINARY, &packed(content, 6), usize::MAX));
        assert!(!peer.hears_either(BINARY, content));
        peer.say(&frame(FIN | BINARY, content));
        assert!(!peer.hears_either(BINARY, content));
    }
    let long = vec![b'x'; 200];
    peer.say(&frame(FIN | TEXT, &long));
    assert!(peer.hears_either(TEXT, &long));
    // Control frames are never compressed, and may come between.
    let packed = packed(&long, 6);
    let message = packed_frames(TEXT, &packed, packed.len() - 1);
    let first = 6 + packed.len() - 1;
    peer.say(&message[..first]);
    peer.say(&frame(FIN | PING, &[b'x'; 125]));
    peer.hears(FIN | PONG, &[b'x'; 125]);
    peer.say(&message[first..]);
    assert!(peer.hears_either(TEXT, &long));
    peer.leaves();
    server.settle();
}

#[test]
fn every_offer_is_answered_by_what_can_be_kept_of_it() {
    // 13.1 to 13.7: what clients ask for, in one line and in several.
    let server = server();
    let plain = text(2_000);
    let whole = format!("{PLAIN_ANSWER}; server_max_window_bits=15");
    for (offer, answer) in [
        ("permessage-deflate", Some(PLAIN_ANSWER)),
        (
            "permessage-deflate; client_no_context_takeover; client_max_window_bits",
            Some(PLAIN_ANSWER),
        ),
        ("permessage-deflate; server_no_context_takeover", Some(PLAIN_ANSWER)),
        ("permessage-deflate; client_max_window_bits=9", Some(PLAIN_ANSWER)),
        ("permessage-deflate; server_max_window_bits=15", Some(&whole[..])),
        ("permessage-deflate; server_max_window_bits=9", None),
        ("permessage-deflate; server_max_window_bits=9, permessage-deflate", Some(PLAIN_ANSWER)),
        (
            "permessage-deflate; server_max_window_bits=8\r\nSec-WebSocket-Extensions: permessage-deflate",
            Some(PLAIN_ANSWER),
        ),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; mystery", None),
        ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", None),
        ("permessage-bzip2", None),
        (";,=", None),
    ] {
        let mut peer = offering(&server, "/echo", offer);
        assert_eq!(agreed(&peer).as_deref(), answer, "{offer}");
        peer.say(&frame(FIN | TEXT, &plain));
        assert_eq!(peer.hears_either(TEXT, &plain), answer.is_some(), "{offer}");
        peer.say(&packed_frames(TEXT, &packed(&plain, 6), usize::MAX));
        if answer.is_some() {
            assert!(peer.hears_either(TEXT, &plain));
            peer.leaves();
        } else {
            peer.ends(1002);
        }
    }
    // Nor where it is not configured, or not asked for.
    let off = Server::start(|_| {});
    assert_eq!(agreed(&offering(&off, "/echo", "permessage-deflate")), None);
    assert_eq!(agreed(&Peer::connect(&server)), None);
}

#[test]
fn what_breaks_a_compressed_message_closes_with_its_code() {
    let server = server();
    let hello = packed(b"Hello, Hello, Hello", 6);
    let whole = packed_frames(TEXT, &hello, usize::MAX);
    let mut bad_utf8 = text(500);
    bad_utf8.push(0xff);
    let mut cut = text(500);
    cut.push(0xc3);
    for (name, bytes, code) in [
        (
            "the mark on a later fragment",
            {
                let first = frame(PACKED | TEXT, &hello[..3]);
                [first, frame(FIN | PACKED | CONTINUATION, &hello[3..])].concat()
            },
            1002,
        ),
        (
            "the mark on a later fragment only",
            { [frame(TEXT, b"a"), frame(FIN | PACKED | CONTINUATION, b"b")].concat() },
            1002,
        ),
        ("the mark on a ping", frame(FIN | PACKED | PING, b"x"), 1002),
        ("the mark on a close", frame(FIN | PACKED | CLOSE, b""), 1002),
        (
            "another bit too",
            {
                let mut bytes = whole.clone();
                bytes[0] |= 0x20;
                bytes
            },
            1002,
        ),
        (
            "another bit",
            {
                let mut bytes = whole;
                bytes[0] ^= 0x50;
                bytes
            },
            1002,
        ),
        ("no deflate at all", frame(FIN | PACKED | TEXT, &[0xff; 20]), 1007),
        // A stored block whose length is not what its check says.
        ("damaged", frame(FIN | PACKED | BINARY, &[0, 5, 0, 0, 0, 1, 2, 3, 4, 5]), 1007),
        ("inflated, no UTF-8", packed_frames(TEXT, &packed(&bad_utf8, 6), 100), 1007),
        ("inflated, cut within a character", packed_frames(TEXT, &packed(&cut, 6), 100), 1007),
        // 32 MiB in 32 KiB.
        ("a bomb", packed_frames(TEXT, &packed(&vec![b'0'; 32 << 20], 9), 512), 1009),
        (
            "a bomb in one frame",
            packed_frames(BINARY, &packed(&vec![0; LIMIT + 1], 9), usize::MAX),
            1009,
        ),
        // On the wire it is bounded too.
        ("a long frame", frame(FIN | PACKED | BINARY, &vec![0; LIMIT + 1])[..14].to_vec(), 1009),
    ] {
        println!("{name}");
        let mut peer = deflating(&server);
        peer.say(&bytes);
        peer.ends(code);
    }
    server.settle();
    assert_eq!(server.stats.sessions.endings.not_deflate.get(), 2);
}

#[test]
fn a_client_that_refers_to_its_earlier_messages_is_told_that_they_are_forgotten() {
    // The answer to its offer has said `client_no_context_takeover`.
    let server = server();
    let mut peer = deflating(&server);
    let plain = text(1_000);
    let mut state = Compress::new(Compression::new(6), false);

    let (first, second) = (deflate(&mut state, &plain), deflate(&mut state, &plain));

    assert!(second.len() < 100, "it does refer to the first");
    peer.say(&packed_frames(TEXT, &first, usize::MAX));
    peer.hears_either(TEXT, &plain);
    peer.say(&packed_frames(TEXT, &second, usize::MAX));
    peer.ends(1007);
}

#[test]
fn an_event_is_compressed_once_for_all_who_want_it_so_live_and_from_the_past() {
    let server = Server::start(|session| session.compression = true);
    let mut packing: Vec<_> =
        (0..3).map(|_| offering(&server, "/v1/ws", "permessage-deflate")).collect();
    let mut plain = Peer::connect_with(&server, "/v1/ws", "");
    let message = |peer: &mut Peer| loop {
        let (first, content) = peer.next().unwrap();
        let is_packed = first & PACKED != 0;
        let content = if is_packed { inflated(&content) } else { content };
        let message = String::from_utf8(content).unwrap();
        // What is said of the session itself is of no interest here.
        if message.starts_with(r#"{"type":"event""#) {
            break (is_packed, message);
        }
        if message.starts_with(r#"{"type":"ack""#) {
            break (is_packed, "ack".to_owned());
        }
    };
    let subscribe = |peer: &mut Peer, request: &str| {
        peer.say(&frame(FIN | TEXT, request.as_bytes()));
        assert_eq!(message(peer).1, "ack");
    };
    for peer in packing.iter_mut().chain([&mut plain]) {
        subscribe(peer, r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    }
    let stats = &server.stats.sessions;
    let before = stats.packed_frames.get();
    let body = format!(r#"{{"coin":"BTC","padding":"{}"}}"#, "fill ".repeat(100));

    server.append(vec![event(FILLS, 1, 0, Some(ALICE), &body)]);

    let (is_packed, told) = message(&mut plain);
    assert!(!is_packed && told.contains(&body));
    for peer in &mut packing {
        assert_eq!(message(peer), (true, told.clone()));
    }
    assert_eq!(stats.packed_frames.get() - before, 1);
    assert!(stats.packed_plain_bytes.get() > 2 * stats.packed_bytes.get());
    assert_eq!(stats.compressing.get(), 3);

    // The one from the past says that it is: another frame, and again only one.
    let before = stats.packed_frames.get();
    let replayed = told.replace(r#""replayed":false"#, r#""replayed":true"#);
    for peer in &mut packing {
        subscribe(peer, r#"{"type":"subscribe","id":"b","topic":"fills","from":{"last":1}}"#);
        assert_eq!(message(peer), (true, replayed.clone()));
    }
    assert_eq!(stats.packed_frames.get() - before, 1);
}
