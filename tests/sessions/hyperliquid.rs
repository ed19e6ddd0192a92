//! The official protocol on `/ws`.

use std::{iter, time::Duration};

use nodecast::event::{Event, Timestamp};
use serde_json::{Value, json};

use crate::harness::*;

/// A fill as nodes write it.
fn traded(block: u64, index: u32, user: &str, coin: &str, rest: &str) -> Event {
    let body = format!(
        r#"{{"coin":"{coin}","px":"3.9457","sz":"3.9","side":"B","time":1773532799991,"startPosition":"0.0","dir":"Open Long","closedPnl":"0.0","hash":"0xe9ce","oid":349162667230,"crossed":true,"fee":"0.00","tid":868180814349127,"feeToken":"USDC",{rest}"twapId":null}}"#
    );
    event(FILLS, block, index, Some(user), &body)
}

fn of_twap(event: &Event, twap: u64) -> Event {
    let body = body(event).replace("\"twapId\":null", &format!("\"twapId\":{twap}"));
    let id = event.id;
    crate::harness::event(FILLS, id.position, id.index, Some(ALICE), &body)
}

fn body(event: &Event) -> String {
    String::from_utf8(event.body.to_vec()).unwrap()
}

fn inner(block: u64, user: &str, inner: &str) -> Event {
    let body = format!(r#"{{"time":"2026-03-15T00:00:00","hash":"0x5a44","inner":{inner}}}"#);
    event(MISC, block, 0, Some(user), &body)
}

fn funding(block: u64, user: &str) -> Event {
    let delta = |coin, amount| {
        format!(
            r#"{{"user":"{user}","coin":"{coin}","funding_amount":"{amount}","szi":"280.0","funding_rate":"0.0000125"}}"#
        )
    };
    let deltas = [delta("ZEC", "9.330246"), delta("BTC", "-1.10")].join(",");
    inner(block, user, &format!(r#"{{"Funding":{{"deltas":[{deltas}]}}}}"#))
}

fn ledger(block: u64, user: &str, delta: &str) -> Event {
    inner(block, user, &format!(r#"{{"LedgerUpdate":{{"users":["{user}"],"delta":{delta}}}}}"#))
}

fn subscription(kind: &str, rest: &str) -> String {
    format!(r#"{{"type":"{kind}",{rest}}}"#)
}

fn of_alice(kind: &str) -> String {
    subscription(kind, &format!(r#""user":"{ALICE}""#))
}

impl Client {
    /// Subscribes, and reads the acknowledgement.
    fn subscribe(&mut self, subscription: &str) {
        self.say(&format!(r#"{{"method":"subscribe","subscription":{subscription}}}"#));
        let expected = format!(
            r#"{{"channel":"subscriptionResponse","data":{{"method":"subscribe","subscription":{subscription}}}}}"#
        );
        assert_eq!(self.text(), expected, "the client's object, complete");
    }

    fn unsubscribe(&mut self, subscription: &str) {
        self.say(&format!(r#"{{"method":"unsubscribe","subscription":{subscription}}}"#));
        let answer = iter::repeat_with(|| self.json()).find(|frame| frame["channel"] != "status");
        assert_eq!(answer.unwrap()["data"]["method"], "unsubscribe");
    }

    /// What the next frame says, which is of this channel.
    fn frame_of(&mut self, channel: &str) -> Value {
        let frame = self.json();
        assert_eq!(frame["channel"], channel, "{frame}");
        frame["data"].clone()
    }

    fn says(&mut self, text: &str) -> Value {
        self.say(text);
        self.json()
    }
}

#[test]
fn a_snapshot_comes_first_and_what_follows_neither_repeats_nor_lacks_anything() {
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    let stored = [
        traded(1, 0, ALICE, "BTC", ""),
        traded(1, 1, BOB, "BTC", ""),
        traded(2, 0, ALICE, "ETH", ""),
    ];
    server.append(stored.to_vec());
    server.commit();
    // Cast, and not stored yet.
    let cast = traded(3, 0, ALICE, "SOL", r#""new":1.50,"#);
    server.append(vec![cast.clone(), traded(3, 1, BOB, "SOL", "")]);

    let upper = ALICE.to_uppercase().replace("0X", "0x");
    client.subscribe(&subscription("userFills", &format!(r#""user":"{upper}","x":[1.0]"#)));
    let snapshot = client.text();
    let live = traded(4, 0, ALICE, "BTC", "");
    server.append(vec![traded(4, 1, BOB, "BTC", ""), live.clone()]);

    let fills = [&cast, &stored[2], &stored[0]].map(body).join(",");
    let expected = format!(
        r#"{{"channel":"userFills","data":{{"isSnapshot":true,"user":"{ALICE}","fills":[{fills}],"seq":"#
    );
    assert_eq!(
        snapshot[..expected.len()],
        expected,
        "newest first, byte for byte, a lower-case user"
    );
    let expected = format!(
        r#"{{"channel":"userFills","data":{{"user":"{ALICE}","fills":[{}],"block":4,"index":0,"seq":"#,
        body(&live)
    );
    let text = client.text();
    assert_eq!(text[..expected.len()], expected);
    assert!(serde_json::from_str::<Value>(&text).unwrap()["data"]["cursor"].is_string());
    client.sync();
}

#[test]
fn each_kind_of_subscription_has_its_channel_and_its_form() {
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    for kind in ["userFundings", "userNonFundingLedgerUpdates", "userTwapSliceFills"] {
        client.subscribe(&of_alice(kind));
        let snapshot = client.frame_of(kind);
        assert_eq!((&snapshot["isSnapshot"], &snapshot["user"]), (&json!(true), &json!(ALICE)));
    }
    client.subscribe(&of_alice("userEvents"));
    let deposit = r#"{"type":"deposit", "usdc":"10.50"}"#;
    let liquidation = r#"{"type":"liquidation","accountValue":"12.5","leverageType":"Cross","liquidatedNtlPos":"1500.0","liquidatedPositions":[]}"#;
    let fill = traded(1, 0, ALICE, "BTC", "");
    let slice = of_twap(&traded(2, 0, ALICE, "BTC", ""), 77);

    server.append(vec![
        fill.clone(),
        slice.clone(),
        funding(3, ALICE),
        ledger(4, ALICE, deposit),
        ledger(5, ALICE, liquidation),
        inner(6, ALICE, r#"{"CDeposit":{"amount":"1.0"}}"#),
        funding(7, BOB),
    ]);

    let text = |value: &Value, list: &str| value[list].to_string();
    let fills = client.frame_of("user");
    assert_eq!(fills["fills"], json!([serde_json::from_str::<Value>(&body(&fill)).unwrap()]));
    // One event in several forms, to one session.
    let slices = client.frame_of("user");
    assert_eq!(slices["fills"].as_array().unwrap().len(), 1);
    let slices = client.frame_of("userTwapSliceFills");
    assert_eq!(slices["twapSliceFills"][0]["twapId"], 77);
    assert_eq!(
        slices["twapSliceFills"][0]["fill"],
        serde_json::from_str::<Value>(&body(&slice)).unwrap()
    );
    let time = 1_773_532_800_000u64;
    let zec = json!({"time":time,"coin":"ZEC","usdc":"9.330246","szi":"280.0","fundingRate":"0.0000125","nSamples":null});
    let btc = json!({"time":time,"coin":"BTC","usdc":"-1.10","szi":"280.0","fundingRate":"0.0000125","nSamples":null});
    assert_eq!(client.frame_of("user")["funding"], zec, "one a frame");
    assert_eq!(client.frame_of("user")["funding"], btc);
    assert_eq!(client.frame_of("userFundings")["fundings"], json!([zec, btc]));
    let update = client.frame_of("userNonFundingLedgerUpdates");
    let expected = json!([{"time":time,"hash":"0x5a44","delta":serde_json::from_str::<Value>(deposit).unwrap()}]);
    assert_eq!(text(&update, "nonFundingLedgerUpdates"), expected.to_string());
    let event = client.frame_of("user");
    assert_eq!(event["liquidation"]["liquidated_user"], ALICE);
    assert_eq!(event["liquidation"]["liquidated_ntl_pos"], "1500.0");
    assert_eq!(event["liquidation"]["liquidated_account_value"], "12.5");
    assert!(event["liquidation"]["lid"].is_u64());
    let update = client.frame_of("userNonFundingLedgerUpdates");
    assert_eq!(update["nonFundingLedgerUpdates"][0]["delta"]["type"], "liquidation");
    client.sync();
}

#[test]
fn what_is_asked_for_twice_or_not_at_all_is_answered_as_by_the_official_service() {
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    let fills = of_alice("userFills");
    let fault = |text: &str| json!({"channel":"error","data":text});
    client.subscribe(&fills);
    assert_eq!(client.frame_of("userFills")["isSnapshot"], true);

    let again = client.says(&format!(r#"{{"method":"subscribe","subscription":{fills}}}"#));
    assert_eq!(again, fault(&format!("Already subscribed: {fills}")));
    client.unsubscribe(&fills);
    let again = client.says(&format!(r#"{{"method":"unsubscribe","subscription":{fills}}}"#));
    assert_eq!(again, fault(&format!("Already unsubscribed: {fills}")));
    server.append(vec![traded(1, 0, ALICE, "BTC", "")]);
    client.sync();

    for unknown in [
        of_alice("userNonsense"),
        r#"{"type":"userFills","user":"0x12"}"#.to_owned(),
        r#"{"type":"userFills"}"#.to_owned(),
        r#"{"type":"userFills","users":[]}"#.to_owned(),
        r#"{"type":"trades"}"#.to_owned(),
        r#"{"type":1}"#.to_owned(),
    ] {
        let answer = client.says(&format!(r#"{{"method":"subscribe","subscription":{unknown}}}"#));
        assert_eq!(answer, fault(&format!("Invalid subscription {unknown}")));
    }
    for nonsense in [
        r#"{"method":"subscribe"}"#,
        r#"{"method":"sing","x":"\""}"#,
        r#"{"method":"post","id":"x","request":{"type":"info","payload":{}}}"#,
        "no json",
        r#"["method"]"#,
        r#"{"action":"subscribe","event":"fill"}"#,
    ] {
        let text = format!("Error parsing JSON into valid websocket request: {nonsense}");
        assert_eq!(client.says(nonsense), fault(&text));
    }
    assert_eq!(client.says(r#"{"method":"ping"}"#), json!({"channel":"pong"}));
    assert_eq!(server.stats.sessions.bad_frames.get(), 14);
}

#[test]
fn the_first_message_of_a_protocol_decides_which_one_is_spoken() {
    let server = Server::start(|_| {});
    let (mut official, mut older) = (server.connect("/ws"), server.connect("/ws"));

    for client in [&mut official, &mut older] {
        for neither in ["no json", "[]", "{}", r#"{"method":null}"#, r#"{"type":"ping"}"#] {
            assert!(client.says(neither)["error"].is_string(), "{neither}");
        }
    }
    assert_eq!(official.says(r#" {"x":1,"method":"ping"}"#), json!({"channel":"pong"}));
    older.say(r#"{"action":"subscribe","event":"fill"}"#);
    older.sync();
    server.append(vec![fill(1, ALICE, "BTC")]);
    assert_eq!(older.json()["event"], "fill");
    assert!(older.says(r#"{"method":"ping"}"#)["error"].is_string());
}

#[test]
fn trades_are_told_once_each_and_of_one_coin() {
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    client.subscribe(&subscription("trades", r#""coin":"BTC""#));
    let tid = |event: Event, user: &str, tid: u32, taker: bool| {
        let body = body(&event).replace("868180814349127", &tid.to_string());
        let body = match taker {
            true => body,
            false => body
                .replace("\"side\":\"B\"", "\"side\":\"A\"")
                .replace("\"crossed\":true", "\"crossed\":false"),
        };
        crate::harness::event(FILLS, event.id.position, event.id.index, Some(user), &body)
    };
    let fill = |index, coin| traded(5, index, ALICE, coin, "");
    server.append(vec![
        tid(fill(0, "BTC"), ALICE, 11, true),
        tid(fill(1, "BTC"), BOB, 11, false),
        // Seller first, and not side by side.
        tid(fill(2, "BTC"), BOB, 12, false),
        tid(fill(3, "BTC"), BOB, 13, false),
        tid(fill(4, "BTC"), ALICE, 13, true),
        tid(fill(5, "BTC"), ALICE, 12, true),
        tid(fill(6, "ETH"), ALICE, 14, true),
        tid(fill(7, "ETH"), BOB, 14, false),
        // Its other side is in another block: the same number by chance.
        tid(fill(8, "BTC"), ALICE, 15, true),
        tid(traded(6, 0, BOB, "BTC", ""), BOB, 15, false),
    ]);
    server.append(vec![
        tid(traded(7, 0, BOB, "BTC", ""), BOB, 16, false),
        tid(traded(7, 1, ALICE, "BTC", ""), ALICE, 16, true),
    ]);

    for number in [11, 12, 13, 16] {
        let frame = client.json();
        assert_eq!(frame["channel"], "trades");
        let trades = frame["data"].as_array().unwrap();
        assert_eq!(trades.len(), 1);
        let trade = &trades[0];
        assert_eq!((&trade["tid"], &trade["side"]), (&json!(number), &json!("B")));
        assert_eq!(trade["users"], json!([ALICE, BOB]), "buyer and seller");
        assert!(trade["cursor"].is_string());
    }
    client.sync();
}

#[test]
fn partial_fills_of_a_crossing_order_are_told_as_one_who_asks_for_that() {
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    let aggregated =
        subscription("userFills", &format!(r#""user":"{ALICE}","aggregateByTime":true"#));
    client.subscribe(&aggregated);
    assert_eq!(client.frame_of("userFills")["isSnapshot"], true);
    let other = body(&traded(1, 1, ALICE, "BTC", "")).replace("349162667230", "1");

    server.append(vec![
        traded(1, 0, ALICE, "BTC", ""),
        event(FILLS, 1, 1, Some(ALICE), &other),
        traded(1, 2, ALICE, "BTC", ""),
        traded(2, 0, ALICE, "BTC", ""),
    ]);

    let sizes: Vec<_> =
        (0..3).map(|_| client.frame_of("userFills")["fills"][0]["sz"].clone()).collect();
    assert_eq!(sizes, ["7.8", "3.9", "3.9"]);
    client.sync();
}

#[test]
fn a_client_goes_on_behind_its_cursor_and_several_users_share_a_subscription() {
    let server = Server::start_with_log(1, |_| {});
    let mut client = server.connect("/ws");
    let both = format!(r#""users":["{ALICE}","{BOB}"],"snapshot":false"#);
    client.subscribe(&subscription("userFills", &both));
    server.append(vec![traded(1, 0, ALICE, "BTC", ""), traded(1, 1, BOB, "BTC", "")]);
    let first = client.frame_of("userFills");
    assert_eq!((&first["user"], first.get("isSnapshot")), (&json!(ALICE), None));
    drop(client);
    server.commit();
    server.append(vec![traded(2, 0, BOB, "ETH", "")]);
    server.commit();
    server.append(vec![traded(3, 0, ALICE, "ETH", "")]);

    let mut client = server.connect("/ws");
    let cursor = first["cursor"].as_str().unwrap();
    let both =
        subscription("userFills", &format!(r#""users":["{ALICE}","{BOB}"],"cursor":"{cursor}""#));
    client.subscribe(&both);

    let blocks: Vec<_> = (0..3).map(|_| client.frame_of("userFills")["block"].clone()).collect();
    assert_eq!(blocks, [1, 2, 3], "from the store, then from memory");
    assert_eq!(client.frame_of("status")["live"], true);
    for (rest, why) in [
        (r#""cursor":"x""#, "cursor is none that was given here"),
        (
            &*format!(r#""cursor":"{cursor}","aggregateByTime":true"#),
            "trades and aggregated fills begin at no cursor",
        ),
    ] {
        let asked = subscription("userFills", &format!(r#""user":"{ALICE}",{rest}"#));
        let answer = client.says(&format!(r#"{{"method":"subscribe","subscription":{asked}}}"#));
        assert_eq!(answer["data"], format!("Invalid subscription, {why}: {asked}"));
    }
}

#[test]
fn requests_for_information_are_answered_beside_what_else_is_said() {
    let server = Server::start(|_| {});
    server.append(vec![traded(1, 0, ALICE, "BTC", "")]);
    server.commit();
    let mut client = server.connect("/ws");
    let post =
        |id: u64, request: &str| format!(r#"{{"method":"post","id":{id},"request":{request}}}"#);
    let history = format!(r#"{{"type":"info","payload":{{"type":"userFills","user":"{ALICE}"}}}}"#);

    client.say(&post(18_446_744_073_709_551_615, &history));
    let expected = format!(
        r#"{{"channel":"post","data":{{"id":18446744073709551615,"response":{{"type":"info","payload":{{"type":"userFills","data":[{}]}}}}}}}}"#,
        body(&traded(1, 0, ALICE, "BTC", ""))
    );
    assert_eq!(client.text(), expected);
    for refused in [
        r#"{"type":"action","payload":{}}"#,
        r#"{"type":"info","payload":{"type":"userFills","user":"0x1"}}"#,
        r#"{"type":"info","payload":{"type":"clearinghouseState"}}"#,
        r#"{"type":"info","payload":7}"#,
    ] {
        let answer = client.says(&post(1, refused));
        assert_eq!((&answer["channel"], &answer["data"]["id"]), (&json!("post"), &json!(1)));
        assert_eq!(answer["data"]["response"]["type"], "error");
        assert!(answer["data"]["response"]["payload"].as_str().unwrap().len() > 10, "{answer}");
    }
    // None is left out, and each is answered once.
    let many: Vec<_> = (0..50).map(|id| post(id, &history)).collect();
    many.iter().for_each(|one| client.say(one));
    let answers: Vec<_> = many.iter().map(|_| client.json()["data"].clone()).collect();
    assert!(answers.iter().all(|answer| answer["response"]["type"] == "info"), "{answers:?}");
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
}

#[test]
fn each_user_of_a_list_has_a_snapshot_of_his_own_and_nothing_of_them_is_lost_or_repeated() {
    const USERS: u64 = 40;
    let server = Server::start(|session| session.outbox_bytes = 4_096);
    let users: Vec<_> = (0..USERS).map(|number| format!("0x{number:040x}")).collect();
    let block =
        |block| users.iter().zip(0..).map(move |(user, at)| traded(block, at, user, "BTC", ""));
    (1..=20).for_each(|number| server.append(block(number).collect()));
    server.commit();
    let mut client = server.connect("/ws");
    let list = subscription("userFills", &format!(r#""users":["{}"]"#, users.join("\",\"")));

    client.subscribe(&list);
    // Meanwhile the others come.
    (21..=60).for_each(|number| server.append(block(number).collect()));

    let mut last = vec![0; USERS as usize];
    let mut snapshots = 0;
    while last.iter().any(|block| *block < 60) {
        let frame = client.json();
        if frame["channel"] == "status" {
            continue;
        }
        let data = &frame["data"];
        let at = users.iter().position(|user| data["user"] == **user).unwrap();
        if data["isSnapshot"] == true {
            assert_eq!(last[at], 0, "it comes first");
            last[at] = data["fills"].as_array().unwrap().len();
            assert!(last[at] >= 20);
            snapshots += 1;
        } else {
            assert_eq!(data["block"].as_u64(), Some(last[at] as u64 + 1));
            last[at] += 1;
        }
    }
    assert_eq!(snapshots, USERS);
    client.unsubscribe(&list);
    server.append(block(61).collect());
    client.sync();
}

#[test]
fn a_list_that_is_too_long_for_snapshots_is_refused_as_a_whole() {
    let server = Server::start(|session| session.max_subscriptions = 3);
    let mut client = server.connect("/ws");
    let users: Vec<_> = (0..4).map(|number| format!("0x{number:040x}")).collect();
    let users = users.join("\",\"");
    let list = subscription("userFills", &format!(r#""users":["{users}"]"#));

    let answer = client.says(&format!(r#"{{"method":"subscribe","subscription":{list}}}"#));

    let why = "Not subscribed, a session may have at most 3 subscriptions";
    assert_eq!(answer["data"], format!("{why}: {list}"));
    assert_eq!(server.stats.sessions.refused_subscriptions.get(), 1);
    let without = subscription("userFills", &format!(r#""users":["{users}"],"snapshot":false"#));
    client.subscribe(&without);
    client.sync();
}

#[test]
fn who_uses_nothing_of_ours_hears_nothing_of_our_channels() {
    use nodecast::router::{ledger::Gap, log::Notice};
    let server = Server::start(|session| session.heartbeat_interval = Duration::from_millis(20));
    let (mut plain, mut extended) = (server.connect("/ws"), server.connect("/ws"));
    plain.subscribe(&of_alice("userEvents"));
    extended.subscribe(&subscription("userEvents", &format!(r#""user":"{ALICE}","status":true"#)));
    let gap = Gap { topic: FILLS, first: 2, last: 4, opened: Timestamp(1), closed: None };
    for _ in 0..3 {
        extended.frame_of("status");
    }

    server.append_with(vec![traded(5, 0, ALICE, "BTC", "")], vec![Notice::GapOpened(gap)]);

    let frame = plain.json();
    assert_eq!((&frame["channel"], &frame["block"]), (&json!("user"), &json!(5)));
    assert_eq!(frame["data"].as_object().unwrap().len(), 1, "some clients know one field only");
    let told = loop {
        let frame = extended.json();
        if frame["channel"] != "status" {
            break frame;
        }
        assert!(frame["data"]["cursor"].is_string() && frame["data"]["seq"].is_u64(), "{frame}");
    };
    let expected = json!({"topic":"fills","from":2,"to":4,"closed":false});
    assert_eq!(told, json!({"channel":"gap","data":expected}));
}

#[test]
fn who_wants_nothing_and_says_nothing_is_sent_away() {
    let server = Server::start(|session| session.heartbeat_interval = Duration::from_millis(20));
    let (mut idle, mut subscribed) = (server.connect("/ws"), server.connect("/ws"));
    subscribed.subscribe(&of_alice("userEvents"));

    assert_eq!(idle.says(r#"{"method":"ping"}"#)["channel"], "pong");
    let (code, text, texts) = idle.closed();

    assert_eq!((code, &*text, texts), (1000, "nothing was subscribed to or asked for", 0));
    server.append(vec![traded(1, 0, ALICE, "BTC", "")]);
    assert_eq!(subscribed.json()["block"], 1);
    assert_eq!(server.stats.sessions.endings.idle.get(), 1);
}

#[test]
fn a_client_that_reads_late_gets_all_snapshots_of_its_list() {
    const USERS: u64 = 60;
    let server = Server::start(|session| {
        // A snapshot alone does not fill it, and the socket takes all of it at once.
        (session.outbox_bytes, session.send_buffer_bytes) = (64 << 10, 512 << 10);
    });
    let users: Vec<_> = (0..USERS).map(|number| format!("0x{number:040x}")).collect();
    let block =
        |block| users.iter().zip(0..).map(move |(user, at)| traded(block, at, user, "BTC", ""));
    (1..=75).for_each(|number| server.append(block(number).collect()));
    server.commit();
    let mut client = server.connect_small("/ws");
    let list = subscription("userFills", &format!(r#""users":["{}"]"#, users.join("\",\"")));

    client.say(&format!(r#"{{"method":"subscribe","subscription":{list}}}"#));
    server
        .wait_until("as much waits as may", |stats| stats.sessions.outbox_bytes.get() >= 64 << 10);
    server.append(block(76).collect());

    let (mut snapshots, mut live) = (0, 0);
    while live < USERS {
        let frame = client.json();
        match (&frame["channel"], &frame["data"]["isSnapshot"]) {
            (channel, Value::Bool(true)) => {
                assert_eq!(channel, "userFills");
                let fills = frame["data"]["fills"].as_array().unwrap().len();
                snapshots += 1;
                live += u64::from(fills == 76);
            }
            (channel, _) if channel == "userFills" => live += 1,
            _ => {}
        }
    }
    assert_eq!(snapshots, USERS);
}

#[test]
fn a_cursor_that_has_expired_is_refused_with_the_reason() {
    let server = Server::start_with_log(1, |_| {});
    let mut client = server.connect("/ws");
    client.subscribe(&subscription("userEvents", &format!(r#""user":"{ALICE}","status":true"#)));
    server.append(vec![traded(1, 0, ALICE, "BTC", "")]);
    let frame = client.json();
    server.commit();
    (2..4).for_each(|number| {
        server.append(vec![traded(number, 0, ALICE, "BTC", "")]);
        server.commit();
    });
    server.delete_before(Timestamp(i64::MAX / 2));

    let cursor = frame["cursor"].as_str().unwrap();
    let asked = subscription("userFills", &format!(r#""user":"{ALICE}","cursor":"{cursor}""#));
    let mut client = server.connect("/ws");
    let answer = client.says(&format!(r#"{{"method":"subscribe","subscription":{asked}}}"#));

    let why = "events behind this cursor have been deleted; what is still there begins behind ";
    let text = answer["data"].as_str().unwrap();
    let rest = text.strip_prefix(&format!("Not subscribed, {why}")).expect(text);
    let oldest = rest.strip_suffix(&format!(": {asked}")).expect(text);
    // It is one that can be begun at.
    client.subscribe(&asked.replace(cursor, oldest));
    server.append(vec![traded(4, 0, ALICE, "BTC", "")]);
    let blocks = iter::repeat_with(|| client.json()["data"]["block"].clone());
    assert!(blocks.take(3).any(|block| block == 4));
}

#[test]
fn a_cursor_of_another_store_goes_on_by_its_blocks_and_says_so() {
    let server = Server::start_with_log(1, |_| {});
    (1..4).for_each(|block| server.append(vec![traded(block, 0, ALICE, "BTC", "")]));
    server.commit();
    let mut client = server.connect("/ws");
    let cursor = r#""cursor":"1.a.b.64.fills-2.misc-2""#;

    client.subscribe(&subscription("userEvents", &format!(r#""user":"{ALICE}",{cursor}"#)));

    let status = client.frame_of("status");
    assert_eq!((&status["recovered"], &status["live"]), (&json!(false), &Value::Null));
    let blocks: Vec<_> = (0..3).map(|_| client.json()["block"].clone()).collect();
    assert_eq!(blocks, [1, 2, 3], "those before it come again");
    let live = client.frame_of("status");
    assert_eq!((&live["recovered"], &live["live"]), (&Value::Null, &json!(true)));
}

#[test]
fn a_slow_client_that_goes_on_from_the_store_within_a_block_is_told_each_order_once() {
    const ORDERS: u32 = 300;
    // The end of a page, which has some thousand events, is within the last one.
    const BLOCKS: u64 = 4;
    // It comes in two pieces, each of which has fills of all orders.
    const IN_PIECES: u64 = 2;
    let server = Server::start_with_log(1, |session| {
        (session.outbox_bytes, session.send_buffer_bytes) = (64 << 10, 16 << 10);
        session.stall_timeout = PATIENCE;
    });
    let mut client = server.connect_small("/ws");
    let aggregated = format!(r#""user":"{ALICE}","aggregateByTime":true,"snapshot":false"#);
    client.subscribe(&subscription("userFills", &aggregated));
    client.subscribe(&of_alice("userEvents"));
    // Each order has a fill in the first half of a block and one in the second.
    let padding = format!(r#""padding":"{}","#, "x".repeat(500));
    let fill = |block, index: u32| {
        let body = body(&traded(block, index, ALICE, "BTC", &padding));
        let order = format!("\"oid\":{}", index % ORDERS);
        event(FILLS, block, index, Some(ALICE), &body.replace("\"oid\":349162667230", &order))
    };
    let piece = |block, number: u32| {
        let indexes = 2 * ORDERS * number..2 * ORDERS * (number + 1);
        server.append(indexes.map(|index| fill(block, index)).collect());
    };
    piece(1, 0);
    server.wait_until("it is slow", |stats| stats.sessions.behind.get() == 1);
    // Memory lets go of all but the last block.
    for block in 2..=BLOCKS {
        server.commit();
        piece(block, 0);
        if block == IN_PIECES {
            piece(block, 1);
        }
    }
    server.commit();
    server.append(vec![fill(BLOCKS + 1, 0)]);

    let (mut told, mut events) = (vec![0; ORDERS as usize * BLOCKS as usize], 0);
    loop {
        let frame = client.json();
        match (frame["channel"].as_str().unwrap(), frame["data"]["block"].as_u64()) {
            ("userFills", Some(block)) if block <= BLOCKS => {
                let fill = &frame["data"]["fills"][0];
                assert_eq!(fill["sz"], "7.8", "{fill}");
                let oid = fill["oid"].as_u64().unwrap();
                told[((block - 1) * u64::from(ORDERS) + oid) as usize] += 1;
            }
            ("userFills", _) => break,
            ("user", _) => events += 1,
            _ => {}
        }
    }
    for (block, told) in (1..).zip(told.chunks(ORDERS as usize)) {
        let pieces = if block == IN_PIECES { 2 } else { 1 };
        assert!(told.iter().all(|times| *times == pieces), "{block}: {told:?}");
    }
    assert_eq!(events, 2 * ORDERS * (BLOCKS as u32 + 1), "each form of an event comes");
    assert!(server.stats.sessions.replay_pages.get() > 0, "the store was read");
}
