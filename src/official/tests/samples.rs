//! The shapes over real lines of nodes, and against recorded answers of the official service.
//!
//! No line of a node and no recorded answer are of the same moment. So the answers are taken back to what a
//! node would have written, and have to come out again as they were recorded.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::{
    source::{
        Form, Horizon,
        node::recover::{LineParser, ParsedLines},
    },
    testing::samples::sample,
};

/// The events of a sample as the pipeline cuts them, and the sample.
fn events(name: &str, topic: Topic) -> Option<(Vec<Event>, String)> {
    let text = sample(name)?;
    let horizon = Arc::new(Horizon::new(Duration::MAX, None));
    let mut parser = LineParser::new(topic, Form::ByBlock, horizon, &[]);
    let mut parsed = ParsedLines::default();
    let now = Timestamp::parse_node(b"2026-12-01T00:00:00").unwrap();
    let mut start = 0;
    for line in text.lines() {
        parser.parse(text.as_bytes(), start..start + line.len(), now, &mut parsed);
        start += line.len() + 1;
    }
    let mut events = Vec::new();
    for block in &parsed.blocks {
        events.extend(parsed.candidates[block.candidates.clone()].iter().map(|candidate| Event {
            id: EventId {
                topic,
                position: block.position,
                index: candidate.index,
                part: candidate.part,
            },
            time: block.time,
            user: candidate.user,
            keys: Keys::default(),
            body: candidate.body.copy_from(text.as_bytes()),
        }));
    }
    Some((events, text))
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

/// A recorded answer: its elements, as they were recorded.
fn recorded(name: &str) -> Option<Vec<Box<serde_json::value::RawValue>>> {
    let text = sample(&format!("official_api/{name}.response.json"))?;
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn every_real_fill_is_read_and_every_real_trade_told_once() {
    for (name, fills, trades, slices) in [
        ("fills_by_block.unfiltered.10-blocks.jsonl", 1_388, 45, 8),
        ("fills_by_block.btc-only.40-blocks.jsonl", 4, 2, 2),
    ] {
        let Some((events, text)) = events(name, FILLS) else { continue };

        let read = events.iter().filter_map(Fill::read).collect::<Vec<_>>();
        assert_eq!(read.len(), fills, "{name}");
        assert!(
            read.iter().zip(&events).all(|(fill, event)| fill.time as i64 == time_ms(event)),
            "{name}: a fill's time is the floor of its block's"
        );

        let mut told = BTreeMap::new();
        // The two sides stand one behind the other.
        for pair in events.windows(2) {
            let trade = Trade::of(&pair[0], &pair[1]).or_else(|| Trade::of(&pair[1], &pair[0]));
            if let Some(trade) = trade {
                let trade: Value = serde_json::from_str(&written(|out| trade.push(out))).unwrap();
                assert!(told.insert(trade["tid"].as_u64().unwrap(), trade).is_none(), "{name}");
            }
        }
        assert_eq!(told.len(), trades, "{name}");
        for (fill, event) in read.iter().zip(&events).filter(|(fill, _)| fill.trade().is_some()) {
            let trade = &told[&fill.trade().unwrap()];
            let fill: Value = serde_json::from_slice(&event.body).unwrap();
            for field in ["coin", "px", "sz", "hash", "time", "tid"] {
                assert_eq!(trade[field], fill[field], "{name}: {field}");
            }
            let place = if fill["side"] == "B" { 0 } else { 1 };
            assert_eq!(trade["users"][place], event.user.unwrap().to_string());
            assert_eq!(trade["side"] == fill["side"], fill["crossed"] == true);
        }

        let mut told = 0;
        for event in &events {
            let mut out = Vec::new();
            if push_twap_slice_fill(event, &mut out) {
                told += 1;
                let slice: Value = serde_json::from_slice(&out).unwrap();
                assert_eq!(slice["twapId"], slice["fill"]["twapId"]);
                assert!(slice["twapId"].is_u64());
            }
            assert!(text.contains(std::str::from_utf8(&event.body).unwrap()));
        }
        assert_eq!(told, slices, "{name}");
    }
}

#[test]
fn a_real_crossing_order_is_one_fill_and_all_else_keeps_its_bytes() {
    let Some((events, text)) = events("fills_by_block.unfiltered.10-blocks.jsonl", FILLS) else {
        return;
    };

    let bodies = aggregate(&events);

    // Four fills of one order, and two orders of two.
    assert_eq!(bodies.len(), events.len() - 3 - 1 - 1);
    let new: Vec<_> = bodies.iter().map(|body| std::str::from_utf8(body).unwrap()).collect();
    let new: Vec<Value> = new
        .into_iter()
        .filter(|body| !text.contains(*body))
        .map(|body| serde_json::from_str(body).unwrap())
        .collect();
    assert_eq!(new.len(), 3);
    let found = new.iter().find(|fill| fill["coin"] == "cash:NVDA").unwrap();
    for (field, value) in [
        ("px", "179.58522556"),
        ("sz", "1.064"),
        ("startPosition", "27.574"),
        ("closedPnl", "0.13324"),
        ("fee", "0.008022"),
        ("dir", "Close Long"),
        ("builder", "0x4950994884602d1b6c6d96e4fe30f58205c39395"),
    ] {
        assert_eq!(found[field], value, "{field}");
    }
}

#[test]
fn a_recorded_order_that_closed_a_position_adds_up_to_that_position() {
    let Some(fills) = recorded("get_user_fills_by_time") else { return };
    let mut at = 0;
    let mut block = None;
    let run: Vec<_> = (0u32..)
        .zip(&fills)
        .map(|(index, body)| {
            let fill = Fill::of_body(body.get().as_bytes()).unwrap();
            assert_eq!(fill.tid, None, "fills of 2023 have no number");
            // Newest first; the fills of one block are in its order.
            if block.replace(fill.time) != Some(fill.time) {
                at += 1;
            }
            fill_event(100 - at, index, 7, body.get())
        })
        .collect();

    let bodies = aggregate(&run);

    assert_eq!(bodies.len(), 8);
    for body in &bodies {
        let fill: Value = serde_json::from_slice(body).unwrap();
        let [size, position] = ["sz", "startPosition"].map(|field| fill[field].as_str().unwrap());
        assert_eq!(size, position.trim_start_matches('-'), "{fill}");
    }
}

#[test]
fn recorded_fundings_come_out_as_they_were_recorded() {
    let Some(updates) = recorded("user_funding_history_with_end_time") else { return };
    assert_eq!(updates.len(), 13);
    for update in updates {
        let mut update: Value = serde_json::from_str(update.get()).unwrap();
        // Rows of 2023 summed up three hours; those of nodes are of one hour.
        assert_eq!(update["delta"]["nSamples"].take(), 3);
        let delta = &update["delta"];
        let body = json!({"hash": update["hash"], "inner": {"Funding": {"deltas": [{
            "user": user(7).to_string(),
            "coin": delta["coin"],
            "funding_amount": delta["usdc"],
            "szi": delta["szi"],
            "funding_rate": delta["fundingRate"],
        }]}}});
        let mut event = misc_event(7, &body.to_string());
        event.time = Timestamp(update["time"].as_i64().unwrap() * 1_000 + 999);

        let funding = Funding::read(&event).unwrap();

        let told = written(|out| funding.deltas[0].push_update(&funding, out));
        assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), update);
        // A subscription has the same in one object.
        let told = written(|out| funding.deltas[0].push_event(&funding, out));
        let mut flat = delta.clone();
        flat.as_object_mut().unwrap().remove("type").unwrap();
        flat["time"] = update["time"].clone();
        assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), flat);
    }
}

