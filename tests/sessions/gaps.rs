//! What clients are told of gaps, wherever what has been comes from.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use nodecast::{
    event::{Cursor, Event, Timestamp, Topic},
    router::{ledger::Gap, log::Notice},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::{ALICE, Client, FILLS, MISC, Server, event, misc};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of a topic: blocks with an event each, a hole, and blocks again; or nothing that is kept.
    Append {
        fills: bool,
        before: u64,
        hole: u64,
        after: u64,
        kept: bool,
        woken: bool,
    },
    /// The oldest hole is filled.
    Fill,
    /// A node directory that lags shows that blocks below the newest one are missing.
    NoticeLate {
        fills: bool,
    },
    /// What is in the log is stored, and may leave it.
    Commit,
    Subscribe {
        client: usize,
        topics: Vec<bool>,
        from: From,
        policy: &'static str,
    },
    Unsubscribe {
        client: usize,
    },
    /// Another one comes in its place, who has been told nothing.
    Reconnect {
        client: usize,
    },
    /// A client reads what there is.
    Read {
        client: usize,
    },
}

#[derive(Clone, Debug)]
enum From {
    Now,
    Oldest,
    /// One of the cursors that clients have seen.
    Seen(prop::sample::Index),
    /// One of another store, of a block that is so much older than the newest.
    Foreign(u64),
    Block(u64),
    /// The time of a block.
    Time(u64),
    Last(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let from = prop_oneof![
        2 => Just(From::Now),
        1 => Just(From::Oldest),
        6 => any::<prop::sample::Index>().prop_map(From::Seen),
        1 => (0..40_u64).prop_map(From::Foreign),
        2 => (0..60_u64).prop_map(From::Block),
        2 => (0..60_u64).prop_map(From::Time),
        1 => (1..20_u64).prop_map(From::Last),
    ];
    let append = (any::<bool>(), 0..4_u64, 0..3_u64, 0..4_u64, any::<bool>(), any::<bool>());
    let topics = prop_oneof![Just(vec![true]), Just(vec![false]), Just(vec![true, false])];
    let policy =
        prop_oneof![4 => Just("disconnect"), 1 => Just("skip"), 1 => Just("conflate:coin")];
    prop::collection::vec(
        prop_oneof![
            6 => append.prop_map(|(fills, before, hole, after, kept, woken)| {
                Step::Append { fills, before, hole, after, kept, woken }
            }),
            1 => Just(Step::Fill),
            1 => any::<bool>().prop_map(|fills| Step::NoticeLate { fills }),
            3 => Just(Step::Commit),
            4 => (0..CLIENTS, topics, from, policy).prop_map(|(client, topics, from, policy)| {
                Step::Subscribe { client, topics, from, policy }
            }),
            1 => (0..CLIENTS).prop_map(|client| Step::Unsubscribe { client }),
            2 => (0..CLIENTS).prop_map(|client| Step::Reconnect { client }),
            3 => (0..CLIENTS).prop_map(|client| Step::Read { client }),
        ],
        1..60,
    )
}

const CLIENTS: usize = 3;
const FIRST_BLOCK: u64 = 1_000;
/// Heartbeats that are waited for until what is owed has come: seconds.
const HEARTBEATS: usize = 2_000;

/// A client that checks what it is told.
struct Ear {
    client: Client,
    /// The topics of its subscriptions, by their id.
    follows: BTreeMap<String, Topic>,
    /// Up to where it need not be told.
    knows: HashMap<Topic, u64>,
    /// Gaps that were noticed behind the newest block while it followed their topic.
    owed: Vec<Gap>,
    told: HashMap<(String, u64, u64), usize>,
    asked: usize,
    /// Requests that are not answered yet: the topics that they are to follow, by id.
    asks: BTreeMap<String, Topic>,
    pings: usize,
}

impl Ear {
    fn new(server: &Server) -> Self {
        let mut client = server.connect_small("/v1/ws");
        assert_eq!(client.json()["type"], "hello");
        Self {
            client,
            follows: BTreeMap::new(),
            knows: HashMap::new(),
            owed: Vec::new(),
            told: HashMap::new(),
            asked: 0,
            asks: BTreeMap::new(),
            pings: 0,
        }
    }

    fn subscribe(&mut self, topics: &[bool], from: &Value, policy: &str) {
        let mut list = Vec::new();
        for fills in topics {
            let topic = if *fills { FILLS } else { MISC };
            let policy = match policy.split_once(':') {
                Some((word, key)) if *fills => json!({word: key}),
                Some(_) => json!("disconnect"),
                None => json!(policy),
            };
            let id = self.asked.to_string();
            self.asked += 1;
            let ask = json!({"type":"subscribe","id":id,"topic":topic.as_str(),"from":from,"policy":policy});
            list.push(ask);
            self.asks.insert(id, topic);
        }
        let text =
            if list.len() == 1 { list.remove(0).to_string() } else { json!(list).to_string() };
        self.client.say(&text);
    }

