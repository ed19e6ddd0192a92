use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    config::SessionConfig,
    delivery::subscription::{Conditions, Subscription, Subscriptions, Wanted},
    event::{EventId, Keys, Timestamp},
};

const FILLS: Topic = Topic::new("fills");
const MISC: Topic = Topic::new("misc");

fn address(number: u8) -> Address {
    Address([number; 20])
}

fn event(topic: Topic, user: Option<u8>, coin: &str) -> Event {
    let body = format!("{{\"coin\":\"{coin}\"}}");
    let keys = Keys::new([("coin", 9..9 + coin.len() as u32)]);
    Event {
        id: EventId { topic, position: 1, index: 0, part: 0 },
        time: Timestamp(0),
        user: user.map(address),
        keys,
        body: Bytes::from(body),
    }
}

fn only(coins: &[&str]) -> Option<Arc<Conditions>> {
    let coins = coins.iter().map(|coin| (*coin).to_owned()).collect();
    Conditions::new([("coin", coins)]).shared()
}

fn listed(users: &[u8]) -> Users {
    Users::Listed(users.iter().map(|&user| address(user)).collect())
}

struct Sessions {
    index: Index,
    subscriptions: Vec<Subscriptions>,
}

impl Sessions {
    fn new(count: usize) -> Self {
        let subscriptions = (0..count).map(|_| Subscriptions::default()).collect();
        Self { index: Index::default(), subscriptions }
    }

    fn subscribe(
        &mut self,
        session: usize,
        id: &str,
        topic: Topic,
        users: Users,
        conditions: Option<Arc<Conditions>>,
    ) {
        let limits = SessionConfig::default();
        let change =
            self.subscriptions[session].subscribe(id, topic, users, conditions, &limits).unwrap();
        self.index.apply(session as u64, &change);
    }

    /// How often the index names a session.
    fn named(&self, session: SessionId) -> usize {
        let count =
            |entries: &Entries| entries.0.iter().filter(|one| one.session == session).count();
        let of_topic = |topic: &TopicIndex| {
            count(&topic.all)
                + topic.coins.values().chain(topic.users.values()).map(count).sum::<usize>()
        };
        self.index.topics.values().map(of_topic).sum()
    }

    fn wanting(&self, event: &Event) -> Vec<SessionId> {
        self.interests(event).into_iter().map(Interest::session).collect()
    }

    fn interests(&self, event: &Event) -> Vec<Interest> {
        let mut sessions = vec![Interest::new(99, Views::default(), 0)];
        self.index.interested(event, &mut sessions);
        sessions
    }
}

#[test]
fn an_event_may_wait_as_long_as_each_of_a_sessions_matching_subscriptions_allows() {
    let mut sessions = Sessions::new(3);
    let limits = SessionConfig::default();
    for (session, id, users, linger_ms) in [
        (0, "a", Users::All, 500),
        (0, "b", Users::All, 1_000),
        (1, "a", Users::All, 1_000),
        (1, "b", listed(&[7]), 200),
        (2, "a", listed(&[7]), 0),
        (2, "b", Users::All, 30),
    ] {
        let wanted = Wanted { linger_ms, ..Wanted::new(FILLS, users) };
        let change = sessions.subscriptions[session].begin(id, wanted, &limits).unwrap();
        sessions.index.apply(session as SessionId, &change);
    }

    let of = |user| {
        let interests = sessions.interests(&event(FILLS, Some(user), "BTC"));
        interests.iter().map(|one| (one.session(), one.linger_ms())).collect::<Vec<_>>()
    };

    assert_eq!(of(7), [(0, 500), (1, 200), (2, 0)]);
    assert_eq!(of(8), [(0, 500), (1, 1_000), (2, 30)]);
}

#[test]
fn a_session_is_named_once_however_many_of_its_subscriptions_match() {
    let mut sessions = Sessions::new(2);
    sessions.subscribe(1, "a", FILLS, Users::All, None);
    sessions.subscribe(0, "a", FILLS, Users::All, None);
    sessions.subscribe(0, "b", FILLS, listed(&[7, 8]), None);
    sessions.subscribe(0, "c", FILLS, listed(&[7]), only(&["BTC"]));

    assert_eq!(sessions.wanting(&event(FILLS, Some(7), "BTC")), [0, 1]);
    assert_eq!(sessions.wanting(&event(MISC, Some(7), "BTC")), [0_u64; 0]);
}

