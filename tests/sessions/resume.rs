//! Subscriptions that begin in the past, and sessions that fall behind.

use std::time::Duration;

use nodecast::event::Timestamp;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::harness::{ALICE, BOB, Client, FILLS, Server, block_on, event, fill, misc};

/// Everything that follows up to `live`, and what that frame says.
pub fn replay(client: &mut Client) -> (Vec<u64>, Value) {
    let mut blocks = Vec::new();
    loop {
        let frame = client.json();
        match frame["type"].as_str().unwrap() {
            "event" => {
                assert_eq!(frame["replayed"], true, "{frame}");
                blocks.push(frame["block"].as_u64().unwrap());
            }
            "live" => return (blocks, frame),
            _ => panic!("{frame} before the session is live"),
        }
    }
}

pub fn subscribe(client: &mut Client, from: Value) -> Value {
    client.ask(&json!({"type":"subscribe","id":"a","topic":"fills","from":from}).to_string())
}

fn next_block(client: &mut Client) -> u64 {
    let frame = client.json();
    assert_eq!((&frame["type"], &frame["replayed"]), (&json!("event"), &json!(false)), "{frame}");
    frame["block"].as_u64().unwrap()
}

/// Ten blocks of which five are in the store only, three in both, and two in memory only.
fn with_ten_blocks() -> Server {
    let server = Server::start_with_log(4_000, |_| {});
    for block in 1..=10 {
        server.append_unseen(vec![fill(block, ALICE, "BTC")], vec![]);
        if block == 8 {
            server.commit();
        }
    }
    let state = server.log.state();
    assert!(state.first > 0 && state.first < state.committed, "{state:?}");
    server
}

