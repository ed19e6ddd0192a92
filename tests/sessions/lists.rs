//! Several requests in one message of the native protocol.

use serde_json::{Value, json};

use crate::harness::*;

/// Subscribes to all of a topic.
fn all_of(topic: &str, from: &str) -> Value {
    json!({"type":"subscribe","id":topic,"topic":topic,"from":from})
}

/// What a list is answered with, and whom it is for: one answer for each request.
fn answers(client: &mut Client, list: &Value) -> Vec<(String, Value)> {
    client.say(&list.to_string());
    let requests = list.as_array().unwrap().iter();
    requests
        .map(|_| {
            let mut answer = client.json();
            let what = match answer["type"].as_str().unwrap() {
                "error" => answer["code"].as_str().unwrap().to_owned(),
                kind => kind.to_owned(),
            };
            (what, answer["id"].take())
        })
        .collect()
}

/// The `seq`s of events of everybody up to `live`, and the cursor of each.
fn stream(client: &mut Client) -> Vec<(u64, String)> {
    let mut events = Vec::new();
    loop {
        let frame = client.json();
        match frame["type"].as_str().unwrap() {
            "event" => events.push((
                frame["seq"].as_u64().unwrap(),
                frame["cursor"].as_str().unwrap().to_owned(),
            )),
            "live" => return events,
            _ => panic!("{frame} between events"),
        }
    }
}

/// Fills and misc events in turn, the first half of them in the store only; `seq` 101 to 140.
fn with_both_topics() -> Server {
    let server = Server::start_with_log(0, |_| {});
    for block in 1..=20 {
        server.append_unseen(vec![fill(block, ALICE, "BTC"), misc(block, Some(ALICE))], vec![]);
        if block == 10 {
            server.commit();
        }
    }
    server
}

#[test]
fn who_resumes_by_one_list_may_be_cut_anywhere_and_its_newest_cursor_holds_for_all() {
    let server = with_both_topics();
    let mut cursor = "1.e.f.64".to_owned();
    let mut seen = Vec::new();
    while seen.last() != Some(&140) {
        let mut client = server.native();
        let list = json!([all_of("fills", &cursor), all_of("misc", &cursor)]);

        let acks = answers(&mut client, &list);

        let ack = |topic: &str| ("ack".to_owned(), json!(topic));
        assert_eq!(acks, [ack("fills"), ack("misc")], "before anything else");
        // The connection is lost after three events, however many have come.
        for _ in 0..3 {
            let event = client.json();
            if event["type"] == "live" {
                break;
            }
            seen.push(event["seq"].as_u64().unwrap());
            cursor = event["cursor"].as_str().unwrap().to_owned();
        }
    }
    assert!(seen.iter().copied().eq(101..=140), "{seen:?}");
}

#[test]
fn subscriptions_of_one_list_begin_each_at_its_place_in_one_order() {
    let server = with_both_topics();
    let mut client = server.native();
    let now = json!({"type":"subscribe","id":"now","topic":"misc","users":[BOB]});
    // The later one first: 135 is a fill, 112 a misc event.
    let list = json!([all_of("fills", "1.e.f.86"), now, all_of("misc", "1.e.f.6f")]);

    let acks = answers(&mut client, &list);

    assert!(acks.iter().all(|(what, _)| what == "ack"), "{acks:?}");
    let seqs: Vec<_> = stream(&mut client).into_iter().map(|(seq, _)| seq).collect();
    let wanted = (112..=140).filter(|seq| seq % 2 == 0 || *seq >= 135);
    assert!(wanted.eq(seqs.iter().copied()), "{seqs:?}");
    server.append(vec![misc(21, Some(BOB))]);
    assert_eq!(client.json()["seq"], 141);
}

