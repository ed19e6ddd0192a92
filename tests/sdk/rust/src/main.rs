//! The official Rust SDK, driven by tests/official_sdks.rs.
//!
//! Each line of standard input is a command, each line of standard output something that happened, both JSON:
//!
//! ```text
//! {"id":1,"do":"subscribe","subscription":{..}}   {"id":1,"done":null}, then {"id":1,"message":{..}}
//! {"id":2,"do":"unsubscribe","of":1}              {"id":2,"done":null}
//! {"id":3,"do":"info","method":"user_fills","user":"0x..","startTime":0}     {"id":3,"done":[..]}
//! ```
//!
//! What fails says `{"id":..,"failed":".."}`. What the SDK complains of is told as `{"log":".."}`. It knows one
//! address for a local server, port 3001 of `localhost`.

use std::{
    collections::HashMap,
    io::{Write as _, stdout},
};

use ethers::types::H160;
use hyperliquid_rust_sdk::{BaseUrl, InfoClient, Message, Subscription, TradeInfo, UserData};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::mpsc,
};

#[derive(Deserialize)]
struct Command {
    id: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
enum What {
    Subscribe { subscription: Subscription },
    Unsubscribe { of: u64 },
    Info(Question),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    method: String,
    #[serde(default)]
    user: H160,
    #[serde(default)]
    start_time: u64,
}

fn say(what: &Value) {
    // Nobody is there to be told that nobody is there.
    writeln!(stdout().lock(), "{what}").ok();
}

/// Says what the SDK writes into its log as a warning or worse.
struct Complaints;

impl log::Log for Complaints {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            say(&json!({"log": record.args().to_string()}));
        }
    }

    fn flush(&self) {}
}

fn fill(fill: &TradeInfo) -> Value {
    json!({
        "coin": fill.coin, "px": fill.px, "sz": fill.sz, "side": fill.side, "time": fill.time,
        "startPosition": fill.start_position, "dir": fill.dir, "closedPnl": fill.closed_pnl,
        "hash": fill.hash, "oid": fill.oid, "crossed": fill.crossed, "fee": fill.fee,
        "tid": fill.tid, "feeToken": fill.fee_token,
    })
}

fn funding(funding: &hyperliquid_rust_sdk::UserFunding) -> Value {
    json!({
        "time": funding.time, "coin": funding.coin, "usdc": funding.usdc, "szi": funding.szi,
        "fundingRate": funding.funding_rate,
    })
}

/// A message as the SDK has read it, in the words of the protocol.
fn told(message: &Message) -> Value {
    match message {
        Message::UserFills(fills) => json!({
            "user": fills.data.user, "isSnapshot": fills.data.is_snapshot,
            "fills": fills.data.fills.iter().map(fill).collect::<Vec<_>>(),
        }),
        Message::User(user) => match &user.data {
            UserData::Fills(fills) => json!({"fills": fills.iter().map(fill).collect::<Vec<_>>()}),
            UserData::Funding(one) => json!({"funding": funding(one)}),
            UserData::Liquidation(one) => json!({"liquidation": {
                "lid": one.lid, "liquidator": one.liquidator,
                "liquidated_user": one.liquidated_user,
                "liquidated_ntl_pos": one.liquidated_ntl_pos,
                "liquidated_account_value": one.liquidated_account_value,
            }}),
            other => json!({"other": format!("{other:?}")}),
        },
        Message::UserFundings(fundings) => json!({
            "user": fundings.data.user, "isSnapshot": fundings.data.is_snapshot,
            "fundings": fundings.data.fundings.iter().map(funding).collect::<Vec<_>>(),
        }),
        Message::UserNonFundingLedgerUpdates(updates) => {
            let list = updates.data.non_funding_ledger_updates.iter();
            // Its deltas are types of their own, which it cannot write again.
            let list = list.map(|update| {
                json!({"time": update.time, "hash": update.hash, "read": format!("{:?}", update.delta)})
            });
            json!({
                "user": updates.data.user, "isSnapshot": updates.data.is_snapshot,
                "nonFundingLedgerUpdates": list.collect::<Vec<_>>(),
            })
        }
        Message::Trades(trades) => trades
            .data
            .iter()
            .map(|trade| {
                json!({
                    "coin": trade.coin, "side": trade.side, "px": trade.px, "sz": trade.sz,
                    "time": trade.time, "hash": trade.hash, "tid": trade.tid,
                })
            })
            .collect(),
        // What it tells everybody when the connection is gone.
        Message::NoData => json!("NoData"),
        other => json!({"other": format!("{other:?}")}),
    }
}

#[derive(Default)]
struct Subscriptions(HashMap<u64, u32>);

async fn ask(info: &InfoClient, question: Question) -> Result<Value, hyperliquid_rust_sdk::Error> {
    let Question { method, user, start_time } = question;
    Ok(match method.as_str() {
        "user_fills" => {
            let fills = info.user_fills(user).await?;
            fills
                .iter()
                .map(|fill| json!({"oid": fill.oid, "px": fill.px, "sz": fill.sz, "time": fill.time}))
                .collect()
        }
        "user_funding_history" => {
            let rows = info.user_funding_history(user, start_time, None).await?;
            rows.iter()
                .map(|row| {
                    json!({
                        "time": row.time, "hash": row.hash, "coin": row.delta.coin,
                        "usdc": row.delta.usdc, "type": row.delta.type_string,
                    })
                })
                .collect()
        }
        "meta" => json!(info.meta().await?.universe.len()),
        "spot_meta" => json!(info.spot_meta().await?.universe.len()),
        "all_mids" => json!(info.all_mids().await?),
        other => panic!("no such method: {other}"),
    })
}

async fn carry_out(
    info: &mut InfoClient,
    subscriptions: &mut Subscriptions,
    command: Command,
) -> Result<Value, hyperliquid_rust_sdk::Error> {
    let id = command.id;
    match command.what {
        What::Subscribe { subscription } => {
            let (sender, mut messages) = mpsc::unbounded_channel();
            subscriptions.0.insert(id, info.subscribe(subscription, sender).await?);
            tokio::spawn(async move {
                while let Some(message) = messages.recv().await {
                    say(&json!({"id": id, "message": told(&message)}));
                }
            });
            Ok(Value::Null)
        }
        What::Unsubscribe { of } => {
            info.unsubscribe(subscriptions.0.remove(&of).unwrap_or(u32::MAX)).await?;
            Ok(Value::Null)
        }
        What::Info(question) => ask(info, question).await,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    log::set_logger(&Complaints).expect("nobody else has set one");
    log::set_max_level(log::LevelFilter::Warn);
    let info = InfoClient::with_reconnect(None, Some(BaseUrl::Localhost)).await;
    let mut info = info.expect("it only keeps the address");
    let mut subscriptions = Subscriptions::default();
    say(&json!({"id": 0, "done": null}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.expect("standard input can be read") {
        let command: Command = serde_json::from_str(&line).expect("a command");
        let id = command.id;
        match carry_out(&mut info, &mut subscriptions, command).await {
            Ok(done) => say(&json!({"id": id, "done": done})),
            Err(error) => say(&json!({"id": id, "failed": error.to_string()})),
        }
    }
}
