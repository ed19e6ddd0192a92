//! Subscriptions: how each SDK is asked for them, and what must come of them.

use serde_json::{Value, json};

use crate::{
    chain::{COIN, Chain, Stream, newest_first, oldest_first},
    client::{Client, Sdk},
};

/// A type of subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    Fills,
    Events,
    Fundings,
    Ledger,
    Slices,
    Trades,
}

impl Feed {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fills => "userFills",
            Self::Events => "userEvents",
            Self::Fundings => "userFundings",
            Self::Ledger => "userNonFundingLedgerUpdates",
            Self::Slices => "userTwapSliceFills",
            Self::Trades => "trades",
        }
    }

    /// Whether all that there is comes first.
    pub fn has_snapshot(self) -> bool {
        !matches!(self, Self::Events | Self::Trades)
    }

    pub fn streams(self) -> &'static [Stream] {
        match self {
            Self::Fills => &[Stream::Fills],
            Self::Events => &[Stream::Fills, Stream::Fundings],
            Self::Fundings => &[Stream::Fundings],
            Self::Ledger => &[Stream::Ledger],
            Self::Slices => &[Stream::Slices],
            Self::Trades => &[Stream::Trades],
        }
    }

    /// What a message holds of a stream.
    fn items(self, stream: Stream, data: &Value) -> Vec<Value> {
        let list = match (self, stream) {
            (Self::Trades, _) => data,
            (Self::Events, Stream::Fundings) => {
                return data.get("funding").cloned().into_iter().collect();
            }
            (_, Stream::Fills) => &data["fills"],
            (_, Stream::Fundings) => &data["fundings"],
            (_, Stream::Ledger) => &data["nonFundingLedgerUpdates"],
            (_, Stream::Slices) => &data["twapSliceFills"],
            (_, Stream::Trades) => unreachable!("only trades have trades"),
        };
        list.as_array().cloned().unwrap_or_default()
    }
}

/// A subscription that a client was asked to make.
#[derive(Debug)]
pub struct Subscription {
    /// Of its command.
    pub id: u64,
    pub feed: Feed,
    user: String,
    object: Value,
    /// What had been written of each of its streams when it was known to be there.
    written: Option<Vec<usize>>,
    /// Messages before this one are not looked at.
    since: usize,
}

impl Subscription {
    /// Asks for it over the connection of this number, of which only one SDK has several.
    pub fn ask(client: &mut Client, transport: u64, feed: Feed, user: &str) -> Self {
        Self::ask_with(client, transport, feed, user, &json!({}))
    }

    /// The same with more parameters.
    pub fn ask_with(
        client: &mut Client,
        transport: u64,
        feed: Feed,
        user: &str,
        more: &Value,
    ) -> Self {
        let mut parameters = more.clone();
        if feed == Feed::Trades {
            parameters["coin"] = json!(COIN);
        } else {
            parameters["user"] = json!(user);
        }
        let mut object = parameters.clone();
        object["type"] = json!(feed.name());
        let id = client.command(match client.sdk {
            Sdk::TypeScript => json!({
                "do": "subscribe", "transport": transport, "method": feed.name(),
                "parameters": parameters,
            }),
            Sdk::Python | Sdk::Rust => json!({"do": "subscribe", "subscription": object}),
        });
        Self { id, feed, user: user.to_owned(), object, written: None, since: 0 }
    }

    /// Looks whether it is there: acknowledged, where the SDK shows that, and with its snapshot.
    pub fn is_made(&mut self, client: &Client, chain: &Chain) -> bool {
        if self.written.is_none() {
            let acknowledged = match client.sdk {
                Sdk::TypeScript => client.is_answered(self.id),
                Sdk::Python => self.is_acknowledged(client, "subscribe"),
                // It tells nobody; but a server carries commands out in their order.
                Sdk::Rust => self.feed.has_snapshot() || client.hears_of_later_than(self.id),
            };
            let complete = !self.feed.has_snapshot() || !client.messages(self.id).is_empty();
            if acknowledged && complete {
                let streams = self.feed.streams().iter();
                let counts = streams.map(|&stream| chain.expected(stream, &self.user).len());
                self.written = Some(counts.collect());
            }
        }
        self.written.is_some()
    }

    /// Whether the server has acknowledged this with the whole of the client's object.
    pub fn is_acknowledged(&self, client: &Client, method: &str) -> bool {
        let data = json!({"method": method, "subscription": self.object});
        client.others.iter().any(|other| {
            other["frame"]["channel"] == "subscriptionResponse" && other["frame"]["data"] == data
        })
    }

