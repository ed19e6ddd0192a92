use proptest::prelude::*;

use super::*;

const EVENT: &str = r#"{"type":"event","topic":"fills","cursor":"1.62c8f1a5d3a40.62c8f1a5d3a41.64d1f0d5d3a41.fills-2ee0a8fa","seq":1773532800196239,"block":786814394,"index":3,"part":0,"time":1762358958466557,"user":"0x025a744111554e57c66ba2069a8081249fbe5e11","late":false,"replayed":false,"data":{"coin":"BTC","px":"103415.0","sz":"0.00011","side":"B"}}"#;

proptest! {
    #[test]
    fn what_is_packed_is_smaller_and_inflates_to_the_same(
        text in prop_oneof!["\\PC{0,3000}", "[ab]{0,3000}", Just("x".repeat(100_000))],
    ) {
        let plain = frame::text(|out| out.extend_from_slice(text.as_bytes()));
        let stats = SessionStats::default();

        let Some(packed) = pack(&plain, &stats) else { return Ok(()) };

        prop_assert!(packed.len() < plain.len());
        prop_assert_eq!(packed[0], plain[0] | 0x40);
        prop_assert_eq!(stats.packed_bytes.get(), packed.len() as u64);
        prop_assert_eq!(inflate(&frame::payload(&packed), text.len()).unwrap(), text.as_bytes());
    }

    #[test]
    fn no_bytes_inflate_to_more_than_the_bound(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        max_bytes in 0_usize..2_000,
    ) {
        if let Ok(plain) = inflate(&bytes, max_bytes) {
            prop_assert!(plain.capacity() <= max_bytes);
        }
    }
}

#[test]
fn an_event_becomes_smaller_and_what_cannot_stays_as_it_is() {
    let stats = SessionStats::default();
    let event = frame::text(|out| out.extend_from_slice(EVENT.as_bytes()));
    let packed = pack(&event, &stats).unwrap();
    assert!(packed.len() < event.len() * 8 / 10, "{} of {}", packed.len(), event.len());

    let noise: Vec<u8> = (0..1_000).map(|_| fastrand::u8(b' '..=b'~')).collect();
    for plain in [&b"{}"[..], b"", &fastrand::Rng::with_seed(1).u128(..).to_be_bytes(), &noise] {
        let plain = frame::text(|out| out.extend_from_slice(plain));
        let packed = pack(&plain, &stats);
        assert!(packed.is_none_or(|packed| packed.len() < plain.len()));
    }
    // However well it could be.
    assert_eq!(pack(&frame::pong(&[b'x'; 125]), &stats), None);
}

#[test]
fn a_bomb_is_found_before_it_is_held() {
    // A thousand to one, as deflate can at most.
    let plain = frame::text(|out| out.resize(out.len() + (16 << 20), b'0'));
    let packed = frame::payload(&pack(&plain, &SessionStats::default()).unwrap());
    assert!(packed.len() < 32 << 10);

    assert_eq!(inflate(&packed, 64 << 10), Err(CloseReason::TooBig));
    assert_eq!(inflate(&packed, (16 << 20) - 1), Err(CloseReason::TooBig));
    assert_eq!(inflate(&packed, 16 << 20).map(|out| out.len()), Ok(16 << 20));
}

#[test]
fn the_examples_of_the_specification_are_understood() {
    // RFC 7692, 7.2.3: compressed, stored, ended within the message, in two blocks.
    for packed in [
        &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..],
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ] {
        assert_eq!(inflate(packed, 5).as_deref(), Ok(&b"Hello"[..]), "{packed:x?}");
        assert_eq!(inflate(packed, 4), Err(CloseReason::TooBig), "{packed:x?}");
    }
    // The same message again, from memory of the first: there is none.
    assert_eq!(inflate(b"\xf2\x00\x11\x00\x00", 100), Err(CloseReason::NotDeflate));
}

#[test]
fn several_frames_in_one_piece_stay_as_they_are() {
    for text in [EVENT, "{}", &"x".repeat(70_000)] {
        let one = frame::text(|out| out.extend_from_slice(text.as_bytes()));
        assert!(frame::is_one(&one));
        let two = Bytes::from([one.clone(), one].concat());

        assert!(!frame::is_one(&two));
        assert_eq!(pack(&two, &SessionStats::default()), None);
    }
}