#[test]
fn recorded_ledger_updates_come_out_byte_by_byte_as_they_were_recorded() {
    let name = "user_non_funding_ledger_updates_without_end_time";
    let Some(updates) = recorded(name) else { return };
    assert_eq!(updates.len(), 5);
    for update in updates {
        #[derive(serde::Deserialize)]
        struct Update<'u> {
            time: i64,
            hash: &'u str,
            #[serde(borrow)]
            delta: &'u serde_json::value::RawValue,
        }
        let Update { time, hash, delta } = serde_json::from_str(update.get()).unwrap();
        let body = SEND.replace("DELTA", delta.get()).replace("0x5a44", hash);
        let mut event = misc_event(7, &body);
        event.time = Timestamp(time * 1_000 + 999);

        let told = written(|out| LedgerUpdate::read(&event).unwrap().push(out));

        assert_eq!(told, update.get());
    }
}

#[test]
fn real_misc_events_give_fundings_and_ledger_updates_to_each_of_their_users() {
    if let Some((events, _)) = events("misc_by_block.regrouped.jsonl", MISC) {
        let fundings: Vec<_> = events.iter().filter_map(Funding::read).collect();
        let told: Vec<_> = fundings
            .iter()
            .map(|funding| written(|out| funding.deltas[0].push_event(funding, out)))
            .collect();
        assert_eq!(
            told,
            [
                r#"{"time":1781139600039,"coin":"ZEC","usdc":"9.330246","szi":"280.0","fundingRate":"-0.0000810249","nSamples":null}"#,
                r#"{"time":1781139600039,"coin":"HYPE","usdc":"4.506878","szi":"-2744.84","fundingRate":"0.0000308526","nSamples":null}"#,
            ]
        );
        assert!(events.iter().all(|event| LedgerUpdate::read(event).is_none()));
    }
    for (name, kind) in [
        ("misc_by_block.send.jsonl", "send"),
        ("misc_by_block.vault-withdraw.jsonl", "vaultWithdraw"),
    ] {
        let Some((events, text)) = events(name, MISC) else { continue };
        let updates: Vec<_> = events.iter().filter_map(LedgerUpdate::read).collect();
        assert_eq!(updates.len(), 2, "{name}: one for each user");
        for update in updates {
            assert!(text.contains(update.delta.get()));
            let told: Value = serde_json::from_str(&written(|out| update.push(out))).unwrap();
            assert_eq!(told["delta"]["type"], kind);
            assert!(told["time"].is_i64() && text.contains(told["hash"].as_str().unwrap()));
        }
        assert!(events.iter().all(|event| Funding::read(event).is_none()));
    }
}
