//! Misc events: who is concerned by an element of a misc line, and by which bytes.
//!
//! Place in the pipeline: rules of the `Parser` for the kind `misc_events`. An element:
//!
//! ```json
//! {"time":"2026-06-11T01:01:29.513722441","hash":"0x7fe9..","inner":{"CDeposit":
//!  {"user":"0x163014fed389c392a0a214d2c4a28a73ec804741","amount":"0.00982529"}}}
//! ```
//!
//! `inner` is an open set. Known variants are read as their shape promises; a variant that is
//! unknown, or does not fit its shape, concerns every address that is written anywhere in it.
//! What lists the entries of many users (hourly funding: 20 MB) is split: each user gets the
//! element with only his own entries.
//!
//! Invariants: an element that is valid JSON and an object gives at least one candidate; `part`
//! counts the distinct users in order of appearance, whoever is listed; the work is linear.

use std::ops::Range;

use ahash::{HashMap, HashMapExt, HashSet, HashSetExt};
use serde_json::{Error, value::RawValue};

use super::json::{address_of, each_address, members, only_member, place_in, text_of, utf8};
use crate::{
    event::{Address, Keys, Topic},
    source::{BodyPlace, Candidate, Spliced},
};

pub const TOPIC: Topic = Topic::new("misc");

/// Pushes the candidates of one element.
///
/// # Errors
/// When the element is not an object or not valid JSON: it is to be skipped.
pub fn push_candidates(
    buffer: &[u8],
    element: Range<usize>,
    index: u32,
    candidates: &mut Vec<Candidate>,
) -> Result<(), Error> {
    let text = utf8(&buffer[element.clone()])?;
    let [inner] = members(text, ["inner"])?;
    let concerned = match inner.and_then(only_member).and_then(|(name, value)| known(name, value)) {
        Some(concerned) => concerned,
        None => {
            let mut users = Distinct::default();
            each_address(text, &mut |user| users.add(user))?;
            Concerned::Whole(users.ordered)
        }
    };
    match concerned {
        Concerned::Whole(users) if users.is_empty() => {
            let body = BodyPlace::Slice(narrow(element));
            candidates.push(Candidate { index, part: 0, user: None, body });
        }
        Concerned::Whole(users) => {
            let body = BodyPlace::Slice(narrow(element));
            candidates.extend(users.into_iter().zip(0..).map(|(user, part)| Candidate {
                index,
                part,
                user: Some(user),
                body: body.clone(),
            }));
        }
        Concerned::Split { list, shares } => {
            let list = place_in(buffer, list.get());
            let head = narrow(element.start..list.start + 1);
            let tail = narrow(list.end - 1..element.end);
            candidates.extend(shares.into_iter().zip(0..).map(|((user, entries), part)| {
                let entries =
                    entries.iter().map(|entry| narrow(place_in(buffer, entry.get()))).collect();
                let spliced = Spliced { head: head.clone(), entries, tail: tail.clone() };
                Candidate { index, part, user, body: BodyPlace::Spliced(Box::new(spliced)) }
            }));
        }
    }
    Ok(())
}

/// Whom an element concerns.
enum Concerned<'j> {
    /// Each of these users gets the whole element.
    Whole(Vec<Address>),
    /// Each gets the element with only his own entries of `list`. Entries without any address
    /// come last, for those who want everything.
    Split { list: &'j RawValue, shares: Vec<(Option<Address>, Vec<&'j RawValue>)> },
}

