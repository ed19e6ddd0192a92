//! What every store must do: one set of tests, written against the traits.
//!
//! A store's own tests call [`contract_tests!`] with a function that makes an empty store; what
//! the function gives beside it is kept until the test ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::{
    event::{Event, Keys},
    source::{Density, FileMark, Form, OpenBlock, Stream, StreamState},
};

mod arrivals;
mod backfilled;
mod kinds;

pub use arrivals::*;
pub use backfilled::*;
pub use kinds::*;

pub const FILLS: Topic = Topic::new("fills");
pub const MISC: Topic = Topic::new("misc");

/// Time of block 0 in these tests; a block takes a second.
const START: Timestamp = Timestamp(1_773_532_800_000_000);

pub fn block_time(position: u64) -> Timestamp {
    START.plus(Duration::from_secs(position))
}

pub fn user(number: u8) -> Address {
    Address([number; 20])
}

/// An event of user `index`, with the block, the index and the seq in its body.
pub fn event(topic: Topic, position: u64, index: u32, seq: u64) -> SequencedEvent {
    let coin = if index.is_multiple_of(2) { "BTC" } else { "ETH" };
    let body = format!(r#"{{"coin":"{coin}","px":"0.10","note":"it's {position} ü {index}"}}"#);
    let event = Event {
        id: EventId { topic, position, index, part: 0 },
        time: block_time(position),
        user: Some(user(index as u8)),
        keys: Keys::default(),
        body: Bytes::from(body),
    };
    SequencedEvent { seq, late: false, event }
}

/// A commit's content that owns what it is made of.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub events: Vec<SequencedEvent>,
    pub seen: Vec<BlockRange>,
    pub opened: Vec<Gap>,
    pub closed: Vec<Gap>,
    pub progress: Vec<Progress>,
}

impl Content {
    pub fn of(events: Vec<SequencedEvent>) -> Self {
        Self { events, ..Self::default() }
    }

    pub async fn commit(
        &self,
        number: u64,
        writer: &mut dyn StoreWriter,
    ) -> Result<Committed, StoreError> {
        let events: Vec<_> = self.events.iter().collect();
        let seen: Vec<_> = self.seen.iter().collect();
        let opened: Vec<_> = self.opened.iter().collect();
        let closed: Vec<_> = self.closed.iter().collect();
        let progress: Vec<_> = self.progress.iter().collect();
        writer
            .commit(CommitBatch {
                number,
                events: &events,
                seen: &seen,
                gaps_opened: &opened,
                gaps_closed: &closed,
                progress: &progress,
                last_seq: self.events.iter().map(|event| event.seq).max().unwrap_or(0),
                newest_time: self.events.iter().map(|event| event.event.time).max(),
            })
            .await
    }
}

pub fn stream(name: &str) -> Arc<Stream> {
    Arc::new(Stream {
        name: name.into(),
        node: "node".into(),
        topic: FILLS,
        form: Form::ByBlock,
        density: Density::Dense,
        directory: name.into(),
    })
}

fn at(file: &str, offset: u64) -> FileMark {
    FileMark::At { file: file.into(), offset, digest: u64::MAX - offset }
}

fn progress(files: Vec<FileMark>, last_position: u64) -> Progress {
    let open = vec![OpenBlock { position: last_position, next_index: 3, first_digest: u64::MAX }];
    let state = StreamState { last_position: Some(last_position), consecutive: 7, open };
    Progress { stream: stream("/data/fills"), files, state }
}

pub fn range(first: u64, last: u64) -> BlockRange {
    let digests = (first..=last).map(|block| u64::MAX - block).collect();
    BlockRange { topic: FILLS, first, last, next_index: None, digests }
}

fn open_block(position: u64, next_index: u32) -> BlockRange {
    BlockRange { next_index: Some(next_index), ..range(position, position) }
}

fn gap(first: u64, last: u64, closed: Option<Timestamp>) -> Gap {
    Gap { topic: FILLS, first, last, opened: START, closed }
}

pub fn page(limit: usize) -> EventQuery {
    EventQuery { limit, ..EventQuery::default() }
}

