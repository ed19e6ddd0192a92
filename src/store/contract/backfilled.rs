//! What every store must do with back-filled events.

use super::*;
use crate::{event::BACKFILLED_SEQ, whitelist::ListMark};

fn plain(position: u64, index: u32) -> Event {
    event(FILLS, position, index, 0).event
}

pub async fn backfilled_events_are_in_history_once_and_outside_the_order_of_arrival(
    store: &dyn EventStore,
) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let live = event(FILLS, 50, 0, 10);
    Content::of(vec![live.clone()]).commit(1, &mut *writer).await.unwrap();
    let events = vec![plain(50, 0), plain(50, 1), plain(7, 0), plain(90, 2)];

    let first = writer.backfill(&events, None).await.unwrap();
    let again = writer.backfill(&events, None).await.unwrap();

    assert_eq!(first, Committed { inserted: 3, duplicates: 1 });
    assert_eq!(again, Committed { inserted: 0, duplicates: 4 });
    // Page by page, within a block too.
    let stored = all_pages(store, page(1)).await;
    let ids: Vec<_> =
        stored.iter().map(|row| (row.event.id.position, row.event.id.index)).collect();
    assert_eq!(ids, [(7, 0), (50, 1), (50, 0), (90, 2)]);
    let mut backwards = all_pages(store, EventQuery { descending: true, ..page(1) }).await;
    backwards.reverse();
    assert_eq!(backwards, stored);
    for row in stored.iter().filter(|row| row.event != live.event) {
        assert!(row.late && row.seq >= BACKFILLED_SEQ && row.seq < 1 << 53, "{row:?}");
        assert!(events.contains(&row.event));
    }
    // The live one is as it was, and the order goes on behind it.
    assert!(stored.contains(&live));
    let recovered = writer.recover().await.unwrap();
    assert_eq!(recovered.last_seq, 10);
    assert_eq!(recovered.heads, [(FILLS, 50)]);
    let next = event(FILLS, 51, 0, 11);
    let committed = Content::of(vec![next]).commit(2, &mut *writer).await.unwrap();
    assert_eq!(committed, Committed { inserted: 1, duplicates: 0 });
    // Neither they nor what came late are asked for where the order counts.
    let late = SequencedEvent { late: true, ..event(FILLS, 8, 0, 12) };
    Content::of(vec![late]).commit(3, &mut *writer).await.unwrap();
    let in_order = store.events(EventQuery { in_order: true, ..page(10) }).await.unwrap();
    assert_eq!(in_order.iter().map(|row| row.seq).collect::<Vec<_>>(), [10, 11]);
}

pub async fn backfilled_events_of_one_block_stay_in_their_order(store: &dyn EventStore) {
    let events: Vec<_> = (0..9).map(|index| plain(7, index)).collect();
    // In portions, the last one of them by the next run.
    let (mut writer, _) = store.open_writer().await.unwrap();
    for portion in events[..6].chunks(2) {
        writer.backfill(portion, None).await.unwrap();
    }
    writer.close().await.unwrap();
    drop(writer);
    let (mut writer, _) = store.open_writer().await.unwrap();
    writer.backfill(&events[6..], None).await.unwrap();

    let stored = store.events(page(10)).await.unwrap();

    assert!(stored.iter().map(|row| &row.event).eq(&events), "{stored:?}");
}

pub async fn what_is_to_be_backfilled_is_kept_for_the_next_writer(store: &dyn EventStore) {
    let job = |name: &str, users| PendingJob { name: name.to_owned(), users };
    let (mut writer, _) = store.open_writer().await.unwrap();
    assert_eq!(writer.pending().await.unwrap(), Pending::default());
    let all = job("list-1", None);
    let some = job("list-2", Some(vec![user(3), user(200)]));
    let nobody = job("list-3", Some(Vec::new()));
    let list = Some(ListMark { digest: u64::MAX - 5, size: Some(2) });
    let first = Pending { list, jobs: vec![all, some.clone(), nobody] };

    writer.save_pending(&first).await.unwrap();
    writer.close().await.unwrap();
    drop(writer);
    let (mut writer, _) = store.open_writer().await.unwrap();

    assert_eq!(writer.pending().await.unwrap(), first);
    // It is replaced as a whole.
    let everybody = Some(ListMark { digest: 0, size: None });
    let second = Pending { list: everybody, jobs: vec![some] };
    writer.save_pending(&second).await.unwrap();
    assert_eq!(writer.pending().await.unwrap(), second);
    writer.save_pending(&Pending::default()).await.unwrap();
    assert_eq!(writer.pending().await.unwrap(), Pending::default());
}

