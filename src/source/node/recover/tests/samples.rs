//! Real lines of nodes, where they are at hand.

use std::collections::HashSet;

use serde_json::{Value, value::RawValue};

use super::*;
use crate::testing::samples::sample;

/// Parses all lines at one go; every line is whole.
fn parse_sample(text: &str, topic: Topic) -> ParsedLines {
    let mut parser =
        LineParser::new(topic, Form::ByBlock, Arc::new(Horizon::new(Duration::MAX, None)), &[]);
    let mut parsed = ParsedLines::default();
    let now = Timestamp::parse_node(b"2026-12-01T00:00:00").unwrap();
    let mut start = 0;
    for line in text.lines() {
        let outcome = parser.parse(text.as_bytes(), start..start + line.len(), now, &mut parsed);
        assert!(matches!(outcome, LineOutcome::Whole), "{outcome:?}");
        start += line.len() + 1;
    }
    parsed
}

#[test]
fn ten_unfiltered_blocks_give_their_1388_fills() {
    let Some(text) = sample("fills_by_block.unfiltered.10-blocks.jsonl") else { return };

    let parsed = parse_sample(&text, fills::TOPIC);

    assert_eq!(parsed.blocks.len(), 10);
    assert_eq!(parsed.candidates.len(), 1_388);
    assert_eq!((parsed.elements, parsed.skipped), (1_388, 0));
    let users: HashSet<_> = parsed.candidates.iter().map(|candidate| candidate.user).collect();
    assert_eq!(users.len(), 1_211);
    let empty = parsed.blocks.iter().filter(|block| block.indexes.is_empty()).count();
    assert_eq!(empty, 4);
    // The same by serde_json, body by body.
    #[derive(serde::Deserialize)]
    struct Line<'j> {
        block_number: u64,
        #[serde(borrow)]
        events: Vec<(&'j str, &'j RawValue)>,
    }
    for (line, block) in text.lines().zip(&parsed.blocks) {
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        assert_eq!(line.block_number, block.position);
        let candidates = &parsed.candidates[block.candidates.clone()];
        assert_eq!(candidates.len(), line.events.len());
        for ((ordinal, candidate), (user, body)) in (0..).zip(candidates).zip(line.events) {
            assert_eq!((candidate.index, candidate.part), (ordinal, 0));
            assert_eq!(candidate.user, Some(user.parse().unwrap()));
            let found = candidate.body.copy_from(text.as_bytes());
            assert_eq!(found, body.get());
            fills::read_keys(&found).unwrap();
        }
    }
}

#[test]
fn consecutive_real_blocks_all_parse() {
    let Some(text) = sample("fills_by_block.btc-only.40-blocks.jsonl") else { return };

    let parsed = parse_sample(&text, fills::TOPIC);

    assert_eq!(parsed.blocks.len(), 40);
    assert_eq!(parsed.candidates.len(), 4);
    assert!(parsed.blocks.windows(2).all(|pair| pair[1].position == pair[0].position + 1));
}

/// Index, part, user and variant of a misc candidate.
type MiscRow = (u32, u32, Option<String>, String);

/// A row for each candidate of a misc sample, whose bodies are checked on the way.
fn misc_sample(name: &str) -> Option<Vec<MiscRow>> {
    let text = sample(name)?;
    let parsed = parse_sample(&text, misc::TOPIC);
    assert_eq!(parsed.skipped, 0);
    let read = |candidate: &Candidate| {
        let body = candidate.body.copy_from(text.as_bytes());
        misc::read_keys(&body).unwrap();
        if let BodyPlace::Slice(_) = candidate.body {
            assert!(text.contains(std::str::from_utf8(&body).unwrap()));
        }
        let body: Value = serde_json::from_slice(&body).unwrap();
        let inner = body["inner"].as_object().unwrap();
        let (variant, value) = inner.iter().next().unwrap();
        let user = candidate.user.map(|user| user.to_string());
        // A split body holds the entries of its user and of nobody else.
        if let (BodyPlace::Spliced(_), Some(user)) = (&candidate.body, &user) {
            let entries = value.as_object().unwrap().values().next().unwrap().as_array().unwrap();
            assert!(!entries.is_empty());
            assert!(entries.iter().all(|entry| entry.to_string().contains(user)));
        }
        (candidate.index, candidate.part, user, variant.clone())
    };
    Some(parsed.candidates.iter().map(read).collect())
}

fn row(index: u32, part: u32, user: &str, variant: &str) -> (u32, u32, Option<String>, String) {
    (index, part, (!user.is_empty()).then(|| user.to_owned()), variant.to_owned())
}

// H04, H05
#[test]
fn real_misc_events_give_their_users() {
    let samples = [
        (
            "misc_by_block.regrouped.jsonl",
            vec![
                row(0, 0, "0xde399799d4abda687280ad4512554f80f8df9666", "Delegation"),
                row(1, 0, "0x163014fed389c392a0a214d2c4a28a73ec804741", "CDeposit"),
                row(2, 0, "0x033fb97dacc654b928de7129bf205f98eb15b1b1", "CWithdrawal"),
                row(0, 0, "0x00000000000dfd47d200dc26e4e5c79b7e6de984", "Funding"),
                row(0, 1, "0x00000000002f3d928030df28cb15b27b56888b9b", "Funding"),
                row(1, 0, "0x000000000056f99d36b6f2e0c51fd41496bbacb8", "ValidatorRewards"),
                row(1, 1, "0x15458aed3c7a49b215fbfa863c6ff550c31e1a31", "ValidatorRewards"),
                row(2, 0, "", "GossipPriorityAuctionRestart"),
            ],
        ),
        (
            "misc_by_block.send.jsonl",
            vec![
                row(0, 0, "0x8b1c0722a978599bb254c2bdd75992fa605073f6", "LedgerUpdate"),
                row(0, 1, "0x2000000000000000000000000000000000000000", "LedgerUpdate"),
            ],
        ),
        (
            "misc_by_block.vault-withdraw.jsonl",
            vec![
                row(0, 0, "0x025a744111554e57c66ba2069a8081249fbe5e11", "LedgerUpdate"),
                row(0, 1, "0x1e37a337ed460039d1b15bd3bc489de789768d5e", "LedgerUpdate"),
            ],
        ),
        (
            "misc_by_block.unknown-variant.synthetic.jsonl",
            vec![
                row(0, 0, "0x821717910ddb86892130f68465757d5f9bbb824d", "CDeposit"),
                row(1, 0, "", "FutureEvent"),
            ],
        ),
    ];
    for (name, expected) in samples {
        if let Some(found) = misc_sample(name) {
            assert_eq!(found, expected, "{name}");
        }
    }
}
