//! Fifty users at once, and nobody gets what is another's.

use serde_json::{Value, json};

use crate::{
    chain::{Stream, oldest_first},
    client::{Client, Sdk},
    feed::Feed,
    scene::Scene,
};

const USERS: usize = 50;

/// The TypeScript SDK lets a connection have no more.
const USERS_OF_A_TRANSPORT: usize = 10;

fn users() -> Vec<String> {
    (0..USERS).map(|number| format!("0x{:040x}", 0xfeed_0000 + number)).collect()
}

/// Follows all of them and compares what each has got.
fn follow(sdk: Sdk) {
    let mut scene = Scene::new("");
    let users = users();
    scene.chain.advance_with(4, &users, 2);
    scene.wait_stored();
    let mut client = scene.client(sdk, &json!({}));
    let wanted: Vec<_> = (users.iter().enumerate())
        .map(|(number, user)| ((number / USERS_OF_A_TRANSPORT) as u64, Feed::Fills, user.as_str()))
        .collect();
    let made = scene.subscribe(&mut client, &wanted);
    scene.chain.advance_with(4, &users, 2);
    scene.catch_up(&mut client, &made);
    for subscription in &made {
        subscription.assert_complete(&client, &scene.chain);
    }
}

#[test]
fn python_follows_fifty_users_over_one_connection() {
    if Sdk::Python.is_here() {
        follow(Sdk::Python);
    }
}

#[test]
fn typescript_follows_fifty_users_over_five_connections() {
    if Sdk::TypeScript.is_here() {
        follow(Sdk::TypeScript);
    }
}

/// The SDK counts what has a `user`, so our `users` passes its limit.
#[test]
fn typescript_follows_fifty_users_in_one_subscription() {
    if !Sdk::TypeScript.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    let users = users();
    scene.chain.advance_with(4, &users, 2);
    scene.wait_stored();
    let mut client = scene.client(Sdk::TypeScript, &Value::Null);
    let id = client.command(json!({
        "do": "listen", "transport": 0, "channel": "userFills",
        "subscription": {"type": "userFills", "users": users},
    }));
    client.answer(id).unwrap();
    scene.chain.advance_with(4, &users, 2);
    client.wait("the fills of all users", |client| {
        users.iter().all(|user| fills_of(client, id, user).len() >= 16)
    });
    for user in &users {
        assert_eq!(
            fills_of(&client, id, user),
            scene.chain.expected(Stream::Fills, user),
            "{user}"
        );
    }
    let theirs = |data: &Value| users.iter().any(|user| data["user"] == *user);
    assert!(client.messages(id).iter().all(theirs));
}

/// The fills of one of many users in the order in which they happened.
fn fills_of(client: &Client, subscription: u64, user: &str) -> Vec<Value> {
    let own = client.messages(subscription).iter().filter(|data| data["user"] == user);
    own.flat_map(|data| {
        let mut fills = data["fills"].as_array().unwrap().clone();
        if data["isSnapshot"] == true {
            fills = oldest_first(fills);
        }
        fills
    })
    .collect()
}