/// Reads all pages of a query, each behind the one before.
pub async fn all_pages(store: &dyn EventStore, mut query: EventQuery) -> Vec<SequencedEvent> {
    let mut all = Vec::new();
    loop {
        let rows = store.events(query.clone()).await.unwrap();
        assert!(rows.len() <= query.limit);
        let Some(last) = rows.last() else { return all };
        query.after = Some(key(last));
        all.extend(rows);
    }
}

pub fn key(event: &SequencedEvent) -> PageKey {
    PageKey { position: event.event.id.position, seq: event.seq }
}

fn limits(edge: Timestamp) -> RetentionLimits {
    let now = Timestamp(i64::MAX);
    RetentionLimits { now, edge, max_bytes: None, min_free_bytes: 0, portion: 10 }
}

/// Blocks 0..blocks with `width` fills each, and a misc event in every tenth block; `seq` counts
/// from 1.
pub fn history(blocks: u64, width: u32) -> Vec<SequencedEvent> {
    let mut events = Vec::new();
    for position in 0..blocks {
        for index in 0..width {
            events.push(event(FILLS, position, index, events.len() as u64 + 1));
        }
        if position % 10 == 0 {
            events.push(event(MISC, position, 0, events.len() as u64 + 1));
        }
    }
    events
}

pub async fn an_event_comes_back_as_it_went(store: &dyn EventStore) {
    // H42
    let (mut writer, _) = store.open_writer().await.unwrap();
    let mut events = vec![event(FILLS, 5, 0, 10), event(MISC, 5, 1, 11), event(FILLS, 6, 2, 12)];
    events[0].late = true;
    events[1].event.user = None;
    events[2].event.id.part = u32::MAX;
    events[2].event.body = Bytes::from(r#"{"quote":"' \" \\ \u0000 ; --","text":"日本 🎲"}"#);

    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();

    assert_eq!(store.events(page(10)).await.unwrap(), events);
}

pub async fn an_identity_is_stored_once(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let first = event(FILLS, 5, 0, 10);
    Content::of(vec![first.clone()]).commit(1, &mut *writer).await.unwrap();

    let again = vec![event(FILLS, 5, 0, 20), event(FILLS, 5, 1, 21)];
    let committed = Content::of(again.clone()).commit(2, &mut *writer).await.unwrap();

    assert_eq!(committed, Committed { inserted: 1, duplicates: 1 });
    assert_eq!(store.events(page(10)).await.unwrap(), vec![first, again[1].clone()]);
}

pub async fn a_seq_that_is_given_twice_is_refused_and_not_taken_for_a_duplicate(
    store: &dyn EventStore,
) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    Content::of(vec![event(FILLS, 5, 0, 10)]).commit(1, &mut *writer).await.unwrap();

    for twice in [
        vec![event(FILLS, 6, 0, 11), event(FILLS, 7, 0, 10)],
        vec![event(FILLS, 7, 0, 10), event(FILLS, 8, 0, 11)],
    ] {
        let refused = Content::of(twice).commit(2, &mut *writer).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    }
    assert_eq!(store.events(page(10)).await.unwrap().len(), 1);
}

/// Its parts are committed one by one while a refused row is looked for; an outage in the middle
/// brings the whole again.
pub async fn a_batch_of_which_a_part_is_stored_can_be_tried_again_as_a_whole(
    store: &dyn EventStore,
) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let whole = vec![event(FILLS, 5, 0, 10), event(FILLS, 5, 1, 11), event(FILLS, 6, 0, 12)];
    Content::of(whole[..2].to_vec()).commit(1, &mut *writer).await.unwrap();

    let committed = Content::of(whole.clone()).commit(2, &mut *writer).await.unwrap();

    assert_eq!(committed, Committed { inserted: 1, duplicates: 2 });
    assert_eq!(store.events(page(10)).await.unwrap(), whole);
}

pub async fn a_commit_whose_answer_was_lost_is_not_repeated(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let content = Content::of(vec![event(FILLS, 5, 0, 10)]);
    content.commit(1, &mut *writer).await.unwrap();

    let again = content.commit(1, &mut *writer).await.unwrap();

    assert_eq!(again, Committed::default());
}

