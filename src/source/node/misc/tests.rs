use std::time::{Duration, Instant};

use super::*;

fn user(ordinal: u64) -> String {
    format!("0x{ordinal:040x}")
}

fn address(ordinal: u64) -> Option<Address> {
    Some(user(ordinal).parse().unwrap())
}

/// Part, user and body of each candidate of an element.
fn read(element: &str) -> Vec<(u32, Option<Address>, String)> {
    // Something stands before it, so that a place is not by chance the same in line and buffer.
    let buffer = format!("[{element}]");
    let mut candidates = Vec::new();
    push_candidates(buffer.as_bytes(), 1..buffer.len() - 1, 7, &mut candidates).unwrap();
    candidates
        .into_iter()
        .map(|candidate| {
            assert_eq!(candidate.index, 7);
            let body = candidate.body.copy_from(buffer.as_bytes());
            (candidate.part, candidate.user, String::from_utf8(body.to_vec()).unwrap())
        })
        .collect()
}

fn element(inner: &str) -> String {
    format!(r#"{{"time":"2026-06-11T01:01:29.5","hash":"0x{}","inner":{inner}}}"#, "0".repeat(64))
}

// H04
#[test]
fn a_ledger_update_concerns_each_of_its_users_once() {
    let users = format!(r#"["{}","{}","{}"]"#, user(2), user(1), user(2));
    let delta = format!(r#"{{"type":"send","user":"{}"}}"#, user(9));
    let text = element(&format!(r#"{{"LedgerUpdate":{{"users":{users},"delta":{delta}}}}}"#));

    let expected = [(0, address(2), text.clone()), (1, address(1), text.clone())];
    assert_eq!(read(&text), expected);
}

#[test]
fn each_of_many_users_is_concerned_once() {
    let twice = (0..40).chain(0..40).map(|ordinal| format!("\"{}\"", user(ordinal)));
    let users = twice.collect::<Vec<_>>().join(",");

    let read = read(&element(&format!(r#"{{"LedgerUpdate":{{"users":[{users}]}}}}"#)));

    let expected: Vec<_> = (0..40).map(address).collect();
    assert_eq!(read.into_iter().map(|(_, user, _)| user).collect::<Vec<_>>(), expected);
}

// H05
#[test]
fn funding_is_split_into_the_entries_of_each_user() {
    let entry = |who: u64, coin: &str| format!(r#"{{"user":"{}","coin":"{coin}"}}"#, user(who));
    let deltas =
        |list: &[String]| element(&format!(r#"{{"Funding":{{"deltas":[{}]}}}}"#, list.join(",")));
    let text = deltas(&[entry(1, "A"), entry(2, "B"), entry(1, "C")]);

    assert_eq!(
        read(&text),
        [
            (0, address(1), deltas(&[entry(1, "A"), entry(1, "C")])),
            (1, address(2), deltas(&[entry(2, "B")])),
        ]
    );
}

// H05
#[test]
fn an_entry_of_nobody_is_kept_for_those_who_want_everything() {
    let entry = format!(r#"{{"user":"{}","coin":"A"}}"#, user(1));
    let other = format!(r#"{{"vault":"{}"}}"#, user(2));
    let deltas = |list: &str| element(&format!(r#"{{"Funding":{{"deltas":[{list}]}}}}"#));

    assert_eq!(
        read(&deltas(&format!("{entry},{{\"user\":null}},{other}"))),
        [
            (0, address(1), deltas(&entry)),
            (1, address(2), deltas(&other)),
            (2, None, deltas("{\"user\":null}")),
        ]
    );
}

// H05
#[test]
fn validator_rewards_are_split_by_validator() {
    let rewards = |list: &str| {
        element(&format!(r#"{{"ValidatorRewards":{{"validator_to_reward":[{list}]}}}}"#))
    };
    let (first, second) =
        (format!(r#"["{}","0.28"]"#, user(1)), format!(r#"["{}","0.22"]"#, user(2)));

    assert_eq!(
        read(&rewards(&format!("{first}, {second}"))),
        [(0, address(1), rewards(&first)), (1, address(2), rewards(&second))]
    );
}

// H05
#[test]
fn deposits_withdrawals_and_delegations_concern_their_user_alone() {
    for variant in ["CDeposit", "CWithdrawal", "Delegation"] {
        let value = format!(r#"{{"user":"{}","validator":"{}","amount":"4.0"}}"#, user(1), user(2));
        let text = element(&format!(r#"{{"{variant}":{value}}}"#));

        assert_eq!(read(&text), [(0, address(1), text.clone())], "{variant}");
    }
}

// H05
#[test]
fn what_is_unknown_or_does_not_fit_concerns_every_address_in_it() {
    let (one, two) = (user(1), user(2));
    for inner in [
        format!(r#"{{"FutureEvent":{{"a":[["{one}"]],"{two}":["{one}",1.5,true,null,-1]}}}}"#),
        format!(r#"{{"LedgerUpdate":{{"users":"{one}","delta":{{"to":"{two}"}}}}}}"#),
        format!(r#"{{"LedgerUpdate":{{"users":[],"delta":["{one}","{two}"]}}}}"#),
        format!(r#"{{"LedgerUpdate":{{"users":["{one}",7],"x":"{two}"}}}}"#),
        format!(r#"{{"Funding":{{"deltas":{{"user":"{one}","b":"{two}"}}}}}}"#),
        format!(r#"{{"CDeposit":["{one}","{two}"]}}"#),
        format!(r#"{{"CDeposit":{{"user":"{one}"}},"Delegation":{{"user":"{two}"}}}}"#),
        format!(r#"["{one}",{{"x":"{two}"}}]"#),
    ] {
        let text = element(&inner);
        let expected = [(0, address(1), text.clone()), (1, address(2), text.clone())];
        assert_eq!(read(&text), expected, "{inner}");
    }
    let without_inner = format!(r#"{{"x":"{one}"}}"#);
    assert_eq!(read(&without_inner), [(0, address(1), without_inner.clone())]);
}

// H05
#[test]
fn what_concerns_nobody_is_one_event_without_a_user() {
    for inner in
        [r#"{"GossipPriorityAuctionRestart":{"slot_id":0}}"#, r#"{"Funding":{"deltas":[]}}"#]
    {
        let text = element(inner);
        assert_eq!(read(&text), [(0, None, text.clone())], "{inner}");
    }
}

#[test]
fn what_is_no_json_object_is_skipped() {
    for text in
        ["[]", "7", "{\"inner\":{]}", "{\"a\" 1}", "{\"inner\":{\"X\":{\"y\":tru}}}", "{} {}"]
    {
        let mut candidates = Vec::new();
        let result = push_candidates(text.as_bytes(), 0..text.len(), 0, &mut candidates);
        assert!(result.is_err() && candidates.is_empty(), "{text}");
    }
}

#[test]
fn the_type_and_the_delta_are_keys() {
    let body = element(r#"{"LedgerUpdate":{"users":[],"delta":{"type":"vaultWithdraw"}}}"#);
    let places = [("type", "LedgerUpdate"), ("delta", "vaultWithdraw")].map(|(name, text)| {
        let start = body.find(text).unwrap() as u32;
        (name, start..start + text.len() as u32)
    });

    assert_eq!(read_keys(body.as_bytes()).unwrap(), Keys::new(places));
    assert!(read_keys(element("{\"X\":{\"y\":tru}}").as_bytes()).is_err());
}

/// Time of a funding element with this many entries, each user twice.
fn time_of(entries: u64) -> Duration {
    let list: Vec<_> = (0..entries)
        .map(|at| format!(r#"{{"user":"{}","coin":"BTC","szi":"-1.5"}}"#, user(at % (entries / 2))))
        .collect();
    let text = element(&format!(r#"{{"Funding":{{"deltas":[{}]}}}}"#, list.join(",")));
    let started = Instant::now();
    let mut candidates = Vec::new();
    push_candidates(text.as_bytes(), 0..text.len(), 0, &mut candidates).unwrap();
    assert_eq!(candidates.len() as u64, entries / 2);
    started.elapsed()
}

#[test]
fn three_hundred_thousand_funding_entries_take_linear_time() {
    let small = time_of(30_000);

    let large = time_of(300_000);

    // Ten times the work; quadratic time would be a hundred times. The margin is for a machine
    // that does other things as well.
    assert!(large < small * 40 + Duration::from_millis(500), "{small:?}, then {large:?}");
}
