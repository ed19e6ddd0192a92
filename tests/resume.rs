//! Promise 3: who resumes gets every stored event, in order, whatever happened to him and to the
//! daemon in between.
//!
//! A simulated node writes while clients connect, read a little, lose their connections and come
//! back with the cursor they have seen last, and while the daemon is killed or stopped and started
//! anew, its clock stepping back. Half of the times they come back by one list of subscriptions, and else by
//! one message for each. In the end each client must have what the manifest has for it.
//! `NODECAST_RESUMES` sets the number of such scripts, `NODECAST_SEED` the first of them.

#![cfg(feature = "failpoints")]
// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{
    collections::{BTreeMap, HashSet},
    env,
    time::{Duration, Instant},
};

use common::{Client, PATIENCE, Setup, TestDaemon, send};
use nodecast::{
    event::{EventId, Timestamp, Topic},
    generate::{Faults, Manifest, Plan, Row, Simulator},
};
use serde_json::{Value, json};
use tungstenite::{Message, stream::MaybeTlsStream};

const DAY: Duration = Duration::from_secs(86_400);

/// How long a client waits for the next frame before it does something else.
const GLANCE: Duration = Duration::from_millis(15);

/// What one kind of client asks for.
struct Wish {
    subscriptions: Vec<Value>,
    wants: Box<dyn Fn(&Row) -> bool>,
}

/// A client that remembers what it got, over all of its connections.
struct Follower<'w> {
    wish: &'w Wish,
    connection: Option<Client>,
    /// It has asked for all of its subscriptions by one list.
    by_list: bool,
    /// The last that it has received of those that hold for all of its subscriptions: a cursor says nothing
    /// of one that was not acknowledged before it. Of a list all are, before any event.
    cursor: Option<String>,
    /// How many of them are acknowledged in this connection.
    acknowledged: usize,
    got: BTreeMap<EventId, String>,
    /// Identities since the daemon last died: none may come twice.
    since_death: HashSet<EventId>,
    /// The `seq` of the event before, of each subscription's topic in this connection: a subscription
    /// that was heard later than another one begins its past then.
    last_seq: BTreeMap<Topic, u64>,
}

impl<'w> Follower<'w> {
    fn new(wish: &'w Wish) -> Self {
        Self {
            wish,
            connection: None,
            by_list: false,
            cursor: None,
            acknowledged: 0,
            got: BTreeMap::new(),
            since_death: HashSet::new(),
            last_seq: BTreeMap::new(),
        }
    }

    fn connect(&mut self, daemon: &TestDaemon, by_list: bool) {
        let mut client = daemon.connect("/v1/ws");
        let from = self.cursor.clone().unwrap_or_else(|| "oldest".to_owned());
        let mut subscriptions = self.wish.subscriptions.clone();
        subscriptions.iter_mut().for_each(|subscription| subscription["from"] = json!(from));
        match by_list {
            true => send(&mut client, &json!(subscriptions)),
            false => subscriptions.iter().for_each(|one| send(&mut client, one)),
        }
        if let MaybeTlsStream::Plain(stream) = client.get_ref() {
            stream.set_read_timeout(Some(GLANCE)).unwrap();
        }
        self.connection = Some(client);
        self.by_list = by_list;
        self.acknowledged = 0;
        self.last_seq.clear();
    }

    /// Takes up to so many frames, as long as some come.
    fn read(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some(client) = &mut self.connection else { return };
            match client.read() {
                Ok(Message::Text(text)) => self.take(&serde_json::from_str(&text).unwrap()),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::WouldBlock =>
                {
                    return;
                }
                Err(_ended) => self.connection = None,
            }
        }
    }

    fn take(&mut self, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            "event" => {
                let number = |field: &str| frame[field].as_u64().unwrap();
                let id = EventId {
                    topic: Topic::intern(frame["topic"].as_str().unwrap()),
                    position: number("block"),
                    index: number("index") as u32,
                    part: number("part") as u32,
                };
                let newest = self.last_seq.values().max().copied();
                let before = self.last_seq.insert(id.topic, number("seq"));
                let before = if self.by_list { newest } else { before };
                assert!(before < Some(number("seq")), "out of order: {frame}");
                // What came before the last acknowledgement comes again when that one was lost.
                let is_new = !self.is_complete() || self.since_death.insert(id);
                assert!(is_new, "again, and the daemon has not died: {frame}");
                // What comes again after a crash is the same.
                let data = frame["data"].to_string();
                let before = self.got.insert(id, data.clone());
                assert!(before.is_none_or(|before| before == data), "{frame}");
            }
            "ack" => {
                assert_eq!(frame["recovered"], true, "{frame}");
                self.acknowledged += 1;
            }
            "error" => panic!("{frame}"),
            _ => return,
        }
        if self.is_complete() {
            self.cursor = Some(frame["cursor"].as_str().unwrap().to_owned());
        }
    }

    /// Whether what comes now tells of all subscriptions. Who asks by a list needs not to count.
    fn is_complete(&self) -> bool {
        self.by_list || self.acknowledged == self.wish.subscriptions.len()
    }
}

