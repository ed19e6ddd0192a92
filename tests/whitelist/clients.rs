//! The daemon adds users for clients of the official protocol whom a trusted proxy names.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::{client::IntoClientRequest, http::HeaderValue, stream::MaybeTlsStream};

use crate::{
    Sources,
    common::{
        Client, PATIENCE, TestDaemon, eventually,
        node::{ALICE, BOB, Kind, append, fill, line},
        receive,
        redis::{shared, user, users},
        send,
    },
};

const DAY: u32 = 20_260_315;

const RULES: &str = "[official]\nunlisted = \"add\"\nmay_add = [\"ann@example.org\"]\n\
    [http]\ntrusted_proxies = [\"127.0.0.1\"]\nidentity_header = \"x-forwarded-user\"\n";

/// A client on `/ws` of whom the proxy says who he is.
fn connect_as(daemon: &TestDaemon, identity: &'static str) -> Client {
    let url = format!("ws://127.0.0.1:{}/ws", daemon.port);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-user", HeaderValue::from_static(identity));
    let (client, _) = tungstenite::connect(request).unwrap();
    if let MaybeTlsStream::Plain(stream) = client.get_ref() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    client
}

/// Subscribes to a user's fills, and gives the answer.
fn subscribe(client: &mut Client, user: &str) -> Value {
    let subscription = json!({"type": "userFills", "user": user});
    send(client, &json!({"method": "subscribe", "subscription": subscription}));
    receive(client)
}

/// The `tid`s of the next frame of fills, and whether it is a snapshot.
fn fills(client: &mut Client) -> (Vec<u64>, bool) {
    loop {
        let frame = receive(client);
        if frame["channel"] == "userFills" {
            let tids = frame["data"]["fills"].as_array().unwrap().iter();
            let tids = tids.map(|fill| fill["tid"].as_u64().unwrap()).collect();
            return (tids, frame["data"]["isSnapshot"] == true);
        }
    }
}

/// The answer of `POST /info` to who asks for a user's fills.
fn info(daemon: &TestDaemon, user: &str) -> (u16, Value) {
    let url = format!("http://127.0.0.1:{}/info", daemon.port);
    let request = ureq::post(&url).config().http_status_as_error(false);
    let mut response = request
        .timeout_global(Some(PATIENCE))
        .build()
        .send_json(json!({"type": "userFills", "user": user}))
        .unwrap();
    (response.status().as_u16(), response.body_mut().read_json().unwrap())
}

fn tids(history: &Value) -> Vec<u64> {
    history.as_array().unwrap().iter().map(|fill| fill["tid"].as_u64().unwrap()).collect()
}

#[test]
fn who_may_add_users_gets_their_fills_live_and_the_older_ones_are_back_filled() {
    let sources = Sources::new(&[ALICE.to_owned()], RULES);
    let mut file = Kind::fills(sources.setup.node()).open(DAY, 9);
    append(&mut file, &(line(1, &json!([fill(BOB, "BTC", 10), fill(ALICE, "BTC", 20)])) + "\n"));
    let daemon = sources.setup.start();
    eventually("hers is kept", || info(&daemon, ALICE).1 != json!([]));
    assert_eq!(info(&daemon, BOB).0, 404, "his was dropped");

    let mut eve = connect_as(&daemon, "eve@example.org");
    let refused = subscribe(&mut eve, BOB);
    let text = refused["data"].as_str().unwrap();
    assert!(text.contains(&format!("user {BOB} is not on the whitelist")), "{refused}");
    assert!(text.contains("none of those who may add users"), "{refused}");
    assert_eq!(fs::read_to_string(sources.file()).unwrap(), format!("{ALICE}\n"));

    let mut ann = connect_as(&daemon, "ann@example.org");
    let answer = subscribe(&mut ann, BOB);
    assert_eq!(answer["channel"], "subscriptionResponse", "{answer}");
    // The answer is true: whatever is written from here on is kept.
    append(&mut file, &(line(2, &json!([fill(BOB, "ETH", 11)])) + "\n"));
    assert!(fills(&mut ann).1, "the snapshot");
    assert_eq!(fills(&mut ann), (vec![11], false));
    eventually("the older one is back-filled", || tids(&info(&daemon, BOB).1) == [11, 10]);

    assert_eq!(fs::read_to_string(sources.file()).unwrap(), format!("{ALICE}\n{BOB}\n"));
    // Who comes later has both, and needs no right.
    let answer = subscribe(&mut eve, BOB);
    assert_eq!(answer["channel"], "subscriptionResponse", "{answer}");
    assert_eq!(fills(&mut eve), (vec![11, 10], true));
    eventually("the operator sees who did it", || {
        let log = daemon.log();
        let mut lines = log.lines();
        lines.any(|line| {
            line.contains("users added to the whitelist by a client")
                && line.contains("ann@example.org at 127.0.0.1")
                && line.contains(BOB)
        })
    });
}

