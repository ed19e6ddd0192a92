//! The node simulator against an independent reading of what it wrote.

// Clippy knows tests by their attribute, and not the functions that they share.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use nodecast::{
    event::{Address, Timestamp},
    generate::{
        self, FILLS, Faults, Gap, Kind, MISC, Manifest, Plan, Row, Rows, Simulator, fills_lines,
    },
};
use serde_json::Value;

/// A plan with a fixed start, ten seconds before a new day.
fn plan() -> Plan {
    let start = Timestamp::parse_node(b"2026-03-14T23:59:50").unwrap();
    Plan { users: 60, start: Some(start), ..Plan::default() }
}

fn written(plan: Plan, blocks: u64) -> (tempfile::TempDir, Manifest) {
    let directory = tempfile::tempdir().unwrap();
    let mut simulator = Simulator::new(plan, directory.path()).unwrap();
    simulator.write_blocks(blocks).unwrap();
    simulator.finish().unwrap();
    (directory, simulator.into_manifest())
}

/// All files of a directory by path below it.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = fs::read(&path).unwrap();
                found.insert(path.strip_prefix(directory).unwrap().to_owned(), content);
            }
        }
    }
    found
}

/// The bytes of one kind, its hour files joined in the order of time.
fn bytes_of(directory: &Path, kind: &str) -> Vec<u8> {
    let mut hours: Vec<_> = files(&directory.join(kind).join("hourly"))
        .into_iter()
        .map(|(path, content)| {
            let mut names = path.iter().map(|name| name.to_str().unwrap().parse::<u32>().unwrap());
            ((names.next().unwrap(), names.next().unwrap()), content)
        })
        .collect();
    hours.sort();
    hours.into_iter().flat_map(|(_, content)| content).collect()
}

/// The lines of one kind; each must be JSON.
fn lines_of(directory: &Path, kind: &str) -> Vec<Value> {
    let bytes = bytes_of(directory, kind);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.ends_with('\n'), "{kind} ends in mid-line");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["block_number"].as_u64().unwrap()).collect()
}