pub async fn a_refused_batch_leaves_nothing(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let mut bad = event(FILLS, 5, 1, 11);
    bad.event.body = Bytes::from_static(b"\xff");
    let content = Content {
        events: vec![event(FILLS, 5, 0, 10), bad],
        seen: vec![range(5, 5)],
        progress: vec![progress(vec![at("20260315/0", 100)], 5)],
        ..Content::default()
    };

    let refused = content.commit(1, &mut *writer).await;

    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    let recovered = writer.recover().await.unwrap();
    assert!(store.events(page(10)).await.unwrap().is_empty());
    assert!(recovered.streams.is_empty() && recovered.seen.is_empty());
    // And the same number can be used for what is left of it.
    let rest = Content::of(vec![event(FILLS, 5, 0, 10)]).commit(1, &mut *writer).await.unwrap();
    assert_eq!(rest.inserted, 1);
}

pub async fn a_start_finds_what_the_last_run_committed(store: &dyn EventStore) {
    // H14
    let (mut writer, first) = store.open_writer().await.unwrap();
    let steps = [
        Content {
            events: vec![event(FILLS, 5, 0, 10)],
            seen: vec![range(4, 5), open_block(7, 2)],
            opened: vec![gap(1, 3, None), gap(6, 6, None)],
            progress: vec![progress(vec![at("20260315/0", 100), at("20260315/1", 5)], 5)],
            ..Content::default()
        },
        Content {
            seen: vec![open_block(7, 4), open_block(7, 3), range(6, 6)],
            closed: vec![gap(6, 6, Some(START))],
            // Of one commit the last counts.
            progress: vec![
                progress(vec![at("20260315/1", 7)], 6),
                progress(vec![at("20260315/1", 9)], 6),
                progress(vec![FileMark::Gone { file: "20260315/0".into() }], 7),
            ],
            ..Content::default()
        },
    ];
    for (number, step) in (1..).zip(&steps) {
        step.commit(number, &mut *writer).await.unwrap();
    }
    writer.close().await.unwrap();

    let (_writer, second) = store.open_writer().await.unwrap();

    assert_eq!(second.run.epoch, first.run.epoch);
    assert!(second.run.id > first.run.id);
    assert_eq!(second.last_seq, 10);
    assert_eq!(second.newest_time, Some(block_time(5)));
    assert_eq!(second.heads, vec![(FILLS, 7)]);
    assert_eq!(second.gaps, vec![gap(1, 3, None)]);
    assert_eq!(second.seen, vec![range(4, 6), open_block(7, 4)]);
    assert_eq!(second.streams.len(), 1);
    assert_eq!(&*second.streams[0].name, "/data/fills");
    assert_eq!(second.streams[0].files, vec![at("20260315/1", 9)]);
    assert_eq!(second.streams[0].state, progress(Vec::new(), 7).state);
}

pub async fn a_new_store_is_empty_and_has_an_epoch(store: &dyn EventStore) {
    let (_writer, recovered) = store.open_writer().await.unwrap();

    assert_ne!(recovered.run.epoch, 0);
    assert_eq!(recovered.last_seq, 0);
    assert_eq!(recovered.newest_time, None);
    assert!(recovered.heads.is_empty() && recovered.streams.is_empty());
    assert!(store.events(page(10)).await.unwrap().is_empty());
    assert_eq!(store.size().await.unwrap().oldest_seq, None);
}

pub async fn a_second_writer_is_turned_away_until_the_first_has_closed(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();

    let second = store.open_writer().await.map(|_| ());

    let Err(StoreError::LeaseLost(holder)) = second else { panic!("{second:?}") };
    assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    writer.close().await.unwrap();
    store.open_writer().await.unwrap();
}

