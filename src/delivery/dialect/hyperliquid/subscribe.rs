//! Subscriptions, as clients of the official protocol name them.

use std::collections::{BTreeSet, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3Default;

use super::{
    feed::Feed,
    refused::{Fault, MAX_ECHO_BYTES, MAX_SNAPSHOTS, Refused},
};
use crate::{
    delivery::{
        dialect::{Desk, Lookup},
        replay::Since,
        subscription::{Conditions, INDEXED, MAX_VALUE_BYTES, SubscribeError, Users, Wanted},
        view::Views,
    },
    event::{Address, Cursor, Topic},
    object,
    official::{Admission, FILLS, MISC},
};

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
}

/// A part of a subscription, which is one to the shard.
pub struct Entry {
    pub id: String,
    pub wanted: Wanted,
    /// Whose snapshot comes first, if one does.
    pub user: Option<Address>,
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

/// The names of those.
const OUR_FIELDS: [&str; 4] = ["users", "cursor", "snapshot", "status"];

impl Subscribe {
    /// Reads the object by which a client names it.
    ///
    /// # Errors
    /// When it names none.
    pub fn read(text: &RawValue) -> Result<Self, Fault> {
        let invalid = || Fault::subscription(text);
        let refused = |why| Fault::refused(why, text);
        let named: Named<'_> = object::read(text.get().as_bytes()).map_err(|error| {
            // Of its own fields the official service says no more than that.
            match error.field().is_some_and(|field| OUR_FIELDS.contains(&&*field)) {
                true => refused(Refused::BadField(error)),
                false => invalid(),
            }
        })?;
        let aggregate = named.aggregate_by_time.unwrap_or(false);
        let feed = Feed::of_type(&named.kind, aggregate).ok_or_else(invalid)?;
        let is_extended = named.users.is_some()
            || named.cursor.is_some()
            || named.snapshot.is_some()
            || named.status.is_some();
        let mut users: Vec<Address> = named.users.into_iter().flatten().chain(named.user).collect();
        users.sort_unstable();
        users.dedup();
        let is_complete = match feed {
            Feed::Trades => {
                let coin = named.coin.as_ref().map_or(0, String::len);
                users.is_empty() && (1..=MAX_VALUE_BYTES).contains(&coin)
            }
            _ => !users.is_empty(),
        };
        if !is_complete || text.get().len() > MAX_ECHO_BYTES && !is_extended {
            return Err(invalid());
        }
        let snapshot = named.snapshot.unwrap_or(true);
        let coin = named.coin.filter(|_| feed == Feed::Trades);
        let from = match named.cursor {
            Some(given) => {
                let bad = || refused(Refused::BadCursor);
                let given: String = serde_json::from_str(given.get()).map_err(|_| bad())?;
                let cursor = Cursor::parse(&given, &[FILLS, MISC]).map_err(|_| bad())?;
                Some(Since::Cursor(cursor))
            }
            None => None,
        };
        let name = name(feed, &users, coin.as_deref());
        Ok(Self { text: text.to_owned(), name, feed, users, is_extended, snapshot, coin, from })
    }

    /// Whether it may be asked for.
    pub fn check(&self, desk: &Desk<'_>) -> Result<(), Refused> {
        let parts = self.topics_of(desk.topics).count();
        if parts == 0 {
            return Err(Refused::NotFollowed);
        }
        if desk.subscriptions.ids_of(&self.name).next().is_some() {
            return Err(Refused::AlreadySubscribed);
        }
        let snapshots = if self.has_snapshots() { self.users.len() } else { 0 };
        if snapshots > MAX_SNAPSHOTS {
            return Err(Refused::TooManySnapshots);
        }
        let most = desk.limits.max_subscriptions;
        if desk.subscriptions.len() + snapshots.max(parts) > most {
            return Err(Refused::Limit(SubscribeError::TooManySubscriptions(most)));
        }
        let named = desk.subscriptions.users() + self.users.len() * parts;
        if named > desk.limits.max_users {
            return Err(Refused::Limit(SubscribeError::TooManyUsers(desk.limits.max_users)));
        }
        if self.from.is_some() && self.feed.puts_together() {
            // A cursor may stand between what is put together.
            return Err(Refused::NoCursor);
        }
        if self.feed == Feed::Trades && !desk.keeps_all {
            return Err(Refused::NotAllKept);
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
        self.from.is_none() && self.snapshot && matches!(self.feed, Feed::Rows(_))
    }

    /// What has to be known before the next of these begin: for all of them where a cursor says where, else
    /// for one.
    pub fn lookups(&self, left: &VecDeque<Entry>) -> Vec<Lookup> {
        if let Some(from) = &self.from {
            let wanted = left.iter().map(|entry| entry.wanted.clone());
            return wanted.map(|wanted| Lookup::Place { from: from.clone(), wanted }).collect();
        }
        match (self.feed, left.front().and_then(|next| next.user)) {
            (Feed::Rows(rows), Some(user)) => vec![Lookup::Newest { rows, user }],
            _ => Vec::new(),
        }
    }

    /// What it is made of, of each topic that there is: where it begins with snapshots one for each user, as
    /// each goes on behind his own.
    pub fn entries(&self, topics: &[Topic]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for topic in self.topics_of(topics) {
            match self.has_snapshots() {
                true => entries.extend(self.users.iter().map(|user| {
                    let id = format!("{}{user}", self.name);
                    let wanted = self.part(topic, std::slice::from_ref(user));
                    Entry { id, wanted, user: Some(*user) }
                })),
                false => {
                    let id = format!("{}{topic}", self.name);
                    let wanted = self.part(topic, &self.users);
                    entries.push(Entry { id, wanted, user: None });
                }
            }
        }
        entries
    }

    /// The topics that it is made from, of those that there are.
    fn topics_of(&self, followed: &[Topic]) -> impl Iterator<Item = Topic> {
        followed.iter().copied().filter(|topic| self.feed.is_made_of(*topic))
    }

    fn part(&self, topic: Topic, users: &[Address]) -> Wanted {
        let users = match self.feed {
            Feed::Trades => Users::All,
            _ => Users::Listed(users.iter().copied().collect()),
        };
        let coin = self.coin.iter().map(|coin| (INDEXED, vec![coin.clone()]));
        let conditions = Conditions::new(coin).shared();
        Wanted { conditions, views: Views::of(self.feed.view()), ..Wanted::new(topic, users) }
    }
}

fn name(feed: Feed, users: &[Address], coin: Option<&str>) -> String {
    let mut digest = Xxh3Default::new();
    users.iter().for_each(|user| digest.update(&user.0));
    // A coin may be any text, and no name may be the beginning of another one.
    coin.into_iter().for_each(|coin| digest.update(coin.as_bytes()));
    format!("{feed:?} {:032x} ", digest.digest128())
}
