//! History: more than the official service gives, page by page, and in each client's words.

use serde_json::{Value, json};

use crate::{
    chain::{CAROL, Chain, Stream, newest_first},
    client::{Answer, Client, Sdk},
    common::node::{ALICE, BOB},
    feed::agree,
    scene::Scene,
};

/// More than 10,000 fills, which is where the official service ends.
const BLOCKS: u64 = 900;
const FILLS_A_BLOCK: usize = 12;

/// Rows of an answer at most, unless the operator says otherwise.
const PAGE: usize = 2_000;

/// Reads all fills of a user as the official documentation says: the next page begins at the time of the
/// last fill, whose block may be torn.
fn all_pages(mut page: impl FnMut(u64) -> Answer) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    let mut start = 0;
    loop {
        let fills = page(start).unwrap();
        let fills = fills.as_array().unwrap();
        assert!(fills.len() <= PAGE);
        let known = all.len();
        let tail: Vec<_> = all.iter().rev().take(PAGE).map(|fill| fill["tid"].clone()).collect();
        all.extend(fills.iter().filter(|fill| !tail.contains(&fill["tid"])).cloned());
        if all.len() == known {
            return all;
        }
        start = fills.last().unwrap()["time"].as_u64().unwrap();
    }
}

fn long_history(config: &str) -> (Scene, Vec<Value>) {
    let mut scene = Scene::new(config);
    let users = [ALICE.to_owned(), CAROL.to_owned()];
    scene.chain.advance_with(BLOCKS, &users, FILLS_A_BLOCK);
    scene.wait_stored();
    let fills = scene.chain.expected(Stream::Fills, ALICE);
    assert!(fills.len() > 10_000);
    (scene, fills)
}

fn assert_same(got: &[Value], expected: &[Value]) {
    let differs = got.iter().zip(expected).position(|(got, expected)| got != expected);
    assert_eq!(differs, None);
    assert_eq!(got.len(), expected.len());
}

#[test]
fn python_pages_through_more_than_ten_thousand_fills() {
    if !Sdk::Python.is_here() {
        return;
    }
    let (scene, expected) = long_history("");
    let mut client = scene.client(Sdk::Python, &json!({}));
    let got = all_pages(|start| {
        client.call(json!({
            "do": "info", "method": "user_fills_by_time", "arguments": [ALICE, start],
        }))
    });
    assert_same(&got, &expected);
}

#[test]
fn typescript_pages_through_more_than_ten_thousand_fills_over_both_ways() {
    if !Sdk::TypeScript.is_here() {
        return;
    }
    let (scene, expected) = long_history("");
    let mut client = scene.client(Sdk::TypeScript, &Value::Null);
    for over in [json!("http"), json!(0)] {
        let got = all_pages(|start| {
            client.call(json!({
                "do": "info", "over": over, "method": "userFillsByTime",
                "parameters": {"user": ALICE, "startTime": start},
            }))
        });
        assert_same(&got, &expected);
    }
    // The newest first, which is how a client looks at what happened last.
    let newest = client.call(json!({
        "do": "info", "over": "http", "method": "userFillsByTime",
        "parameters": {"user": ALICE, "startTime": 0, "reversed": true},
    }));
    let mut expected = newest_first(expected);
    expected.truncate(PAGE);
    assert_same(newest.unwrap().as_array().unwrap(), &expected);
}

/// An operator may lift the limit of the official service: one answer has all.
#[test]
fn all_of_a_long_history_comes_at_once_where_the_operator_lets_it() {
    if !Sdk::Python.is_here() || !Sdk::TypeScript.is_here() {
        return;
    }
    let (scene, expected) = long_history("[official]\nmax_rows = 100000\n");
    let mut python = scene.client(Sdk::Python, &json!({}));
    let all = python.call(json!({
        "do": "info", "method": "user_fills_by_time", "arguments": [ALICE, 0],
    }));
    assert_same(all.unwrap().as_array().unwrap(), &expected);
    let mut typescript = scene.client(Sdk::TypeScript, &Value::Null);
    for over in [json!("http"), json!(0)] {
        let all = typescript.call(json!({
            "do": "info", "over": over, "method": "userFillsByTime",
            "parameters": {"user": ALICE, "startTime": 0},
        }));
        assert_same(all.unwrap().as_array().unwrap(), &expected);
    }
}

/// What a client asks about a user, by the names of its own.
struct Questions {
    fills: Value,
    fills_within: Box<dyn Fn(u64, u64) -> Value>,
    fundings: Value,
    ledger: Value,
    slices: Value,
}

fn of_python() -> Questions {
    fn ask(method: &str, arguments: Value) -> Value {
        json!({"do": "info", "method": method, "arguments": arguments})
    }
    Questions {
        fills: ask("user_fills", json!([ALICE])),
        fills_within: Box::new(|start, end| ask("user_fills_by_time", json!([ALICE, start, end]))),
        fundings: ask("user_funding_history", json!([ALICE, 0])),
        ledger: ask("user_non_funding_ledger_updates", json!([ALICE, 0])),
        slices: ask("user_twap_slice_fills", json!([ALICE])),
    }
}

