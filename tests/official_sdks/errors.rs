//! What is refused is refused in words that each client understands, and disturbs nothing else.

use serde_json::{Value, json};

use crate::{
    client::{Client, Sdk},
    common::node::{ALICE, BOB},
    feed::{Feed, Subscription},
    scene::Scene,
};

/// Waits for a command's failure; one that nobody answered fails after ten seconds, in other words.
#[track_caller]
fn assert_refused(client: &mut Client, command: Value, words: &[&str]) {
    let text = format!("{command}");
    let refused = client.call(command).expect_err(&text);
    for word in words {
        assert!(refused.contains(word), "{text}: {refused}");
    }
}

fn ask(method: &str, payload: Value) -> Value {
    json!({"do": "ask", "transport": 0, "method": method, "payload": payload})
}

/// The SDK finds out by the object inside an error's text which of its promises is meant.
#[test]
fn typescript_knows_which_of_its_calls_was_refused() {
    if !Sdk::TypeScript.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    scene.chain.advance(10);
    let mut client = scene.client(Sdk::TypeScript, &Value::Null);
    let made = scene.subscribe(&mut client, &[(0, Feed::Fills, ALICE)]);

    let fills = json!({"type": "userFills", "user": ALICE, "aggregateByTime": false});
    assert_refused(&mut client, ask("subscribe", fills), &["Already subscribed", ALICE]);
    let others = json!({"user": BOB, "type": "userFills"});
    assert_refused(&mut client, ask("unsubscribe", others), &["Already unsubscribed", BOB]);
    for invalid in [
        json!({"type": "nothingLikeThat", "user": ALICE}),
        json!({"type": "userFills", "user": "0xA11CE"}),
        json!({"type": "userFills"}),
        json!({"type": "trades", "coin": 7, "note": "\"braces\" {} and }\u{e9}"}),
        json!({"user": ALICE}),
    ] {
        assert_refused(&mut client, ask("subscribe", invalid), &["Invalid subscription"]);
    }
    for over in [json!(0), json!("http")] {
        let unknown = json!({"do": "info", "over": over, "method": "allMids"});
        assert_refused(&mut client, unknown, &["allMids"]);
    }

    // All that was no reason to lose the connection or a fill.
    scene.chain.advance(10);
    scene.catch_up(&mut client, &made);
    made[0].assert_complete(&client, &scene.chain);
    assert_eq!(client.end(), [json!({"transport": 0, "is": "open"})]);
}

#[test]
fn python_is_told_what_was_wrong_and_goes_on() {
    if !Sdk::Python.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    scene.chain.advance(10);
    let mut client = scene.client(Sdk::Python, &json!({}));
    let made = scene.subscribe(&mut client, &[(0, Feed::Fills, ALICE)]);
    assert_refused(
        &mut client,
        json!({"do": "info", "method": "all_mids", "arguments": []}),
        &["ClientError", "allMids"],
    );

    // It asks twice when its user does, and hands each message to both.
    let again = Subscription::ask(&mut client, 0, Feed::Fills, ALICE);
    let wrong = json!({"type": "userFills", "user": "0xa11ce"});
    client.call(json!({"do": "subscribe", "subscription": wrong})).unwrap();
    for words in ["Already subscribed", "Invalid subscription"] {
        client.wait(words, |client| {
            let mut errors =
                client.others.iter().filter(|other| other["frame"]["channel"] == "error");
            errors.any(|other| other["frame"]["data"].as_str().unwrap().starts_with(words))
        });
    }
    scene.chain.advance(10);
    scene.catch_up(&mut client, &made);
    made[0].assert_complete(&client, &scene.chain);
    let both = [&made[0], &again].map(|one| client.messages(one.id).last().cloned());
    assert_eq!(both[0], both[1]);
}
