//! Real lines of nodes, which are no part of the project: each client reads what is made of them.

use std::{cmp::Reverse, collections::BTreeMap, net::SocketAddr};

use nodecast::event::Timestamp;
use serde_json::{Value, json};

use crate::{
    client::{Client, Sdk},
    common::{
        Setup, TestDaemon, eventually,
        node::{Kind, append},
    },
    feed::{Feed, Subscription, agree},
    samples::sample,
    scene::StandIn,
};

const FILLS: &str = "fills_by_block.unfiltered.10-blocks.jsonl";
const MISC: [&str; 2] = ["misc_by_block.regrouped.jsonl", "misc_by_block.send.jsonl"];

/// Whose snapshots are compared. The TypeScript SDK lets a connection have so many.
const USERS: usize = 10;

/// A daemon that has read samples of one kind; those of two kinds are months apart.
struct Real {
    daemon: TestDaemon,
    _setup: Setup,
    of: BTreeMap<(Feed, String), Vec<Value>>,
}

impl Real {
    fn start(fills: &str, misc: &[String]) -> Self {
        let setup = Setup::new();
        append(&mut Kind::fills(setup.node()).open(20_260_315, 0), fills);
        let misc: Vec<&str> = misc.iter().flat_map(|text| text.lines()).collect();
        let mut file = Kind::misc(setup.node()).open(20_260_611, 1);
        misc.iter().for_each(|line| append(&mut file, &format!("{line}\n")));
        let mut real = Self { daemon: setup.start(), _setup: setup, of: BTreeMap::new() };
        let fills = fills.lines().map(|line| real.note_fills(&parsed(line))).sum::<u64>();
        let misc = misc.iter().map(|line| real.note_misc(&parsed(line))).sum::<u64>();
        eventually("all is stored", || {
            real.daemon.status()["store"]["inserted"].as_u64() == Some(fills + misc)
        });
        real
    }

    fn note(&mut self, feed: Feed, user: &Value, item: Value) -> u64 {
        let user = user.as_str().unwrap().to_owned();
        self.of.entry((feed, user)).or_default().push(item);
        1
    }

    /// Notes down what a line says of whom, and gives how many rows that is.
    fn note_fills(&mut self, line: &Value) -> u64 {
        let events = line["events"].as_array().unwrap().iter();
        events.map(|event| self.note(Feed::Fills, &event[0], event[1].clone())).sum()
    }

    fn note_misc(&mut self, line: &Value) -> u64 {
        let time = Timestamp::parse_node(line["block_time"].as_str().unwrap().as_bytes());
        let time = time.unwrap().0.div_euclid(1_000);
        let mut rows = 0;
        for event in line["events"].as_array().unwrap() {
            let (name, inner) = event["inner"].as_object().unwrap().iter().next().unwrap();
            let list = |list: &Value| list.as_array().unwrap().clone();
            rows += match name.as_str() {
                "Funding" => (list(&inner["deltas"]).iter())
                    .map(|delta| {
                        let funding = json!({
                            "time": time, "coin": delta["coin"], "usdc": delta["funding_amount"],
                            "szi": delta["szi"], "fundingRate": delta["funding_rate"],
                        });
                        self.note(Feed::Fundings, &delta["user"], funding)
                    })
                    .sum(),
                "LedgerUpdate" => (list(&inner["users"]).iter())
                    .map(|user| {
                        let update =
                            json!({"time": time, "hash": event["hash"], "delta": inner["delta"]});
                        self.note(Feed::Ledger, user, update)
                    })
                    .sum(),
                "ValidatorRewards" => list(&inner["validator_to_reward"]).len() as u64,
                _ => 1,
            };
        }
        rows
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.daemon.port).into()
    }
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// The snapshot of a subscription that a client makes now, the newest first.
fn snapshot(client: &mut Client, feed: Feed, user: &str) -> Vec<Value> {
    let made = Subscription::ask(client, 0, feed, user);
    client.wait("a snapshot", |client| !client.messages(made.id).is_empty());
    made.received(client, feed.streams()[0])
}

/// Compares the snapshots of the users of whom there is most.
fn compare(real: &Real, sdk: Sdk) {
    let stand_in = (sdk == Sdk::Rust).then(|| StandIn::before(real.address()));
    let mut client = Client::start(sdk, real.address(), &json!({}));
    let mut users: Vec<_> = real.of.iter().collect();
    users.sort_by_key(|(_, items)| Reverse(items.len()));
    // All ledger updates here are of a type that the Rust SDK does not know.
    users.retain(|((feed, _), _)| sdk != Sdk::Rust || *feed != Feed::Ledger);
    for ((feed, user), expected) in users.into_iter().take(USERS) {
        let (stream, got) = (feed.streams()[0], snapshot(&mut client, *feed, user));
        assert_eq!(got.len(), expected.len(), "{user}");
        for (got, expected) in got.iter().zip(expected) {
            assert!(agree(sdk, stream, got, expected), "{got} and not {expected}");
        }
    }
    let complaints: Vec<_> =
        client.end().into_iter().filter(|told| !told["log"].is_null()).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    drop(stand_in);
}

fn read_all(sdk: Sdk) {
    if !sdk.is_here() {
        return;
    }
    if let Some(fills) = sample(FILLS) {
        compare(&Real::start(&fills, &[]), sdk);
    }
    if let Some(misc) = MISC.into_iter().map(sample).collect::<Option<Vec<_>>>() {
        compare(&Real::start("", &misc), sdk);
    }
}

#[test]
fn python_reads_what_a_real_node_wrote() {
    read_all(Sdk::Python);
}

#[test]
fn typescript_reads_what_a_real_node_wrote() {
    read_all(Sdk::TypeScript);
}

#[test]
fn rust_reads_what_a_real_node_wrote() {
    read_all(Sdk::Rust);
}