type Key = (&'static str, u64, u32, u32);

/// A reader of the plainest sort: user and body, as JSON values, of every event in whole lines.
fn read_again(directory: &Path, form: &str) -> BTreeMap<Key, (Option<Address>, Value)> {
    let mut rows = BTreeMap::new();
    let mut next_index: HashMap<(&str, u64), u32> = HashMap::new();
    for (topic, kind) in [("fills", "node_fills"), ("misc", "misc_events")] {
        for line in lines_of(directory, &format!("{kind}_{form}")) {
            let block = line["block_number"].as_u64().unwrap();
            for element in line["events"].as_array().unwrap() {
                let index = next_index.entry((topic, block)).or_default();
                for (part, (user, body)) in shares(topic, element).into_iter().enumerate() {
                    let key = (topic, block, *index, part as u32);
                    assert!(rows.insert(key, (user, body)).is_none(), "{key:?} twice");
                }
                *index += 1;
            }
        }
    }
    rows
}

fn shares(topic: &str, element: &Value) -> Vec<(Option<Address>, Value)> {
    if topic == "fills" {
        return vec![(Some(address(&element[0]).unwrap()), element[1].clone())];
    }
    let (variant, value) = element["inner"].as_object().unwrap().iter().next().unwrap();
    let (list, user_of): (&str, fn(&Value) -> &Value) = match variant.as_str() {
        "Funding" => ("deltas", |entry| &entry["user"]),
        "ValidatorRewards" => ("validator_to_reward", |entry| &entry[0]),
        _ => {
            let mut users = Vec::new();
            match variant.as_str() {
                "LedgerUpdate" => addresses(&value["users"], &mut users),
                "CDeposit" | "CWithdrawal" | "Delegation" => addresses(&value["user"], &mut users),
                _ => addresses(value, &mut users),
            }
            if users.is_empty() {
                return vec![(None, element.clone())];
            }
            return users.into_iter().map(|user| (Some(user), element.clone())).collect();
        }
    };
    let entries = value[list].as_array().unwrap();
    let mut users = Vec::new();
    entries.iter().for_each(|entry| addresses(user_of(entry), &mut users));
    let own = |user| {
        let mut body = element.clone();
        body["inner"][variant][list] = entries
            .iter()
            .filter(|entry| address(user_of(entry)) == Some(user))
            .cloned()
            .collect::<Value>();
        (Some(user), body)
    };
    users.into_iter().map(own).collect()
}

fn address(value: &Value) -> Option<Address> {
    value.as_str()?.parse().ok()
}

/// Collects the distinct addresses of a value in the order of their appearance. (The order of keys
/// is that of the file as long as one object holds addresses under one key only.)
fn addresses(value: &Value, found: &mut Vec<Address>) {
    match value {
        Value::String(_) => {
            let new = address(value).filter(|address| !found.contains(address));
            found.extend(new);
        }
        Value::Array(values) => values.iter().for_each(|value| addresses(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| addresses(value, found)),
        _ => {}
    }
}

fn key(row: &Row) -> Key {
    (row.id.topic.as_str(), row.id.position, row.id.index, row.id.part)
}

fn assert_same_rows(manifest: &Manifest, read: &BTreeMap<Key, (Option<Address>, Value)>) {
    let noted: HashMap<Key, &Row> = manifest.rows.iter().map(|row| (key(row), row)).collect();
    assert_eq!(noted.len(), manifest.rows.len(), "the manifest names a row twice");
    assert_eq!(noted.len() as u64, manifest.totals.rows);
    assert_eq!(noted.len(), read.len());
    for (key, (user, body)) in read {
        let row = noted.get(key).unwrap_or_else(|| panic!("{key:?} is not in the manifest"));
        assert_eq!(row.user, *user, "{key:?}");
        assert_eq!(serde_json::from_str::<Value>(&row.body).unwrap(), *body, "{key:?}");
    }
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    // H46
    let plan = Plan { faults: Faults::all(), order_statuses: true, ..plan() };

    let (first, manifest) = written(plan.clone(), 600);
    let (second, same) = written(plan.clone(), 600);
    let (other, _) = written(Plan { seed: 2, ..plan }, 600);

    assert_eq!(files(first.path()), files(second.path()));
    assert_eq!(manifest, same);
    assert_ne!(files(first.path()), files(other.path()));
}

#[test]
fn the_manifest_is_what_an_independent_reader_finds() {
    let (directory, manifest) = written(plan(), 3_000);

    assert_same_rows(&manifest, &read_again(directory.path(), "by_block"));
    assert_eq!(manifest.totals.blocks, 3_000);
    assert_eq!(manifest.gaps, []);
    let bytes: usize = files(directory.path()).values().map(Vec::len).sum();
    assert_eq!(manifest.totals.bytes, bytes as u64);
}

#[test]
fn the_manifest_of_streaming_files_is_the_same_as_of_whole_blocks() {
    let (directory, manifest) = written(Plan { streaming: true, ..plan() }, 2_000);
    let (_, by_block) = written(plan(), 2_000);

    assert_same_rows(&manifest, &read_again(directory.path(), "streaming"));
    assert_eq!(manifest.rows, by_block.rows);
    let fills = lines_of(directory.path(), "node_fills_streaming");
    assert!(fills.iter().all(|line| !line["events"].as_array().unwrap().is_empty()));
    assert!(numbers(&fills).windows(2).any(|pair| pair[0] == pair[1]), "no block spans two lines");
}

#[test]
fn bodies_stand_in_the_files_as_they_are() {
    // Across an hour change, but without the dust of a new day, which would only be more of one kind.
    let start = Timestamp::parse_node(b"2026-03-14T12:59:55").ok();
    let (directory, manifest) = written(Plan { start, ..plan() }, 200);
    let fills = String::from_utf8(bytes_of(directory.path(), "node_fills_by_block")).unwrap();
    let misc = String::from_utf8(bytes_of(directory.path(), "misc_events_by_block")).unwrap();

    for row in &manifest.rows {
        let is_split = row.body.contains("\"Funding\"") || row.body.contains("ValidatorRewards");
        let text = if row.id.topic == FILLS { &fills } else { &misc };
        assert!(is_split || text.contains(&row.body), "{}", row.body);
    }
}

#[test]
fn split_events_are_spliced_from_the_bytes_of_the_line() {
    let (directory, manifest) = written(plan(), 500);
    let misc = String::from_utf8(bytes_of(directory.path(), "misc_events_by_block")).unwrap();

    let funding: Vec<_> =
        manifest.rows.iter().filter(|row| row.body.contains(r#""Funding":{"deltas":["#)).collect();

    assert_eq!(funding.len(), 60);
    let mut several = 0;
    for row in funding {
        let (head, rest) = row.body.split_once(r#"{"deltas":["#).unwrap();
        let entries = rest.strip_suffix("]}}}").unwrap();
        assert!(misc.contains(head));
        for entry in entries.split_inclusive('}').map(|entry| entry.trim_start_matches(',')) {
            assert!(misc.contains(entry), "{entry}");
        }
        several += usize::from(entries.matches("\"user\"").count() > 1);
    }
    assert!(several > 5, "only {several} users have several positions");
}

#[test]
fn every_line_of_a_calm_node_is_dense_and_has_the_real_shape() {
    let (directory, _) = written(plan(), 1_000);

    for kind in ["node_fills_by_block", "misc_events_by_block"] {
        let lines = lines_of(directory.path(), kind);
        assert_eq!(numbers(&lines), (1_050_000_000..1_050_001_000).collect::<Vec<_>>());
        let text = String::from_utf8(bytes_of(directory.path(), kind)).unwrap();
        for line in text.lines() {
            assert!(line.starts_with(r#"{"local_time":"2026-03-1"#));
            assert_eq!(&line[44..61], r#"","block_time":"2"#);
            assert_eq!(&line[89..108], r#"","block_number":10"#);
        }
        let times: Vec<_> = lines.iter().map(|line| line["local_time"].as_str().unwrap()).collect();
        assert!(times.is_sorted());
        assert!(lines.iter().all(|line| line["block_time"].as_str() < line["local_time"].as_str()));
    }
}

#[test]
fn hashes_name_their_block() {
    let (_, manifest) = written(plan(), 300);
    let mut seen = 0;

    for row in &manifest.rows {
        let body: Value = serde_json::from_str(&row.body).unwrap();
        let hash = body["hash"].as_str().unwrap();
        assert_eq!(hash.len(), 66);
        if hash.trim_start_matches("0x").bytes().any(|digit| digit != b'0') {
            assert_eq!(&hash[22..24], "04");
            assert_eq!(u64::from_str_radix(&hash[24..32], 16).unwrap(), row.id.position);
            seen += 1;
        }
    }

    assert!(seen > 500, "{seen}");
}

#[test]
fn the_mix_is_that_of_the_network() {
    let noon = Timestamp::parse_node(b"2026-03-14T12:00:00.5").unwrap();
    let (directory, manifest) = written(Plan { start: Some(noon), ..plan() }, 10_000);

    let fills: Vec<_> = manifest.rows.iter().filter(|row| row.id.topic == FILLS).collect();
    let per_block = fills.len() as f64 / 10_000.0;
    assert!((3.0..3.6).contains(&per_block), "{per_block} fills per block");
    // Envelopes included: 463 bytes on the network.
    let length = bytes_of(directory.path(), "node_fills_by_block").len() / fills.len();
    assert!((440..490).contains(&length), "{length} bytes a fill");
    let empty = lines_of(directory.path(), "node_fills_by_block")
        .iter()
        .filter(|line| line["events"].as_array().unwrap().is_empty())
        .count();
    assert!((4_000..5_000).contains(&empty), "{empty} empty blocks");
    let misc = manifest.totals.misc;
    let updates: HashSet<_> = manifest
        .rows
        .iter()
        .filter(|row| row.body.contains("\"LedgerUpdate\""))
        .map(|row| (row.id.position, row.id.index))
        .collect();
    let share = updates.len() as f64 / misc as f64;
    assert!((0.82..0.88).contains(&share), "{share} of misc are ledger updates");
    for text in [
        "trader's choice",
        r#"\"buy\""#,
        r"\u00e9",
        "🚀",
        "\"liquidation\"",
        "\"builderFee\"",
        "\"coin\":\"#12\"",
        "\"coin\":\"@142\"",
        "\"coin\":\"PURR/USDC\"",
        "\"coin\":\"xyz:NVDA\"",
        "FutureAgreement",
        "FutureSetting",
        "GossipPriorityAuctionRestart",
        "CDeposit",
        "CWithdrawal",
        "Delegation",
        "\"twapId\":1",
    ] {
        assert!(manifest.rows.iter().any(|row| row.body.contains(text)), "no {text}");
    }
}

#[test]
fn both_sides_of_a_trade_share_its_tid() {
    let (_, manifest) = written(plan(), 400);
    let mut sides: HashMap<u64, Vec<String>> = HashMap::new();

    for row in manifest.rows.iter().filter(|row| row.id.topic == FILLS) {
        let fill: Value = serde_json::from_str(&row.body).unwrap();
        let side = fill["side"].as_str().unwrap().to_owned();
        sides.entry(fill["tid"].as_u64().unwrap()).or_default().push(side);
    }

    let dust = sides.remove(&0).unwrap();
    assert!(dust.len() >= 1_300, "{}", dust.len());
    assert!(!sides.is_empty());
    for (tid, mut sides) in sides {
        sides.sort();
        assert_eq!(sides, ["A", "B"], "{tid}");
    }
}

#[test]
fn some_orders_are_filled_by_several_resting_ones() {
    let (_, manifest) = written(plan(), 400);
    let mut orders: HashMap<(u64, u64), Vec<Value>> = HashMap::new();

    for row in manifest.rows.iter().filter(|row| row.id.topic == FILLS) {
        let mut fill: Value = serde_json::from_str(&row.body).unwrap();
        fill["user"] = row.user.map(|user| user.to_string()).into();
        if fill["crossed"] == true && fill["tid"] != 0 {
            let order = (row.id.position, fill["oid"].as_u64().unwrap());
            orders.entry(order).or_default().push(fill);
        }
    }

    let several: Vec<_> = orders.values().filter(|fills| fills.len() > 1).collect();
    assert!(several.len() > 10 && several.len() < orders.len() / 2, "{}", several.len());
    for fills in several {
        for fill in fills {
            for field in ["user", "coin", "side", "dir", "hash", "twapId", "feeToken"] {
                assert_eq!(fill[field], fills[0][field], "{fill}");
            }
        }
    }
}

#[test]
fn files_follow_the_hour_and_the_day_of_writing() {
    // H06, H08
    let interval = Duration::from_secs(60);
    let (directory, _) = written(Plan { block_interval: interval, ..plan() }, 150);

    let hours = directory.path().join("node_fills_by_block/hourly");
    let found: Vec<_> = files(&hours).into_keys().collect();
    let expected = ["20260314/23", "20260315/0", "20260315/1", "20260315/2"];
    assert_eq!(found, expected.map(PathBuf::from));
    let of_hour = |hour: &str| lines_of_file(&hours.join(hour));
    for hour in expected {
        let prefix = format!("2026-03-{}T{:0>2}:", &hour[6..8], &hour[9..]);
        for line in of_hour(hour) {
            assert!(line["local_time"].as_str().unwrap().starts_with(&prefix), "{hour}: {line}");
        }
    }
    let dust =
        of_hour("20260315/0").iter().filter(|line| line.to_string().contains("Dust")).count();
    assert_eq!(dust, 1);
}

fn lines_of_file(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_block_of_the_old_day_can_lie_in_the_file_of_the_new_one() {
    let (directory, _) = written(plan(), 200);

    let path = directory.path().join("node_fills_by_block/hourly/20260315/0");
    let first = &lines_of_file(&path)[0];

    assert!(first["block_time"].as_str().unwrap().starts_with("2026-03-14T23:59:59."));
}

#[test]
fn torn_lines_arrive_in_pieces_and_are_whole_in_the_end() {
    // H10
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults { torn: true, ..Faults::default() };
    let mut simulator = Simulator::new(Plan { faults, ..plan() }, directory.path()).unwrap();
    let mut broken = 0;
    let mut old_after_new = false;
    let old = directory.path().join("node_fills_by_block/hourly/20260314/23");
    let mut last_length = 0;

    for _ in 0..400 {
        simulator.write_block().unwrap();
        let newest = simulator.writer().hours(Kind::Fills).pop().unwrap();
        let newest = simulator.writer().path(Kind::Fills, newest).unwrap();
        broken += u32::from(!fs::read(newest).unwrap().ends_with(b"\n"));
        let length = fs::metadata(&old).map_or(0, |file| file.len());
        let has_new = directory.path().join("node_fills_by_block/hourly/20260315/0").exists();
        old_after_new |= has_new && last_length > 0 && length > last_length;
        last_length = length;
    }
    simulator.finish().unwrap();

    assert!(broken > 100, "only {broken} of 400 looks saw a torn line");
    assert!(old_after_new, "nothing arrived in the old file after the new one had begun");
    assert_same_rows(simulator.manifest(), &read_again(directory.path(), "by_block"));
}

#[test]
fn a_crash_glues_lines_and_leaves_nul_bytes_and_the_block_comes_again() {
    let faults = Faults { crash_every: 20, ..Faults::default() };
    let (directory, manifest) = written(Plan { faults, ..plan() }, 1_000);
    let bytes = bytes_of(directory.path(), "node_fills_by_block");
    let mut whole = HashSet::new();
    let (mut glued, mut zeros) = (0, 0);

    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        zeros += u32::from(line.contains(&0));
        if let Ok(value) = serde_json::from_slice::<Value>(line) {
            whole.insert(value["block_number"].as_u64().unwrap());
            continue;
        }
        let starts = line.windows(13).filter(|bytes| bytes == b"{\"local_time\"").count();
        glued += u32::from(starts > 1);
        let from = line.windows(13).rposition(|bytes| bytes == b"{\"local_time\"").unwrap();
        if let Ok(value) = serde_json::from_slice::<Value>(&line[from..]) {
            whole.insert(value["block_number"].as_u64().unwrap());
        }
    }

    assert!(glued > 10, "{glued} glued lines");
    assert!(zeros > 3, "{zeros} lines with NUL bytes");
    // Behind the breaks stands every block.
    assert_eq!(whole.len() as u64, manifest.totals.blocks);
}

#[test]
fn a_rewind_repeats_blocks_with_the_same_content_and_new_local_times() {
    let faults = Faults { rewind_every: 300, ..Faults::default() };
    let (directory, manifest) = written(Plan { faults, ..plan() }, 1_500);
    let lines = lines_of(directory.path(), "node_fills_by_block");

    let backwards = numbers(&lines).windows(2).filter(|pair| pair[1] < pair[0]).count();
    let mut seen: HashMap<u64, &Value> = HashMap::new();
    let mut repeated = 0;
    for line in &lines {
        if let Some(before) = seen.insert(line["block_number"].as_u64().unwrap(), line) {
            assert_eq!(before["events"], line["events"]);
            assert_ne!(before["local_time"], line["local_time"]);
            repeated += 1;
        }
    }

    assert!(backwards >= 3, "{backwards} rewinds");
    assert!(repeated >= 300, "{repeated} repeated blocks");
    assert_eq!(seen.len() as u64, manifest.totals.blocks);
    assert_eq!(manifest.totals.blocks, 1_500);
}

#[test]
fn gaps_are_missing_in_every_file_and_named_in_the_manifest() {
    let faults = Faults { gap_every: 200, ..Faults::default() };
    let (directory, manifest) = written(Plan { faults, ..plan() }, 1_000);

    for kind in ["node_fills_by_block", "misc_events_by_block"] {
        let found: Vec<_> = numbers(&lines_of(directory.path(), kind))
            .windows(2)
            .filter(|pair| pair[1] != pair[0] + 1)
            .map(|pair| Gap { first: pair[0] + 1, last: pair[1] - 1 })
            .collect();
        assert_eq!(found, manifest.gaps);
    }
    assert!(manifest.gaps.len() >= 3);
    assert_same_rows(&manifest, &read_again(directory.path(), "by_block"));
}

#[test]
fn the_last_line_of_an_hour_can_lack_its_newline() {
    let faults = Faults { unterminated: true, ..Faults::default() };
    let (directory, manifest) = written(Plan { faults, ..plan() }, 400);

    for kind in ["node_fills_by_block", "misc_events_by_block"] {
        let old = fs::read(directory.path().join(kind).join("hourly/20260314/23")).unwrap();
        let last = old.rsplit(|byte| *byte == b'\n').next().unwrap();
        let number = serde_json::from_slice::<Value>(last).unwrap()["block_number"].clone();
        let new = &lines_of_file(&directory.path().join(kind).join("hourly/20260315/0"))[0];
        assert_eq!(new["block_number"].as_u64(), number.as_u64().map(|number| number + 1));
    }
    assert_eq!(manifest.totals.blocks, 400);
}

#[test]
fn a_lagging_node_has_the_same_blocks_later() {
    let late = plan().lagging_by(Duration::from_secs(5));
    let (first, manifest) = written(plan(), 300);
    let (second, same) = written(late, 300);

    assert_eq!(manifest.rows, same.rows);
    let (early, late) = (
        lines_of(first.path(), "node_fills_by_block"),
        lines_of(second.path(), "node_fills_by_block"),
    );
    for (early, late) in early.iter().zip(&late) {
        assert_eq!(early["events"], late["events"]);
        assert_eq!(early["block_time"], late["block_time"]);
        assert!(early["local_time"].as_str() < late["local_time"].as_str());
    }
}

#[test]
fn two_nodes_fill_each_others_gaps() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let plans = [plan(), plan().lagging_by(Duration::from_secs(1))];
    let mut manifests = Vec::new();
    for (place, (directory, plan)) in directories.iter().zip(plans).enumerate() {
        let mut simulator = Simulator::new(plan, directory.path()).unwrap();
        simulator.write_blocks(100).unwrap();
        simulator.skip(20 + 10 * place as u64);
        simulator.write_blocks(100).unwrap();
        simulator.finish().unwrap();
        manifests.push(simulator.into_manifest());
    }
    let (_, complete) = written(plan(), 230);

    let mut merged = manifests[0].clone();
    merged.merge(&manifests[1]);

    let first = 1_050_000_100;
    assert_eq!(merged.gaps, [Gap { first, last: first + 19 }]);
    assert_eq!(merged.totals.blocks, 210);
    let known: HashSet<_> = merged.rows.iter().map(|row| row.id).collect();
    for row in &complete.rows {
        let is_missing = (first..first + 20).contains(&row.id.position);
        assert_eq!(known.contains(&row.id), !is_missing, "{:?}", row.id);
    }
}

#[test]
fn a_pruned_file_comes_back_when_the_node_catches_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut simulator = Simulator::new(plan(), directory.path()).unwrap();
    simulator.write_blocks(300).unwrap();
    let old = directory.path().join("node_fills_by_block/hourly/20260314/23");

    let gone = simulator.writer().prune(1).unwrap();
    assert!(gone.contains(&old) && !old.exists());
    simulator.catch_up(250).unwrap();
    simulator.finish().unwrap();

    assert_eq!(numbers(&lines_of_file(&old))[0], 1_050_000_050);
    assert_eq!(simulator.writer().hours(Kind::Fills).len(), 2);
    assert_eq!(simulator.manifest().totals.blocks, 300);
}

#[test]
fn a_manifest_survives_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manifest.jsonl");
    let faults = Faults { gap_every: 100, ..Faults::default() };
    let plan = Plan { faults, ..plan() };
    let mut simulator =
        Simulator::with_rows(plan.clone(), directory.path(), Rows::Write(path.clone())).unwrap();
    simulator.write_blocks(400).unwrap();
    assert!(Manifest::load(&path).is_err(), "it has no end yet");
    simulator.finish().unwrap();

    assert_eq!(Manifest::load(&path).unwrap(), written(plan, 400).1);
}

#[test]
fn order_statuses_are_written_and_no_row_of_the_manifest() {
    let (directory, manifest) = written(Plan { order_statuses: true, ..plan() }, 20);

    let lines = lines_of(directory.path(), "node_order_statuses_by_block");

    assert_eq!(lines.len(), 20);
    assert!(lines.iter().all(|line| line["events"].as_array().unwrap().len() >= 450));
    assert!(manifest.rows.iter().all(|row| row.id.topic == FILLS || row.id.topic == MISC));
}

#[test]
fn misc_lines_of_empty_blocks_can_be_left_out() {
    let (directory, manifest) = written(Plan { sparse_misc: true, ..plan() }, 300);

    let lines = lines_of(directory.path(), "misc_events_by_block");

    assert!(lines.len() < 200);
    assert!(lines.iter().all(|line| !line["events"].as_array().unwrap().is_empty()));
    assert_same_rows(&manifest, &read_again(directory.path(), "by_block"));
}

#[test]
fn a_paced_run_takes_its_time_and_stops_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut simulator = Simulator::new(plan(), directory.path()).unwrap();
    let begun = std::time::Instant::now();

    // The 29 intervals between 30 blocks last 290 ms; each block may be up to a few late or early.
    simulator.run(Some(30), 100.0, &AtomicBool::new(false)).unwrap();
    let paced = begun.elapsed();
    simulator.run(Some(1_000), 0.1, &AtomicBool::new(true)).unwrap();

    assert!(paced >= Duration::from_millis(200), "{paced:?}");
    assert_eq!(simulator.manifest().totals.blocks, 30);
}

#[test]
fn lines_for_benchmarks_are_whole_fills_lines() {
    let lines = fills_lines(1, 1_000, 1 << 20);

    assert!(lines.len() >= 1 << 20 && lines.ends_with(b"\n"));
    assert_eq!(lines, fills_lines(1, 1_000, 1 << 20));
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        serde_json::from_slice::<Value>(line).unwrap();
    }
}

#[test]
fn the_list_of_users_holds_every_user_of_the_rows() {
    let directory = tempfile::tempdir().unwrap();
    let mut simulator = Simulator::new(plan(), directory.path()).unwrap();
    generate::write_users(directory.path(), simulator.users()).unwrap();
    simulator.write_blocks(200).unwrap();

    let text = fs::read_to_string(directory.path().join(generate::USERS_FILE)).unwrap();
    let listed: HashSet<Address> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.parse().unwrap())
        .collect();

    assert_eq!(listed.len(), 60);
    let rows = &simulator.manifest().rows;
    let of_nobody = rows.iter().filter(|row| row.user.is_none()).count();
    assert_eq!(simulator.manifest().listed(&listed).count(), rows.len() - of_nobody);
}
