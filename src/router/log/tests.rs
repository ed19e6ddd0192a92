use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    event::{Event, Keys, SequencedEvent, Timestamp, Topic},
    source::{BatchLost, Budget, Density, Form, Progress, Stream, StreamState},
    testing::Probe,
};

const FILLS: Topic = Topic::new("fills");

fn segment(budget: &Arc<Budget>, seqs: &[u64]) -> NewSegment {
    let stream = Stream {
        name: "a/fills".into(),
        node: "a".into(),
        topic: FILLS,
        form: Form::ByBlock,
        density: Density::Dense,
        directory: PathBuf::new(),
    };
    let events = seqs.iter().map(|&seq| {
        let id = EventId { topic: FILLS, position: seq, index: 0, part: 0 };
        let (keys, body) = (Keys::default(), Bytes::from_static(b"{}"));
        let event = Event { id, time: Timestamp(0), user: None, keys, body };
        let sequenced = SequencedEvent { seq, late: false, event };
        LogEvent::new(sequenced, Arc::default())
    });
    NewSegment {
        generation: 1,
        events: events.collect(),
        notices: Vec::new(),
        seen: Vec::new(),
        heads: Arc::default(),
        progress: Progress {
            stream: Arc::new(stream),
            files: Vec::new(),
            state: StreamState::default(),
        },
        read_at: Timestamp(0),
        credit: budget.take(10, 1),
    }
}

fn seqs(slice: &LogSlice) -> Vec<u64> {
    let events = slice.segments.iter().flat_map(|segment| &segment.events);
    events.map(|event| event.sequenced.seq).collect()
}

#[actix_rt::test]
async fn what_is_not_committed_never_leaves() {
    let lost = Probe::<BatchLost>::start();
    let budget = Budget::new(1_000, lost.recipient());
    let log = Log::new(0, 0, Heads::default());
    for seq in 1..=3 {
        log.append(segment(&budget, &[seq]));
    }

    assert_eq!(seqs(&log.read(0, 100)), [1, 2, 3]);
    log.commit(2);

    let slice = log.read(0, 100);
    assert_eq!((seqs(&slice), slice.missed, slice.next), (vec![3], 2, 3));
    assert_eq!(budget.in_flight_bytes(), 10);
    assert_eq!(log.state().committed_seq, 2);
    assert!(lost.take().await.is_empty());
}

#[actix_rt::test]
async fn what_the_store_has_is_told_apart_from_what_was_read() {
    let lost = Probe::<BatchLost>::start();
    let budget = Budget::new(1_000, lost.recipient());
    let log = Log::new(1 << 20, 0, Heads::default());
    for seq in 1..=2 {
        let heads = Heads { epoch: 1, run: 2, positions: vec![(FILLS, seq)] };
        log.append(NewSegment { heads: Arc::new(heads), ..segment(&budget, &[seq]) });
    }

    log.commit(1);

    let place = |cursor: Cursor| (cursor.seq, cursor.positions);
    assert_eq!(place(log.committed_head()), (1, vec![(FILLS, 1)]));
    assert_eq!(place(log.head()), (2, vec![(FILLS, 2)]));
    log.commit(2);
}

#[actix_rt::test]
async fn a_committed_event_stays_for_readers_while_there_is_room() {
    let lost = Probe::<BatchLost>::start();
    let budget = Budget::new(1_000, lost.recipient());
    let log = Log::new(1 << 20, 0, Heads::default());
    log.append(segment(&budget, &[1, 2]));
    log.commit(1);

    assert_eq!(seqs(&log.read(0, 100)), [1, 2]);
    assert_eq!(budget.in_flight_batches(), 0);
}

#[actix_rt::test]
async fn how_far_topics_came_before_a_segment_is_known_though_the_one_before_has_left() {
    let lost = Probe::<BatchLost>::start();
    let budget = Budget::new(1_000, lost.recipient());
    let at = |position| Heads { positions: vec![(FILLS, position)], ..Heads::default() };
    let log = Log::new(0, 0, at(5));
    for position in 6..=8 {
        log.append(NewSegment { heads: Arc::new(at(position)), ..segment(&budget, &[position]) });
    }
    let before = |number| log.heads_before(number).map(|heads| heads.positions[0].1);

    assert_eq!([0, 1, 2, 3].map(before), [5, 6, 7, 8].map(Some));
    log.commit(2);
    assert_eq!([0, 1, 2, 3].map(before), [None, None, Some(7), Some(8)]);
}

#[actix_rt::test]
async fn abandoned_batches_are_reported_as_lost_and_readers_go_on() {
    let lost = Probe::<BatchLost>::start();
    let budget = Budget::new(1_000, lost.recipient());
    let log = Log::new(1 << 20, 0, Heads::default());
    log.append(segment(&budget, &[1]));
    log.commit(1);
    log.append(segment(&budget, &[2]));

    log.abandon_uncommitted();
    log.append(segment(&budget, &[3]));

    assert_eq!(lost.take().await, [BatchLost { generation: 1 }]);
    assert_eq!(seqs(&log.read(1, 100)), [2, 3]);
    assert_eq!(log.state().uncommitted_events, 1);
}

proptest! {
    /// A reader that follows in slices of any size sees every event once and in order, and a
    /// slice is no larger than asked unless one segment is.
    #[test]
    fn slices_make_up_the_whole(sizes in prop::collection::vec(0usize..5, 0..40), max in 1usize..9) {
        let system = actix::System::new();
        system.block_on(async {
            let lost = Probe::<BatchLost>::start();
            let budget = Budget::new(1_000_000, lost.recipient());
            let log = Log::new(1 << 20, 0, Heads::default());
            let mut seq = 0;
            for size in sizes {
                let all: Vec<u64> = (0..size).map(|_| { seq += 1; seq }).collect();
                log.append(segment(&budget, &all));
            }
            let (mut position, mut read) = (0, Vec::new());
            while position < log.state().next {
                let slice = log.read(position, max);
                let got = seqs(&slice);
                assert!(got.len() <= max || slice.segments.len() == 1);
                assert!(slice.next > position);
                position = slice.next;
                read.extend(got);
            }
            assert_eq!(read, (1..=seq).collect::<Vec<_>>());
            log.commit(position);
        });
    }
}
