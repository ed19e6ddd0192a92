//! What every store must do for those who resume: the order of arrival, and how far runs came.

use super::*;

fn seqs(arrivals: &Arrivals) -> Vec<u64> {
    arrivals.events.iter().map(|row| row.seq).collect()
}

pub async fn arrivals_come_in_the_order_of_seq_whatever_their_topic_block_and_day(
    store: &dyn EventStore,
) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    assert!(store.arrivals(0, 10).await.unwrap().events.is_empty());
    let mut late = event(FILLS, 3, 0, 14);
    late.late = true;
    // Two days and two topics, and the older day is the later one.
    let live = vec![
        event(FILLS, 100_000, 0, 11),
        event(MISC, 100_000, 1, 12),
        event(FILLS, 100_001, 2, 13),
    ];
    Content::of(live.clone()).commit(1, &mut *writer).await.unwrap();
    Content::of(vec![late.clone()]).commit(2, &mut *writer).await.unwrap();
    writer.backfill(&[event(FILLS, 5, 0, 0).event], None).await.unwrap();

    let all = store.arrivals(0, 10).await.unwrap();

    let expected: Vec<_> = live.into_iter().chain([late]).collect();
    assert_eq!(all.events, expected, "without what was back-filled");
    assert_eq!(all.deleted_seq, None);
    assert_eq!(seqs(&store.arrivals(11, 2).await.unwrap()), [12, 13]);
    assert_eq!(seqs(&store.arrivals(13, 2).await.unwrap()), [14]);
    assert!(store.arrivals(14, 2).await.unwrap().events.is_empty());
    assert!(store.arrivals(u64::MAX, 2).await.unwrap().events.is_empty());
}

pub async fn arrivals_are_found_on_both_sides_of_numbers_that_were_given_up(
    store: &dyn EventStore,
) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let far = [1, 5_000, 9_000_000, 9_000_001, 1 << 40];
    let rows = far.into_iter().zip(1..).map(|(seq, block)| event(FILLS, block, 0, seq)).collect();
    Content::of(rows).commit(1, &mut *writer).await.unwrap();

    for (after, limit, expected) in [
        (0, 1, &far[..1]),
        (0, 3, &far[..3]),
        (1, 10, &far[1..]),
        (8_999_999, 1, &far[2..3]),
        (9_000_001, 10, &far[4..]),
        (1 << 40, 10, &[]),
    ] {
        assert_eq!(seqs(&store.arrivals(after, limit).await.unwrap()), expected, "behind {after}");
    }
}

pub async fn arrivals_tell_how_far_retention_has_deleted(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let old = event(FILLS, 0, 0, 7);
    let new = event(FILLS, 200_000, 0, 8);
    Content::of(vec![old, new]).commit(1, &mut *writer).await.unwrap();
    let limits = RetentionLimits {
        now: block_time(200_000),
        edge: block_time(150_000),
        max_bytes: None,
        min_free_bytes: 0,
        portion: 100,
    };

    while writer.retain(limits).await.unwrap().more {}

    let left = store.arrivals(0, 10).await.unwrap();
    assert_eq!((seqs(&left), left.deleted_seq), (vec![8], Some(7)));
}

pub async fn a_run_remembers_how_far_the_ones_before_it_came(store: &dyn EventStore) {
    let (mut first, begun) = store.open_writer().await.unwrap();
    assert!(begun.earlier_runs.is_empty());
    Content::of(vec![event(FILLS, 1, 0, 21), event(FILLS, 2, 0, 25)])
        .commit(1, &mut *first)
        .await
        .unwrap();
    first.close().await.unwrap();
    drop(first);
    // One that commits nothing.
    let (mut second, middle) = store.open_writer().await.unwrap();
    second.close().await.unwrap();
    drop(second);

    let (_third, last) = store.open_writer().await.unwrap();

    let run = |recovered: &Recovered| EarlierRun { id: recovered.run.id, last_seq: 25 };
    assert_eq!(middle.earlier_runs, [run(&begun)]);
    assert_eq!(last.earlier_runs, [run(&begun), run(&middle)]);
}
