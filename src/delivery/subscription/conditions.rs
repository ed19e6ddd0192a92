//! Conditions of a subscription on the keys of events.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use serde::Serialize;

use crate::event::Event;

/// What `where` may compare.
pub const KEYS: [&str; 3] = ["coin", "side", "dir"];

/// The one of them by which a subscription to everybody is found.
pub const INDEXED: &str = "coin";

/// Longest value of a key that can be asked for.
pub const MAX_VALUE_BYTES: usize = 128;

/// Conditions on an event's keys: each must hold, and each holds for any of its values, which are in
/// order and differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Conditions(BTreeMap<&'static str, Vec<Box<str>>>);

impl Conditions {
    pub fn new(asked: impl IntoIterator<Item = (&'static str, Vec<String>)>) -> Self {
        let in_order = |values: Vec<String>| {
            let values: BTreeSet<Box<str>> = values.into_iter().map(Box::from).collect();
            values.into_iter().collect()
        };
        Self(asked.into_iter().map(|(key, values)| (key, in_order(values))).collect())
    }

    /// None where nothing is asked for.
    pub fn shared(self) -> Option<Arc<Self>> {
        (!self.0.is_empty()).then(|| Arc::new(self))
    }

    /// The values by which a subscription to everybody is found, if it is by any.
    pub(super) fn indexed(&self) -> Option<&[Box<str>]> {
        self.0.get(INDEXED).map(Vec::as_slice)
    }

    /// Takes so many of these off, as conditions of their own.
    pub(super) fn split_indexed(&mut self, most: usize) -> Option<Self> {
        let values = self.0.get_mut(INDEXED)?;
        let others = values.split_off(most);
        let first = mem::replace(values, others);
        Some(Self([(INDEXED, first)].into()))
    }

    /// How many values are named.
    pub(super) fn values(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// An event that lacks a key does not match.
    pub fn hold(&self, event: &Event) -> bool {
        self.0.iter().all(|(key, wanted)| {
            let is_wanted = |text: Cow<'_, str>| wanted.binary_search_by(|one| (**one).cmp(&text));
            event.key(key).map(written).is_some_and(|text| is_wanted(text).is_ok())
        })
    }
}

/// The text that stands between the quotes of a JSON string as `raw`. What is not valid there is no
/// text of anybody's.
pub fn written(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    serde_json::from_str(&format!("\"{raw}\"")).map_or(Cow::Borrowed(raw), Cow::Owned)
}