    fn unsubscribe(&mut self) {
        let Some(id) = self.follows.keys().next().cloned() else { return };
        self.client.say(&json!({"type":"unsubscribe","id":id}).to_string());
    }

    /// Reads to the answer to a ping. Gives the cursors that hold for everything.
    fn read(&mut self, server: &Server) -> Result<Vec<String>, TestCaseError> {
        self.pings += 1;
        let id = format!("ping {}", self.pings);
        self.client.say(&json!({"type":"ping","id":id}).to_string());
        self.read_until(server, |frame| frame["type"] == "pong" && frame["id"] == *id)
    }

    fn read_until(
        &mut self,
        server: &Server,
        mut is_last: impl FnMut(&Value) -> bool,
    ) -> Result<Vec<String>, TestCaseError> {
        let mut seen = Vec::new();
        loop {
            let frame = self.client.json();
            match frame["type"].as_str().unwrap() {
                "ack" => self.hear_ack(server, &frame)?,
                "gap" => self.hear_gap(&frame)?,
                "event" | "live" | "heartbeat" => {
                    let cursor = frame["cursor"].as_str().unwrap();
                    self.check(server, cursor, &frame)?;
                    seen.push(cursor.to_owned());
                }
                "error" => {
                    let id = frame["id"].as_str().unwrap();
                    self.asks.remove(id);
                    prop_assert_eq!(&frame["code"], "unknown_id", "{}", frame);
                }
                _ => {}
            }
            if is_last(&frame) {
                return Ok(seen);
            }
        }
    }

    fn hear_ack(&mut self, server: &Server, frame: &Value) -> Result<(), TestCaseError> {
        let (id, cursor) = (frame["id"].as_str().unwrap(), frame["cursor"].as_str().unwrap());
        let Some(topic) = self.asks.remove(id) else {
            // It has ended, and what it says is delivered.
            self.check(server, cursor, frame)?;
            let topic = self.follows.remove(id).unwrap();
            if self.follows.values().all(|other| *other != topic) {
                self.knows.remove(&topic);
                self.owed.retain(|gap| gap.topic != topic);
            }
            return Ok(());
        };
        let cursor = Cursor::parse(cursor, &[FILLS, MISC]).unwrap();
        let place = cursor.position(topic).unwrap_or(0);
        let knows = self.knows.entry(topic).or_insert(place);
        *knows = place.min(*knows);
        self.follows.insert(id.to_owned(), topic);
        Ok(())
    }

    fn hear_gap(&mut self, frame: &Value) -> Result<(), TestCaseError> {
        if frame["skipped"] == true || frame["closed"] == true {
            return Ok(());
        }
        let topic = frame["topic"].as_str().unwrap();
        // Asked for, or followed: a gap may come before the answer to who follows now.
        let is_wanted = |follows: &BTreeMap<String, Topic>| {
            follows.values().any(|followed| followed.as_str() == topic)
        };
        prop_assert!(is_wanted(&self.follows), "not followed: {}", frame);
        let bound = |name: &str| frame[name].as_u64().unwrap();
        *self.told.entry((topic.to_owned(), bound("from"), bound("to"))).or_default() += 1;
        Ok(())
    }

    /// A cursor holds: no gap before it is open and was not told.
    fn check(&self, server: &Server, cursor: &str, frame: &Value) -> Result<(), TestCaseError> {
        let cursor = Cursor::parse(cursor, &[FILLS, MISC]).unwrap();
        for gap in server.stats.router.gaps.list().into_iter().filter(|gap| !is_late(gap)) {
            let Some(knows) = self.knows.get(&gap.topic) else { continue };
            let position = cursor.position(gap.topic).unwrap_or(0);
            if gap.last > *knows && gap.last <= position {
                let told = (gap.topic.as_str().to_owned(), gap.first, gap.last);
                prop_assert!(self.told.contains_key(&told), "{gap:?} is not told before {frame}");
            }
        }
        Ok(())
    }

    fn is_paid(&self) -> bool {
        let key = |gap: &Gap| (gap.topic.as_str().to_owned(), gap.first, gap.last);
        self.owed.iter().all(|gap| self.told.contains_key(&key(gap)))
    }
}

/// Whether a gap lay below the newest block when it was noticed. They are in blocks of their own.
fn is_late(gap: &Gap) -> bool {
    gap.last < FIRST_BLOCK
}

/// A node with holes.
struct Node {
    server: Server,
    late: u64,
    blocks: HashMap<Topic, u64>,
    body: String,
}

impl Node {
    fn event(&self, topic: Topic, block: u64) -> Event {
        let event = if topic == FILLS {
            event(FILLS, block, 0, Some(ALICE), &self.body)
        } else {
            misc(block, None)
        };
        Event { time: Timestamp(block as i64), ..event }
    }

