//! What every store must do for the histories of one user: of a topic, of a kind, within a time.

use super::*;
use crate::{event::BACKFILLED_SEQ, source::node::keys_of};

/// A day of blocks: each takes a second.
const DAY: u64 = 86_400;

/// An event whose body has the keys that a source would read.
fn kinded(topic: Topic, position: u64, index: u32, of: Option<Address>, body: String) -> Event {
    let id = EventId { topic, position, index, part: 0 };
    let keys = keys_of(topic, body.as_bytes());
    Event { id, time: block_time(position), user: of, keys, body: body.into() }
}

fn fill(position: u64, index: u32, of: u8, twap: Option<u64>) -> Event {
    let twap = twap.map_or_else(|| "null".to_owned(), |id| id.to_string());
    let body = format!(r#"{{"coin":"BTC","oid":{position},"twapId":{twap}}}"#);
    kinded(FILLS, position, index, Some(user(of)), body)
}

fn misc(position: u64, index: u32, of: Option<u8>, variant: &str) -> Event {
    let body = format!(r#"{{"hash":"0x{position}","inner":{{"{variant}":{{"users":[]}}}}}}"#);
    kinded(MISC, position, index, of.map(user), body)
}

/// Three users in two days with one between them that has no events.
fn blocks() -> Vec<Event> {
    let mut events = Vec::new();
    let days = [0, 2 * DAY].into_iter().flat_map(|day| (0..20).map(move |step| day + step * 7));
    for (number, position) in (0..).zip(days) {
        for of in 0..3 {
            let is_slice = (number + u64::from(of)) % 5 == 0;
            events.push(fill(position, u32::from(of), of, is_slice.then_some(number)));
        }
        match number % 4 {
            0 => events.push(misc(position, 0, Some(0), "Funding")),
            1 => events.push(misc(position, 0, Some((number % 3) as u8), "LedgerUpdate")),
            2 => events.push(misc(position, 0, None, "LedgerUpdate")),
            _ => {}
        }
    }
    // More than one of a kind in a block, and one whose name would have to be escaped elsewhere.
    events.push(fill(7, 3, 1, Some(8)));
    events.push(fill(7, 4, 1, Some(8)));
    events.push(misc(7, 1, Some(1), "it's"));
    events
}

/// Commits the events: every third was back-filled, some of those came live afterwards, and some of the
/// others come late. Gives what a page of all rows reads.
async fn stored_in_all_ways(store: &dyn EventStore) -> Vec<SequencedEvent> {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let events = blocks();
    let backfilled: Vec<_> = events.iter().step_by(3).cloned().collect();
    writer.backfill(&backfilled, None).await.unwrap();
    let mut live = Vec::new();
    let mut late = Vec::new();
    for (number, event) in events.iter().cloned().enumerate() {
        match number % 9 {
            0 | 3 => {}
            4 => late.push(SequencedEvent { seq: 0, late: true, event }),
            // Also those that were back-filled.
            _ => live.push(SequencedEvent { seq: 0, late: false, event }),
        }
    }
    for (number, mut part) in (1..).zip([live, late]) {
        for (place, row) in (1..).zip(&mut part) {
            row.seq = number * 1_000 + place;
        }
        let committed = Content::of(part).commit(number, &mut *writer).await.unwrap();
        assert!(committed.inserted > 0);
    }
    let all = all_pages(store, page(1_000)).await;
    assert_eq!(all.len(), events.len());
    assert!(all.iter().any(|row| row.is_backfilled()) && all.iter().any(|row| row.late));
    all
}

fn wants(query: &EventQuery, row: &SequencedEvent) -> bool {
    let Event { id, time, user, body, .. } = &row.event;
    let kind = Event { keys: keys_of(id.topic, body), ..row.event.clone() };
    (query.topics.is_empty() || query.topics.contains(&id.topic))
        && (query.users.is_empty() || user.is_some_and(|user| query.users.contains(&user)))
        && query.kind.is_none_or(|wanted| kind.kind() == Some(wanted))
        && query.times.as_ref().is_none_or(|times| times.contains(time))
}

pub async fn a_kind_and_a_time_of_a_users_history_are_found_in_order(store: &dyn EventStore) {
    // H35 H38
    let all = stored_in_all_ways(store).await;
    let topics = [vec![], vec![FILLS], vec![MISC], vec![MISC, FILLS]];
    let everybody = (0..=250).map(user).collect();
    let users = [vec![user(1)], vec![user(0), user(2), user(0)], vec![], everybody];
    let kinds = [None, Some("twapId"), Some("LedgerUpdate"), Some("it's"), Some("Nothing")];
    let micro = |time: Timestamp, more: i64| Timestamp(time.0 + more);
    let times = [
        None,
        // Both ends are inclusive, and one microsecond less is one block less.
        Some(block_time(14)..=block_time(70)),
        Some(micro(block_time(14), 1)..=micro(block_time(70), -1)),
        // From the first day into the second, and its middle.
        Some(block_time(90)..=block_time(2 * DAY + 30)),
        Some(block_time(2 * DAY + 15)..=block_time(2 * DAY + 16)),
        // A day without events, whole and as an end.
        Some(block_time(DAY)..=block_time(DAY + 5_000)),
        Some(block_time(DAY + 7)..=Timestamp(i64::MAX)),
        Some(Timestamp(i64::MIN)..=block_time(DAY + 7)),
        Some(Timestamp(i64::MIN)..=Timestamp(i64::MAX)),
        // Nothing is between these.
        Some(block_time(70)..=block_time(14)),
    ];

    let choices = topics.len() * users.len() * kinds.len() * times.len() * 2;
    for combination in 0..choices {
        let mut left = combination;
        let mut choose = |count: usize| {
            let choice = left % count;
            left /= count;
            choice
        };
        let query = EventQuery {
            topics: topics[choose(topics.len())].clone(),
            users: users[choose(users.len())].clone(),
            kind: kinds[choose(kinds.len())],
            times: times[choose(times.len())].clone(),
            descending: choose(2) == 1,
            ..page(40)
        };
        // As many branches as there are take their time; whether they are bounded makes no difference.
        if query.users.len() > 3 && query.times.is_some() {
            continue;
        }
        let mut expected: Vec<_> = all.iter().filter(|row| wants(&query, row)).cloned().collect();
        if query.descending {
            expected.reverse();
        }

        assert_eq!(all_pages(store, query.clone()).await, expected, "{query:?}");
    }
}

pub async fn a_backfilled_event_that_is_cast_later_is_of_its_kind_once(store: &dyn EventStore) {
    let (mut writer, _) = store.open_writer().await.unwrap();
    let slice = fill(7, 0, 1, Some(5));
    writer.backfill(&[slice.clone(), fill(7, 1, 1, None)], None).await.unwrap();
    let query = EventQuery { users: vec![user(1)], kind: Some("twapId"), ..page(10) };
    let found = store.events(query.clone()).await.unwrap();
    assert!(matches!(&found[..], [row] if row.seq >= BACKFILLED_SEQ), "{found:?}");

    let live = SequencedEvent { seq: 3, late: false, event: slice };
    Content::of(vec![live.clone()]).commit(1, &mut *writer).await.unwrap();

    let found = store.events(query).await.unwrap();
    assert_eq!(found.iter().map(|row| (row.seq, row.late)).collect::<Vec<_>>(), [(3, false)]);
    assert_eq!(found[0].event.body, live.event.body);
}

/// Rows of every kind, some that no reader of JSON makes anything of, and names beyond all measure: what a
/// migration finds.
pub async fn commit_all_kinds(writer: &mut dyn StoreWriter) {
    let mut events = blocks();
    let strange = [
        (FILLS, r#"{"coin":"BTC""#),
        (FILLS, r#""twapId""#),
        (FILLS, r#"{ "twapId" : 7 }"#),
        (FILLS, r#"{"x":{"twapId":7}}"#),
        (MISC, r#"{"inner":{"Funding":"#),
        (MISC, r#"{"inner":{}}"#),
        (MISC, r#"{"inner":{"A":1,"B":2}}"#),
        (MISC, r#"{"inner":["Funding"]}"#),
        (MISC, r#"{"inner":"Funding"}"#),
        (MISC, r#"{"inner":null}"#),
        (MISC, "[]"),
        (Topic::new("others"), r#"{"inner":{"Funding":1},"twapId":7}"#),
    ];
    for (index, (topic, body)) in (0..).zip(strange) {
        events.push(kinded(topic, 3, index, Some(user(1)), body.to_owned()));
    }
    // Too long for an index also when it is compressed.
    let long: String =
        (0..1_000_u32).map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
    events.push(misc(4, 0, Some(1), &long));
    events.push(misc(4, 1, Some(1), &long[..65]));
    events.push(misc(4, 2, Some(1), &long[..64]));
    let row = |(seq, event)| SequencedEvent { seq, late: false, event };
    let rows = (1..).zip(events).map(row).collect();
    Content::of(rows).commit(1, writer).await.unwrap();
}

/// Fills of one user among which single events of other kinds are looked for.
pub const MANY: u64 = 50_000;

/// What is looked for in a store of [`MANY`] fills at positions from 1 on, where there are: a ledger
/// update at 0 and one behind the last fill, one slice of a TWAP in the middle, and a funding beside
/// every hundredth fill. With the positions of the rows that are to be found.
pub fn needles() -> Vec<(EventQuery, Vec<u64>)> {
    let (middle, last) = (MANY / 2, MANY + 1);
    let of_user = EventQuery { users: vec![user(1)], ..page(3) };
    let of = |kind| EventQuery { kind: Some(kind), ..of_user.clone() };
    let around = |position| Some(block_time(position)..=block_time(position + 1));
    let every_way = [
        (of("LedgerUpdate"), vec![0, last]),
        (EventQuery { topics: vec![MISC], ..of("LedgerUpdate") }, vec![0, last]),
        (EventQuery { times: around(MANY), ..of("LedgerUpdate") }, vec![last]),
        (EventQuery { topics: vec![FILLS], ..of("twapId") }, vec![middle]),
        (EventQuery { times: around(300), ..of("Funding") }, vec![300]),
        (EventQuery { topics: vec![FILLS], times: around(777), ..of_user.clone() }, vec![777, 778]),
        (EventQuery { topics: vec![MISC], times: around(700), ..of_user.clone() }, vec![700]),
        (EventQuery { times: around(MANY - 2), ..of_user.clone() }, vec![MANY - 2, MANY - 1]),
        (EventQuery { times: around(9 * DAY), ..of_user.clone() }, vec![]),
        (of("Nothing"), vec![]),
        (EventQuery { users: vec![user(2)], ..of("LedgerUpdate") }, vec![]),
        (EventQuery { users: vec![user(2), user(1)], ..of("twapId") }, vec![middle]),
    ];
    let mut needles = Vec::new();
    for (query, positions) in every_way {
        let backwards = EventQuery { descending: true, ..query.clone() };
        needles.push((query, positions.clone()));
        needles.push((backwards, positions.into_iter().rev().collect()));
    }
    let misc = EventQuery { topics: vec![MISC], ..of_user };
    needles.push((misc.clone(), vec![0, 100, 200]));
    needles.push((EventQuery { descending: true, ..misc }, vec![last, MANY, MANY - 100]));
    needles
}