#[test]
fn only_those_who_want_everything_get_an_event_without_user() {
    let mut sessions = Sessions::new(2);
    sessions.subscribe(0, "a", FILLS, listed(&[7]), None);
    sessions.subscribe(1, "a", FILLS, Users::All, None);

    assert_eq!(sessions.wanting(&event(FILLS, None, "BTC")), [1]);
}

#[test]
fn conditions_hold_for_any_of_their_values_and_not_without_the_key() {
    let mut sessions = Sessions::new(1);
    sessions.subscribe(0, "a", FILLS, Users::All, only(&["BTC", "xyz:NVDA", "a\"b"]));

    assert_eq!(sessions.wanting(&event(FILLS, Some(1), "xyz:NVDA")), [0]);
    assert_eq!(sessions.wanting(&event(FILLS, Some(1), "BTCX")), [0_u64; 0]);
    // As JSON writes it.
    assert_eq!(sessions.wanting(&event(FILLS, Some(1), "a\\\"b")), [0]);
    let mut without = event(FILLS, Some(1), "BTC");
    without.keys = Keys::default();
    assert_eq!(sessions.wanting(&without), [0_u64; 0]);
}

#[test]
fn an_index_that_all_have_left_is_empty() {
    let mut sessions = Sessions::new(1);
    sessions.subscribe(0, "a", FILLS, listed(&[1, 2]), None);
    sessions.subscribe(0, "b", MISC, Users::All, None);

    for id in ["a", "b"] {
        let change = sessions.subscriptions[0].unsubscribe(id).unwrap();
        assert!(!sessions.index.is_empty());
        sessions.index.apply(0, &change);
    }

    assert!(sessions.index.is_empty());
}

proptest! {
    #[test]
    fn the_index_answers_as_a_look_at_every_subscription_does(
        steps in prop::collection::vec(
            (0_usize..4, 0_u8..3, prop::collection::btree_set(0_u8..4, 0..4), any::<bool>(), any::<bool>()),
            0..60,
        ),
    ) {
        let mut sessions = Sessions::new(4);
        let limits = SessionConfig::default();
        for (session, id, users, fills, subscribe) in steps {
            let topic = if fills { FILLS } else { MISC };
            let id = format!("{id}");
            let users: BTreeSet<Address> = users.into_iter().map(address).collect();
            let own = &mut sessions.subscriptions[session];
            let changes: Vec<Change> = match (subscribe, users.is_empty()) {
                (true, true) => own.subscribe(&id, topic, Users::All, only(&["BTC"]), &limits).into_iter().collect(),
                (true, false) if !own.iter().any(|(known, one)| known == id && one.wanted.topic != topic) =>
                    own.add_users(&id, topic, users, &limits).into_iter().collect(),
                (true, false) => vec![],
                (false, true) => own.unsubscribe(&id).into_iter().collect(),
                (false, false) => own.remove_users(&id, &users).into_iter().collect(),
            };
            changes.iter().for_each(|change| sessions.index.apply(session as u64, change));
        }

        for topic in [FILLS, MISC] {
            for user in [None, Some(0), Some(1), Some(3), Some(9)] {
                for coin in ["BTC", "ETH"] {
                    let event = event(topic, user, coin);
                    let wants = |one: &Subscription| {
                        one.wanted.topic == topic
                            && one.wanted.conditions.as_ref().is_none_or(|conditions| conditions.hold(&event))
                            && match &one.wanted.users {
                                Users::All => true,
                                Users::Listed(users) => event.user.is_some_and(|user| users.contains(&user)),
                            }
                    };
                    let expected: Vec<u64> = (0..4_u64)
                        .filter(|&session| sessions.subscriptions[session as usize].iter().any(|(_, one)| wants(one)))
                        .collect();
                    prop_assert_eq!(sessions.wanting(&event), expected);
                }
            }
        }
    }
}

