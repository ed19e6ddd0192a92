//! What the daemon cannot know it asks an upstream for: here a server that knows one coin.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use serde_json::{Value, json};

use crate::{client::Sdk, common::node::ALICE, feed::Feed, scene::Scene};

/// Answers info requests until the tests are over.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            thread::spawn(move || serve(&connection));
        }
    });
    address
}

fn serve(connection: &TcpStream) {
    let mut reader = BufReader::new(connection);
    while let Some(request) = read_body(&mut reader) {
        let answer = match request["type"].as_str() {
            Some("meta") => {
                json!({"universe": [{"name": "BTC", "szDecimals": 5, "maxLeverage": 40}]})
            }
            Some("spotMeta") => json!({"universe": [], "tokens": []}),
            Some("allMids") => json!({"BTC": "104321.5"}),
            other => panic!("nobody was to ask for {other:?}"),
        };
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        let mut writer = connection;
        if writer.write_all((head + &answer).as_bytes()).is_err() {
            return;
        }
    }
}

/// The body of the next request; `None` when there is none.
fn read_body(reader: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).unwrap())
}

fn scene() -> Scene {
    Scene::new(&format!("[official]\ninfo_upstream = \"http://{}\"\n", upstream()))
}

/// `Info(url)` and nothing else: it asks which coins there are before it subscribes to one.
#[test]
fn python_subscribes_to_trades_of_a_coin_that_the_upstream_knows() {
    if !Sdk::Python.is_here() {
        return;
    }
    let mut scene = scene();
    let mut client = scene.client(Sdk::Python, &json!({}));
    let made = scene.subscribe(&mut client, &[(0, Feed::Trades, ""), (0, Feed::Fills, ALICE)]);
    scene.chain.advance(20);
    scene.catch_up(&mut client, &made);
    made[0].assert_complete(&client, &scene.chain);
    let mids = client.call(json!({"do": "info", "method": "all_mids", "arguments": []}));
    assert_eq!(mids.unwrap(), json!({"BTC": "104321.5"}));
}

#[test]
fn typescript_is_answered_by_the_upstream_over_both_ways() {
    if !Sdk::TypeScript.is_here() {
        return;
    }
    let scene = scene();
    let mut client = scene.client(Sdk::TypeScript, &Value::Null);
    for over in [json!("http"), json!(0)] {
        let mids = client.call(json!({"do": "info", "over": over, "method": "allMids"}));
        assert_eq!(mids.unwrap(), json!({"BTC": "104321.5"}));
        let meta = client.call(json!({"do": "info", "over": over, "method": "meta"}));
        assert_eq!(meta.unwrap()["universe"][0]["name"], "BTC");
    }
}

#[test]
fn rust_is_answered_by_the_upstream() {
    if !Sdk::Rust.is_here() {
        return;
    }
    let scene = scene();
    let _stand_in = scene.stand_in();
    let mut client = scene.client(Sdk::Rust, &Value::Null);
    let mids = client.call(json!({"do": "info", "method": "all_mids"}));
    assert_eq!(mids.unwrap(), json!({"BTC": "104321.5"}));
}
