//! Users who are not on the whitelist, for clients of the official protocol.

use std::{fs, path::PathBuf, sync::Arc};

use nodecast::{
    config::{Config, Unlisted, WhitelistConfig},
    event::Address,
    whitelist::Whitelist,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::*;

const CAROL: &str = "0x00000000000000000000000000000000000ca401";
const DAVE: &str = "0x000000000000000000000000000000000000da7e";

fn list_of(users: &[&str]) -> Whitelist {
    let users = users.iter().map(|user| user.parse::<Address>().unwrap()).collect();
    Whitelist::build(vec![users], &WhitelistConfig::default())
}

/// A server that keeps Alice's events, whose list is in a file.
struct Scene {
    server: Server,
    file: PathBuf,
    _folder: TempDir,
}

impl Scene {
    fn new(unlisted: Unlisted) -> Self {
        Self::configured(unlisted, |_| {})
    }

    fn configured(unlisted: Unlisted, configure: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list");
        fs::write(&file, format!("{ALICE}\n")).unwrap();
        let server = Server::start_listing(list_of(&[ALICE]), |config| {
            config.whitelist.file = Some(file.clone());
            config.official.unlisted = unlisted;
            config.official.may_add = vec!["ann".to_owned()];
            configure(config);
        });
        Self { server, file, _folder: folder }
    }

    /// Does what the keeper does.
    fn list(&self, users: &[&str]) {
        self.server.users.set(Arc::new(list_of(users)));
    }

    fn written(&self) -> Vec<String> {
        fs::read_to_string(&self.file).unwrap().lines().map(str::to_owned).collect()
    }

    fn wait_until_written(&self, users: &[&str]) {
        self.server.wait_until("it is written", |_| self.written() == users);
    }
}

fn subscription(kind: &str, rest: &str) -> String {
    format!(r#"{{"type":"{kind}",{rest}}}"#)
}

fn of(kind: &str, user: &str) -> String {
    subscription(kind, &format!(r#""user":"{user}""#))
}

fn subscribe(subscription: &str) -> String {
    format!(r#"{{"method":"subscribe","subscription":{subscription}}}"#)
}

/// The next frame that is no status.
fn next(client: &mut Client) -> Value {
    loop {
        let frame = client.json();
        if frame["channel"] != "status" {
            return frame;
        }
    }
}

/// The text of an error, whose JSON is the subscription.
fn refusal(client: &mut Client, subscription: &str) -> String {
    client.say(&subscribe(subscription));
    let answer = next(client);
    assert_eq!(answer["channel"], "error", "{answer}");
    let text = answer["data"].as_str().unwrap().to_owned();
    // As the TypeScript client finds what an error is about.
    let json: Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
    assert_eq!(json, serde_json::from_str::<Value>(subscription).unwrap());
    text
}

fn acknowledged(client: &mut Client, subscription: &str) {
    client.say(&subscribe(subscription));
    let answer = next(client);
    assert_eq!(answer["channel"], "subscriptionResponse", "{answer}");
    let echo: Value = serde_json::from_str(subscription).unwrap();
    assert_eq!(answer["data"]["subscription"], echo);
}

fn snapshot(client: &mut Client) -> Value {
    let frame = next(client);
    assert_eq!(frame["data"]["isSnapshot"], true, "{frame}");
    frame
}

#[test]
fn a_subscription_to_a_user_who_is_not_listed_is_refused_with_a_text_that_says_so() {
    let scene = Scene::new(Unlisted::Reject);
    // Even who could add users, where that were so.
    let mut client = scene.server.connect_as("ann");

    for kind in [
        "userFills",
        "userEvents",
        "userFundings",
        "userNonFundingLedgerUpdates",
        "userTwapSliceFills",
    ] {
        let asked = of(kind, BOB);
        let text = refusal(&mut client, &asked);
        assert_eq!(
            text,
            format!(
                "Invalid subscription, user {BOB} is not on the whitelist of this daemon: {asked}"
            )
        );
    }
    // Also with a cursor, whatever that is good for.
    let resumed = subscription("userFills", &format!(r#""user":"{BOB}","cursor":"e-f-100""#));
    assert!(refusal(&mut client, &resumed).starts_with("Invalid subscription, "));
    assert_eq!(scene.server.stats.sessions.bad_frames.get(), 6);

    acknowledged(&mut client, &of("userFills", ALICE));
    snapshot(&mut client);
    scene.server.append(vec![fill(1, ALICE, "BTC")]);
    assert_eq!(next(&mut client)["data"]["fills"][0]["coin"], "BTC");
    assert_eq!(scene.written(), [ALICE]);
}

#[test]
fn of_several_users_one_who_is_not_listed_is_named_and_how_many_are_like_him() {
    let scene = Scene::new(Unlisted::Reject);
    let mut client = scene.server.connect("/ws");

    let two = subscription("userFills", &format!(r#""users":["{BOB}","{ALICE}"]"#));
    assert_eq!(
        refusal(&mut client, &two),
        format!("Invalid subscription, user {BOB} is not on the whitelist of this daemon: {two}")
    );
    let three = subscription("userEvents", &format!(r#""users":["{BOB}","{ALICE}","{CAROL}"]"#));
    assert_eq!(
        refusal(&mut client, &three),
        format!(
            "Invalid subscription, user {CAROL} and 1 more of its users are not on the whitelist of \
             this daemon: {three}"
        )
    );
    acknowledged(&mut client, &subscription("userFills", &format!(r#""users":["{ALICE}"]"#)));
}

#[test]
fn where_strangers_are_accepted_a_subscription_begins_empty_and_is_live_once_they_are_listed() {
    let scene = Scene::new(Unlisted::Accept);
    let mut client = scene.server.connect("/ws");

    acknowledged(&mut client, &of("userFills", BOB));
    assert_eq!(snapshot(&mut client)["data"]["fills"], json!([]));

    scene.list(&[ALICE, BOB]);
    scene.server.append(vec![fill(1, BOB, "ETH")]);
    assert_eq!(next(&mut client)["data"]["fills"][0]["coin"], "ETH");
    assert_eq!(scene.written(), [ALICE], "nobody was added");
}

#[test]
fn who_may_add_users_is_answered_when_they_are_listed_and_gets_what_comes_then() {
    let scene = Scene::new(Unlisted::Add);
    let mut client = scene.server.connect_as("ann");
    let stats = &scene.server.stats.official;

    client.say(&subscribe(&of("userFills", BOB)));
    // Pings are answered meanwhile; another message waits, as the answers stand in the order of the messages.
    assert_eq!(client.ask(r#"{"method":"ping"}"#)["channel"], "pong");
    client.say(r#"{"method":"sing"}"#);
    scene.wait_until_written(&[ALICE, BOB]);
    scene.server.wait_until("it waits for the list", |_| stats.additions.get() == 0);
    // Another one goes on meanwhile.
    let mut other = scene.server.connect("/ws");
    assert_eq!(other.ask(r#"{"method":"ping"}"#)["channel"], "pong");
    scene.list(&[ALICE, BOB]);

    assert_eq!(next(&mut client)["channel"], "subscriptionResponse");
    assert_eq!(snapshot(&mut client)["data"]["fills"], json!([]));
    assert_eq!(next(&mut client)["channel"], "error");
    scene.server.append(vec![fill(1, BOB, "ETH")]);
    assert_eq!(next(&mut client)["data"]["fills"][0]["coin"], "ETH");
    assert_eq!(stats.added_users.get(), 1);

    // Who is listed now is nobody's stranger.
    acknowledged(&mut other, &of("userEvents", BOB));
    // Two parts, and no snapshot.
    let events = subscription("userEvents", &format!(r#""users":["{ALICE}","{CAROL}"]"#));
    client.say(&subscribe(&events));
    scene.wait_until_written(&[ALICE, BOB, CAROL]);
    scene.list(&[ALICE, BOB, CAROL]);
    assert_eq!(next(&mut client)["channel"], "subscriptionResponse");
    scene.server.append(vec![fill(2, CAROL, "SOL")]);
    assert_eq!(next(&mut client)["data"]["fills"][0]["coin"], "SOL");
    assert_eq!(stats.added_users.get(), 2);
    // Each user has a snapshot, whoever was added for it.
    let fundings = subscription("userFundings", &format!(r#""users":["{ALICE}","{DAVE}"]"#));
    client.say(&subscribe(&fundings));
    scene.wait_until_written(&[ALICE, BOB, CAROL, DAVE]);
    scene.list(&[ALICE, BOB, CAROL, DAVE]);
    assert_eq!(next(&mut client)["channel"], "subscriptionResponse");
    let users = [(); 2].map(|()| snapshot(&mut client)["data"]["user"].clone());
    assert_eq!(users, [DAVE, ALICE]);
}

#[test]
fn who_may_not_add_users_is_told_why_and_nobody_is_added() {
    let scene = Scene::new(Unlisted::Add);
    let asked = of("userFills", BOB);

    let nameless = refusal(&mut scene.server.connect("/ws"), &asked);
    let eve = refusal(&mut scene.server.connect_as("eve"), &asked);

    let text = |why: &str| {
        format!(
            "Invalid subscription, user {BOB} is not on the whitelist of this daemon, and {why}: \
             {asked}"
        )
    };
    assert_eq!(nameless, text("only clients whom a trusted proxy names can add users to it"));
    assert_eq!(eve, text("this client is none of those who may add users to it"));
    acknowledged(&mut scene.server.connect_as("eve"), &of("userFills", ALICE));
    assert_eq!(scene.written(), [ALICE]);
    assert_eq!(scene.server.stats.official.added_users.get(), 0);
}

#[test]
fn nobody_is_added_for_a_subscription_that_cannot_begin() {
    let scene = Scene::configured(Unlisted::Add, |config| config.session.max_users = 2);
    let mut client = scene.server.connect_as("ann");
    acknowledged(&mut client, &of("userFills", ALICE));
    snapshot(&mut client);

    // Two parts name him twice, and there is room for one.
    let events = of("userEvents", BOB);
    let text = refusal(&mut client, &events);
    assert!(text.contains("a session may name at most 2 users"), "{text}");
    let bad = subscription("userFills", &format!(r#""user":"{BOB}","cursor":"nonsense""#));
    assert!(refusal(&mut client, &bad).contains("cursor is none that was given here"));
    assert_eq!(scene.written(), [ALICE]);
    assert_eq!(scene.server.stats.sessions.refused_users.get(), 1);

    // What was tried has left nothing behind.
    client.say(&subscribe(&of("userFills", BOB)));
    scene.wait_until_written(&[ALICE, BOB]);
    scene.list(&[ALICE, BOB]);
    assert_eq!(next(&mut client)["channel"], "subscriptionResponse");
    snapshot(&mut client);
    assert_eq!(scene.server.stats.sessions.users.get(), 2);
}

#[test]
fn a_list_that_cannot_be_changed_is_an_error_and_the_client_can_try_again() {
    let scene = Scene::new(Unlisted::Add);
    let mut client = scene.server.connect_as("ann");
    fs::write(&scene.file, "nonsense\n").unwrap();

    let asked = of("userFills", BOB);
    let text = refusal(&mut client, &asked);

    assert_eq!(
        text,
        format!(
            "Not subscribed, the whitelist of this daemon cannot be changed at the moment, try again \
             later: {asked}"
        )
    );
    assert_eq!(fs::read_to_string(&scene.file).unwrap(), "nonsense\n");
    fs::write(&scene.file, format!("{ALICE}\n")).unwrap();
    client.say(&subscribe(&asked));
    scene.wait_until_written(&[ALICE, BOB]);
    scene.list(&[ALICE, BOB]);
    assert_eq!(next(&mut client)["channel"], "subscriptionResponse");

    // A list that stands in the configuration alone.
    let fixed = Scene::configured(Unlisted::Add, |config| config.whitelist.file = None);
    let text = refusal(&mut fixed.server.connect_as("ann"), &asked);
    assert!(text.starts_with("Not subscribed, nobody can be added to the whitelist"), "{text}");
}

#[test]
fn what_is_reloaded_holds_for_sessions_that_are_open() {
    let scene = Scene::new(Unlisted::Reject);
    let mut client = scene.server.connect_as("eve");
    let asked = of("userEvents", BOB);
    refusal(&mut client, &asked);

    scene.server.reload(|config| config.official.unlisted = Unlisted::Add);
    assert!(refusal(&mut client, &asked).contains("none of those who may add"));
    scene.server.reload(|config| config.official.may_add.push("eve".to_owned()));
    client.say(&subscribe(&asked));
    scene.wait_until_written(&[ALICE, BOB]);
    scene.list(&[ALICE, BOB]);
    assert_eq!(next(&mut client)["channel"], "subscriptionResponse");
}

#[test]
fn the_other_protocols_take_strangers_as_ever() {
    let scene = Scene::new(Unlisted::Reject);
    let mut native = scene.server.native();
    let mut older = scene.server.connect("/ws");

    let asked = format!(r#"{{"type":"subscribe","id":1,"topic":"fills","users":["{BOB}"]}}"#);
    assert_eq!(native.ask(&asked)["type"], "ack");
    older.say(&format!(r#"{{"action":"subscribe","event":"fill","users":["{BOB}"]}}"#));
    older.sync();
    scene.server.append(vec![fill(1, BOB, "ETH")]);

    assert_eq!(native.json()["data"]["coin"], "ETH");
    assert_eq!(older.json()["data"]["coin"], "ETH");
}
