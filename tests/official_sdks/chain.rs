//! A node whose every event is known: it writes blocks and remembers what clients must be told of them.

use std::{cmp::Reverse, fmt::Write as _, fs::File, path::Path};

use nodecast::event::Timestamp;
use serde_json::{Value, json};

use crate::common::node::{ALICE, BOB, Kind, append};

/// Somebody else, whose events nobody here must get.
pub const CAROL: &str = "0x00000000000000000000000000000000000ca401";

/// The market of Alice and Bob; that of Carol is another.
pub const COIN: &str = "BTC";

const LIQUIDATION: &str = r#"{"type":"liquidation","liquidatedNtlPos":"1500.250","accountValue":"-0.10","leverageType":"Cross","liquidatedPositions":[{"coin":"BTC","szi":"0.5"}]}"#;

const DAY: u32 = 20_260_315;

/// From block to block.
const STEP_MICROS: i64 = 70_123;

/// What clients are told of, each in the shape that they get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    Fills,
    Fundings,
    Ledger,
    Slices,
    /// Of [`COIN`].
    Trades,
}

/// What was written, in its order.
#[derive(Default)]
struct Written {
    /// User, and the fill's very text.
    fills: Vec<(String, String)>,
    fundings: Vec<(String, Value)>,
    ledger: Vec<(String, Value)>,
    trades: Vec<Value>,
}

/// The node.
pub struct Chain {
    fills: File,
    misc: File,
    pub block: u64,
    /// Of the next block.
    time: Timestamp,
    next_tid: u64,
    written: Written,
    /// Rows that a daemon which keeps everything has to store.
    pub rows: u64,
    /// Whether there are ledger updates that the Rust SDK cannot read.
    pub odd_ledger: bool,
}

impl Chain {
    pub fn new(node: &Path) -> Self {
        Self {
            fills: Kind::fills(node).open(DAY, 9),
            misc: Kind::misc(node).open(DAY, 9),
            block: 1_000,
            // All blocks are of the past, which clients ask for by its time.
            time: Timestamp(Timestamp::now().0 - 3_600_000_000),
            next_tid: 868_180_814_000_000,
            written: Written::default(),
            rows: 0,
            odd_ledger: true,
        }
    }

    /// Writes so many blocks in which Alice trades with Bob, and everything else happens now and then.
    pub fn advance(&mut self, blocks: u64) {
        for _ in 0..blocks {
            self.usual_block();
        }
    }

