//! Clients who want the same of what comes together.

use std::time::Duration;

use crate::harness::{ALICE, BOB, Client, FILLS, Server, event};

/// Blocks, and events of each: some are one event, others more than an outbox holds.
const BLOCKS: u64 = 60;

fn events_of(block: u64) -> u32 {
    (block * 7 % 40) as u32 + 1
}

/// The events of a user, or of all.
fn expected(user: Option<&str>) -> Vec<(u64, u64)> {
    let all = (1..=BLOCKS).flat_map(|block| (0..events_of(block)).map(move |index| (block, index)));
    let wanted = all.filter(|(_, index)| user.is_none_or(|user| user_of(*index) == user));
    wanted.map(|(block, index)| (block, index.into())).collect()
}

fn user_of(index: u32) -> &'static str {
    if index.is_multiple_of(3) { ALICE } else { BOB }
}

fn received(client: &mut Client, count: usize) -> Vec<(u64, u64)> {
    let events = std::iter::repeat_with(|| client.json()).filter(|frame| frame["type"] == "event");
    let number = |frame: &serde_json::Value, key: &str| frame[key].as_u64().unwrap();
    events.take(count).map(|frame| (number(&frame, "block"), number(&frame, "index"))).collect()
}

#[test]
fn each_gets_all_of_it_once_and_in_order_also_who_takes_it_late() {
    let server = Server::start(|session| {
        session.outbox_bytes = 20_000;
        session.send_buffer_bytes = 16 << 10;
        session.stall_timeout = Duration::from_secs(3_600);
    });
    let follow = |mut client: Client, user: Option<&'static str>| {
        assert_eq!(client.json()["type"], "hello");
        let users = user.map_or(String::new(), |user| format!(r#","users":["{user}"]"#));
        client.ask(&format!(r#"{{"type":"subscribe","id":"a","topic":"fills"{users}}}"#));
        (client, user)
    };
    let kinds = || [None, None, Some(ALICE), Some(BOB)].into_iter().cycle().take(24);
    let mut clients: Vec<_> = kinds().map(|user| follow(server.connect("/v1/ws"), user)).collect();
    let late: Vec<_> = kinds().map(|user| follow(server.connect_small("/v1/ws"), user)).collect();

    for block in 1..=BLOCKS {
        let body = format!(r#"{{"coin":"BTC","padding":"{}"}}"#, "x".repeat(300));
        let of_one = |index| event(FILLS, block, index, Some(user_of(index)), &body);
        server.append((0..events_of(block)).map(of_one).collect());
    }
    server.wait_until("some are behind", |stats| stats.sessions.behind.get() > 0);

    clients.extend(late);
    for (client, user) in &mut clients {
        let expected = expected(*user);
        assert_eq!(received(client, expected.len()), expected);
    }
}