#[test]
fn equal_conditions_are_one_predicate_and_go_with_the_last_who_has_them() {
    let mut sessions = Sessions::new(3);
    for session in 0..3 {
        // However they are written.
        let coins = [&["BTC", "ETH"][..], &["ETH", "BTC"], &["ETH", "BTC", "ETH"]][session];
        sessions.subscribe(session, "a", FILLS, listed(&[7]), only(coins));
    }
    sessions.subscribe(0, "b", FILLS, Users::All, only(&["SOL"]));
    assert_eq!(sessions.index.predicates.len(), 2);
    assert_eq!(sessions.wanting(&event(FILLS, Some(7), "ETH")), [0, 1, 2]);
    assert_eq!(sessions.wanting(&event(FILLS, Some(7), "SOL")), [0]);

    for session in 0..3 {
        let gone = sessions.subscriptions[session].unsubscribe("a").unwrap();
        sessions.index.apply(session as u64, &gone);
        sessions.index.apply(session as u64, &gone);
    }
    assert_eq!(sessions.index.predicates.len(), 1);
    sessions.subscribe(1, "c", FILLS, Users::All, only(&["BTC"]));
    assert_eq!(sessions.wanting(&event(FILLS, Some(7), "BTC")), [1]);
    assert_eq!(sessions.wanting(&event(FILLS, Some(7), "SOL")), [0]);
}

#[test]
fn a_coin_is_found_however_it_is_escaped() {
    let mut sessions = Sessions::new(1);
    sessions.subscribe(0, "a", FILLS, Users::All, only(&["B\"C"]));

    assert_eq!(sessions.wanting(&event(FILLS, None, r#"B\"C"#)), [0]);
    assert_eq!(sessions.wanting(&event(FILLS, None, r"B\u0022C")), [0]);
    assert_eq!(sessions.wanting(&event(FILLS, None, "BC")), [0; 0]);
}

#[test]
fn a_session_that_leaves_is_forgotten_in_portions_and_the_others_stay() {
    let mut sessions = Sessions::new(2);
    let users: Vec<u8> = (0..200).collect();
    for id in ["a", "b"] {
        sessions.subscribe(0, id, FILLS, listed(&users), only(&["BTC"]));
        sessions.subscribe(1, id, FILLS, listed(&users[..100]), None);
    }
    sessions.subscribe(0, "all", MISC, Users::All, None);
    let gone = std::mem::take(&mut sessions.subscriptions[0]);

    sessions.index.leave(0, gone);
    let mut portions = 0;
    while sessions.index.is_leaving() {
        let before = sessions.named(0);
        sessions.index.forget(64);
        portions += 1;
        assert!(before - sessions.named(0) <= 64, "a portion is bounded");
    }

    assert_eq!(portions, 7, "400 users and everybody");
    assert_eq!((sessions.named(0), sessions.named(1)), (0, 200));
    assert_eq!(sessions.index.predicates.len(), 0);
    assert_eq!(sessions.wanting(&event(FILLS, Some(7), "BTC")), [1]);
    assert_eq!(sessions.wanting(&event(MISC, None, "BTC")), [0; 0]);
    let last = std::mem::take(&mut sessions.subscriptions[1]);
    sessions.index.leave(1, last);
    sessions.index.forget(200);
    assert!(sessions.index.is_empty());
}

#[test]
fn the_coins_of_a_session_that_leaves_are_forgotten_in_portions_too() {
    let mut sessions = Sessions::new(2);
    let coins: Vec<String> = (0..1_000).map(|coin| format!("{coin:03}")).collect();
    let coins: Vec<&str> = coins.iter().map(String::as_str).collect();
    for id in ["a", "b"] {
        sessions.subscribe(0, id, FILLS, Users::All, only(&coins));
        sessions.subscribe(1, id, FILLS, Users::All, only(&coins[..500]));
    }
    let gone = std::mem::take(&mut sessions.subscriptions[0]);

    sessions.index.leave(0, gone);
    let mut portions = 0;
    while sessions.index.is_leaving() {
        let before = sessions.named(0);
        sessions.index.forget(64);
        portions += 1;
        assert!(before - sessions.named(0) <= 64, "a portion is bounded");
    }

    assert_eq!(portions, 32, "2,000 coins");
    assert_eq!((sessions.named(0), sessions.named(1)), (0, 1_000));
    assert_eq!(sessions.index.predicates.len(), 1);
    assert_eq!(sessions.wanting(&event(FILLS, None, "123")), [1]);
    assert_eq!(sessions.wanting(&event(FILLS, None, "999")), [0; 0]);
}
