//! What subscriptions get that their clients are too slow for.

use std::time::Duration;

use nodecast::event::Event;
use serde_json::{Value, json};

use crate::harness::{ALICE, BOB, Client, FILLS, Server, event, fill};

/// Some of these fill what a slow client's socket and outbox hold.
const EVENT_BYTES: usize = 20_000;

fn long(block: u64, user: &str, coin: &str) -> Event {
    let body = format!(r#"{{"coin":"{coin}","padding":"{}"}}"#, "x".repeat(EVENT_BYTES));
    event(FILLS, block, 0, Some(user), &body)
}

/// Memory lets go of nothing: what a shard has to fetch from the store when it comes too late itself
/// is no fault of a client, and comes whole.
fn server(stall_timeout: Duration) -> Server {
    Server::start(|session| {
        session.outbox_bytes = 64 << 10;
        session.send_buffer_bytes = 16 << 10;
        session.stall_timeout = stall_timeout;
    })
}

const FOR_EVER: Duration = Duration::from_secs(3_600);

/// A client that does not read on its own account, with what it has subscribed to.
fn slow(server: &Server, subscriptions: &[Value]) -> Client {
    let mut client = server.connect_small("/v1/ws");
    assert_eq!(client.json()["type"], "hello");
    for subscription in subscriptions {
        assert_eq!(client.ask(&subscription.to_string())["type"], "ack");
    }
    client
}

fn subscribe(id: &str, policy: Value) -> Value {
    json!({"type":"subscribe","id":id,"topic":"fills","policy":policy})
}

/// Appends blocks one by one.
fn append(server: &Server, blocks: std::ops::Range<u64>, event: impl Fn(u64) -> Event) {
    for block in blocks {
        server.append(vec![event(block)]);
    }
}

fn is_behind(server: &Server) {
    server.wait_until("it has fallen behind", |stats| stats.sessions.behind.get() == 1);
}

/// Reads events until this block has come; the frames between that are none, and the blocks.
fn read_to(client: &mut Client, last: u64) -> (Vec<u64>, Vec<Value>) {
    let (mut blocks, mut others) = (Vec::new(), Vec::new());
    while blocks.last() != Some(&last) {
        let frame = client.json();
        match frame["block"].as_u64() {
            Some(block) => blocks.push(block),
            None => others.push(frame),
        }
    }
    (blocks, others)
}

/// The `seq` that a cursor names.
fn seq(cursor: &Value) -> u64 {
    u64::from_str_radix(cursor.as_str().unwrap().split('.').nth(3).unwrap(), 16).unwrap()
}

#[test]
fn skip_goes_on_at_the_head_and_says_what_is_missing() {
    let server = server(FOR_EVER);
    let mut client = slow(&server, &[subscribe("mine", json!("skip"))]);

    append(&server, 0..200, |block| long(block, ALICE, "BTC"));
    is_behind(&server);

    // What was queued comes, and then what comes next.
    let mut had = Vec::new();
    let gap = loop {
        let frame = client.json();
        match frame["type"].as_str().unwrap() {
            "event" => had.push(frame),
            _ => break frame,
        }
    };
    let first = had.len() as u64;
    assert!((1..150).contains(&first), "{first}");
    assert!(had.iter().map(|frame| frame["block"].as_u64().unwrap()).eq(0..first));
    assert_eq!(
        (&gap["type"], &gap["topic"], &gap["id"]),
        (&json!("gap"), &json!("fills"), &json!("mine"))
    );
    assert_eq!((&gap["skipped"], &gap["closed"]), (&json!(true), &json!(false)));
    assert_eq!(seq(&gap["cursor"]), seq(&had.last().unwrap()["cursor"]));
    assert_eq!(seq(&gap["until"]), 300);
    server.wait_until("it is live", |stats| stats.sessions.behind.get() == 0);
    server.append(vec![long(200, ALICE, "BTC")]);
    let next = client.json();
    assert_eq!((&next["block"], &next["replayed"]), (&json!(200), &json!(false)));
    let stats = &server.stats.sessions;
    assert_eq!((stats.skips.get(), stats.replay_pages.get()), (1, 0));

    // What was skipped can be had.
    let mut other = server.native();
    other.ask(&json!({"type":"subscribe","id":1,"topic":"fills","from":gap["cursor"]}).to_string());
    assert!(read_to(&mut other, 200).0.into_iter().eq(first..=200));
    drop((client, other));
    server.settle();
}

#[test]
fn who_skips_may_take_nothing_for_as_long_as_it_likes() {
    let server = server(Duration::from_millis(200));
    let mut skips = slow(&server, &[subscribe("a", json!("skip"))]);
    let conflates = slow(&server, &[subscribe("a", json!({"conflate":"coin"}))]);
    let both = slow(&server, &[subscribe("a", json!("skip")), subscribe("b", json!("disconnect"))]);

    append(&server, 0..100, |block| long(block, ALICE, "BTC"));

    // The last one has become slow with or after the others. It takes as long for each.
    server.wait_until("the one that needs all is closed", |stats| {
        stats.sessions.slow_consumers.get() == 1
    });
    let sentinel = slow(&server, &[subscribe("a", json!("disconnect"))]);
    append(&server, 100..200, |block| long(block, ALICE, "BTC"));
    server.wait_until("and a later one", |stats| stats.sessions.slow_consumers.get() == 2);
    assert_eq!(server.stats.sessions.behind.get(), 2);
    let blocks: Vec<_> = std::iter::repeat_with(|| skips.json())
        .take_while(|frame| frame["type"] == "event")
        .collect();
    assert!(!blocks.is_empty());
    drop((skips, conflates, both, sentinel));
    server.settle();
}

#[test]
fn conflate_sends_the_newest_of_each_value_in_order_and_goes_on_live() {
    let coins = ["BTC", "ETH", "SOL"];
    let of_block = |block: u64| {
        long(
            block,
            ALICE,
            if block < 197 { coins[block as usize % 2] } else { coins[block as usize % 3] },
        )
    };
    let server = server(FOR_EVER);
    let mut client = slow(&server, &[subscribe("mine", json!({"conflate":"coin"}))]);

    append(&server, 0..200, of_block);
    is_behind(&server);

    let (blocks, others) = read_to(&mut client, 199);
    let first = blocks.len() as u64 - 3;
    assert!((1..150).contains(&first), "{blocks:?}");
    assert!(blocks.iter().copied().eq((0..first).chain(197..200)), "{blocks:?}");
    assert_eq!(others, [json!(null); 0], "nothing is told");
    server.wait_until("it is live", |stats| stats.sessions.behind.get() == 0);
    let stats = &server.stats.sessions;
    assert_eq!(stats.conflated.get(), 197 - first);
    // Its client may read before what was written is counted.
    server.wait_until("nothing is kept", |stats| stats.sessions.outbox_bytes.get() == 0);
    for block in 200..202 {
        server.append(vec![of_block(block)]);
        let frame = client.json();
        assert_eq!((&frame["block"], &frame["replayed"]), (&json!(block), &json!(false)));
    }
    drop(client);
    server.settle();
}

#[test]
fn a_cursor_in_the_middle_of_what_was_conflated_misses_nothing_newer() {
    let server = server(FOR_EVER);
    let mut client = slow(&server, &[subscribe("mine", json!({"conflate":"user"}))]);
    let of_block = |block: u64| long(block, if block == 150 { BOB } else { ALICE }, "BTC");
    append(&server, 0..200, of_block);
    is_behind(&server);

    // Bob's only one stands between those of Alice, and only her last one follows.
    let cursor = loop {
        let frame = client.json();
        if frame["block"] == 150 {
            break frame["cursor"].clone();
        }
    };
    assert_eq!(client.json()["block"], 199);

    let mut other = server.native();
    other.ask(&json!({"type":"subscribe","id":1,"topic":"fills","from":cursor}).to_string());
    assert!(read_to(&mut other, 199).0.into_iter().eq(151..=199));
}

#[test]
fn more_keys_than_are_kept_come_all_the_same_and_in_order() {
    let server = server(FOR_EVER);
    let mut client = slow(&server, &[subscribe("mine", json!({"conflate":"coin"}))]);
    // Far more bytes than are kept for one session; each coin has two.
    let of_block = |block: u64| long(block, ALICE, &format!("C{}", block % 100));
    append(&server, 0..200, of_block);
    is_behind(&server);

    let (mut blocks, mut most_waits) = (Vec::new(), 0);
    while blocks.last() != Some(&199) {
        blocks.extend(client.json()["block"].as_u64());
        most_waits = most_waits.max(server.stats.sessions.outbox_bytes.get());
    }

    assert!(blocks.is_sorted());
    assert!(most_waits < 1 << 20, "{most_waits}");
    for last in 100..200 {
        assert!(blocks.contains(&last), "{last} is the newest of its coin: {blocks:?}");
    }
    drop(client);
    server.settle();
}

#[test]
fn each_subscription_of_a_session_has_its_own_policy() {
    let server = server(FOR_EVER);
    let of = |id: &str, user: &str, policy: Value| json!({"type":"subscribe","id":id,"topic":"fills","users":[user],"policy":policy});
    let all = [
        of("all", ALICE, json!("disconnect")),
        of("skips", BOB, json!("skip")),
        json!({"type":"subscribe","id":"eth","topic":"fills","where":{"coin":"ETH"},"policy":{"conflate":"coin"}}),
    ];
    let mut client = slow(&server, &all);
    // Of ten: 0 to 4 are Alice's, of which 4 is ETH; 5 to 8 are Bob's; 9 is Bob's and ETH.
    let of_block = |block: u64| {
        let user = if block % 10 < 5 { ALICE } else { BOB };
        long(block, user, if block % 5 == 4 { "ETH" } else { "BTC" })
    };
    // The last one is Alice's: what is kept of ETH has to go before it.
    append(&server, 0..295, of_block);
    is_behind(&server);

    let (blocks, others) = read_to(&mut client, 294);

    assert!(blocks.is_sorted() && blocks.windows(2).all(|two| two[0] != two[1]), "{blocks:?}");
    let [gap] = &others[..] else { panic!("{others:?}") };
    assert_eq!((&gap["id"], seq(&gap["until"])), (&json!("skips"), 395));
    let missed_from = seq(&gap["cursor"]) - 100;
    for block in 0..295 {
        let came = blocks.contains(&block);
        match block % 10 {
            0..5 => assert!(came, "{block} is needed"),
            5..9 => assert_eq!(came, block < missed_from, "{block}, {missed_from}"),
            // Where one of Alice's follows, it has to go before; so the newest came there.
            _ => assert!(came || block >= missed_from, "{block}"),
        }
    }
    server.wait_until("it is live", |stats| stats.sessions.behind.get() == 0);
    for block in 295..305 {
        server.append(vec![of_block(block)]);
        assert_eq!(client.json()["block"], block);
    }
    drop(client);
    server.settle();
}

#[test]
fn what_was_asked_for_by_from_comes_whole_whatever_the_policy() {
    for policy in [json!("skip"), json!({"conflate":"coin"})] {
        let server = server(FOR_EVER);
        append(&server, 0..200, |block| long(block, ALICE, "BTC"));
        let mut client = server.connect_small("/v1/ws");
        assert_eq!(client.json()["type"], "hello");
        let mut subscribe = subscribe("mine", policy);
        subscribe["from"] = json!("oldest");
        client.say(&subscribe.to_string());
        server.wait_until("it waits", |stats| stats.sessions.outbox_bytes.get() > 0);
        // These come while it gets the past.
        append(&server, 200..220, |block| long(block, ALICE, "BTC"));

        let (blocks, others) = read_to(&mut client, 219);

        assert!(blocks.into_iter().eq(0..220));
        assert_eq!(others[0]["policy"], subscribe["policy"]);
        assert!(others.iter().all(|frame| frame["type"] != "gap"), "{others:?}");
    }
}

#[test]
fn a_policy_is_shown_where_it_is_not_the_usual_one_and_refused_where_it_is_none() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    for (id, policy) in [("a", json!("skip")), ("b", json!({"conflate":"user"}))] {
        assert_eq!(client.ask(&subscribe(id, policy.clone()).to_string())["policy"], policy);
    }
    let ack = client.ask(&subscribe("c", json!("disconnect")).to_string());
    assert_eq!(ack.get("policy"), None);
    let list = client.ask(r#"{"type":"list"}"#);
    let shown: Vec<_> =
        list["subscriptions"].as_array().unwrap().iter().map(|one| one.get("policy")).collect();
    assert_eq!(shown, [Some(&json!("skip")), Some(&json!({"conflate":"user"})), None]);

    for bad in [
        json!("drop"),
        json!({"conflate":"px"}),
        json!({"conflate":["coin"]}),
        json!(7),
        json!({"skip":"coin"}),
    ] {
        let error = client.ask(&subscribe("d", bad.clone()).to_string());
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!("invalid_policy")),
            "{bad}"
        );
        assert_eq!(error["id"], "d");
    }
}