pub async fn a_live_event_takes_the_place_of_a_backfilled_one(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    Content::of(vec![event(FILLS, 1, 0, 5)]).commit(1, &mut *writer).await.unwrap();
    writer.backfill(&[plain(20, 0), plain(20, 1), plain(21, 0)], None).await.unwrap();
    let live = vec![event(FILLS, 20, 0, 10), event(FILLS, 21, 0, 11), event(FILLS, 22, 0, 12)];

    Content::of(live.clone()).commit(2, &mut *writer).await.unwrap();

    let stored = store.events(page(10)).await.unwrap();
    assert_eq!(stored.len(), 5);
    assert!(live.iter().all(|event| stored.contains(event)), "{stored:?}");

    // So it is when another run had back-filled.
    writer.backfill(&[plain(30, 0)], None).await.unwrap();
    writer.close().await.unwrap();
    drop(writer);
    let (mut writer, _) = store.open_writer().await.unwrap();
    let live = event(FILLS, 30, 0, 20);
    Content::of(vec![live.clone()]).commit(1, &mut *writer).await.unwrap();
    assert_eq!(store.events(page(10)).await.unwrap().last(), Some(&live));
}

pub async fn a_refused_backfill_leaves_the_others_stored(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let mut events: Vec<_> = (0..9).map(|position| plain(position, 0)).collect();
    events[5].body = Bytes::from_static(b"\xff");

    let done = store_backfilled(&mut *writer, events, Setting::default()).await.unwrap();

    assert_eq!((done.inserted, done.known, done.refused.len()), (8, 0, 1));
    assert_eq!(done.refused[0].0.id.position, 5);
    assert_eq!(store.events(page(20)).await.unwrap().len(), 8);
}

pub async fn kept_days_outlive_the_retention_and_go_when_their_time_is_over(
    store: &dyn EventStore,
) {
    const DAY: u64 = 86_400;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let day = Duration::from_secs(DAY);
    // Days 0 to 5, and now.
    let live: Vec<_> = (0..6).map(|day| event(FILLS, day * DAY + 7, 0, day + 1)).collect();
    Content::of(live).commit(1, &mut *writer).await.unwrap();
    let backfilled = [plain(2 * DAY + 9, 1), plain(3 * DAY + 9, 1)];
    writer.backfill(&backfilled[..1], Some(4 * day)).await.unwrap();
    writer.backfill(&backfilled[1..], Some(2 * day)).await.unwrap();
    // A shorter time takes nothing back.
    writer.backfill(&backfilled[..1], Some(day)).await.unwrap();
    let days = async || -> Vec<u64> {
        let rows = store.events(page(100)).await.unwrap();
        rows.iter().map(|row| row.event.id.position / DAY).collect()
    };

    while writer.retain(limits(block_time(5 * DAY))).await.unwrap().more {}
    // Whole days: the live events of the same days stay as well.
    assert_eq!(days().await, [2, 2, 3, 3, 5]);
    let deleted_seq = store.size().await.unwrap().deleted_seq;
    assert_eq!(deleted_seq, Some(5));

    // The clock of retention is the newest block: day 3 was kept until the end of day 5.
    Content::of(vec![event(FILLS, 6 * DAY + 1, 0, 9)]).commit(2, &mut *writer).await.unwrap();
    while writer.retain(limits(block_time(5 * DAY))).await.unwrap().more {}
    assert_eq!(days().await, [2, 2, 5, 6]);
    Content::of(vec![event(FILLS, 7 * DAY + 1, 0, 10)]).commit(3, &mut *writer).await.unwrap();
    while writer.retain(limits(block_time(5 * DAY))).await.unwrap().more {}
    assert_eq!(days().await, [5, 6, 7]);
}

pub async fn kept_days_go_for_want_of_space(store: &dyn EventStore) {
    const DAY: u64 = 86_400;
    let (mut writer, _) = store.open_writer().await.unwrap();
    let noon = |day: u64| day * DAY + DAY / 2;
    let live: Vec<_> = (0..3).map(|day| event(FILLS, noon(day), 0, day + 1)).collect();
    Content::of(live.clone()).commit(1, &mut *writer).await.unwrap();
    let month = Duration::from_secs(30 * DAY);
    writer.backfill(&[plain(noon(0), 1)], Some(month)).await.unwrap();
    let small = RetentionLimits { max_bytes: Some(1), ..limits(Timestamp(i64::MIN)) };

    while writer.retain(small).await.unwrap().more {}

    assert_eq!(store.events(page(10)).await.unwrap(), live[2..]);
}

pub async fn deleted_backfilled_events_let_no_cursor_expire(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    Content::of(vec![event(FILLS, 400_000, 0, 10)]).commit(1, &mut *writer).await.unwrap();
    writer.backfill(&[plain(1, 0), plain(2, 0)], None).await.unwrap();

    while writer.retain(limits(block_time(200_000))).await.unwrap().more {}

    assert_eq!(store.events(page(10)).await.unwrap().len(), 1);
    assert_eq!(store.size().await.unwrap().deleted_seq, None);
}