/// Reads a variant as its shape promises; `None` when it is unknown or does not fit.
fn known<'j>(name: &RawValue, value: &'j RawValue) -> Option<Concerned<'j>> {
    match text_of(name)? {
        "LedgerUpdate" => {
            let mut users = Distinct::default();
            for user in list_in(value, "users")?.1 {
                users.add(address_of(user)?);
            }
            (!users.ordered.is_empty()).then_some(Concerned::Whole(users.ordered))
        }
        "CDeposit" | "CWithdrawal" | "Delegation" => {
            user_member(value).map(|user| Concerned::Whole(vec![user]))
        }
        "Funding" => split(list_in(value, "deltas")?, user_member),
        "ValidatorRewards" => split(list_in(value, "validator_to_reward")?, |entry| {
            let pair: Vec<&RawValue> = serde_json::from_str(entry.get()).ok()?;
            address_of(pair.first()?)
        }),
        _ => None,
    }
}

fn user_member(value: &RawValue) -> Option<Address> {
    let [user] = members(value.get(), ["user"]).ok()?;
    address_of(user?)
}

/// The list of this name in an object, whole and taken apart.
fn list_in<'j>(value: &'j RawValue, name: &str) -> Option<(&'j RawValue, Vec<&'j RawValue>)> {
    let [list] = members(value.get(), [name]).ok()?;
    let list = list?;
    Some((list, serde_json::from_str(list.get()).ok()?))
}

/// Gives every entry to its user.
fn split<'j>(
    (list, entries): (&'j RawValue, Vec<&'j RawValue>),
    user_of: fn(&RawValue) -> Option<Address>,
) -> Option<Concerned<'j>> {
    let mut shares: Vec<(Option<Address>, Vec<&RawValue>)> = Vec::new();
    let mut ordinals = HashMap::<Address, usize>::with_capacity(entries.len());
    let mut ownerless = Vec::new();
    for entry in entries {
        let mut users = Distinct::default();
        match user_of(entry) {
            Some(user) => users.add(user),
            None => each_address(entry.get(), &mut |user| users.add(user)).ok()?,
        }
        if users.ordered.is_empty() {
            ownerless.push(entry);
        }
        for user in users.ordered {
            let ordinal = *ordinals.entry(user).or_insert(shares.len());
            if ordinal == shares.len() {
                shares.push((Some(user), Vec::new()));
            }
            shares[ordinal].1.push(entry);
        }
    }
    if shares.is_empty() {
        return None;
    }
    if !ownerless.is_empty() {
        shares.push((None, ownerless));
    }
    Some(Concerned::Split { list, shares })
}

/// Users in order of appearance, each once.
#[derive(Default)]
struct Distinct {
    ordered: Vec<Address>,
    /// Filled only when a search through `ordered` would become slow.
    seen: HashSet<Address>,
}

impl Distinct {
    /// Up to here a search is faster than a table.
    const FEW: usize = 16;

    fn add(&mut self, user: Address) {
        if self.ordered.len() < Self::FEW {
            if !self.ordered.contains(&user) {
                self.ordered.push(user);
            }
            return;
        }
        if self.seen.is_empty() {
            self.seen = HashSet::with_capacity(4 * Self::FEW);
            self.seen.extend(&self.ordered);
        }
        if self.seen.insert(user) {
            self.ordered.push(user);
        }
    }
}

/// Places in a read buffer, which is far below 4 GiB.
fn narrow(place: Range<usize>) -> Range<u32> {
    place.start as u32..place.end as u32
}

/// Reads the keys of a misc event and proves that its whole body is valid JSON: `type` is the name
/// of its variant, `delta` the type of a ledger update's delta.
pub fn read_keys(body: &[u8]) -> Result<Keys, Error> {
    let [inner] = members(utf8(body)?, ["inner"])?;
    let mut places = Vec::new();
    let mut place = |name, value: &RawValue| {
        if let Some(text) = text_of(value) {
            places.push((name, narrow(place_in(body, text))));
        }
    };
    if let Some((name, value)) = inner.and_then(only_member) {
        place("type", name);
        if let Ok([Some(delta)]) = members(value.get(), ["delta"])
            && let Ok([Some(kind)]) = members(delta.get(), ["type"])
        {
            place("delta", kind);
        }
    }
    Ok(Keys::new(places))
}

#[cfg(test)]
mod tests;