pub async fn compaction_changes_nothing_that_a_start_finds(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    for block in 0..50 {
        let seen = vec![range(2 * block, 2 * block), range(2 * block + 1, 2 * block + 1)];
        let content = Content { seen, ..Content::default() };
        content.commit(block + 1, &mut *writer).await.unwrap();
    }
    let before = writer.recover().await.unwrap().seen;

    writer.compact().await.unwrap();
    writer.compact().await.unwrap();

    assert_eq!(before, vec![range(0, 99)]);
    assert_eq!(writer.recover().await.unwrap().seen, before);
    // The merged row goes on growing.
    let more = Content { seen: vec![range(100, 101)], ..Content::default() };
    more.commit(51, &mut *writer).await.unwrap();
    writer.compact().await.unwrap();
    assert_eq!(writer.recover().await.unwrap().seen, vec![range(0, 101)]);
}

pub async fn pages_neither_repeat_nor_skip_in_either_direction(store: &dyn EventStore) {
    // H36 H38
    let (mut writer, _) = store.open_writer().await.unwrap();
    let mut events = history(40, 3);
    // Arrived late: after everything, in an early block.
    events.push(event(FILLS, 7, 9, 1_000));
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    events.sort_by_key(key);

    for limit in [1, 3, 7, 1_000] {
        assert_eq!(all_pages(store, page(limit)).await, events, "limit {limit}");
        let backwards = EventQuery { descending: true, ..page(limit) };
        let mut reversed = all_pages(store, backwards).await;
        reversed.reverse();
        assert_eq!(reversed, events, "descending, limit {limit}");
    }
    let mut numbered = Vec::new();
    for number in 0..events.len().div_ceil(7) {
        let query = EventQuery { offset: number * 7, ..page(7) };
        numbered.extend(store.events(query).await.unwrap());
    }
    assert_eq!(numbered, events);
}

pub async fn every_condition_holds_together_with_the_others(store: &dyn EventStore) {
    // H35 H38
    let (mut writer, _) = store.open_writer().await.unwrap();
    let events = history(60, 4);
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    let topics = [vec![], vec![FILLS], vec![MISC], vec![MISC, FILLS]];
    let many: Vec<Address> = (0..=250).map(user).collect();
    let users = [vec![], vec![user(0)], vec![user(1), user(3), user(1)], vec![user(99)], many];
    let coins = [None, Some("BTC".to_owned()), Some("DOGE".to_owned())];
    let positions = [None, Some(10..=30), Some(30..=30), Some(100..=200), Some(50..=u64::MAX)];
    let times = [
        None,
        Some(block_time(20)..=block_time(25)),
        Some(block_time(55)..=block_time(500)),
        Some(Timestamp(0)..=block_time(3)),
        Some(Timestamp(block_time(3).0 + 1)..=Timestamp(block_time(4).0 - 1)),
    ];

    for combination in 0..topics.len() * users.len() * coins.len() * positions.len() * times.len() {
        let mut left = combination;
        let mut choose = |count: usize| {
            let choice = left % count;
            left /= count;
            choice
        };
        let query = EventQuery {
            topics: topics[choose(topics.len())].clone(),
            users: users[choose(users.len())].clone(),
            coin: coins[choose(coins.len())].clone(),
            positions: positions[choose(positions.len())].clone(),
            times: times[choose(times.len())].clone(),
            ..page(1_000)
        };
        let expected: Vec<_> =
            events.iter().filter(|event| matches(&query, event)).cloned().collect();

        assert_eq!(store.events(query.clone()).await.unwrap(), expected, "{query:?}");
    }
}

fn matches(query: &EventQuery, sequenced: &SequencedEvent) -> bool {
    let event = &sequenced.event;
    let coin = if event.id.index.is_multiple_of(2) { "BTC" } else { "ETH" };
    (query.topics.is_empty() || query.topics.contains(&event.id.topic))
        && (query.users.is_empty() || event.user.is_some_and(|user| query.users.contains(&user)))
        && query.coin.as_ref().is_none_or(|wanted| wanted == coin)
        && query.positions.as_ref().is_none_or(|range| range.contains(&event.id.position))
        && query.times.as_ref().is_none_or(|range| range.contains(&event.time))
}

