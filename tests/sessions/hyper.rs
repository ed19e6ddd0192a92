//! The older protocol on `/ws`.

use std::time::Duration;

use crate::harness::*;

#[test]
fn a_subscriber_of_fills_gets_the_fills_of_all_users_byte_for_byte() {
    // H27, H29.
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    client.say(r#"{"action":"subscribe","event":"fill"}"#);
    client.sync();

    server.append(vec![fill(7, ALICE, "BTC"), misc(7, Some(ALICE)), fill(8, BOB, "ETH")]);

    let data = r#"{"coin":"BTC","px":"1.10","side":"B","dir":"Open Long"}"#;
    let expected = format!(r#"{{"user":"{ALICE}","event":"fill","block":7,"data":{data}}}"#);
    assert_eq!(client.text(), expected);
    let expected = expected.replace(ALICE, BOB).replace(":7,", ":8,").replace("BTC", "ETH");
    assert_eq!(client.text(), expected);
    // Nothing else was under way.
    client.sync();
}

#[test]
fn misc_events_show_inner_with_hash_and_time() {
    // H04, H29.
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    client.say(r#"{"action":"subscribe","event":"misc"}"#);
    client.sync();

    server.append(vec![misc(9, None)]);

    assert_eq!(
        client.text(),
        r#"{"user":null,"event":"misc","block":9,"data":{"CDeposit":{"amount":"10.0"},"hash":"0x4a","time":"2025-11-05T16:09:18.466557521"}}"#
    );
}

#[test]
fn unsubscribing_stops_one_event_and_leaves_the_other() {
    // H28.
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    client.say(r#"{"action":"subscribe","event":"fill"}"#);
    client.say(r#"{"action":"subscribe","event":"misc"}"#);
    client.say(r#"{"action":"unsubscribe","event":"fill"}"#);
    client.sync();

    server.append(vec![fill(1, ALICE, "BTC"), misc(2, Some(ALICE)), fill(3, ALICE, "BTC")]);

    assert_eq!(client.json()["block"], 2);
    client.sync();
}

#[test]
fn users_are_added_and_taken_back_one_by_one() {
    // H30, H25.
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    let upper = ALICE.to_uppercase().replace("0X", "0x");
    client.say(&format!(r#"{{"action":"subscribe","event":"fill","user":"{upper}"}}"#));
    client.sync();
    server.append(vec![fill(1, BOB, "BTC"), fill(2, ALICE, "BTC")]);
    assert_eq!(client.json()["block"], 2);

    client.say(&format!(r#"{{"action":"subscribe","event":"fill","users":["{BOB}"]}}"#));
    client.sync();
    server.append(vec![fill(3, BOB, "BTC"), fill(4, ALICE, "BTC")]);
    assert_eq!(client.json()["block"], 3);
    assert_eq!(client.json()["block"], 4);

    client.say(&format!(r#"{{"action":"unsubscribe","event":"fill","user":"{ALICE}"}}"#));
    client.sync();
    server.append(vec![fill(5, ALICE, "BTC"), fill(6, BOB, "BTC")]);
    assert_eq!(client.json()["block"], 6);
    client.sync();
}

#[test]
fn who_asked_for_everybody_and_for_one_user_gets_an_event_once() {
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    client.say(r#"{"action":"subscribe","event":"fill"}"#);
    client.say(&format!(r#"{{"action":"subscribe","event":"fill","user":"{ALICE}"}}"#));
    client.say(r#"{"action":"subscribe","event":"fill"}"#);
    client.sync();

    server.append(vec![fill(1, ALICE, "BTC"), fill(2, BOB, "BTC")]);

    assert_eq!(client.json()["block"], 1);
    assert_eq!(client.json()["block"], 2);
    client.sync();
}

/// Both fields are ours: to the older service such a request is one without users.
#[test]
fn no_user_and_an_empty_list_of_users_ask_for_everybody_as_leaving_them_out_does() {
    let server = Server::start(|_| {});
    for nobody in
        [r#""users":[]"#, r#""users":null"#, r#""user":null"#, r#""user":null,"users":[]"#]
    {
        let mut client = server.connect("/ws");
        client.say(&format!(r#"{{"action":"subscribe","event":"fill",{nobody}}}"#));
        client.say(r#"{"action":"subscribe","event":"misc"}"#);
        client.sync();
        server.append(vec![fill(1, ALICE, "BTC"), fill(2, BOB, "BTC")]);
        assert_eq!(client.json()["block"], 1, "{nobody}");
        assert_eq!(client.json()["block"], 2, "{nobody}");

        client.say(&format!(r#"{{"action":"unsubscribe","event":"fill",{nobody}}}"#));
        client.sync();
        server.append(vec![fill(3, ALICE, "BTC"), misc(4, Some(ALICE))]);
        assert_eq!(client.json()["block"], 4, "{nobody}");
    }
}

#[test]
fn mistakes_are_answered_and_the_connection_stays() {
    // H31.
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");

    for mistake in [
        "not json",
        r#"{"action":"dance","event":"fill"}"#,
        r#"{"action":"subscribe","event":"fills"}"#,
        r#"{"action":"subscribe"}"#,
        r#"{"action":"subscribe","event":"fill","user":"0x12"}"#,
        r#"["subscribe","fill",null,null]"#,
        r#""subscribe""#,
        "null",
        r#"{"action":{"subscribe":null},"event":"fill"}"#,
        r#"{"action":["subscribe"],"event":"fill"}"#,
        r#"{"action":"subscribe","event":"fill","users":"0x12"}"#,
    ] {
        let reply = client.ask(mistake);
        let reply = reply.as_object().unwrap();
        assert_eq!(reply.len(), 1);
        let error = reply["error"].as_str().unwrap();
        assert!(!error.is_empty(), "{mistake}");
        if mistake.starts_with('[') {
            assert_eq!(error, "a JSON object is expected", "{mistake}");
        }
        // Names of our own types are no help to anybody.
        assert!(!error.contains("struct") && !error.contains("variant"), "{mistake}: {error}");
    }

    client.say(r#"{"action":"subscribe","event":"fill"}"#);
    client.sync();
    server.append(vec![fill(1, ALICE, "BTC")]);
    assert_eq!(client.json()["block"], 1);
}

#[test]
fn without_replies_mistakes_are_passed_over_in_silence() {
    // H31.
    let server = Server::start(|session| session.replies = false);
    let mut client = server.connect("/ws");

    client.say("not json");
    client.say(r#"{"action":"subscribe","event":"fill"}"#);
    client.sync();

    server.append(vec![fill(1, ALICE, "BTC")]);
    assert_eq!(client.json()["block"], 1);
    assert_eq!(server.stats.sessions.bad_frames.get(), 1);
}

#[test]
fn what_a_full_session_is_refused_is_counted() {
    let server = Server::start(|session| session.max_subscriptions = 1);
    let mut client = server.connect("/ws");

    client.say(r#"{"action":"subscribe","event":"fill"}"#);
    client.say(r#"{"action":"subscribe","event":"misc"}"#);
    let refused = client.json();

    assert_eq!(refused["error"], "a session may have at most 1 subscriptions");
    assert_eq!(server.stats.sessions.refused_subscriptions.get(), 1);
    assert_eq!(server.stats.sessions.refused_users.get(), 0);
}

#[test]
fn at_shutdown_clients_are_told_so_with_code_1000() {
    // H32.
    let server = Server::start(|_| {});
    let mut clients: Vec<_> = (0..5).map(|_| server.connect("/ws")).collect();
    for client in &mut clients {
        client.say(r#"{"action":"subscribe","event":"fill"}"#);
        client.sync();
    }

    let left = std::thread::scope(|scope| {
        let closing = scope.spawn(|| server.close_all(PATIENCE));
        for client in &mut clients {
            assert_eq!(client.closed(), (1000, "server shutting down".to_owned(), 0));
            // The answer to the close frame; its write may fail when the server was faster.
            drop(client.socket.flush());
        }
        drop(clients);
        closing.join().unwrap()
    });

    assert_eq!(left, 0);
    server.settle();
}

#[test]
fn shutdown_does_not_wait_for_a_stalled_client_beyond_its_deadline() {
    let server = Server::start(|_| {});
    let stalled = server.connect("/ws");

    let left = server.close_all(Duration::from_millis(50));

    assert_eq!(left, 1);
    // Nor does the server: sessions are no requests under way.
    let took = server.stop();
    assert!(took < Duration::from_secs(4), "{took:?}");
    drop(stalled);
}
