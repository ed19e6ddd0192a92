//! What waits for all clients together.

use std::time::Duration;

use crate::harness::{ALICE, BOB, Client, FILLS, Server, event};

const EVENT_BYTES: usize = 20_000;
const LIMIT: usize = 2 << 20;

fn long(block: u64, user: &str) -> nodecast::event::Event {
    let body = format!(r#"{{"coin":"BTC","padding":"{}"}}"#, "x".repeat(EVENT_BYTES));
    event(FILLS, block, 0, Some(user), &body)
}

/// A client that wants events of some users and reads nothing from then on.
fn stalled(server: &Server, users: &[&str]) -> Client {
    let mut client = server.connect_small("/v1/ws");
    assert_eq!(client.json()["type"], "hello");
    let users = serde_json::to_string(users).unwrap();
    let ack =
        client.ask(&format!(r#"{{"type":"subscribe","id":"a","topic":"fills","users":{users}}}"#));
    assert_eq!(ack["type"], "ack");
    client
}

#[test]
fn when_too_much_waits_for_all_together_the_largest_goes_and_nobody_else() {
    let server = Server::start(|session| {
        session.outbox_bytes = 8 << 20;
        session.outbox_total_bytes = LIMIT;
        session.send_buffer_bytes = 16 << 10;
        session.stall_timeout = Duration::from_secs(3_600);
    });
    let mut of_alice = stalled(&server, &[ALICE]);
    let mut of_both = stalled(&server, &[ALICE, BOB]);
    let mut of_bob = stalled(&server, &[BOB]);
    let mut live = server.native();
    live.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    let stats = &server.stats.sessions;
    let waiting = || stats.outbox_bytes.get() as usize;
    let mut block = 0;
    let mut write = |count: u64, user: &str| {
        for _ in 0..count {
            server.append(vec![long(block, user)]);
            assert_eq!(live.json()["block"], block);
            block += 1;
        }
    };

    // 800 KB for both of them, 600 KB and 200 KB for one each: it is less than may wait.
    write(30, ALICE);
    write(10, BOB);
    server.wait_until("it waits", |_| waiting() > 1_200_000);
    assert_eq!(stats.endings.evicted.get(), 0);
    // And 600 KB more for two of them.
    write(30, BOB);
    server.wait_until("one goes", |stats| stats.sessions.endings.evicted.get() > 0);
    server.wait_until("what waited for it is dropped", |_| waiting() < LIMIT);

    let (code, reason, texts) = of_both.closed();
    assert_eq!(
        (code, &*reason),
        (4008, "too much waits for all clients, and for this one the most")
    );
    assert!(texts < 70, "what waited was dropped, but {texts} frames came");
    for expected in 0..30 {
        assert_eq!(of_alice.json()["block"], expected);
    }
    for expected in 30..70 {
        assert_eq!(of_bob.json()["block"], expected);
    }
    write(1, ALICE);
    assert_eq!(of_alice.json()["block"], 70);
    assert_eq!((stats.endings.evicted.get(), stats.slow_consumers.get()), (1, 0));
    drop((of_alice, of_both, of_bob, live));
    server.settle();
    assert!(stats.frames_dropped.get() > 0);
}

#[test]
fn many_go_where_one_is_not_enough_and_on_every_worker() {
    const CLIENTS: usize = 12;
    let server = Server::start(|session| {
        session.outbox_bytes = 8 << 20;
        session.outbox_total_bytes = 1 << 20;
        session.send_buffer_bytes = 16 << 10;
        session.stall_timeout = Duration::from_secs(3_600);
    });
    let clients: Vec<_> = (0..CLIENTS).map(|_| stalled(&server, &[ALICE])).collect();

    // Each turn brings much at once: 2.4 MB for each in the end, which one alone may not have either.
    for burst in 0..12 {
        server.append((0..10).map(|index| long(burst * 10 + index, ALICE)).collect());
    }

    let stats = &server.stats.sessions;
    server.wait_until("all of them go", |stats| {
        stats.sessions.endings.evicted.get() == CLIENTS as u64
    });
    drop(clients);
    server.settle();
    assert_eq!(stats.slow_consumers.get(), 0);
}

#[test]
fn answers_that_are_not_taken_count_among_what_waits_for_all_together() {
    let server = Server::start(|session| {
        session.outbox_bytes = 8 << 20;
        session.outbox_total_bytes = 1 << 20;
        session.send_buffer_bytes = 16 << 10;
        session.stall_timeout = Duration::from_secs(3_600);
    });
    let users: Vec<_> = (0..1_000).map(|user| format!("0x{user:040x}")).collect();
    let users: Vec<_> = users.iter().map(|user| user.as_str()).collect();
    let mut client = stalled(&server, &users);

    // Nothing else happens: 46 KB for each of these.
    (0..50).for_each(|_| client.say(r#"{"type":"list"}"#));

    let endings = &server.stats.sessions.endings;
    server.wait_until("it is sent away", |_| endings.evicted.get() == 1);
    assert_eq!(endings.slow_consumer.get(), 0);
    assert_eq!(client.closed().0, 4008);
    drop(client);
    server.settle();
}