pub async fn stored_tells_what_is_there(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let there = event(FILLS, 5, 0, 10);
    Content::of(vec![there.clone()]).commit(1, &mut *writer).await.unwrap();
    let id = there.event.id;
    let others = [
        EventId { topic: MISC, ..id },
        EventId { position: 6, ..id },
        EventId { index: 1, ..id },
        EventId { part: 1, ..id },
    ];

    let found = store.stored(others.into_iter().chain([id]).collect()).await.unwrap();

    assert_eq!(found, HashSet::from([id]));
}

pub async fn retention_deletes_the_oldest_in_portions_and_remembers_how_far(
    store: &dyn EventStore,
) {
    // H41
    let (mut writer, _) = store.open_writer().await.unwrap();
    let events = history(40, 1);
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    let edge = block_time(30);
    let (old, kept): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| event.event.time < edge);

    let mut deleted = 0;
    loop {
        let retained = writer.retain(limits(edge)).await.unwrap();
        assert!(retained.deleted <= 10);
        assert!(!retained.shortened && !retained.exhausted);
        deleted += retained.deleted;
        if !retained.more {
            break;
        }
    }

    assert_eq!(deleted, old.len());
    assert_eq!(store.events(page(1_000)).await.unwrap(), kept);
    let size = store.size().await.unwrap();
    assert_eq!(size.deleted_seq, old.iter().map(|event| event.seq).max());
    assert_eq!(size.oldest_seq, Some(kept[0].seq));
    assert_eq!(size.oldest_time, Some(kept[0].event.time));
    // What was deleted does not come back with a new number as something new.
    assert_eq!(writer.recover().await.unwrap().last_seq, kept.last().unwrap().seq);
}

pub async fn the_highest_seq_is_known_when_its_event_is_gone(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    Content::of(vec![event(FILLS, 5, 0, 10)]).commit(1, &mut *writer).await.unwrap();
    writer.retain(limits(block_time(6))).await.unwrap();
    assert!(store.events(page(10)).await.unwrap().is_empty());

    // A commit without events says nothing against it.
    Content::default().commit(2, &mut *writer).await.unwrap();

    assert_eq!(writer.recover().await.unwrap().last_seq, 10);
}

pub async fn an_event_dated_ahead_gives_no_younger_one_away(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let events = vec![event(FILLS, 0, 0, 1), event(FILLS, 80_000, 0, 2)];
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    let now = block_time(60);
    let short = RetentionLimits { now, min_free_bytes: u64::MAX, ..limits(Timestamp(i64::MIN)) };

    let retained = writer.retain(short).await.unwrap();

    assert!(retained.deleted == 0 && retained.exhausted, "{retained:?}");
    assert_eq!(store.events(page(10)).await.unwrap(), events);
}

pub async fn a_short_disk_takes_the_oldest_but_never_the_last_hour(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    // Two hours of events; a block is a second.
    let events: Vec<_> = (0..720).map(|step| event(FILLS, step * 10, 0, step + 1)).collect();
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    let short =
        RetentionLimits { min_free_bytes: u64::MAX, portion: 100, ..limits(Timestamp(i64::MIN)) };

    let mut last = Retained::default();
    for _ in 0..100 {
        last = writer.retain(short).await.unwrap();
        if !last.more {
            break;
        }
    }

    assert!(last.exhausted && last.shortened && !last.more, "{last:?}");
    let newest = events.last().unwrap().event.time;
    let kept = store.events(page(1_000)).await.unwrap();
    let hour = newest.minus(Duration::from_secs(3_600));
    assert_eq!(kept, events.into_iter().filter(|e| e.event.time >= hour).collect::<Vec<_>>());
    // It stays shortened until the age would have taken as much.
    assert!(writer.retain(limits(hour.minus(Duration::from_secs(60)))).await.unwrap().shortened);
    assert!(!writer.retain(limits(hour)).await.unwrap().shortened);
}