/// A client of which little is queued and that is not cut off, subscribed to all fills; and the body of
/// an event that is as long as a third of that.
fn with_a_slow_client() -> (Server, Client, String) {
    let server = Server::start_with_log(1 << 20, |session| {
        session.outbox_bytes = 64 << 10;
        session.send_buffer_bytes = 16 << 10;
        session.stall_timeout = Duration::from_secs(3_600);
    });
    let mut slow = server.connect_small("/v1/ws");
    assert_eq!(slow.json()["type"], "hello");
    slow.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    let body = format!(r#"{{"coin":"BTC","padding":"{}"}}"#, "x".repeat(20_000));
    (server, slow, body)
}

#[test]
fn a_cursor_of_this_run_is_resumed_from_store_log_and_live_in_one_order() {
    let server = with_ten_blocks();
    for seq in 101..=110_u64 {
        let mut client = server.native();

        let ack = subscribe(&mut client, json!(format!("1.e.f.{seq:x}")));

        assert_eq!(ack["type"], "ack");
        assert_eq!((&ack["from"], &ack["recovered"]), (&json!("cursor"), &json!(true)));
        let (blocks, live) = replay(&mut client);
        assert!(blocks.iter().copied().eq(seq - 99..=10), "{seq}: {blocks:?}");
        assert_eq!(live["cursor"].as_str().unwrap().split('.').nth(3), Some("6e"));
    }
    let mut client = server.native();
    subscribe(&mut client, json!("1.e.f.6d"));
    assert_eq!(replay(&mut client).0, [10]);
    server.append(vec![fill(11, ALICE, "BTC")]);
    assert_eq!(next_block(&mut client), 11);
}

#[test]
fn every_word_for_the_past_finds_its_place() {
    let server = with_ten_blocks();
    let time = 1_773_532_800_000_000_i64;
    for (from, by, first) in [
        (json!("oldest"), "oldest", 1),
        (json!({"block": 7}), "block", 7),
        (json!({"block": 9}), "block", 9),
        (json!({"block": 0}), "block", 1),
        (json!({"block": 11}), "block", 11),
        (json!({"time": time}), "time", 1),
        (json!({"time": time + 1}), "time", 11),
        (json!({"last": 1}), "last", 10),
        (json!({"last": 4}), "last", 7),
        (json!({"last": 10_000}), "last", 1),
        (json!("1.e.f.6e"), "cursor", 11),
    ] {
        let mut client = server.native();

        let ack = subscribe(&mut client, from.clone());

        assert_eq!(ack["from"], by, "{from}: {ack}");
        assert_eq!(ack["recovered"], true);
        let (blocks, _) = replay(&mut client);
        assert!(blocks.iter().copied().eq(first..=10), "{from}: {blocks:?}");
    }
    let mut client = server.native();
    assert_eq!(subscribe(&mut client, json!("now")).get("from"), None);
    server.append(vec![fill(11, ALICE, "BTC")]);
    assert_eq!(next_block(&mut client), 11);
}

#[test]
fn only_what_a_subscription_wants_is_replayed() {
    let server = Server::start_with_log(0, |_| {});
    for block in 1..=40 {
        let (user, coin) =
            (if block % 2 == 0 { ALICE } else { BOB }, ["BTC", "ETH"][block as usize % 3 % 2]);
        server.append_unseen(vec![fill(block, user, coin), misc(block, Some(user))], vec![]);
        if block == 30 {
            server.commit();
        }
    }
    let wanted = |block: &u64| block.is_multiple_of(2) && block % 3 % 2 == 1;
    let mut client = server.native();
    let ask = |from: Value| json!({"type":"subscribe","id":"a","topic":"fills","users":[ALICE],"where":{"coin":"ETH"},"from":from});

    client.ask(&ask(json!("oldest")).to_string());
    let (blocks, _) = replay(&mut client);
    assert!(blocks.into_iter().eq((1..=40).filter(wanted)));

    // The keys of what comes from the store count as well as those of what is in memory.
    let mut client = server.native();
    client.ask(&ask(json!({"last": 4})).to_string());
    let (blocks, _) = replay(&mut client);
    let all: Vec<u64> = (1..=40).filter(wanted).collect();
    assert_eq!(blocks, all[all.len() - 4..]);
}

#[test]
fn cursors_of_other_runs_and_stores_are_understood() {
    let server = with_ten_blocks();
    // That run had committed up to 103 when it ended: what it gave beyond that was given again.
    for (cursor, first) in [("1.e.d.66", 3), ("1.e.d.67", 4), ("1.e.d.6a", 4)] {
        let mut client = server.native();
        assert_eq!(subscribe(&mut client, json!(cursor))["recovered"], true);
        let (blocks, _) = replay(&mut client);
        assert!(blocks.iter().copied().eq(first..=10), "{cursor}: {blocks:?}");
    }
    // A store or a run that is not known: by the block, and some before it again.
    for cursor in ["1.1.2.3.fills-12", "1.e.1.ffff.fills-12", "1.7.f.66.fills-12"] {
        let mut client = server.native();
        let ack = subscribe(&mut client, json!(cursor));
        assert_eq!((&ack["from"], &ack["recovered"]), (&json!("position"), &json!(false)));
        let (blocks, _) = replay(&mut client);
        assert!(blocks.iter().copied().eq(2..=10), "{cursor}: {blocks:?}");
    }
    let mut client = server.native();
    subscribe(&mut client, json!("1.1.2.3"));
    assert!(replay(&mut client).0.into_iter().eq(1..=10), "all of a topic that it does not name");
}

#[test]
fn a_cursor_whose_events_were_deleted_is_refused_with_the_oldest_there_is() {
    let server = Server::start_with_log(0, |_| {});
    let mut old = fill(1, ALICE, "BTC");
    old.time = Timestamp(old.time.0 - 10_000_000);
    server.append_unseen(vec![old, fill(2, ALICE, "BTC")], vec![]);
    server.commit();
    server.delete_before(Timestamp(1_773_532_799_000_000));
    let mut client = server.native();

    let error = subscribe(&mut client, json!("1.e.f.64"));

    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("cursor_expired")));
    subscribe(&mut client, error["oldest"].clone());
    assert_eq!(replay(&mut client).0, [2]);
    // Nothing is missing behind this one.
    let mut client = server.native();
    assert_eq!(subscribe(&mut client, json!("1.e.f.65"))["type"], "ack");
    assert_eq!(replay(&mut client).0, [2]);
}

#[test]
fn a_cursor_of_this_run_beyond_all_that_was_given_is_taken_by_its_blocks() {
    let server = with_ten_blocks();
    for (cursor, first) in [("1.e.f.6f.fills-12", 2), ("1.e.f.ffffffff", 1)] {
        let mut client = server.native();

        let ack = subscribe(&mut client, json!(cursor));

        assert_eq!((&ack["from"], &ack["recovered"]), (&json!("position"), &json!(false)));
        let (blocks, _) = replay(&mut client);
        assert!(blocks.iter().copied().eq(first..=10), "{cursor}: {blocks:?}");
    }
}