fn wishes(manifest: &Manifest) -> Vec<Wish> {
    let mut users: Vec<_> = manifest.rows.iter().filter_map(|row| row.user).collect();
    users.sort_unstable();
    users.dedup();
    let few: Vec<_> = users.iter().copied().step_by(7).collect();
    let subscribe = |id: &str, topic: &str, more: Value| {
        let mut frame = json!({"type":"subscribe","id":id,"topic":topic});
        frame.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        frame
    };
    let texts: Vec<_> = few.iter().map(|user| user.to_string()).collect();
    vec![
        Wish {
            subscriptions: vec![
                subscribe("f", "fills", json!({})),
                subscribe("m", "misc", json!({})),
            ],
            wants: Box::new(|_| true),
        },
        Wish {
            subscriptions: vec![
                subscribe("f", "fills", json!({"users": texts})),
                subscribe("m", "misc", json!({"users": texts})),
            ],
            wants: Box::new(move |row| row.user.is_some_and(|user| few.contains(&user))),
        },
        Wish {
            subscriptions: vec![subscribe("b", "fills", json!({"where": {"coin": "BTC"}}))],
            wants: Box::new(|row| {
                row.id.topic.as_str() == "fills" && row.body.contains(r#""coin":"BTC""#)
            }),
        },
    ]
}

/// A script of writes, reads, cuts and deaths.
fn script(seed: u64) {
    println!("NODECAST_SEED={seed} NODECAST_RESUMES=1");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut setup = Setup::new();
    // Little memory, so that much has to come from the store.
    setup.config = "[source]\ngrace = \"100ms\"\nrescan_interval = \"250ms\"\n\
                    [router]\nrecent_bytes = \"64KiB\"\n[store]\nretention = \"3650d\"\n"
        .to_owned();
    let plan = Plan {
        seed,
        users: 40,
        start: Some(Timestamp::now().minus(DAY * 30)),
        block_interval: Duration::from_secs(60),
        faults: Faults { torn: true, crash_every: 40, rewind_every: 50, ..Faults::default() },
        ..Plan::default()
    };
    let mut node = Simulator::new(plan, setup.node()).unwrap();
    node.write_blocks(30).unwrap();
    let wishes = wishes(node.manifest());
    let mut followers: Vec<_> = wishes.iter().map(Follower::new).collect();
    let mut daemon = setup.start();
    for _ in 0..rng.u32(15..40) {
        let follower = rng.usize(0..followers.len());
        let follower = &mut followers[follower];
        match rng.u32(0..20) {
            0..7 => node.write_blocks(rng.u64(1..12)).unwrap(),
            7..9 => follower.connection = None,
            9 | 10 => {
                match rng.bool() {
                    true => drop(daemon.kill()),
                    false => assert_eq!(daemon.stop().code(), Some(0), "it stops in order"),
                }
                let back = rng.u64(0..5_000);
                setup.wrapper = vec!["env".into(), format!("NODECAST_CLOCK_BACK_MS={back}")];
                daemon = setup.start();
                for follower in &mut followers {
                    follower.read(usize::MAX);
                    follower.connection = None;
                    follower.since_death.clear();
                }
            }
            _ if follower.connection.is_none() => follower.connect(&daemon, rng.bool()),
            _ => follower.read(rng.usize(1..200)),
        }
    }
    node.finish().unwrap();
    let manifest = node.into_manifest();

    for follower in &mut followers {
        let wanted: BTreeMap<_, _> = manifest
            .rows
            .iter()
            .filter(|row| (follower.wish.wants)(row))
            .map(|row| (row.id, serde_json::from_str::<Value>(&row.body).unwrap().to_string()))
            .collect();
        let start = Instant::now();
        while follower.got != wanted {
            if follower.connection.is_none() {
                follower.connect(&daemon, rng.bool());
            }
            follower.read(1_000);
            let missing = wanted.keys().find(|id| !follower.got.contains_key(id));
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {}, without {missing:?}\n{}",
                follower.got.len(),
                wanted.len(),
                daemon.log_tail()
            );
        }
    }
    assert_eq!(daemon.stop().code(), Some(0));
    setup.assert_equals(manifest.rows.iter());
}

fn scripts(part: u64) {
    let parts = 4;
    let count: u64 = env::var("NODECAST_RESUMES").map_or(100, |count| count.parse().unwrap());
    let seed = env::var("NODECAST_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    (part..count).step_by(parts).for_each(|number| script(seed.wrapping_add(number)));
}

// H17
#[test]
fn who_resumes_gets_what_is_stored_in_order_and_nothing_twice_1() {
    scripts(0);
}

#[test]
fn who_resumes_gets_what_is_stored_in_order_and_nothing_twice_2() {
    scripts(1);
}

#[test]
fn who_resumes_gets_what_is_stored_in_order_and_nothing_twice_3() {
    scripts(2);
}

#[test]
fn who_resumes_gets_what_is_stored_in_order_and_nothing_twice_4() {
    scripts(3);
}