#[test]
fn a_list_is_done_in_order_and_a_mistake_in_it_harms_no_other_request() {
    let server = with_both_topics();
    let mut client = server.native();
    client.ask(r#"{"type":"subscribe","id":"old","topic":"misc","users":["0x1111111111111111111111111111111111111111"]}"#);
    let list = json!([
        {"type":"ping","id":1},
        all_of("fills", "1.e.f.8a"),
        all_of("fills", "oldest"),
        [{"type":"ping","id":2}],
        "ping",
        {"type":"subscribe","id":"b","topic":"fill"},
        {"type":"subscribe","id":"c","topic":"fills","from":"yesterday"},
        {"type":"dance","id":3},
        {"type":"unsubscribe","id":"old"},
        {"type":"subscribe","id":"gone","topic":"misc","from":"oldest"},
        {"type":"unsubscribe","id":"gone"},
        {"type":"unsubscribe","id":"gone"},
        {"type":"list","id":4},
        {"type":"ping"},
    ]);

    let heard = answers(&mut client, &list);

    let said: Vec<_> = heard.iter().map(|(what, id)| format!("{what} {id}")).collect();
    assert_eq!(
        said,
        [
            "pong 1",
            r#"ack "fills""#,
            r#"duplicate_id "fills""#,
            "invalid_frame null",
            "invalid_frame null",
            r#"unknown_topic "b""#,
            r#"invalid_from "c""#,
            "unknown_type 3",
            r#"ack "old""#,
            r#"ack "gone""#,
            r#"ack "gone""#,
            r#"unknown_id "gone""#,
            "subscriptions 4",
            "pong null",
        ]
    );
    let seqs: Vec<_> = stream(&mut client).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seqs, [139], "the fill behind the cursor, and nothing of what is gone");
    assert_eq!(server.stats.sessions.bad_frames.get(), 7);
    assert_eq!(server.stats.sessions.subscriptions.get(), 1);
    server.append(vec![misc(21, Some(ALICE)), fill(21, ALICE, "BTC")]);
    assert_eq!(client.json()["seq"], 142);

    // It goes back for nobody.
    let nothing =
        json!([all_of("misc", "oldest"), {"type":"unsubscribe","id":"misc"}, {"type":"ping"}]);
    assert_eq!(answers(&mut client, &nothing).last().unwrap().0, "pong");
    server.append(vec![fill(22, ALICE, "BTC")]);
    let event = client.json();
    assert_eq!((&event["seq"], &event["replayed"]), (&json!(143), &json!(false)));
    drop(client);
    server.settle();
}

#[test]
fn what_comes_while_places_are_looked_for_waits_for_the_answers() {
    let server = with_both_topics();
    for _ in 0..20 {
        let mut client = server.native();
        let now = json!({"type":"subscribe","id":"now","topic":"fills"});
        let past = json!({"type":"subscribe","id":"past","topic":"misc","from":{"last":1}});
        client.say(&json!([now, past]).to_string());
        server.append(vec![fill(30, ALICE, "BTC")]);

        assert_eq!([client.json()["id"].take(), client.json()["id"].take()], ["now", "past"]);
        // Live or from the past, by when it came: all of it is in order.
        let mut last = 0;
        server.append(vec![fill(31, ALICE, "BTC")]);
        while last != 31 {
            let frame = client.json();
            assert_ne!(frame["type"], "ack", "{frame}");
            if frame["topic"] == "fills" {
                assert!(frame["block"].as_u64().unwrap() > last, "{frame}");
                last = frame["block"].as_u64().unwrap();
            }
        }
    }
}

#[test]
fn an_empty_list_one_that_is_too_long_and_two_long_answers_are_refused_whole() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    let subscribe = |id: usize| json!({"type":"subscribe","id":id,"topic":"fills"});
    let list = json!({"type":"list"});
    for (refused, code) in [
        (json!([]).to_string(), "invalid_list"),
        (json!((0..101).map(subscribe).collect::<Vec<_>>()).to_string(), "invalid_list"),
        (json!([subscribe(1), list, list]).to_string(), "invalid_list"),
        (format!("[{},", subscribe(1)), "invalid_json"),
        (format!("[{}] 1", subscribe(1)), "invalid_json"),
    ] {
        let error = client.ask(&refused);
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{error}");
        assert_eq!(error.get("id"), None);
    }
    assert_eq!(client.ask(r#"{"type":"list"}"#)["subscriptions"], json!([]));

    let most = json!((0..100).map(subscribe).collect::<Vec<_>>());
    assert!(answers(&mut client, &most).iter().all(|(what, _)| what == "ack"));
    assert_eq!(server.stats.sessions.subscriptions.get(), 100);
}

#[test]
fn each_request_of_a_list_counts_as_a_message() {
    // M34
    let server = Server::start(|session| session.max_messages_per_minute = 5);
    let ping = json!({"type":"ping"});
    let mut client = server.native();
    assert_eq!(answers(&mut client, &json!([ping, ping, ping, ping])).len(), 4);

    client.say(&json!([all_of("fills", "now"), all_of("misc", "oldest")]).to_string());

    assert_eq!(client.json()["type"], "bye");
    assert_eq!(client.closed().0, 4011);
    drop(client);
    server.settle();
}

#[test]
fn who_goes_away_while_places_are_looked_for_leaves_nothing_behind() {
    let server = with_both_topics();
    for _ in 0..20 {
        let mut client = server.native();
        let list: Vec<_> = (0..50)
            .map(|id| json!({"type":"subscribe","id":id,"topic":"fills","from":{"last":5}}))
            .collect();
        client.say(&json!(list).to_string());
        drop(client);
    }
    server.settle();
    assert_eq!(server.stats.sessions.behind.get(), 0);
}
