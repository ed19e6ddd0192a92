//! The index of a shard at a million subscriptions of 10,000 sessions: what an event costs that few of them
//! want, or many, what a subscription costs that comes and goes, and a session that leaves.
//!
//! `cargo bench --bench index`. Each session names 100 users, one a subscription: 70 nobody else asks for, 20
//! under conditions, 9 that 90 sessions ask for, and one subscription is to everybody in a coin. Events come
//! for other users each time, so that the caches of the processor do not know them.

use std::{
    collections::BTreeSet,
    fs,
    hint::black_box,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use nodecast::{
    config::SessionConfig,
    delivery::{
        index::{FORGOTTEN_PLACES, Index},
        subscription::{Conditions, Subscriptions, Users},
    },
    event::{Address, Event, EventId, Keys, Timestamp, Topic},
};

const FILLS: Topic = Topic::new("fills");
const SESSIONS: u64 = 10_000;
/// Subscriptions of each, one user each.
const EACH: u64 = 100;
/// Events that take turns.
const EVENTS: u64 = 4_096;
/// Sessions that want the event of the coin `HOT`, besides the others.
const MANY: u64 = 1_000;
/// A session as large as the limits allow.
const LARGE: (u64, u64) = (1_000, 100);

fn user(number: u64) -> Address {
    // Scattered, as addresses are.
    let mut user = [0; 20];
    user[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    user[8..16].copy_from_slice(&number.to_be_bytes());
    Address(user)
}

fn conditions(pairs: &[(&'static str, String)]) -> Option<Arc<Conditions>> {
    let one = |(key, value): &(&'static str, String)| (*key, vec![value.clone()]);
    Conditions::new(pairs.iter().map(one)).shared()
}

fn limits() -> SessionConfig {
    SessionConfig { max_subscriptions: 1_000, max_users: 100_000, ..SessionConfig::default() }
}

/// Asks for everything that a session wants.
fn subscribe(index: &mut Index, session: u64) -> Subscriptions {
    let (mut all, limits) = (Subscriptions::default(), limits());
    for ordinal in 0..EACH {
        let number = session * EACH + ordinal;
        let one = |number| Users::Listed(BTreeSet::from([user(number)]));
        let side = if number.is_multiple_of(2) { "A" } else { "B" };
        let coin = |number: u64| ("coin", format!("C{number}"));
        let (users, conditions) = match ordinal {
            0..70 => (one(number), None),
            70..90 => (one(number), conditions(&[coin(number % 50), ("side", side.into())])),
            90..99 => (one(SESSIONS * EACH + (session * 9 + ordinal) % 1_000), None),
            _ => (Users::All, conditions(&[coin(session % 1_000), ("side", "A".into())])),
        };
        let id = ordinal.to_string();
        let change =
            all.subscribe(&id, FILLS, users, conditions, &limits).expect("within the limits");
        index.apply(session, &change);
    }
    all
}

fn event(number: u64, coin: &str) -> Event {
    let body = format!(r#"{{"coin":"{coin}","side":"B","dir":"Open Long"}}"#);
    let place = |text: &str| {
        let at = body.find(&format!(r#":"{text}""#)).expect("it is in the body") as u32 + 2;
        at..at + text.len() as u32
    };
    let keys =
        Keys::new([("coin", place(coin)), ("side", place("B")), ("dir", place("Open Long"))]);
    Event {
        id: EventId { topic: FILLS, position: number, index: 0, part: 0 },
        time: Timestamp(0),
        user: Some(user(number)),
        keys,
        body: Bytes::from(body),
    }
}

/// Events of users whom one session each asks for, without conditions, all over the index.
fn of_one(coin: &str) -> Vec<Event> {
    let number = |one: u64| (one * 2_654_435_761 % SESSIONS) * EACH + one % 70;
    (0..EVENTS).map(|one| event(number(one), coin)).collect()
}

fn resident_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map(|pages| pages * 4_096).ok_or_else(|| io::Error::other("no pages in statm"))
}

fn filled() -> io::Result<Index> {
    let before = resident_bytes()?;
    let begun = Instant::now();
    let mut index = Index::default();
    for session in 0..SESSIONS {
        drop(subscribe(&mut index, session));
    }
    let count = (SESSIONS * EACH) as f64;
    writeln!(
        io::stdout(),
        "index: {count} subscriptions made in {:.2} s, {:.0} bytes each",
        begun.elapsed().as_secs_f64(),
        (resident_bytes()? - before) as f64 / count
    )?;
    Ok(index)
}

fn index(criterion: &mut Criterion) {
    let mut index = filled().expect("the figures of this process");
    let mut group = criterion.benchmark_group("index");
    let mut sessions = Vec::new();

    // (what, the events, who wants each)
    let routed = [
        ("event that one session wants", of_one("NONE"), 1),
        ("the same in a coin that 10 others watch on the other side", of_one("C7"), 1),
        ("event of a user whom 90 sessions ask for", vec![event(SESSIONS * EACH, "NONE")], 90),
        ("event that nobody wants", vec![event(u64::MAX, "NONE")], 0),
    ];
    for (what, events, wanted) in routed {
        let mut number = 0;
        group.bench_function(what, |bencher| {
            bencher.iter(|| {
                number += 1;
                index.interested(black_box(&events[number % events.len()]), &mut sessions);
                sessions.len()
            });
        });
        index.interested(&events[0], &mut sessions);
        assert_eq!(sessions.len(), wanted, "{what}");
    }

    let pairs = [("coin", "HOT"), ("side", "B"), ("dir", "Open Long")];
    let mut many = Vec::new();
    for session in 0..MANY {
        let pairs = &pairs[..1 + session as usize % pairs.len()];
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let mut all = Subscriptions::default();
        let change = all.subscribe("hot", FILLS, Users::All, conditions(&pairs), &limits());
        index.apply(SESSIONS + session, &change.expect("within the limits"));
        many.push(all);
    }
    let hot = event(u64::MAX, "HOT");
    group.bench_function("event that 1,000 sessions want by 3 conditions", |bencher| {
        bencher.iter(|| {
            index.interested(black_box(&hot), &mut sessions);
            sessions.len()
        });
    });
    index.interested(&hot, &mut sessions);
    assert_eq!(sessions.len() as u64, MANY);
    for (session, all) in (SESSIONS..).zip(many) {
        index.leave(session, all);
    }
    index.forget(usize::MAX);

    let mut number = 0;
    group.bench_function("subscribe, and unsubscribe again", |bencher| {
        bencher.iter(|| {
            number += 1;
            let (mut all, of_one) =
                (Subscriptions::default(), Users::Listed([user(number << 32)].into()));
            let change = all.subscribe("one", FILLS, of_one, None, &limits());
            index.apply(SESSIONS, &change.expect("within the limits"));
            index.apply(SESSIONS, &all.unsubscribe("one").expect("it is there"));
        });
    });
    let mut leaving = SESSIONS;
    group.bench_function("leave, a session of 100 subscriptions", |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    leaving += 1;
                    let all = subscribe(&mut index, leaving);
                    let begun = Instant::now();
                    index.leave(leaving, all);
                    index.forget(usize::MAX);
                    begun.elapsed()
                })
                .sum()
        });
    });
    group.finish();
    large(&mut index, leaving + 1).expect("a line of text");
}

/// The largest session leaves: the work that it makes in one turn, and in all.
fn large(index: &mut Index, session: u64) -> io::Result<()> {
    let (mut longest, mut whole) = (Vec::new(), Vec::new());
    for round in 0..11 {
        let (mut all, limits) = (Subscriptions::default(), limits());
        for ordinal in 0..LARGE.0 {
            let first = (1_000 + ordinal) << 32;
            let users = Users::Listed((first..first + LARGE.1).map(user).collect());
            let change = all.subscribe(&ordinal.to_string(), FILLS, users, None, &limits);
            index.apply(session + round, &change.expect("within the limits"));
        }
        let begun = Instant::now();
        index.leave(session + round, all);
        let mut portions = vec![begun.elapsed()];
        while index.is_leaving() {
            let begun = Instant::now();
            index.forget(FORGOTTEN_PLACES);
            portions.push(begun.elapsed());
        }
        longest.push(portions.iter().copied().max().unwrap_or_default());
        whole.push(portions.iter().sum::<Duration>());
    }
    longest.sort_unstable();
    whole.sort_unstable();
    writeln!(
        io::stdout(),
        "index: leave of a session with {} subscriptions and {} users: {:.2?} in all, {:.2?} in one turn \
         (middle of {} rounds; the longest turn {:.2?})",
        LARGE.0,
        LARGE.0 * LARGE.1,
        whole[whole.len() / 2],
        longest[longest.len() / 2],
        longest.len(),
        longest[longest.len() - 1]
    )
}

criterion_group!(benches, index);
criterion_main!(benches);
