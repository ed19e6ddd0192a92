//! What clients say and are told, without sockets.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::{
    config::SessionConfig,
    delivery::{
        dialect::{Aside, Desk},
        replay::{ResumeError, Start},
        subscription::Subscriptions,
    },
    event::{Address, Topic},
    official::{Admission, FILLS, MISC, info::Newest},
    router::log::ENCODINGS,
    store::StoreError,
};

const ALICE: &str = "0x025a744111554e57c66ba2069a8081249fbe5e11";
const BOB: &str = "0x1e37a337ed460039d1b15bd3bc489de789768d5e";

/// A client's subscriptions, and what its daemon is like.
struct Scene {
    subscriptions: Subscriptions,
    limits: SessionConfig,
    stats: Stats,
    topics: Vec<Topic>,
    keeps_all: bool,
    free_asides: usize,
    /// "Delivered up to here."
    delivered: u64,
}

/// What an answer has left on the desk.
struct Left {
    said: Vec<Value>,
    changes: usize,
    later: Option<Later>,
    asides: Vec<Aside>,
}

impl Scene {
    fn new() -> Self {
        Self {
            subscriptions: Subscriptions::default(),
            limits: SessionConfig::default(),
            stats: Stats::default(),
            topics: vec![FILLS, MISC],
            keeps_all: true,
            free_asides: 1,
            delivered: 3,
        }
    }