pub async fn a_store_above_its_size_gives_up_the_oldest(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let mut events: Vec<_> =
        (0..400_u64).map(|step| event(FILLS, step * 100, 0, step + 1)).collect();
    for event in &mut events {
        event.event.body = Bytes::from(format!("\"{}\"", "x".repeat(10_000)));
    }
    Content::of(events.clone()).commit(1, &mut *writer).await.unwrap();
    let full = store.size().await.unwrap().bytes;
    let budget = RetentionLimits { max_bytes: Some(full / 2), ..limits(Timestamp(i64::MIN)) };

    while writer.retain(budget).await.unwrap().more {}

    assert!(store.size().await.unwrap().bytes <= full / 2);
    let kept = store.events(page(1_000)).await.unwrap();
    assert!(kept.len() > 100, "{}", kept.len());
    assert_eq!(kept, events[events.len() - kept.len()..]);
    // There is room again.
    let again = writer.retain(budget).await.unwrap();
    assert!(again.deleted == 0 && again.shortened && !again.exhausted, "{again:?}");
}

/// What a script of commits and restarts must leave: the first that came with an identity.
#[derive(Default)]
pub struct Model(pub BTreeMap<EventId, SequencedEvent>);

impl Model {
    pub fn commit(&mut self, events: &[SequencedEvent]) {
        for event in events {
            self.0.entry(event.event.id).or_insert_with(|| event.clone());
        }
    }

    pub fn in_order(&self) -> Vec<SequencedEvent> {
        let mut events: Vec<_> = self.0.values().cloned().collect();
        events.sort_by_key(key);
        events
    }
}

/// Makes a test of each scenario for a store that `$open` makes: `(Arc<dyn EventStore>, guard)`.
macro_rules! contract_tests {
    ($open:path: $($name:ident)*) => {
        $(
            #[actix_rt::test]
            async fn $name() {
                let (store, _guard) = $open().await;
                crate::store::contract::$name(&*store).await;
            }
        )*
    };
    ($open:path) => {
        crate::store::contract::contract_tests! { $open:
            an_event_comes_back_as_it_went
            an_identity_is_stored_once
            a_seq_that_is_given_twice_is_refused_and_not_taken_for_a_duplicate
            a_batch_of_which_a_part_is_stored_can_be_tried_again_as_a_whole
            a_commit_whose_answer_was_lost_is_not_repeated
            a_refused_batch_leaves_nothing
            a_start_finds_what_the_last_run_committed
            a_new_store_is_empty_and_has_an_epoch
            a_second_writer_is_turned_away_until_the_first_has_closed
            compaction_changes_nothing_that_a_start_finds
            pages_neither_repeat_nor_skip_in_either_direction
            every_condition_holds_together_with_the_others
            a_kind_and_a_time_of_a_users_history_are_found_in_order
            a_backfilled_event_that_is_cast_later_is_of_its_kind_once
            stored_tells_what_is_there
            arrivals_come_in_the_order_of_seq_whatever_their_topic_block_and_day
            arrivals_are_found_on_both_sides_of_numbers_that_were_given_up
            arrivals_tell_how_far_retention_has_deleted
            a_run_remembers_how_far_the_ones_before_it_came
            backfilled_events_are_in_history_once_and_outside_the_order_of_arrival
            backfilled_events_of_one_block_stay_in_their_order
            what_is_to_be_backfilled_is_kept_for_the_next_writer
            a_live_event_takes_the_place_of_a_backfilled_one
            a_refused_backfill_leaves_the_others_stored
            kept_days_outlive_the_retention_and_go_when_their_time_is_over
            kept_days_go_for_want_of_space
            deleted_backfilled_events_let_no_cursor_expire
        }
    };
}
pub(crate) use contract_tests;

/// What a store must do besides that takes single rows away, and not whole days.
macro_rules! row_retention_tests {
    ($open:path) => {
        crate::store::contract::contract_tests! { $open:
            retention_deletes_the_oldest_in_portions_and_remembers_how_far
            the_highest_seq_is_known_when_its_event_is_gone
            an_event_dated_ahead_gives_no_younger_one_away
            a_short_disk_takes_the_oldest_but_never_the_last_hour
            a_store_above_its_size_gives_up_the_oldest
        }
    };
}
pub(crate) use row_retention_tests;