fn of_typescript(over: Value) -> Questions {
    let ask = move |method: &str, more: Value| {
        let mut parameters = more;
        parameters["user"] = json!(ALICE);
        json!({"do": "info", "over": over, "method": method, "parameters": parameters})
    };
    Questions {
        fills: ask("userFills", json!({})),
        fundings: ask("userFunding", json!({"startTime": 0})),
        ledger: ask("userNonFundingLedgerUpdates", json!({"startTime": 0})),
        slices: ask("userTwapSliceFills", json!({})),
        fills_within: Box::new(move |start, end| {
            ask("userFillsByTime", json!({"startTime": start, "endTime": end}))
        }),
    }
}

/// Asks each question and compares the answer with what the node wrote.
fn ask_all(client: &mut Client, chain: &Chain, questions: &Questions) {
    let mut ask = |question: &Value| {
        let answer = client.call(question.clone()).unwrap();
        answer.as_array().unwrap().clone()
    };
    let fills = chain.expected(Stream::Fills, ALICE);
    assert_same(&ask(&questions.fills), &newest_first(fills.clone()));

    // Both ends are within.
    let times: Vec<_> = fills.iter().map(|fill| fill["time"].as_u64().unwrap()).collect();
    let (start, end) = (times[times.len() / 3], times[times.len() / 2]);
    let within = fills.iter().zip(&times).filter(|(_, time)| (start..=end).contains(*time));
    let within: Vec<_> = within.map(|(fill, _)| fill.clone()).collect();
    assert_same(&ask(&(questions.fills_within)(start, end)), &within);

    let fundings = ask(&questions.fundings);
    let expected = chain.expected(Stream::Fundings, ALICE);
    assert_eq!(fundings.len(), expected.len());
    for (got, expected) in fundings.iter().zip(&expected) {
        assert_eq!(got["delta"]["type"], "funding", "{got}");
        assert_eq!(got["time"], expected["time"], "{got}");
        assert!(got["hash"].as_str().unwrap().starts_with("0x"), "{got}");
        for name in ["coin", "usdc", "szi", "fundingRate"] {
            assert_eq!(got["delta"][name], expected[name], "{name} of {got}");
        }
    }

    let ledger = ask(&questions.ledger);
    assert_same(&ledger, &chain.expected(Stream::Ledger, ALICE));

    let slices = ask(&questions.slices);
    assert_same(&slices, &newest_first(chain.expected(Stream::Slices, ALICE)));
}

#[test]
fn python_is_answered_each_question() {
    if !Sdk::Python.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    scene.chain.advance(60);
    scene.wait_stored();
    let mut client = scene.client(Sdk::Python, &json!({}));
    ask_all(&mut client, &scene.chain, &of_python());
}

#[test]
fn typescript_is_answered_each_question_over_both_ways() {
    if !Sdk::TypeScript.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    scene.chain.advance(60);
    scene.wait_stored();
    let mut client = scene.client(Sdk::TypeScript, &Value::Null);
    for over in [json!("http"), json!(0)] {
        ask_all(&mut client, &scene.chain, &of_typescript(over));
    }
}

#[test]
fn rust_is_answered_each_question() {
    if !Sdk::Rust.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    let _stand_in = scene.stand_in();
    scene.chain.advance(60);
    scene.wait_stored();
    let mut client = scene.client(Sdk::Rust, &Value::Null);
    let mut ask = |method: &str| client.call(json!({"do": "info", "method": method, "user": BOB}));
    for method in ["meta", "spot_meta"] {
        assert_eq!(ask(method).unwrap(), 0, "{method}");
    }
    let fills = ask("user_fills").unwrap();
    let fills = fills.as_array().unwrap();
    let expected = newest_first(scene.chain.expected(Stream::Fills, BOB));
    assert_eq!(fills.len(), expected.len());
    for (got, expected) in fills.iter().zip(&expected) {
        assert!(agree(Sdk::Rust, Stream::Fills, got, expected), "{got} and not {expected}");
    }
    let fundings = ask("user_funding_history").unwrap();
    let fundings = fundings.as_array().unwrap();
    let expected = scene.chain.expected(Stream::Fundings, BOB);
    assert_eq!(fundings.len(), expected.len());
    for (got, expected) in fundings.iter().zip(&expected) {
        assert_eq!(got["type"], "funding");
        for name in ["time", "coin", "usdc"] {
            assert_eq!(got[name], expected[name], "{name} of {got}");
        }
    }
    // What the daemon does not know it says in words.
    let refused = ask("all_mids").unwrap_err();
    assert!(refused.contains("allMids"), "{refused}");
    // Which it has read in parts: otherwise its data is a complaint of its parser.
    assert!(refused.contains(r#"Some("unsupported_type")"#), "{refused}");
}