    fn usual_block(&mut self) {
        let number = self.block;
        let mut fills = Vec::new();
        self.carols_fill(&mut fills);
        // One order of Alice takes what several orders of Bob offer.
        let oid = 349_162_000_000 + number;
        for _ in 0..=number % 3 {
            self.trade(&mut fills, oid, None);
        }
        if number.is_multiple_of(4) {
            self.trade(&mut fills, oid + 500_000, Some(number));
        }
        let mut misc = Vec::new();
        if number.is_multiple_of(5) {
            misc.push(self.funding());
        }
        if number.is_multiple_of(3) {
            misc.push(self.ledger(&[ALICE, BOB], &format!(
                r#"{{"type":"internalTransfer","usdc":"{number}.50","user":"{ALICE}","destination":"{BOB}","fee":"1.0"}}"#
            )));
        }
        if self.odd_ledger && number.is_multiple_of(6) {
            misc.push(self.ledger(&[BOB, ALICE], &format!(
                r#"{{"type":"send","user":"{BOB}","destination":"{ALICE}","sourceDex":"spot","token":"USDC","amount":"0.{number}","memo":"O'Brien \"x\" \u00e9"}}"#
            )));
        }
        if number.is_multiple_of(7) {
            misc.push(self.ledger(&[BOB], r#"{"type":"deposit","usdc":"10.0"}"#));
        }
        self.write(&fills, &misc);
    }

    /// Writes blocks in which these users, and nobody else, have so many fills each.
    pub fn advance_with(&mut self, blocks: u64, users: &[String], fills_each: usize) {
        for _ in 0..blocks {
            let mut fills = Vec::new();
            for user in users {
                for _ in 0..fills_each {
                    let tid = self.tid();
                    let text = self.fill(COIN, "A", tid, tid, false, None);
                    self.note_fill(&mut fills, user, text);
                }
            }
            self.write(&fills, &[]);
        }
    }

    /// Writes a block in which a user is liquidated.
    pub fn liquidate(&mut self, user: &str) {
        let liquidation = self.ledger(&[user], LIQUIDATION);
        self.write(&[], &[liquidation]);
    }

    fn tid(&mut self) -> u64 {
        self.next_tid += 1;
        self.next_tid
    }

    fn time_ms(&self) -> i64 {
        self.time.0.div_euclid(1_000)
    }

    fn hash(&self) -> String {
        format!("0x{:064x}", u128::from(self.block) << 40)
    }

    /// As nodes write it: compact, decimals in text, with fields that are new to everybody.
    fn fill(
        &self,
        coin: &str,
        side: &str,
        tid: u64,
        oid: u64,
        crossed: bool,
        twap: Option<u64>,
    ) -> String {
        let (time, hash) = (self.time_ms(), self.hash());
        let dir = if side == "B" { "Open Long" } else { "Open Short" };
        let twap = twap.map_or("null".to_owned(), |id| id.to_string());
        let more = if tid.is_multiple_of(5) {
            r#","builderFee":"0.0010","fromTomorrow":{"text":"O'Brien \"x\" \u00e9","list":[1000, 0.50]}"#
        } else {
            ""
        };
        format!(
            r#"{{"coin":"{coin}","px":"3.9457","sz":"0.{:03}","side":"{side}","time":{time},"startPosition":"12817942.2417900003","dir":"{dir}","closedPnl":"-0.0100","hash":"{hash}","oid":{oid},"crossed":{crossed},"fee":"-0.000461","tid":{tid},"feeToken":"USDC","twapId":{twap}{more}}}"#,
            tid % 900 + 100,
        )
    }

    fn note_fill(&mut self, fills: &mut Vec<String>, user: &str, text: String) {
        fills.push(format!(r#"["{user}",{text}]"#));
        self.written.fills.push((user.to_owned(), text));
    }

    fn carols_fill(&mut self, fills: &mut Vec<String>) {
        let tid = self.tid();
        let text = self.fill("ETH", "B", tid, tid, true, None);
        self.note_fill(fills, CAROL, text);
    }

    /// Alice's order, or a slice of her TWAP order, takes one of Bob's.
    fn trade(&mut self, fills: &mut Vec<String>, oid: u64, twap: Option<u64>) {
        let tid = self.tid();
        let taker = self.fill(COIN, "B", tid, oid, true, twap);
        let maker = self.fill(COIN, "A", tid, tid + 7, false, None);
        let fill: Value = serde_json::from_str(&taker).unwrap();
        self.written.trades.push(json!({
            "coin": COIN, "side": "B", "px": fill["px"], "sz": fill["sz"], "time": fill["time"],
            "hash": fill["hash"], "tid": tid, "users": [ALICE, BOB],
        }));
        self.note_fill(fills, ALICE, taker);
        self.note_fill(fills, BOB, maker);
    }

    /// The hourly event: an entry for each position of everybody, two of them Alice's.
    fn funding(&mut self) -> String {
        let (time, number) = (self.time_ms(), self.block);
        let mut deltas = String::new();
        for (user, coin, amount) in [
            (ALICE, "BTC", "-9.330246"),
            (CAROL, "BTC", "1.0"),
            (BOB, "BTC", "0.10"),
            (ALICE, "ETH", "0.0"),
        ] {
            let comma = if deltas.is_empty() { "" } else { "," };
            write!(
                deltas,
                r#"{comma}{{"user":"{user}","coin":"{coin}","funding_amount":"{amount}","szi":"{number}.0","funding_rate":"-0.0000810249"}}"#
            )
            .unwrap();
            self.written.fundings.push((
                user.to_owned(),
                json!({
                    "time": time, "coin": coin, "usdc": amount, "szi": format!("{number}.0"),
                    "fundingRate": "-0.0000810249",
                }),
            ));
        }
        // A row for each user; Carol's counts, too.
        self.rows += 3;
        self.misc_event(&format!(r#"{{"Funding":{{"deltas":[{deltas}]}}}}"#))
    }

    fn ledger(&mut self, users: &[&str], delta: &str) -> String {
        let (time, hash) = (self.time_ms(), self.hash());
        let value: Value = serde_json::from_str(delta).unwrap();
        for user in users {
            let update = json!({"time": time, "hash": hash, "delta": value});
            self.written.ledger.push(((*user).to_owned(), update));
        }
        self.rows += users.len() as u64;
        let users = json!(users);
        self.misc_event(&format!(r#"{{"LedgerUpdate":{{"users":{users},"delta":{delta}}}}}"#))
    }

    fn misc_event(&self, inner: &str) -> String {
        let (time, hash) = (self.time_text(), self.hash());
        format!(r#"{{"time":"{time}","hash":"{hash}","inner":{inner}}}"#)
    }

    fn time_text(&self) -> String {
        let text = self.time.to_string();
        // Nodes say nanoseconds, and no zone.
        format!("{}789", text.trim_end_matches('Z'))
    }

    /// Writes the block to both files.
    fn write(&mut self, fills: &[String], misc: &[String]) {
        let (time, number) = (self.time_text(), self.block);
        for (file, events) in [(&mut self.fills, fills), (&mut self.misc, misc)] {
            let events = events.join(",");
            append(
                file,
                &format!(
                    "{{\"local_time\":\"{time}\",\"block_time\":\"{time}\",\"block_number\":{number},\"events\":[{events}]}}\n"
                ),
            );
        }
        self.rows += fills.len() as u64;
        self.block += 1;
        self.time.0 += STEP_MICROS;
    }

    /// What a client has to be told of a user, the oldest first.
    pub fn expected(&self, stream: Stream, user: &str) -> Vec<Value> {
        fn of(all: &[(String, Value)], user: &str) -> Vec<Value> {
            let own = all.iter().filter(|(of, _)| of == user);
            own.map(|(_, value)| value.clone()).collect()
        }
        let fills =
            || self.fill_texts(user).map(|text| serde_json::from_str::<Value>(text).unwrap());
        match stream {
            Stream::Fills => fills().collect(),
            Stream::Slices => {
                let slices = fills().filter(|fill| !fill["twapId"].is_null());
                slices.map(|fill| json!({"twapId": fill["twapId"], "fill": fill})).collect()
            }
            Stream::Fundings => of(&self.written.fundings, user),
            Stream::Ledger => of(&self.written.ledger, user),
            Stream::Trades => self.written.trades.clone(),
        }
    }

    /// The fills of a user as the node wrote them.
    pub fn fill_texts(&self, user: &str) -> impl Iterator<Item = &str> {
        self.written.fills.iter().filter(move |(of, _)| of == user).map(|(_, text)| text.as_str())
    }
}

/// Puts what was written in the order in which the service lists the newest: the newest block is the first,
/// those of one block stand in its order. A block is known by its time.
pub fn newest_first(mut items: Vec<Value>) -> Vec<Value> {
    items.sort_by_key(|item| Reverse(time_of(item)));
    items
}

/// The opposite, of what such a list held.
pub fn oldest_first(mut items: Vec<Value>) -> Vec<Value> {
    items.sort_by_key(time_of);
    items
}

fn time_of(item: &Value) -> Option<u64> {
    item["time"].as_u64().or_else(|| item["fill"]["time"].as_u64())
}