#[test]
fn a_cursor_of_another_store_behind_which_events_may_be_deleted_is_refused_too() {
    let server = Server::start_with_log(0, |_| {});
    let mut old: Vec<_> = (20..=50).map(|block| fill(block, ALICE, "BTC")).collect();
    for event in &mut old {
        event.time = Timestamp(event.time.0 - 10_000_000);
    }
    server.append_unseen(old, vec![]);
    server.append_unseen((51..=60).map(|block| fill(block, ALICE, "BTC")).collect(), vec![]);
    server.commit();
    let cursor = |block: u64| json!(format!("1.1.2.3.fills-{block:x}"));
    // Nothing is deleted: who has seen less than is kept gets all of it.
    for block in [0, 10, 40] {
        let mut client = server.native();
        assert_eq!(subscribe(&mut client, cursor(block))["recovered"], false, "{block}");
        let first = block.saturating_sub(16).max(20);
        assert!(replay(&mut client).0.into_iter().eq(first..=60), "{block}");
    }

    server.delete_before(Timestamp(1_773_532_799_000_000));

    for block in [0, 1, 40, 51] {
        let mut client = server.native();
        let error = subscribe(&mut client, cursor(block));
        assert_eq!(error["code"], "cursor_expired", "{block}: {error}");
        let ack = subscribe(&mut client, error["oldest"].clone());
        assert_eq!(ack["recovered"], true, "{ack}");
        assert!(replay(&mut client).0.into_iter().eq(51..=60), "{block}");
    }
    // Behind this one all is there; and who names no block asks for what there is.
    for cursor in [cursor(52), cursor(60), json!("1.1.2.3"), json!("1.1.2.3.misc-1")] {
        let mut client = server.native();
        let ack = subscribe(&mut client, cursor.clone());
        assert_eq!((&ack["from"], &ack["recovered"]), (&json!("position"), &json!(false)));
        assert!(replay(&mut client).0.into_iter().eq(51..=60), "{cursor}");
    }
}

#[test]
fn what_no_place_can_be_is_refused_and_subscribes_to_nothing() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    for from in [
        json!("yesterday"),
        json!(7),
        json!({}),
        json!([]),
        json!({"last": 0}),
        json!({"last": 10_001}),
        json!({"last": 1, "block": 2}),
        json!({"block": -1}),
        json!({"time": "now"}),
    ] {
        let error = subscribe(&mut client, from.clone());
        assert_eq!(error["code"], "invalid_from", "{from}: {error}");
    }
    assert_eq!(server.stats.sessions.subscriptions.get(), 0);
}

#[test]
fn subscriptions_that_begin_at_different_places_get_each_its_own_and_nothing_twice() {
    let server = with_ten_blocks();
    let mut client = server.native();
    let say = |client: &mut Client, id: &str, user: &str, from: &str| {
        let ask = json!({"type":"subscribe","id":id,"topic":"fills","users":[user],"from":from});
        client.say(&ask.to_string());
    };
    server.append_unseen((11..=14).map(|block| fill(block, BOB, "BTC")).collect(), vec![]);

    // One after the other without waiting, the second before the first.
    say(&mut client, "alice", ALICE, "1.e.f.6a");
    say(&mut client, "bob", BOB, "1.e.f.64");
    say(&mut client, "alice again", ALICE, "1.e.f.68");

    let mut seen = Vec::new();
    let mut acks = 0;
    while acks < 3 || seen.last() != Some(&(BOB.to_owned(), 14)) {
        let frame = client.json();
        match frame["type"].as_str().unwrap() {
            "ack" => acks += 1,
            "event" => {
                let user = frame["user"].as_str().unwrap().to_owned();
                seen.push((user, frame["block"].as_u64().unwrap()));
            }
            _ => {}
        }
    }
    // Both of Alice's subscriptions want 7 to 10: those that were sent before the third one came may
    // come again for it, and no other.
    let bobs: Vec<_> =
        seen.iter().filter(|(user, _)| user == BOB).map(|(_, block)| *block).collect();
    assert_eq!(bobs, [11, 12, 13, 14]);
    let mut alices: Vec<_> =
        seen.iter().filter(|(user, _)| user == ALICE).map(|(_, block)| *block).collect();
    alices.sort_unstable();
    alices.dedup();
    assert_eq!(alices, [5, 6, 7, 8, 9, 10]);
}

