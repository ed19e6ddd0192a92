//! Real lines of a node go through the whole daemon, byte by byte.
//!
//! The samples are not part of the project, see `samples`. What is expected is read from the same
//! lines by `serde_json` alone, with none of our parser's code.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../src/testing/samples.rs"]
mod samples;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Instant,
};

use common::{
    PATIENCE, Setup, TestDaemon, database, eventually,
    node::{Kind, append},
};
use nodecast::event::{Address, EventId, Topic};
use samples::sample;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

const FILLS: Topic = Topic::new("fills");
const MISC: Topic = Topic::new("misc");

const UNFILTERED: &str = "fills_by_block.unfiltered.10-blocks.jsonl";
const BTC_ONLY: &str = "fills_by_block.btc-only.40-blocks.jsonl";

type Rows = BTreeMap<EventId, (Option<Address>, String)>;

/// A line, with the exact text of each of its events.
#[derive(Deserialize)]
struct Line<'a> {
    block_time: String,
    block_number: u64,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn id(topic: Topic, position: u64, index: usize, part: usize) -> EventId {
    EventId { topic, position, index: index as u32, part: part as u32 }
}

/// What the store has to hold of lines with fills.
fn expected_fills(text: &str) -> Rows {
    let mut rows = Rows::new();
    for line in text.lines() {
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        for (index, event) in line.events.iter().enumerate() {
            let (user, fill): (&str, &RawValue) = serde_json::from_str(event.get()).unwrap();
            let row = (Some(address(user)), fill.get().to_owned());
            rows.insert(id(FILLS, line.block_number, index, 0), row);
        }
    }
    rows
}

/// The users that a misc element concerns in order, each with the entries of a list that are his.
fn concerned(inner: &Value) -> Vec<(Option<Address>, Option<Value>)> {
    let (variant, content) = inner.as_object().unwrap().iter().next().unwrap();
    let text = |value: &Value| Some(address(value.as_str().unwrap()));
    match variant.as_str() {
        "LedgerUpdate" => {
            content["users"].as_array().unwrap().iter().map(|user| (text(user), None)).collect()
        }
        "CDeposit" | "CWithdrawal" | "Delegation" => vec![(text(&content["user"]), None)],
        // The samples name each user once in a list.
        "Funding" => {
            let deltas = content["deltas"].as_array().unwrap();
            deltas.iter().map(|delta| (text(&delta["user"]), Some(delta.clone()))).collect()
        }
        "ValidatorRewards" => {
            let rewards = content["validator_to_reward"].as_array().unwrap();
            rewards.iter().map(|reward| (text(&reward[0]), Some(reward.clone()))).collect()
        }
        "GossipPriorityAuctionRestart" | "FutureEvent" => vec![(None, None)],
        other => panic!("a sample has the variant {other}, which this test does not know"),
    }
}

/// What the store has to hold of lines with misc events.
fn expected_misc(text: &str) -> Rows {
    let mut rows = Rows::new();
    for line in text.lines() {
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        for (index, event) in line.events.iter().enumerate() {
            let whole: Value = serde_json::from_str(event.get()).unwrap();
            for (part, (user, entry)) in concerned(&whole["inner"]).into_iter().enumerate() {
                let body = match entry {
                    None => event.get().to_owned(),
                    // His entries alone, in the words of the node: the list's other entries are
                    // cut out of the text.
                    Some(own) => cut_to(event.get(), &whole["inner"], &own),
                };
                rows.insert(id(MISC, line.block_number, index, part), (user, body));
            }
        }
    }
    rows
}

/// An element whose list is left with one entry. The samples are compact JSON, so what
/// `serde_json` writes with its keys in their order is what stands there.
fn cut_to(element: &str, inner: &Value, own: &Value) -> String {
    let list = inner.as_object().unwrap().values().next().unwrap();
    let list = list.as_object().unwrap().values().next().unwrap();
    let entries = list.as_array().unwrap();
    let raw: Vec<&str> = raw_entries(element);
    assert_eq!(raw.len(), entries.len());
    let place = entries.iter().position(|entry| entry == own).unwrap();
    element.replace(&raw.join(","), raw[place])
}

/// The texts of the entries of the one list below `inner`.
fn raw_entries(element: &str) -> Vec<&str> {
    #[derive(Deserialize)]
    struct Element<'a> {
        #[serde(borrow)]
        inner: BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a RawValue>>>,
    }
    let element: Element<'_> = serde_json::from_str(element).unwrap();
    let lists = element.inner.into_values().next().unwrap();
    lists.into_values().next().unwrap().into_iter().map(RawValue::get).collect()
}