    fn at_desk(&mut self, work: impl FnOnce(&mut Desk<'_>)) -> Left {
        let seq = self.delivered;
        let cursor = move || Cursor { epoch: 1, run: 2, seq, positions: Vec::new() };
        let mut desk = Desk {
            subscriptions: &mut self.subscriptions,
            limits: &self.limits,
            topics: &self.topics,
            stats: &self.stats,
            keeps_all: self.keeps_all,
            is_listed: &|_: &Address| true,
            admission: &|| Admission::Accepted,
            cursor: &cursor,
            delivered: &cursor,
            replies: Vec::new(),
            changes: Vec::new(),
            later: None,
            speaks: None,
            asides: Vec::new(),
            free_asides: self.free_asides,
        };
        work(&mut desk);
        let said = desk.replies.iter().map(frame::payload);
        Left {
            said: said.map(|text| serde_json::from_slice(&text).unwrap()).collect(),
            changes: desk.changes.len(),
            later: desk.later,
            asides: desk.asides,
        }
    }

    fn hear(&mut self, text: &str) -> Left {
        self.at_desk(|desk| PLAIN.receive(text, desk))
    }

    fn subscribe(&mut self, subscription: &str) -> Left {
        self.hear(&format!(r#"{{"method":"subscribe","subscription":{subscription}}}"#))
    }

    /// Why a subscription is refused, without the subscription.
    fn refusal(&mut self, subscription: &str) -> String {
        let left = self.subscribe(subscription);
        assert!(left.later.is_none() && left.changes == 0);
        let text = left.said[0]["data"].as_str().unwrap().to_owned();
        text.strip_suffix(subscription).unwrap().trim_end_matches([' ', ':']).to_owned()
    }

    /// Goes on with an answer that was put off.
    fn found(&mut self, later: Later, found: Vec<Found>) -> Left {
        self.at_desk(|desk| (later.answer)(found, desk))
    }
}

fn newest(seq: u64) -> Found {
    let cursor = Cursor { epoch: 1, run: 2, seq, positions: Vec::new() };
    Found::Newest(Ok(Newest { items: Vec::new(), cursor }))
}

fn fills_of(users: &[&str]) -> String {
    format!(r#"{{"type":"userFills","users":["{}"]}}"#, users.join("\",\""))
}

#[test]
fn what_this_daemon_cannot_give_is_refused_with_the_reason() {
    let mut scene = Scene::new();
    scene.keeps_all = false;
    let trades = "Invalid subscription, trades need the events of all users, and only those of some are kept here";
    assert_eq!(scene.refusal(r#"{"type":"trades","coin":"BTC"}"#), trades);
    scene.topics = vec![FILLS];
    let fundings = format!(r#"{{"type":"userFundings","user":"{ALICE}"}}"#);
    let why = "Invalid subscription, this daemon does not follow the files that it would come from";
    assert_eq!(scene.refusal(&fundings), why);
    // Of two topics one is enough.
    let left = scene.subscribe(&format!(r#"{{"type":"userEvents","user":"{ALICE}"}}"#));
    assert_eq!(left.changes, 1);
}

#[test]
fn a_list_of_too_many_users_is_refused_before_anything_is_made_of_it() {
    let mut scene = Scene::new();
    let users: Vec<_> = (0..20_000).map(|number| format!("0x{number:040x}")).collect();
    let users: Vec<_> = users.iter().map(String::as_str).collect();

    let with_snapshots = "Invalid subscription, with snapshots it may name at most 100 users";
    assert_eq!(scene.refusal(&fills_of(&users)), with_snapshots);
    scene.limits.max_users = 19_999;
    let without = fills_of(&users).replace("\"users\"", "\"snapshot\":false,\"users\"");
    let why =
        "Not subscribed, a session may name at most 19999 users, in all its subscriptions together";
    assert_eq!(scene.refusal(&without), why);
    assert!(scene.subscriptions.is_empty());
}

#[test]
fn the_same_is_the_same_however_it_is_written_and_wherever_it_begins() {
    let mut scene = Scene::new();
    let without = format!(r#"{{"snapshot":false,"users":["{BOB}","{ALICE}"],"type":"userFills"}}"#);
    assert_eq!(scene.subscribe(&without).changes, 1);

    assert_eq!(scene.refusal(&fills_of(&[ALICE, BOB])), "Already subscribed");
    let end = fills_of(&[ALICE, BOB, ALICE]);
    let left = scene.hear(&format!(r#"{{"method":"unsubscribe","subscription":{end}}}"#));

    assert_eq!((&left.said[0]["channel"], left.changes), (&"subscriptionResponse".into(), 1));
    assert!(scene.subscriptions.is_empty());
}

#[test]
fn what_fails_after_it_has_begun_is_taken_back_as_a_whole() {
    let mut scene = Scene::new();
    let other = format!(r#"{{"type":"userEvents","user":"{BOB}"}}"#);
    scene.subscribe(&other);
    let list = fills_of(&[ALICE, BOB]);
    let later = scene.subscribe(&list).later.unwrap();
    let first = scene.found(later, vec![newest(2)]);
    assert_eq!((first.said.len(), first.changes), (2, 1), "the acknowledgement, and a snapshot");

    let away = StoreError::Unavailable("away".to_owned());
    let failed = scene.found(first.later.unwrap(), vec![Found::Newest(Err(away))]);

    assert_eq!(failed.said.len(), 1);
    let text = failed.said[0]["data"].as_str().unwrap();
    assert!(text.starts_with("Not subscribed, ") && text.ends_with(&list), "{text}");
    assert!(failed.later.is_none() && failed.changes == 1, "the first one ends");
    assert_eq!(scene.subscriptions.len(), 2, "what else there is stays");
}

#[test]
fn the_cursor_of_a_snapshot_is_not_ahead_of_what_else_was_sent() {
    let mut scene = Scene::new();
    let later = scene.subscribe(&fills_of(&[ALICE, BOB])).later.unwrap();
    let first = scene.found(later, vec![newest(100)]);
    assert_eq!(first.said[1]["data"]["seq"], 100);

    // The first one's events up to 200 are yet to be sent.
    scene.delivered = 100;
    let second = scene.found(first.later.unwrap(), vec![newest(200)]);

    assert_eq!(second.said[0]["data"]["seq"], 100);
    assert!(second.said[0]["data"]["cursor"].as_str().unwrap().ends_with(".64"));
}

#[test]
fn posts_are_bounded_in_number_and_length_and_those_that_are_refused_are_counted() {
    let mut scene = Scene::new();
    let post = |payload: &str| {
        format!(r#"{{"method":"post","id":1,"request":{{"type":"info","payload":{payload}}}}}"#)
    };
    let asked = scene.hear(&post(r#"{"type":"meta"}"#));
    assert_eq!((asked.asides.len(), asked.said.len()), (1, 0));

    scene.free_asides = 0;
    let refused = scene.hear(&post(r#"{"type":"meta"}"#));
    let payload = &refused.said[0]["data"]["response"]["payload"];
    assert_eq!(payload, "too many requests are waiting for their answer");
    assert_eq!((refused.asides.len(), scene.stats.official.refused_posts.get()), (0, 1));
    scene.free_asides = 1;
    let long = scene.hear(&post(&format!(r#"{{"type":"{}"}}"#, "x".repeat(20_000))));
    assert!(long.asides.is_empty());
    let payload = &long.said[0]["data"]["response"]["payload"];
    assert_eq!(payload, "a request may have at most 16384 bytes");
}

#[test]
fn views_of_one_topic_have_places_of_their_own() {
    for (topic, count) in [(FILLS, 5), (MISC, 3)] {
        let feeds = Feed::ALL.into_iter().filter(|feed| feed.is_made_of(topic));
        let places: BTreeSet<_> = feeds.map(|feed| frames::slot(feed.view())).collect();
        assert_eq!(places.len(), count, "{topic}");
        assert!(places.iter().all(|place| *place < ENCODINGS));
    }
    assert!(Feed::ALL.into_iter().all(|feed| Feed::of_view(feed.view()) == Some(feed)));
}

#[test]
fn a_mistake_in_a_field_of_ours_is_told() {
    let mut scene = Scene::new();
    for (field, why) in [
        (r#""snapshot":"no""#, "snapshot: invalid type: string"),
        (r#""users":["0x12"]"#, "users[0]: "),
        (r#""cursor":"x""#, "cursor is none that was given here"),
        (r#""cursor":7"#, "cursor is none that was given here"),
    ] {
        let asked = format!(r#"{{"type":"userFills","user":"{ALICE}",{field}}}"#);
        let text = scene.refusal(&asked);
        assert!(text.starts_with(&format!("Invalid subscription, {why}")), "{text}");
    }
}

#[test]
fn what_is_put_together_begins_at_no_cursor() {
    let mut scene = Scene::new();
    let cursor = r#""cursor":"1.1.2.3""#;
    for asked in [
        format!(r#"{{"type":"trades","coin":"BTC",{cursor}}}"#),
        format!(r#"{{"type":"userFills","user":"{ALICE}","aggregateByTime":true,{cursor}}}"#),
    ] {
        let why = "Invalid subscription, trades and aggregated fills begin at no cursor";
        assert_eq!(scene.refusal(&asked), why);
    }
}

#[test]
fn coins_are_not_taken_for_one_another() {
    let mut scene = Scene::new();
    let of = |coin: &str| format!(r#"{{"type":"trades","coin":"{coin}"}}"#);

    for coin in ["A B", "A", "B", "A B fills"] {
        assert_eq!(scene.subscribe(&of(coin)).changes, 1, "{coin}");
    }
    let left = scene.hear(&format!(r#"{{"method":"unsubscribe","subscription":{}}}"#, of("A")));
    assert_eq!((left.changes, scene.subscriptions.len()), (1, 3));
}

#[test]
fn what_one_message_begins_and_takes_back_never_was() {
    let mut scene = Scene::new();
    let events = format!(r#"{{"type":"userEvents","user":"{ALICE}","cursor":"1.1.2.3"}}"#);
    let later = scene.subscribe(&events).later.unwrap();
    assert_eq!(later.lookups.len(), 2);

    let place = Cursor { epoch: 1, run: 2, seq: 3, positions: Vec::new() };
    let found = vec![Found::Place(Ok(Start::at(place))), Found::Place(Err(ResumeError::Busy))];
    let left = scene.found(later, found);

    assert_eq!((left.said.len(), left.changes), (1, 0));
    assert_eq!(left.said[0]["channel"], "error");
    assert!(scene.subscriptions.is_empty());
}

#[test]
fn an_answer_that_is_too_long_for_a_message_is_an_error() {
    let mut scene = Scene::new();
    let post = r#"{"method":"post","id":7,"request":{"type":"info","payload":{"type":"meta"}}}"#;
    for (bytes, kind) in [(4 << 20, "info"), ((4 << 20) + 1, "error")] {
        let frame = scene.at_desk(|desk| PLAIN.receive(post, desk)).asides.pop().unwrap().frame;
        let answer = format!("\"{}\"", "x".repeat(bytes - 2));
        let said: Value =
            serde_json::from_slice(&frame::payload(&frame(Ok(answer.into())))).unwrap();
        assert_eq!(said["data"]["response"]["type"], kind);
    }
}