#[test]
fn a_shard_that_the_log_has_left_behind_goes_on_from_the_store() {
    for (path, subscribe) in [
        ("/v1/ws", r#"{"type":"subscribe","id":"a","topic":"fills"}"#),
        // That it is behind is no fault of its client.
        ("/v1/ws", r#"{"type":"subscribe","id":"a","topic":"fills","policy":"skip"}"#),
        ("/ws", r#"{"action":"subscribe","event":"fill"}"#),
    ] {
        let server = Server::start_with_log(0, |_| {});
        let mut client = server.connect(path);
        client.say(subscribe);
        server.wait_until("subscribed", |stats| stats.sessions.subscriptions.get() == 1);
        let mut next = move || loop {
            let frame = client.json();
            if let Some(block) = frame["block"].as_u64() {
                return block;
            }
        };
        server.append(vec![fill(1, ALICE, "BTC")]);
        assert_eq!(next(), 1);

        // The store is faster than this shard.
        server.append_unseen(vec![fill(2, ALICE, "BTC")], vec![]);
        server.append_unseen(vec![fill(3, ALICE, "BTC")], vec![]);
        server.commit();
        server.append(vec![fill(4, ALICE, "BTC")]);

        assert_eq!([next(), next(), next()], [2, 3, 4], "{path}");
        assert!(server.stats.sessions.missed_segments.get() > 0);
        server.append(vec![fill(5, ALICE, "BTC")]);
        assert_eq!(next(), 5);
    }
}

#[test]
fn a_client_that_reads_late_gets_everything_in_order_though_memory_has_let_it_go() {
    const EVENTS: u64 = 400;
    let (server, mut slow, body) = with_a_slow_client();

    for block in 0..EVENTS {
        server.append(vec![event(FILLS, block, 0, Some(ALICE), &body)]);
        if block % 50 == 49 {
            server.commit();
        }
    }
    server.wait_until("it has fallen behind", |stats| stats.sessions.behind.get() == 1);
    assert!(server.log.state().left_seq > 300, "memory has let go of the first ones");

    for block in 0..EVENTS {
        assert_eq!(slow.json()["block"], block);
    }
    server.wait_until("it is live again", |stats| stats.sessions.behind.get() == 0);
    assert_eq!(server.stats.sessions.slow_consumers.get(), 0);
    assert_eq!(server.stats.sessions.frames_dropped.get(), 0);
    assert!(server.stats.sessions.outbox_bytes.get() <= 64 << 10);
    drop(slow);
    server.settle();
}

#[test]
fn who_wants_nothing_any_more_is_not_behind() {
    let (server, mut slow, body) = with_a_slow_client();
    for block in 0..100 {
        server.append(vec![event(FILLS, block, 0, Some(ALICE), &body)]);
    }
    server.wait_until("it has fallen behind", |stats| stats.sessions.behind.get() == 1);

    slow.say(r#"{"type":"unsubscribe","id":"a"}"#);
    server.wait_until("it wants nothing", |stats| stats.sessions.behind.get() == 0);

    slow.say(r#"{"type":"subscribe","id":"b","topic":"fills"}"#);
    server.wait_until("it wants again", |stats| stats.sessions.subscriptions.get() == 1);
    server.append(vec![event(FILLS, 100, 0, Some(ALICE), &body)]);
    let mut blocks = Vec::new();
    while blocks.last() != Some(&100) {
        blocks.extend(slow.json()["block"].as_u64());
    }
    assert!(blocks.len() < 100, "what was never queued does not come: {blocks:?}");
    assert!(blocks.is_sorted());
}

#[test]
fn what_was_old_when_it_came_takes_nothing_younger_with_it() {
    let server = Server::start_with_log(0, |_| {});
    let mut old = misc(1, Some(ALICE));
    old.time = Timestamp(old.time.0 - 10_000_000);
    // The younger one came first.
    server.append_unseen(vec![fill(1, ALICE, "BTC"), old, fill(2, ALICE, "BTC")], vec![]);
    server.commit();
    server.delete_before(Timestamp(1_773_532_799_000_000));

    for from in [json!("oldest"), json!({"block": 1}), json!({"last": 2})] {
        let mut client = server.native();
        subscribe(&mut client, from.clone());
        assert_eq!(replay(&mut client).0, [1, 2], "{from}");
    }
}

#[test]
fn who_takes_a_subscription_back_at_once_can_have_another() {
    let server = with_ten_blocks();
    let mut client = server.native();
    for id in 0..3 {
        let subscribe = json!({"type":"subscribe","id":id,"topic":"fills","from":"oldest"});
        client.say(&subscribe.to_string());
        client.say(&json!({"type":"unsubscribe","id":id}).to_string());
    }

    client.say(r#"{"type":"subscribe","id":"a","topic":"fills","from":{"block":9}}"#);

    let mut blocks = Vec::new();
    loop {
        let frame = client.json();
        match frame["type"].as_str().unwrap() {
            "event" => blocks.push(frame["block"].as_u64().unwrap()),
            "live" if blocks.ends_with(&[9, 10]) => break,
            _ => {}
        }
    }
    assert_eq!(server.stats.sessions.behind.get(), 0);
}

#[test]
fn a_place_among_numbers_that_were_given_up_is_left_behind() {
    let server = Server::start_with_log(0, |_| {});
    server.append_unseen((1..=5).map(|block| fill(block, ALICE, "BTC")).collect(), vec![]);
    // Their batch is lost, and memory lets go of them: the store never has these numbers.
    server.log.abandon_uncommitted();
    server.log.commit(server.log.state().next);
    let state = server.log.state();
    assert!(state.left_seq > state.committed_seq, "{state:?}");
    let mut client = server.native();

    subscribe(&mut client, json!("1.e.f.66"));

    assert!(replay(&mut client).0.is_empty());
    server.append(vec![fill(1, ALICE, "BTC")]);
    assert_eq!(next_block(&mut client), 1);
}

#[test]
fn what_a_subscription_has_had_does_not_come_again_for_one_that_begins_earlier() {
    let server = with_ten_blocks();
    let mut client = server.native();
    server.append_unseen(vec![misc(11, Some(ALICE))], vec![]);
    subscribe(&mut client, json!("oldest"));
    assert!(replay(&mut client).0.into_iter().eq(1..=10));

    client.say(r#"{"type":"subscribe","id":"b","topic":"misc","from":"oldest"}"#);

    assert_eq!(client.json()["type"], "ack");
    assert_eq!(replay(&mut client).0, [11], "and none of the fills");
    server.append(vec![fill(12, ALICE, "BTC")]);
    assert_eq!(next_block(&mut client), 12);
}

#[test]
fn who_asks_for_more_that_begins_now_is_told_all_the_same_when_it_has_the_past() {
    let server = with_ten_blocks();
    let mut client = server.native();

    // They come together, so that the past of the one waits until the other has begun.
    for text in [
        r#"{"type":"subscribe","id":"a","topic":"fills","from":"oldest"}"#,
        r#"{"type":"subscribe","id":"b","topic":"misc"}"#,
    ] {
        client.socket.write(Message::text(text)).unwrap();
    }
    client.socket.flush().unwrap();

    assert_eq!((client.json()["id"].take(), client.json()["id"].take()), (json!("a"), json!("b")));
    assert!(replay(&mut client).0.into_iter().eq(1..=10));
}

#[test]
fn a_page_of_the_past_ends_with_a_block_however_long_that_is() {
    let server = Server::start(|_| {});
    let block = |number, events| (0..events).map(move |at| event(FILLS, number, at, None, "{}"));
    // 510 events of three each, then a block that is longer than a page, then one that ends it.
    (1..=170).for_each(|number| server.append(block(number, 3).collect()));
    server.append(block(171, 1_500).collect());
    server.append(block(172, 600).collect());
    server.commit();

    let (mut after, mut ends) = (0, Vec::new());
    while after < server.log.state().last_seq {
        let page = block_on(server.casting.pages.page(after)).unwrap();
        let last = page.events.last().map(|last| last.sequenced.event.id);
        ends.push(last.map(|id| (id.position, id.index)));
        after = page.through;
    }

    assert_eq!(ends, [Some((170, 2)), Some((171, 1_499)), Some((172, 599))]);
}