/// Writes each line into the hour file of its block time. Lines need not be in block order.
fn write_hour_files(kind: &Kind, text: &str) {
    for line in text.lines() {
        let time = serde_json::from_str::<Line<'_>>(line).unwrap().block_time;
        let (day, hour) = (time[..10].replace('-', ""), &time[11..13]);
        let mut file = kind.open(day.parse().unwrap(), hour.parse().unwrap());
        append(&mut file, &format!("{line}\n"));
    }
}

/// Runs the daemon until it has stored as many rows, then compares each.
fn assert_stored(setup: &Setup, daemon: TestDaemon, expected: &Rows) {
    eventually("all is stored", || {
        daemon.status()["store"]["inserted"].as_u64() >= Some(expected.len() as u64)
    });
    let status = daemon.status();
    let streams = status["nodes"][0]["streams"].as_array().unwrap();
    for counter in ["malformed_lines", "recovered_lines", "skipped_elements", "refused_blocks"] {
        assert!(streams.iter().all(|stream| stream[counter] == 0), "{counter}: {status}");
    }
    assert_eq!(status["router"]["conflicts"], 0, "{status}");
    assert_eq!(daemon.stop().code(), Some(0));
    let stored = database::rows(&setup.database());
    assert_eq!(stored.len(), expected.len());
    for ((id, row), (expected_id, expected_row)) in stored.iter().zip(expected) {
        assert_eq!((id, row), (expected_id, expected_row));
    }
}

#[test]
fn ten_real_blocks_give_each_of_their_fills_with_its_exact_body() {
    let Some(text) = sample(UNFILTERED) else { return };
    let expected = expected_fills(&text);
    let users: BTreeSet<_> = expected.values().map(|(user, _)| *user).collect();
    assert_eq!((expected.len(), users.len()), (1_388, 1_211), "is this another sample?");
    // In one block hundreds of fills share coin and tid: only the ordinal tells them apart.
    let dust = expected.values().filter(|(_, body)| body.contains(r#""tid":0,"#)).count();
    assert!(dust > 100, "{dust}");
    let setup = Setup::new();
    write_hour_files(&Kind::fills(setup.node()), &text);

    let daemon = setup.start();

    assert_stored(&setup, daemon, &expected);
}

#[test]
fn real_blocks_of_one_coin_are_stored_exactly() {
    let Some(text) = sample(BTC_ONLY) else { return };
    let expected = expected_fills(&text);
    assert_eq!(expected.len(), 4, "is this another sample?");
    let setup = Setup::new();
    write_hour_files(&Kind::fills(setup.node()), &text);

    let daemon = setup.start();

    eventually("the empty blocks are read too", || {
        daemon.status()["nodes"][0]["streams"][0]["lines"] == 40
    });
    assert_eq!(daemon.status()["router"]["gaps_opened"], 0);
    assert_stored(&setup, daemon, &expected);
}

// H04 H05
#[test]
fn real_misc_events_give_each_concerned_user_his_part() {
    // Their block times are months apart, and retention counts back from the newest one.
    for (name, rows) in [
        ("misc_by_block.send.jsonl", 2),
        ("misc_by_block.regrouped.jsonl", 8),
        ("misc_by_block.vault-withdraw.jsonl", 2),
        ("misc_by_block.unknown-variant.synthetic.jsonl", 2),
    ] {
        let Some(text) = sample(name) else { continue };
        let expected = expected_misc(&text);
        assert_eq!(expected.len(), rows, "{name}: is this another sample?");
        let setup = Setup::new();
        write_hour_files(&Kind::misc(setup.node()), &text);

        let daemon = setup.start();

        assert_stored(&setup, daemon, &expected);
    }
}

// H28 H29: what is stored exactly is also what a client gets.
#[test]
fn a_client_receives_the_real_fills_byte_by_byte() {
    let Some(text) = sample(UNFILTERED) else { return };
    let mut expected = expected_fills(&text);
    let setup = Setup::new();
    fs::create_dir_all(setup.node().join("node_fills_by_block")).unwrap();
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");

    write_hour_files(&Kind::fills(setup.node()), &text);

    while !expected.is_empty() {
        let (position, index, user, body) = next_event(&mut client);
        let row = expected.remove(&id(FILLS, position, index, 0));
        assert_eq!(row, Some((Some(address(&user)), body)), "block {position} index {index}");
    }
}

/// The next event with the exact text of its body.
fn next_event(client: &mut common::Client) -> (u64, usize, String, String) {
    #[derive(Deserialize)]
    struct Frame<'a> {
        r#type: &'a str,
        block: Option<u64>,
        index: Option<usize>,
        user: Option<String>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let tungstenite::Message::Text(text) = client.read().unwrap() else { continue };
        let frame: Frame<'_> = serde_json::from_str(&text).unwrap();
        if frame.r#type == "event" {
            let body = frame.data.unwrap().get().to_owned();
            return (frame.block.unwrap(), frame.index.unwrap(), frame.user.unwrap(), body);
        }
    }
    panic!("no event comes");
}