    /// Ends it; messages on their way may still come.
    pub fn end(&self, client: &mut Client) {
        client.call(json!({"do": "unsubscribe", "of": self.id})).unwrap();
        if client.sdk == Sdk::Python {
            client.wait("an acknowledgement", |client| self.is_acknowledged(client, "unsubscribe"));
        }
    }

    /// From now on looks only at what comes after so many messages: a subscription that is made again after
    /// a reconnect begins anew.
    pub fn look_behind(&mut self, messages: usize) {
        self.since = messages;
    }

    /// All that has come of a stream, the oldest first.
    ///
    /// # Panics
    /// When there is another snapshot than one at the start.
    pub fn received(&self, client: &Client, stream: Stream) -> Vec<Value> {
        let mut all = Vec::new();
        let messages = &client.messages(self.id)[self.since..];
        for (index, data) in messages.iter().enumerate() {
            let mut items = self.feed.items(stream, data);
            if self.feed != Feed::Trades {
                let is_snapshot = data["isSnapshot"] == true;
                let belongs = index == 0 && self.feed.has_snapshot();
                assert_eq!(is_snapshot, belongs, "message {index} of {self:?}");
                if is_snapshot {
                    let list = oldest_first(items.clone());
                    assert_eq!(items, newest_first(list.clone()), "{self:?}");
                    items = list;
                }
                if self.feed != Feed::Events {
                    assert_eq!(data["user"], self.user.to_lowercase(), "{self:?}");
                }
            }
            all.extend(items);
        }
        all
    }

    /// What has to come of a stream, where everything does.
    fn expected(&self, client: &Client, chain: &Chain, stream: Stream) -> Vec<Value> {
        let mut expected = chain.expected(stream, &self.user);
        if client.sdk == Sdk::Rust && stream == Stream::Ledger {
            // Its list of types is closed.
            expected.retain(|update| update["delta"]["type"] != "send");
        }
        expected
    }

    /// Whether the last that was written is there.
    pub fn has_caught_up(&self, client: &Client, chain: &Chain) -> bool {
        self.feed.streams().iter().all(|&stream| {
            let expected = self.expected(client, chain, stream);
            let (got, last) = (self.received(client, stream), expected.last());
            match (got.last(), last) {
                (Some(got), Some(last)) => agree(client.sdk, stream, got, last),
                (None, None) => true,
                _ => false,
            }
        })
    }

    /// # Panics
    /// When something is missing, there twice, out of order or another than was written.
    pub fn assert_complete(&self, client: &Client, chain: &Chain) {
        let written = self.written.as_ref().expect("it was made");
        for (&stream, &before) in self.feed.streams().iter().zip(written) {
            let (got, all) = (self.received(client, stream), self.expected(client, chain, stream));
            // What was written before is no business of a subscription without a snapshot.
            let expected = if self.feed.has_snapshot() {
                &all[..]
            } else {
                assert!(
                    got.len() >= all.len() - before,
                    "{:?}: {} of {stream:?} for {self:?}, after {before} of {}",
                    client.sdk,
                    got.len(),
                    all.len()
                );
                &all[all.len().saturating_sub(got.len())..]
            };
            for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
                assert!(
                    agree(client.sdk, stream, got, expected),
                    "{:?}, {self:?}, {stream:?} number {index}: got\n{got}\nand not\n{expected}",
                    client.sdk
                );
            }
            assert_eq!(got.len(), expected.len(), "{:?}, {self:?}, {stream:?}", client.sdk);
        }
    }
}

/// Whether a client got what was written: of a fill all of it, of the others at least what the official
/// protocol has.
pub fn agree(sdk: Sdk, stream: Stream, got: &Value, expected: &Value) -> bool {
    let holds = |part: &Value, whole: &Value| {
        let (Some(part), Some(whole)) = (part.as_object(), whole.as_object()) else {
            return false;
        };
        part.iter().all(|(name, value)| whole.get(name) == Some(value))
    };
    match (sdk, stream) {
        (Sdk::Rust, _) => {
            // It reads into types of its own, which know less, and says how it understood a ledger update.
            let mut got = got.clone();
            if let Some(read) = got.as_object_mut().and_then(|got| got.remove("read")) {
                let read = read.as_str().unwrap().to_lowercase();
                let kind = expected["delta"]["type"].as_str().unwrap().to_lowercase();
                return read.starts_with(&kind) && holds(&got, expected);
            }
            holds(&got, expected)
        }
        (_, Stream::Fills | Stream::Slices) => got == expected,
        _ => holds(expected, got),
    }
}