#[test]
fn a_user_who_is_added_to_redis_is_followed_at_once_however_rarely_it_is_looked_at() {
    for (key, kind) in [("added-by-client", "ZADD"), ("added-by-client-plain", "SADD")] {
        let (url, mut redis) = shared();
        redis.ask(&["DEL", key]);
        match kind {
            "ZADD" => redis.list(key, &users(1..11, 1_773_532_800)),
            _ => redis.run(&["SADD", key, &user(1), &user(2)]),
        }
        let mut sources = Sources::new(&[], "");
        sources.setup.config = format!(
            "[whitelist]\nredis_url = {url:?}\nredis_key = {key:?}\nrefresh_interval = \"1h\"\n{RULES}"
        );
        let mut file = Kind::fills(sources.setup.node()).open(DAY, 9);
        let daemon = sources.setup.start();

        let mut ann = connect_as(&daemon, "ann@example.org");
        let answer = subscribe(&mut ann, BOB);
        assert_eq!(answer["channel"], "subscriptionResponse", "{answer}");
        append(&mut file, &(line(2, &json!([fill(BOB, "ETH", 11)])) + "\n"));
        assert!(fills(&mut ann).1, "the snapshot");
        assert_eq!(fills(&mut ann), (vec![11], false));

        let is_member = match kind {
            "ZADD" => redis.text(&["ZSCORE", key, BOB]).is_some(),
            _ => redis.ask(&["SISMEMBER", key, BOB]) == ":1",
        };
        assert!(is_member, "{key}");
        eventually("it is logged", || daemon.log().contains("users added to the whitelist"));
    }
}

#[test]
fn users_that_many_clients_add_at_once_are_all_followed_though_looks_are_under_way() {
    let (url, mut redis) = shared();
    redis.ask(&["DEL", "added-at-once"]);
    // A plain one is read as a whole by each look, which takes longer than an addition.
    let members: Vec<_> = (1..20_001).map(user).collect();
    let words = ["SADD", "added-at-once"].into_iter().chain(members.iter().map(String::as_str));
    redis.run(&words.collect::<Vec<_>>());
    let mut sources = Sources::new(&[], "");
    sources.setup.config = format!(
        "[whitelist]\nredis_url = {url:?}\nredis_key = \"added-at-once\"\nrefresh_interval = \"1h\"\n\
         {RULES}"
    );
    let daemon = sources.setup.start();

    let mut clients: Vec<_> =
        (0..10).map(|_| connect_as(&daemon, "ann@example.org")).zip(30_000..).collect();
    for (client, ordinal) in &mut clients {
        let subscription = json!({"type": "userEvents", "user": user(*ordinal)});
        send(client, &json!({"method": "subscribe", "subscription": subscription}));
    }

    for (client, ordinal) in &mut clients {
        let answer = receive(client);
        assert_eq!(answer["channel"], "subscriptionResponse", "{ordinal}: {answer}");
    }
    assert_eq!(daemon.status()["whitelist"]["addresses"], 20_010);
}

#[test]
fn where_everybody_is_listed_there_is_nobody_to_add() {
    let mut sources = Sources::new(&[], "");
    sources.setup.config = RULES.to_owned();
    sources.setup.whitelist = "all".to_owned();
    let daemon = sources.setup.start();

    let answer = subscribe(&mut connect_as(&daemon, "eve@example.org"), BOB);

    assert_eq!(answer["channel"], "subscriptionResponse", "{answer}");
    assert_eq!(info(&daemon, BOB), (200, json!([])));
}

#[test]
fn a_list_that_is_away_is_not_made_anew_for_a_client_and_a_reload_keeps_who_was_listed() {
    let sources = Sources::new(&[ALICE.to_owned()], RULES);
    let daemon = sources.setup.start();
    let moved = sources.file().with_extension("moved");
    fs::rename(sources.file(), &moved).unwrap();

    let mut ann = connect_as(&daemon, "ann@example.org");
    let refused = subscribe(&mut ann, BOB);
    let text = refused["data"].as_str().unwrap();
    assert!(text.starts_with("Not subscribed, the whitelist of this daemon "), "{refused}");
    assert!(!sources.file().exists());
    daemon.signal(Signal::HUP);
    eventually("it is reloaded", || !daemon.status()["reload"].is_null());
    let answer = subscribe(&mut connect_as(&daemon, "eve@example.org"), ALICE);
    assert_eq!(answer["channel"], "subscriptionResponse", "{answer}");

    fs::rename(&moved, sources.file()).unwrap();
    let mut answer = Value::Null;
    eventually("the list is there again", || {
        answer = subscribe(&mut ann, BOB);
        answer["channel"] == "subscriptionResponse"
    });
    assert_eq!(fs::read_to_string(sources.file()).unwrap(), format!("{ALICE}\n{BOB}\n"));
}