    fn append(&mut self, topic: Topic, [before, hole, after]: [u64; 3], kept: bool) {
        let last = self.blocks[&topic];
        let first = last + before + 1;
        let end = last + before + hole + after;
        let blocks = (last + 1..first).chain(first + hole..=end);
        let events =
            if kept { blocks.map(|block| self.event(topic, block)).collect() } else { vec![] };
        let is_hole = hole > 0 && after > 0;
        let notices = is_hole.then(|| {
            let (last, opened) = (first + hole - 1, Timestamp::now());
            Notice::GapOpened(Gap { topic, first, last, opened, closed: None })
        });
        let end = if is_hole || hole == 0 { end } else { first - 1 };
        let events = if is_hole || hole == 0 { events } else { vec![] };
        let empty = (end > last).then_some((topic, end));
        self.blocks.insert(topic, end);
        self.server.append_block(events, notices.into_iter().collect(), empty);
    }

    fn notice_late(&mut self, topic: Topic) -> Gap {
        self.late += 2;
        let (block, opened) = (self.late, Timestamp::now());
        let gap = Gap { topic, first: block, last: block, opened, closed: None };
        self.server.append_block(vec![], vec![Notice::GapOpened(gap.clone())], None);
        gap
    }

    fn fill(&self) {
        let gaps = self.server.stats.router.gaps.list().into_iter().filter(|gap| !is_late(gap));
        let Some(gap) = gaps.min_by_key(|gap| gap.opened) else { return };
        let events = (gap.first..=gap.last).map(|block| self.event(gap.topic, block)).collect();
        let closed = Some(Timestamp::now());
        let notices = vec![Notice::GapClosed(Gap { closed, ..gap })];
        self.server.append_block(events, notices, None);
    }

    fn from(&self, from: &From, fills: bool, seen: &[String]) -> Value {
        let newest = self.blocks[if fills { &FILLS } else { &MISC }];
        match from {
            From::Now => json!("now"),
            From::Oldest => json!("oldest"),
            From::Seen(index) if !seen.is_empty() => json!(index.get(seen)),
            From::Seen(_) => json!("oldest"),
            From::Foreign(back) => {
                let block = newest.saturating_sub(*back);
                json!(format!("1.7.7.7.fills-{block:x}.misc-{block:x}"))
            }
            From::Block(back) => json!({"block": newest.saturating_sub(*back)}),
            From::Time(back) => json!({"time": newest.saturating_sub(*back)}),
            From::Last(count) => json!({"last": count}),
        }
    }
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    // Numbers are of the clock, as the Router's are.
    let now = Timestamp::now().0 as u64;
    let server = Server::start_behind(now, 30_000, |session| {
        session.heartbeat_interval = Duration::from_millis(2);
        session.outbox_bytes = 16 << 10;
        session.send_buffer_bytes = 8 << 10;
        session.stall_timeout = Duration::from_secs(3_600);
        session.max_replays = 1;
    });
    let body = format!(r#"{{"coin":"BTC","padding":"{}"}}"#, "x".repeat(3_000));
    let blocks = [(FILLS, FIRST_BLOCK), (MISC, FIRST_BLOCK)].into();
    let mut node = Node { server, late: 0, blocks, body };
    for topic in [FILLS, MISC] {
        node.server.append_block(vec![], vec![], Some((topic, FIRST_BLOCK)));
    }
    let mut ears: Vec<_> = (0..CLIENTS).map(|_| Ear::new(&node.server)).collect();
    let mut seen = Vec::new();
    for step in steps {
        match step {
            Step::Append { fills, before, hole, after, kept, woken } => {
                node.append(if fills { FILLS } else { MISC }, [before, hole, after], kept);
                if woken {
                    node.server.wake();
                }
            }
            Step::Fill => node.fill(),
            Step::NoticeLate { fills } => {
                let gap = node.notice_late(if fills { FILLS } else { MISC });
                let follow = |ear: &&mut Ear| ear.follows.values().any(|topic| *topic == gap.topic);
                ears.iter_mut().filter(follow).for_each(|ear| ear.owed.push(gap.clone()));
            }
            Step::Commit => node.server.commit(),
            Step::Subscribe { client, topics, from, policy } => {
                let from = node.from(&from, topics[0], &seen);
                ears[client].subscribe(&topics, &from, policy);
            }
            Step::Unsubscribe { client } => ears[client].unsubscribe(),
            Step::Reconnect { client } => ears[client] = Ear::new(&node.server),
            Step::Read { client } => seen.extend(ears[client].read(&node.server)?),
        }
    }
    node.server.wake();
    for ear in &mut ears {
        seen.extend(ear.read(&node.server)?);
        // Whatever it wants: in the end it has got all that there is, though the last batches have no events.
        let head = node.server.log.head().to_string();
        for _ in 0..HEARTBEATS {
            ear.read_until(&node.server, |frame| {
                frame["type"] == "heartbeat" && frame["cursor"].as_str() == Some(&*head)
            })?;
            if ear.is_paid() {
                break;
            }
        }
        prop_assert!(ear.is_paid(), "{:?} are owed", ear.owed);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn no_cursor_beyond_a_gap_comes_before_the_gap_is_told(steps in steps()) {
        run(steps)?;
    }
}
