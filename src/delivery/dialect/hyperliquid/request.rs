//! What a client of the official protocol says, and why it has no effect.

use std::collections::{BTreeSet, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3Default;

use crate::{
    delivery::{
        dialect::{Desk, Lookup, object},
        replay::{ResumeError, Since},
        subscription::{Conditions, INDEXED, MAX_VALUE_BYTES, SubscribeError, Users, Wanted},
        view::{View, Views},
    },
    event::{Address, Cursor, Topic},
    official::{Admission, FILLS, MISC, Recent, Refusal},
    store::StoreError,
    whitelist::AddError,
};

/// Most users of one subscription that begins with snapshots: their client is not heard before it has them all.
const MAX_SNAPSHOTS: usize = 100;

/// Longest request for information, in bytes: many may wait for their answer.
const MAX_POST_BYTES: usize = 16 << 10;

/// Longest text of a client that is repeated to it, in bytes.
const MAX_ECHO_BYTES: usize = 64 << 10;

/// What a client asks for.
pub enum Method {
    Ping,
    Subscribe(Subscribe),
    Unsubscribe(Subscribe),
    Post(Post),
}

/// A subscription as a client has named it.
pub struct Subscribe {
    /// Its text, which is repeated as it is.
    pub text: Box<RawValue>,
    /// With what the ids of its entries begin: the same for whoever wants the same, wherever it begins.
    pub name: String,
    pub feed: Feed,
    pub users: Vec<Address>,
    /// It has a field of ours.
    pub is_extended: bool,
    /// Its client wants what has been, if there is such a thing.
    snapshot: bool,
    coin: Option<String>,
    /// Where it begins, if not now.
    pub from: Option<Since>,
    /// What it says of a cursor is none.
    bad_cursor: bool,
}

/// A part of a subscription, which is one to the shard.
pub struct Entry {
    pub id: String,
    pub wanted: Wanted,
    /// Whose snapshot comes first, if one does.
    pub user: Option<Address>,
}

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    Fills { aggregate: bool },
    Events,
    Fundings,
    LedgerUpdates,
    TwapSliceFills,
    Trades,
}

/// A request for information.
pub struct Post {
    pub id: Box<RawValue>,
    pub payload: Result<Box<RawValue>, PostFault>,
}

#[derive(Debug, thiserror::Error)]
pub enum PostFault {
    #[error(
        "only requests of type info are answered here, such as {{\"type\":\"info\",\"payload\":{{..}}}}"
    )]
    NotInfo,
    #[error("a request may have at most {MAX_POST_BYTES} bytes")]
    TooLong,
}

