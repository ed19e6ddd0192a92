//! Panics at the fail points of this module: `cargo test --features failpoints,echo`.

use std::{
    env,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use nodecast::essential::is_essential;

use crate::harness::*;

const ARMED: &str = "NODECAST_FAILPOINTS";

/// Points are armed for a whole process: runs the test anew in one of its own. Gives whether this
/// is that process.
fn in_own_process(test: &str, armed: &str) -> bool {
    if env::var(ARMED).is_ok_and(|points| points == armed) {
        return true;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ARMED, armed)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    // A name that no test has would succeed, too.
    assert!(said.contains("1 passed"), "{test} is no test: {said}");
    false
}

#[test]
fn a_panic_while_a_frame_is_handled_ends_that_session_only() {
    let test = "panics::a_panic_while_a_frame_is_handled_ends_that_session_only";
    if !in_own_process(test, "session.frame=panic@3") {
        return;
    }
    let server = Server::start(|_| {});
    let (mut well, mut ill) = (server.native(), server.native());
    well.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    ill.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);

    ill.say(r#"{"type":"ping"}"#);

    let bye = ill.json();
    assert_eq!((bye["type"].as_str(), bye["code"].as_u64()), (Some("bye"), Some(1011)));
    assert_eq!(ill.closed(), (1011, "internal error".to_owned(), 0));
    drop(ill);
    server.append(vec![fill(1, ALICE, "BTC")]);
    assert_eq!(well.json()["block"], 1);
    assert_eq!(well.ask(r#"{"type":"ping"}"#)["type"], "pong");
    assert_eq!(server.stats.sessions.panics.get(), 1);
    drop(well);
    server.settle();
}

#[test]
fn a_panic_in_a_turn_is_one_that_must_end_the_process() {
    static ESSENTIAL: AtomicBool = AtomicBool::new(false);
    let test = "panics::a_panic_in_a_turn_is_one_that_must_end_the_process";
    // Each of the two shards has a turn when it starts.
    if !in_own_process(test, "shard.turn=panic@3") {
        return;
    }
    std::panic::set_hook(Box::new(|_| ESSENTIAL.store(is_essential(), Ordering::SeqCst)));
    let server = Server::start(|_| {});
    server.native();

    server.append(vec![fill(1, ALICE, "BTC")]);

    server.wait_until("a turn panics", |_| ESSENTIAL.load(Ordering::SeqCst));
}
