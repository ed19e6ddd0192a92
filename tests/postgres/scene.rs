//! What the tests of outages share: a node that writes, a daemon that stores, a client that listens.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nodecast::{
    event::{EventId, Topic},
    generate::{Plan, Simulator},
};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::common::{Setup, TestDaemon, database, eventually, proxy::Proxy, receive_type, send};

/// Small bounds, so that an outage of seconds fills them; many commits.
pub const CONFIG: &str = "[source]\nbudget_bytes = \"1MiB\"\nread_bytes = \"64KiB\"\n\
    [router]\nrecent_bytes = \"1MiB\"\n\
    [store]\nbatch_delay = \"5ms\"\nwrite_timeout = \"1s\"\nquery_timeout = \"1s\"\n";

/// The budget of [`CONFIG`], and the read that crosses it, which is charged at what it takes in memory.
const BUDGET_BYTES: u64 = (1 << 20) + (192 << 10);

/// What is kept for readers, and what waits for its commit.
const LOG_BYTES: u64 = (1 << 20) + BUDGET_BYTES;

/// A node with a directory of its own, and a daemon's place on a database.
pub struct Scene {
    pub setup: Setup,
    /// How the test itself reaches the database.
    pub url: String,
    node: Simulator,
}

impl Scene {
    pub fn new(url: String) -> Self {
        let mut setup = Setup::new();
        setup.database_url = Some(url.clone());
        setup.config = CONFIG.to_owned();
        // A calm node: each line is whole when it is written.
        let plan = Plan { seed: 11, users: 40, ..Plan::default() };
        let node = Simulator::new(plan, setup.node()).unwrap();
        Self { setup, url, node }
    }

    /// The daemon reaches its database through a proxy.
    pub fn behind_a_proxy(url: String) -> (Self, Proxy) {
        let (proxy, through) = Proxy::before(&url);
        let mut scene = Self::new(url);
        scene.setup.database_url = Some(through);
        (scene, proxy)
    }

    /// The place of a second daemon on the same database and the same node directory.
    pub fn second(&self, config: &str) -> Setup {
        let mut setup = Setup::new();
        setup.database_url = self.setup.database_url.clone();
        setup.data_dirs = self.setup.data_dirs.clone();
        setup.config = config.to_owned();
        setup
    }

    pub fn write(&mut self, blocks: u64) {
        self.node.write_blocks(blocks).unwrap();
    }

    /// Rows that were written so far.
    pub fn rows(&self) -> usize {
        self.node.manifest().rows.len()
    }

    pub fn stored(&self) -> usize {
        database::rows(self.url.as_str()).len()
    }

    pub fn wait_until_stored(&self) {
        eventually("all is stored", || self.stored() >= self.rows());
    }

    /// The store holds what was written, no more and no less.
    pub fn assert_stored(&self) {
        self.wait_until_stored();
        let written = self.node.manifest().rows.iter();
        database::assert_equals_manifest(self.url.as_str(), written);
    }

    /// Everything written came to the client, each event once.
    pub fn assert_heard(&self, client: &Listener) {
        client.wait_for(self.rows());
        let heard = client.heard.lock().unwrap();
        let heard_ids: BTreeSet<_> = heard.iter().copied().collect();
        let written: BTreeSet<_> = self.node.manifest().rows.iter().map(|row| row.id).collect();
        assert_eq!(heard.len(), heard_ids.len(), "an event came twice");
        assert_eq!(heard_ids, written);
    }

    /// How each outage has to end: all stored, all heard, nothing read again, well again.
    pub fn assert_well(&self, daemon: &TestDaemon, client: &Listener) {
        self.assert_heard(client);
        self.assert_stored();
        eventually("all is well again", || !reasons(daemon).contains("store"));
        let status = daemon.status();
        assert_bounded(&status);
        assert_eq!(status["router"]["generations"], 0, "nothing had to be read again: {status}");
        assert_eq!(status["router"]["conflicts"], 0, "{status}");
        assert_eq!(status["store"]["quarantined"], 0, "{status}");
        assert_eq!(status["store"]["inserted"], self.rows(), "{status}");
    }
}

/// The identities of all events that came to a client, in the order of their coming.
pub struct Listener {
    heard: Arc<Mutex<Vec<EventId>>>,
}

impl Listener {
    pub fn to(daemon: &TestDaemon) -> Self {
        let mut client = daemon.connect("/v1/ws");
        for topic in ["fills", "misc"] {
            send(&mut client, &json!({"type": "subscribe", "id": topic, "topic": topic}));
            receive_type(&mut client, "ack");
        }
        let heard = Arc::default();
        let listener = Self { heard: Arc::clone(&heard) };
        thread::spawn(move || {
            // Until the daemon closes it.
            while let Ok(message) = client.read() {
                let Message::Text(text) = message else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["type"] == "event" {
                    let number = |name: &str| frame[name].as_u64().unwrap();
                    heard.lock().unwrap().push(EventId {
                        topic: Topic::intern(frame["topic"].as_str().unwrap()),
                        position: number("block"),
                        index: number("index") as u32,
                        part: number("part") as u32,
                    });
                }
            }
        });
        listener
    }

    pub fn wait_for(&self, events: usize) {
        let mut heard = 0;
        eventually("the client hears everything", || {
            heard = self.heard.lock().unwrap().len();
            heard >= events
        });
        assert_eq!(heard, events);
    }
}

pub fn reasons(daemon: &TestDaemon) -> String {
    daemon.status()["reasons"].to_string()
}

/// The status of a daemon whose store is away, with a reason that holds this.
pub fn wait_until_degraded(daemon: &TestDaemon, reason: &str) -> Value {
    let mut status = Value::Null;
    eventually(&format!("commits fail and status says: {reason}"), || {
        status = daemon.status();
        let reasons = status["reasons"].to_string();
        status["state"] == "degraded"
            && reasons.contains("commits have failed")
            && reasons.contains(reason)
    });
    assert_bounded(&status);
    status
}

/// Memory does not grow with an outage.
pub fn assert_bounded(status: &Value) {
    let bytes = |section: &str, name: &str| status[section][name].as_u64().unwrap();
    assert!(bytes("budget", "in_flight_bytes") <= BUDGET_BYTES, "{status}");
    assert!(bytes("log", "bytes") <= LOG_BYTES, "{status}");
}

/// Writes more than the budget while the store is away, and waits until reading pauses.
pub fn fill_the_budget(scene: &mut Scene, daemon: &TestDaemon) {
    eventually("reading pauses", || {
        scene.write(20);
        thread::sleep(Duration::from_millis(5));
        let status = daemon.status();
        assert_bounded(&status);
        status["budget"]["paused_chains"] == 1
    });
}
