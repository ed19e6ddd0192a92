use proptest::prelude::*;

use super::*;

fn frames(sizes: &[usize]) -> Vec<Bytes> {
    // Every byte differs from its neighbours, so that a cut at a wrong place shows.
    let mut next = 0_u8;
    let mut byte = || {
        next = next.wrapping_add(1);
        next
    };
    sizes.iter().map(|&size| (0..size).map(|_| byte()).collect()).collect()
}

/// A socket that takes as many bytes at each call as it is told; 0: it is full.
fn write_in_pieces(outbox: &mut Outbox, takes: &mut impl Iterator<Item = usize>) -> Vec<u8> {
    let mut received = Vec::new();
    let drained = outbox
        .write_to(|slices| {
            let mut room = takes.next().unwrap_or(usize::MAX);
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let before = received.len();
            for slice in slices {
                let taken = slice.len().min(room);
                received.extend_from_slice(&slice[..taken]);
                room -= taken;
            }
            Ok(received.len() - before)
        })
        .unwrap();
    assert_eq!(drained, outbox.pieces.is_empty());
    received
}

/// Queues so many of these frames, each by itself or all in one piece.
fn push(outbox: &mut Outbox, frames: &[Bytes], as_bundle: bool) {
    match as_bundle {
        true => outbox.push_bundle(&Rc::new(Bundle::new(frames))).unwrap(),
        false => frames.iter().for_each(|frame| outbox.push(frame.clone()).unwrap()),
    }
}

