//! The recorded requests, over a store that has what their answers are made of.

use serde_json::json;

use super::*;
use crate::testing::samples::sample;

fn recording(name: &str) -> Option<(String, String)> {
    let part = |part: &str| sample(&format!("official_api/{name}.{part}.json"));
    Some((part("request")?, part("response")?))
}

/// What a node would have written for a row of a user, in a block of its own time.
fn written(topic: Topic, of: Address, time: i64, index: u32, body: String) -> Event {
    let mut event = event(topic, time as u64, index, 0, &body);
    event.user = Some(of);
    event.time = Timestamp(time * 1_000 + 999);
    event
}

fn user_of(request: &str) -> Address {
    let request: Value = serde_json::from_str(request).unwrap();
    request["user"].as_str().unwrap().parse().unwrap()
}

#[actix_rt::test]
async fn recorded_fills_are_answered_byte_by_byte() {
    let Some((request, response)) = recording("get_user_fills_by_time") else { return };
    let of = user_of(&request);
    let rows: Vec<Box<RawValue>> = serde_json::from_str(&response).unwrap();
    let mut scene = Scene::of_rows(2_000).await;
    let events: Vec<_> = (0..)
        .zip(&rows)
        .map(|(index, row)| {
            let time = serde_json::from_str::<Value>(row.get()).unwrap()["time"].as_i64().unwrap();
            written(FILLS, of, time, index, row.get().to_owned())
        })
        .collect();
    scene.store(sorted(events.clone())).await;

    // The service of 2023 began with the newest, without being asked to.
    let reversed = request.trim_end().replacen('{', r#"{"reversed":true,"#, 1);
    let (newest_first, oldest_first) = (scene.ask(&reversed).await, scene.rows(&request).await);

    assert_eq!(newest_first.unwrap(), response.trim_end());
    let expected: Vec<_> = sorted(events).iter().map(|event| event.body.clone()).collect();
    assert_eq!(oldest_first, expected);
}

#[actix_rt::test]
async fn recorded_fundings_are_answered_with_the_same_values() {
    let Some((request, response)) = recording("user_funding_history_with_end_time") else { return };
    let of = user_of(&request);
    let mut rows: Vec<Value> = serde_json::from_str(&response).unwrap();
    let mut scene = Scene::of_rows(2_000).await;
    let events = (0..).zip(&mut rows).map(|(index, row)| {
        // Rows of 2023 summed up three hours; those of nodes are of one hour.
        assert_eq!(row["delta"]["nSamples"].take(), 3);
        let delta = &row["delta"];
        let body = json!({"hash": row["hash"], "inner": {"Funding": {"deltas": [{
            "user": of.to_string(), "coin": delta["coin"], "funding_amount": delta["usdc"],
            "szi": delta["szi"], "funding_rate": delta["fundingRate"],
        }]}}});
        written(MISC, of, row["time"].as_i64().unwrap(), index, body.to_string())
    });
    let events: Vec<_> = events.collect();
    scene.store(events).await;

    let answer = scene.ask(&request).await.unwrap();

    assert_eq!(serde_json::from_str::<Vec<Value>>(&answer).unwrap(), rows);
}

#[actix_rt::test]
async fn recorded_ledger_updates_are_answered_byte_by_byte() {
    let name = "user_non_funding_ledger_updates_without_end_time";
    let Some((request, response)) = recording(name) else { return };
    let of = user_of(&request);
    #[derive(serde::Deserialize)]
    struct Update<'u> {
        time: i64,
        hash: &'u str,
        #[serde(borrow)]
        delta: &'u RawValue,
    }
    let rows: Vec<Update<'_>> = serde_json::from_str(&response).unwrap();
    let mut scene = Scene::of_rows(2_000).await;
    let events = rows.iter().map(|row| {
        let body = SEND.replace("DELTA", row.delta.get()).replace("0x5a44", row.hash);
        written(MISC, of, row.time, 0, body)
    });
    scene.store(events.collect::<Vec<_>>()).await;

    assert_eq!(scene.ask(&request).await.unwrap(), response.trim_end());
}
