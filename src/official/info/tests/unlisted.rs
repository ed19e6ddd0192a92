//! History of users who are not on the whitelist.

use super::*;
use crate::config::{Unlisted, WhitelistConfig};

/// A service that keeps the events of user 1 alone.
async fn scene(unlisted: Unlisted) -> Scene {
    let may_add = vec!["ann".to_owned()];
    let mut scene = Scene::new(OfficialConfig { unlisted, may_add, ..Default::default() }).await;
    let list = Whitelist::build(vec![[user(1)].into_iter().collect()], &WhitelistConfig::default());
    scene.info.listing = Listing::unchanging(list);
    scene
}

fn of(user_number: u8, kind: &str, fields: &str) -> String {
    request(kind, fields).replace(&user(7).to_string(), &user(user_number).to_string())
}

const KINDS: [&str; 5] = [
    "userFills",
    "userFillsByTime",
    "userFunding",
    "userNonFundingLedgerUpdates",
    "userTwapSliceFills",
];

#[actix_rt::test]
async fn who_asks_for_a_user_of_whom_nothing_is_kept_learns_that_he_is_not_listed() {
    let scene = scene(Unlisted::Reject).await;

    for kind in KINDS {
        let error = scene.ask(&of(7, kind, r#","startTime":0"#)).await.unwrap_err();
        assert_eq!((error.status(), error.code()), (404, "not_listed"), "{kind}");
        let name = user(7).to_string();
        let text = format!("user {name} is not on the whitelist of this daemon");
        assert!(error.to_string().starts_with(&text), "{error}");
        // Of a listed one there is nothing yet.
        assert_eq!(scene.ask(&of(1, kind, r#","startTime":0"#)).await.unwrap(), "[]");
    }
}

#[actix_rt::test]
async fn what_was_stored_of_a_user_while_he_was_listed_stays_readable_to_its_end() {
    let mut scene = scene(Unlisted::Reject).await;
    scene.store([fill(3, 0, 30)]).await;

    assert_eq!(scene.tids(&of(7, "userFills", "")).await, [30]);
    // The page behind the last one, and the kinds of which there is nothing.
    let behind = format!(r#","startTime":{}"#, block_ms(3) + 1);
    assert_eq!(scene.ask(&of(7, "userFillsByTime", &behind)).await.unwrap(), "[]");
    assert_eq!(scene.ask(&of(7, "userFunding", r#","startTime":0"#)).await.unwrap(), "[]");
}

#[actix_rt::test]
async fn whose_subscription_would_be_taken_gets_an_empty_answer() {
    let asked = of(7, "userFills", "");
    let ann = Client { identity: Some("ann".into()), ..Client::default() };
    let answer = async |unlisted, client: &Client| {
        let answer = scene(unlisted).await.info.answer(asked.as_bytes(), client).await;
        answer.map_err(|error| error.code())
    };

    assert_eq!(answer(Unlisted::Accept, &Client::default()).await.unwrap(), "[]");
    assert_eq!(answer(Unlisted::Add, &ann).await.unwrap(), "[]");
    assert_eq!(answer(Unlisted::Add, &Client::default()).await.unwrap_err(), "not_listed");
    assert_eq!(answer(Unlisted::Reject, &ann).await.unwrap_err(), "not_listed");
}