proptest! {
    #[test]
    fn any_pattern_of_partial_writes_delivers_the_same_bytes(
        sizes in prop::collection::vec(1_usize..40, 1..60),
        takes in prop::collection::vec(0_usize..50, 0..200),
        pushes in prop::collection::vec((1_usize..8, any::<bool>()), 60),
    ) {
        let frames = frames(&sizes);
        let mut outbox = Outbox::new(usize::MAX);
        let mut takes = takes.into_iter();
        let mut received = Vec::new();

        let mut waiting = &frames[..];
        for (count, as_bundle) in pushes {
            let (now, later) = waiting.split_at(count.min(waiting.len()));
            push(&mut outbox, now, as_bundle && !now.is_empty());
            waiting = later;
            received.extend(write_in_pieces(&mut outbox, &mut takes));
        }
        while !outbox.pieces.is_empty() {
            received.extend(write_in_pieces(&mut outbox, &mut takes));
        }

        prop_assert_eq!(received, frames.concat());
        let tally = outbox.take_tally();
        prop_assert_eq!(tally.queued, frames.len() as u64);
        prop_assert_eq!(tally.sent, frames.len() as u64);
        prop_assert_eq!(tally.waiting_bytes, 0);
        prop_assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn an_abandoned_outbox_ends_on_the_boundary_of_a_frame(
        sizes in prop::collection::vec(1_usize..40, 1..20),
        bundled in prop::collection::vec((1_usize..8, any::<bool>()), 20),
        written in 0_usize..400,
        is_gone in any::<bool>(),
    ) {
        let frames = frames(&sizes);
        let mut outbox = Outbox::new(usize::MAX);
        let mut waiting = &frames[..];
        for (count, as_bundle) in bundled.into_iter().cycle() {
            let (now, later) = waiting.split_at(count.min(waiting.len()));
            push(&mut outbox, now, as_bundle);
            waiting = later;
            if waiting.is_empty() {
                break;
            }
        }
        let mut received = write_in_pieces(&mut outbox, &mut [written, 0].into_iter());
        let whole = (0..=frames.len()).map(|count| frames[..count].concat());
        let whole: Vec<_> = whole.collect();
        let complete = whole.iter().skip(1).filter(|bytes| bytes.len() <= received.len()).count();

        if is_gone {
            outbox.clear();

            let tally = outbox.take_tally();
            prop_assert_eq!(tally.sent, complete as u64);
            prop_assert_eq!(tally.dropped, (frames.len() - complete) as u64);
            prop_assert_eq!((tally.waiting_bytes, outbox.bytes), (0, 0));
            return Ok(());
        }
        outbox.abandon();
        outbox.force(Bytes::from_static(b"\x88\x02the end"));
        let left = outbox.bytes;
        let rest = write_in_pieces(&mut outbox, &mut std::iter::empty());
        prop_assert_eq!(rest.len(), left);
        received.extend(rest);

        let expected = whole.into_iter().find(|bytes| bytes.len() >= written.min(frames.concat().len()));
        let mut expected = expected.unwrap();
        expected.extend_from_slice(b"\x88\x02the end");
        prop_assert_eq!(received, expected);
        let tally = outbox.take_tally();
        prop_assert_eq!(tally.queued, frames.len() as u64 + 1);
        prop_assert_eq!(tally.sent + tally.dropped, tally.queued);
        prop_assert_eq!(tally.waiting_bytes, 0);
    }
}

#[test]
fn all_that_waits_leaves_in_one_write() {
    let mut outbox = Outbox::new(usize::MAX);
    frames(&[5; 1_000]).into_iter().for_each(|frame| outbox.push(frame).unwrap());
    let mut calls = 0;

    let drained = outbox.write_to(|slices| {
        calls += 1;
        Ok(slices.iter().map(|slice| slice.len()).sum())
    });

    assert!(drained.unwrap());
    assert_eq!(calls, 1);
}

#[test]
fn what_does_not_fit_is_refused_and_not_counted() {
    let mut outbox = Outbox::new(10);
    outbox.push(Bytes::from_static(b"12345678")).unwrap();

    assert_eq!(outbox.push(Bytes::from_static(b"123")), Err(Full));

    assert_eq!(outbox.bytes, 8);
    let tally = outbox.take_tally();
    assert_eq!((tally.queued, tally.dropped, tally.waiting_bytes), (1, 0, 8));
}

#[test]
fn a_frame_longer_than_the_outbox_fits_when_nothing_else_waits() {
    let mut outbox = Outbox::new(10);

    outbox.push(Bytes::from_static(b"longer than ten bytes")).unwrap();

    assert_eq!(outbox.push(Bytes::from_static(b"1")), Err(Full));
}

#[test]
fn a_bundle_never_goes_beyond_the_limit_and_is_taken_frame_by_frame() {
    let mut outbox = Outbox::new(10);
    let bundle = |lengths| Rc::new(Bundle::new(&frames(lengths)));

    assert_eq!(outbox.push_bundle(&bundle(&[6, 5])), Err(Full));
    assert_eq!(outbox.take_tally(), Tally::default());
    outbox.push_bundle(&bundle(&[6, 4])).unwrap();
    assert_eq!(outbox.take_all(), frames(&[6, 4]));

    let tally = outbox.take_tally();
    assert_eq!((tally.queued, tally.sent, tally.sent_bytes, tally.waiting_bytes), (2, 2, 10, 0));
}

#[test]
fn a_cleared_outbox_counts_what_it_held_as_dropped() {
    let mut outbox = Outbox::new(usize::MAX);
    frames(&[10, 10]).into_iter().for_each(|frame| outbox.push(frame).unwrap());
    write_in_pieces(&mut outbox, &mut [4, 0].into_iter());

    outbox.clear();

    let tally = outbox.take_tally();
    assert_eq!((tally.queued, tally.sent, tally.dropped), (2, 0, 2));
    assert_eq!((tally.sent_bytes, tally.waiting_bytes), (4, 0));
}

#[test]
fn a_burst_does_not_pin_memory() {
    let mut outbox = Outbox::new(usize::MAX);
    frames(&[1; 500]).into_iter().for_each(|frame| outbox.push(frame).unwrap());

    write_in_pieces(&mut outbox, &mut std::iter::empty());

    assert!(outbox.pieces.capacity() <= IDLE_CAPACITY);
}