/// Why there is no such subscription. Clients find theirs in the text by its JSON.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("Already subscribed")]
    AlreadySubscribed,
    #[error("Already unsubscribed")]
    AlreadyUnsubscribed,
    #[error("Invalid subscription")]
    Invalid,
    #[error("Invalid subscription, {0}")]
    Because(String),
    #[error(
        "Invalid subscription, user {first} {} not on the whitelist of this daemon{why}",
        beside(*others)
    )]
    Unlisted { first: Address, others: usize, why: Refusal },
    #[error("Not subscribed, {0}")]
    NotAdded(#[from] AddError),
    #[error("Not subscribed, {0}")]
    Limit(SubscribeError),
    #[error("Not subscribed, {0}")]
    NotResumed(#[from] ResumeError),
    #[error("Not subscribed, what has been cannot be read at the moment: {0}")]
    Unavailable(#[from] StoreError),
}

/// How many others share what is said of a user, and the verb.
fn beside(others: usize) -> String {
    match others {
        0 => "is".to_owned(),
        others => format!("and {others} more of its users are"),
    }
}

impl Refused {
    /// The text for the client.
    pub fn told(&self, subscription: &RawValue) -> String {
        format!("{self}: {}", subscription.get())
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    method: String,
    #[serde(borrow)]
    subscription: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    #[serde(rename = "type")]
    kind: String,
    user: Option<Address>,
    coin: Option<String>,
    aggregate_by_time: Option<bool>,
    /// Ours, as is all that follows.
    users: Option<Vec<Address>>,
    #[serde(borrow)]
    cursor: Option<&'a RawValue>,
    snapshot: Option<bool>,
    status: Option<bool>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// Whether a message is of this protocol.
pub fn has_method(text: &str) -> bool {
    #[derive(Deserialize)]
    struct HasMethod<'a> {
        #[serde(borrow, rename = "method")]
        _method: &'a RawValue,
    }
    object::read::<HasMethod<'_>>(text.as_bytes()).is_ok()
}

/// Reads a message.
///
/// # Errors
/// With the text for the client.
pub fn read(text: &str) -> Result<Method, String> {
    let not_understood = || {
        let text: String = text.chars().take(MAX_ECHO_BYTES / 4).collect();
        format!("Error parsing JSON into valid websocket request: {text}")
    };
    let head: Head<'_> = object::read(text.as_bytes()).map_err(|_| not_understood())?;
    match (&*head.method, head.subscription, head.id, head.request) {
        ("ping", ..) => Ok(Method::Ping),
        ("subscribe", Some(named), ..) => Subscribe::read(named).map(Method::Subscribe),
        ("unsubscribe", Some(named), ..) => Subscribe::read(named).map(Method::Unsubscribe),
        ("post", _, Some(id), Some(request)) if is_number(id) => {
            let request: Request<'_> =
                object::read(request.get().as_bytes()).map_err(|_| not_understood())?;
            let payload = match (&*request.kind, request.payload) {
                ("info", Some(payload)) if payload.get().len() > MAX_POST_BYTES => {
                    Err(PostFault::TooLong)
                }
                ("info", Some(payload)) => Ok(payload.to_owned()),
                _ => Err(PostFault::NotInfo),
            };
            Ok(Method::Post(Post { id: id.to_owned(), payload }))
        }
        _ => Err(not_understood()),
    }
}

fn is_number(id: &RawValue) -> bool {
    serde_json::from_str::<u64>(id.get()).is_ok()
}

impl Subscribe {
    fn read(text: &RawValue) -> Result<Self, String> {
        let invalid = || {
            let text = text.get();
            match text.len() <= MAX_ECHO_BYTES {
                true => Refused::Invalid.to_string() + " " + text,
                false => Refused::Invalid.to_string(),
            }
        };
        let named: Named<'_> = object::read(text.get().as_bytes()).map_err(|_| invalid())?;
        let aggregate = named.aggregate_by_time.unwrap_or(false);
        let feed = match &*named.kind {
            "userFills" => Feed::Fills { aggregate },
            "userEvents" => Feed::Events,
            "userFundings" => Feed::Fundings,
            "userNonFundingLedgerUpdates" => Feed::LedgerUpdates,
            "userTwapSliceFills" => Feed::TwapSliceFills,
            "trades" => Feed::Trades,
            _ => return Err(invalid()),
        };
        let is_extended = named.users.is_some()
            || named.cursor.is_some()
            || named.snapshot.is_some()
            || named.status.is_some();
        let mut users: Vec<Address> = named.users.into_iter().flatten().chain(named.user).collect();
        users.sort_unstable();
        users.dedup();
        let is_complete = match feed {
            Feed::Trades => {
                users.is_empty() && named.coin.as_ref().is_some_and(|coin| !coin.is_empty())
            }
            _ => !users.is_empty(),
        };
        if !is_complete || text.get().len() > MAX_ECHO_BYTES && !is_extended {
            return Err(invalid());
        }
        let snapshot = named.snapshot.unwrap_or(true);
        let coin = named.coin.filter(|_| feed == Feed::Trades);
        let (mut from, mut bad_cursor) = (None, false);
        if let Some(given) = named.cursor.filter(|given| given.get() != "null") {
            let topics = [FILLS, MISC];
            let text: Option<String> = serde_json::from_str(given.get()).ok();
            from = text.and_then(|text| Cursor::parse(&text, &topics).ok()).map(Since::Cursor);
            bad_cursor = from.is_none();
        }
        let name = name(feed, &users, coin.as_deref());
        Ok(Self {
            text: text.to_owned(),
            name,
            feed,
            users,
            is_extended,
            snapshot,
            coin,
            from,
            bad_cursor,
        })
    }

    /// Whether it may be asked for.
    pub fn check(&self, desk: &Desk<'_>) -> Result<(), Refused> {
        let because = |why: &str| Err(Refused::Because(why.to_owned()));
        let parts = self.parts(desk.topics).count();
        if parts == 0 {
            return because("this daemon does not follow the files that it would come from");
        }
        if desk.subscriptions.ids_of(&self.name).next().is_some() {
            return Err(Refused::AlreadySubscribed);
        }
        let snapshots = if self.has_snapshots() { self.users.len() } else { 0 };
        if snapshots > MAX_SNAPSHOTS {
            let why = format!("with snapshots it may name at most {MAX_SNAPSHOTS} users");
            return Err(Refused::Because(why));
        }
        let most = desk.limits.max_subscriptions;
        if desk.subscriptions.len() + snapshots.max(parts) > most {
            return Err(Refused::Limit(SubscribeError::TooManySubscriptions(most)));
        }
        let named = desk.subscriptions.users() + self.users.len() * parts;
        if named > desk.limits.max_users {
            return Err(Refused::Limit(SubscribeError::TooManyUsers(desk.limits.max_users)));
        }
        if self.bad_cursor {
            return because("cursor is none that was given here");
        }
        let of_neighbours = matches!(self.feed, Feed::Trades | Feed::Fills { aggregate: true });
        if self.from.is_some() && of_neighbours {
            // A cursor may stand between what is put together.
            return because("trades and aggregated fills begin at no cursor");
        }
        if self.feed == Feed::Trades && !desk.keeps_all {
            return because(
                "trades need the events of all users, and only those of some are kept here",
            );
        }
        if self.coin.as_ref().is_some_and(|coin| coin.len() > MAX_VALUE_BYTES) {
            return Err(Refused::Invalid);
        }
        Ok(())
    }

    /// Who of its users has to be listed first.
    ///
    /// # Errors
    /// When its client may not have that.
    pub fn strangers(&self, desk: &Desk<'_>) -> Result<BTreeSet<Address>, Refused> {
        let strangers = self.users.iter().filter(|user| !(desk.is_listed)(user));
        let strangers: BTreeSet<_> = strangers.copied().collect();
        let Some(&first) = strangers.first() else { return Ok(strangers) };
        match (desk.admission)() {
            Admission::Accepted => Ok(BTreeSet::new()),
            Admission::Added => Ok(strangers),
            Admission::Refused(why) => {
                Err(Refused::Unlisted { first, others: strangers.len() - 1, why })
            }
        }
    }

    /// Whether something has to be known before it begins.
    pub fn needs_lookups(&self) -> bool {
        self.from.is_some() || self.has_snapshots()
    }

    fn has_snapshots(&self) -> bool {
        self.from.is_none() && self.snapshot && self.feed.recent().is_some()
    }

    /// What has to be known before the next of these begin: for all of them where a cursor says where, else
    /// for one.
    pub fn lookups(&self, left: &VecDeque<Entry>) -> Vec<Lookup> {
        if let Some(from) = &self.from {
            let wanted = left.iter().map(|entry| entry.wanted.clone());
            return wanted.map(|wanted| Lookup::Place { from: from.clone(), wanted }).collect();
        }
        let user = left.front().and_then(|next| next.user);
        let newest = self.feed.recent().zip(user);
        newest.into_iter().map(|(of, user)| Lookup::Newest { of, user }).collect()
    }

    /// What it is made of, of each topic that there is: where it begins with snapshots one for each user, as
    /// each goes on behind his own.
    pub fn entries(&self, topics: &[Topic]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (topic, view) in self.parts(topics) {
            match self.has_snapshots() {
                true => entries.extend(self.users.iter().map(|user| {
                    let id = format!("{}{user}", self.name);
                    let wanted = self.part(topic, view, std::slice::from_ref(user));
                    Entry { id, wanted, user: Some(*user) }
                })),
                false => {
                    let id = format!("{}{topic}", self.name);
                    let wanted = self.part(topic, view, &self.users);
                    entries.push(Entry { id, wanted, user: None });
                }
            }
        }
        entries
    }

    /// The topics that it is made from, of those that there are.
    fn parts(&self, topics: &[Topic]) -> impl Iterator<Item = (Topic, View)> {
        self.feed.parts().iter().copied().filter(|(topic, _)| topics.contains(topic))
    }

    fn part(&self, topic: Topic, view: View, users: &[Address]) -> Wanted {
        let users = match self.feed {
            Feed::Trades => Users::All,
            _ => Users::Listed(users.iter().copied().collect()),
        };
        let coin = self.coin.iter().map(|coin| (INDEXED, vec![coin.clone()]));
        let conditions = Conditions::new(coin).shared();
        Wanted { conditions, views: Views::of(view), ..Wanted::new(topic, users) }
    }
}

fn name(feed: Feed, users: &[Address], coin: Option<&str>) -> String {
    let mut digest = Xxh3Default::new();
    users.iter().for_each(|user| digest.update(&user.0));
    format!("{feed:?} {:032x} {} ", digest.digest128(), coin.unwrap_or_default())
}

impl Feed {
    /// What its client gets first of what has been.
    fn recent(self) -> Option<Recent> {
        match self {
            Self::Fills { aggregate } => Some(Recent::Fills { aggregate }),
            Self::Fundings => Some(Recent::Fundings),
            Self::LedgerUpdates => Some(Recent::LedgerUpdates),
            Self::TwapSliceFills => Some(Recent::TwapSliceFills),
            Self::Events | Self::Trades => None,
        }
    }

    /// The topics that it is made from, and in which view.
    fn parts(self) -> &'static [(Topic, View)] {
        use super::frames::{
            AGGREGATED, EVENTS, FILLS as OF_FILLS, FUNDINGS, LEDGER, TRADES, TWAP,
        };
        match self {
            Self::Fills { aggregate: false } => &[(FILLS, OF_FILLS)],
            Self::Fills { aggregate: true } => &[(FILLS, AGGREGATED)],
            Self::Events => &[(FILLS, EVENTS), (MISC, EVENTS)],
            Self::Fundings => &[(MISC, FUNDINGS)],
            Self::LedgerUpdates => &[(MISC, LEDGER)],
            Self::TwapSliceFills => &[(FILLS, TWAP)],
            Self::Trades => &[(FILLS, TRADES)],
        }
    }
}
