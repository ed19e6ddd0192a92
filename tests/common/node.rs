//! Hand-made lines of a node, for tests that want to know each byte.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use nodecast::event::Timestamp;
use serde_json::{Value, json};

/// The user that tests ask for.
pub const ALICE: &str = "0x00000000000000000000000000000000000a11ce";
pub const BOB: &str = "0x0000000000000000000000000000000000000b0b";

/// Writes the hour files of one kind.
pub struct Kind {
    directory: PathBuf,
}

impl Kind {
    pub fn fills(node: &Path) -> Self {
        Self { directory: node.join("node_fills_by_block/hourly") }
    }

    pub fn misc(node: &Path) -> Self {
        Self { directory: node.join("misc_events_by_block/hourly") }
    }

    /// Any kind, such as `node_fills_streaming`.
    pub fn named(node: &Path, name: &str) -> Self {
        Self { directory: node.join(name).join("hourly") }
    }

    pub fn path(&self, day: u32, hour: u8) -> PathBuf {
        self.directory.join(day.to_string()).join(hour.to_string())
    }

    /// Opens an hour file for appending; day directory and file appear together.
    pub fn open(&self, day: u32, hour: u8) -> File {
        let path = self.path(day, hour);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::options().create(true).append(true).open(path).unwrap()
    }
}

/// A whole line without its newline, of a block whose time is now.
pub fn line(block: u64, events: &Value) -> String {
    let now = Timestamp::now().to_string();
    let time = now.trim_end_matches('Z');
    let events = serde_json::to_string(events).unwrap();
    format!(
        r#"{{"local_time":"{time}","block_time":"{time}","block_number":{block},"events":{events}}}"#
    )
}

/// A fill of a user; `tid` tells it from others.
pub fn fill(user: &str, coin: &str, tid: u64) -> Value {
    json!([user, {
        "coin": coin, "px": "3.9457", "sz": "3.9", "side": "B", "time": 1_773_532_799_991_u64,
        "startPosition": "12817942.2417900003", "dir": "Open Long", "closedPnl": "0.0",
        "hash": "0x0000000000000000000000000000000000000000000000000000000000000000",
        "oid": 349_162_667_230_u64, "crossed": true, "fee": "-0.000461", "tid": tid,
        "feeToken": "USDC", "twapId": null,
    }])
}

/// A line with fills of one user in `BTC`.
pub fn fills_line(block: u64, user: &str, count: u64) -> String {
    let fills: Vec<_> = (0..count).map(|tid| fill(user, "BTC", tid)).collect();
    line(block, &Value::Array(fills))
}

pub fn append(file: &mut File, text: &str) {
    file.write_all(text.as_bytes()).unwrap();
}