#[test]
fn what_lingers_comes_by_itself_or_with_what_does_not() {
    let server = Server::start(|session| session.heartbeat_interval = Duration::from_secs(3_600));
    let mut client = server.native();
    for (id, user, linger_ms) in [("slow", ALICE, 1_000), ("quick", BOB, 0)] {
        let subscribe = json!({"type":"subscribe","id":id,"topic":"fills","users":[user],"linger_ms":linger_ms});
        let ack = client.ask(&subscribe.to_string());
        assert_eq!(ack.get("linger_ms"), (linger_ms > 0).then(|| json!(linger_ms)).as_ref());
    }
    let stats = &server.stats.sessions;
    let (queued, written) = (stats.frames_queued.get(), stats.writes.get());

    for block in 0..100 {
        server.append(vec![fill(block, ALICE, "BTC")]);
        server.wait_until("it is queued", |_| stats.frames_queued.get() > queued + block);
    }
    server.append(vec![fill(100, BOB, "BTC")]);
    assert!(read_to(&mut client, 100).0.into_iter().eq(0..=100));
    let writes = stats.writes.get() - written;
    assert!(writes < 50, "{writes} writes for 101 events");
    server.append(vec![fill(101, ALICE, "BTC")]);
    assert_eq!(client.json()["block"], 101, "nothing follows it");

    // An answer takes along what waits.
    let queued = stats.frames_queued.get();
    server.append(vec![fill(102, ALICE, "BTC")]);
    server.wait_until("it is queued", |_| stats.frames_queued.get() > queued);
    client.say(r#"{"type":"ping"}"#);
    assert_eq!(client.json()["block"], 102);
    assert_eq!(client.json()["type"], "pong");
    for bad in [json!(1_001), json!(-1), json!("50ms"), json!(0.5)] {
        let subscribe = json!({"type":"subscribe","id":"b","topic":"fills","linger_ms":bad});
        assert_eq!(client.ask(&subscribe.to_string())["code"], "invalid_linger", "{bad}");
    }
    drop(client);
    server.settle();
}
