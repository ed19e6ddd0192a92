//! The misc events of a block: hourly ones that concern everybody, and transactions.

use super::{
    block::Elements,
    chain::{Moment, ZERO_HASH},
    deltas,
    text::{decimal, push_time, put},
};
use crate::event::Address;

const VALIDATORS: usize = 24;

/// Appends the events of a new hour: funding of every open position, the validators' rewards, and
/// one that concerns nobody.
pub(super) fn push_hourly(moment: &mut Moment, misc: &mut Elements) {
    push_funding(moment, misc);
    push_rewards(moment, misc);
    push_auction(moment, misc);
}

/// Appends what users did: nothing in two thirds of the blocks.
pub(super) fn push_transactions(moment: &mut Moment, misc: &mut Elements) {
    if !moment.one_in(3) {
        return;
    }
    for _ in 0..moment.rng.u32(1..=3) {
        match moment.rng.u32(..100) {
            0..85 => push_ledger_update(moment, misc),
            85..89 => push_deposit(moment, misc),
            89..92 => push_withdrawal(moment, misc),
            92..95 => push_delegation(moment, misc),
            95..96 => push_auction(moment, misc),
            96..98 => push_unknown_with_addresses(moment, misc),
            _ => push_unknown_without_addresses(moment, misc),
        }
    }
}

/// Begins an element up to the value of its variant.
fn begin<'a>(misc: &'a mut Elements, time_ns: i64, hash: &[u8], variant: &str) -> &'a mut Vec<u8> {
    let out = misc.begin();
    push_head(out, time_ns, hash, variant);
    out
}

fn push_head(out: &mut Vec<u8>, time_ns: i64, hash: &[u8], variant: &str) {
    out.extend_from_slice(br#"{"time":""#);
    push_time(out, time_ns);
    out.extend_from_slice(br#"","hash":""#);
    out.extend_from_slice(hash);
    put!(out, r#"","inner":{{"{variant}":"#);
}

/// Ends an element behind the value of its variant and gives it whole to `users`.
fn end(misc: &mut Elements, users: &[Address]) {
    misc.end();
    misc.give_whole(users);
}

/// An event whose value is one list of entries, each of one user.
///
/// Such an event is split: each user gets the event with its own entries only, as they stand in
/// the file, in their order.
struct Split<'a> {
    variant: &'a str,
    /// Name of the list in the variant's object.
    list: &'a str,
    /// Users by number, and their entries.
    entries: Vec<(usize, String)>,
}

impl Split<'_> {
    fn push(&self, moment: &Moment, misc: &mut Elements) {
        self.push_event(moment, misc.begin(), self.entries.iter().map(|(_, entry)| entry));
        misc.end();
        // First appearance in the list decides the ordinal of a user.
        let mut owners = Vec::new();
        let mut entries_of = vec![Vec::new(); moment.users.len()];
        for (user, entry) in &self.entries {
            if entries_of[*user].is_empty() {
                owners.push(*user);
            }
            entries_of[*user].push(entry);
        }
        let mut body = Vec::new();
        for (part, user) in owners.into_iter().enumerate() {
            body.clear();
            self.push_event(moment, &mut body, entries_of[user].iter().copied());
            misc.give_spliced(part as u32, moment.users.address(user), &body);
        }
    }

    fn push_event<'e>(
        &self,
        moment: &Moment,
        out: &mut Vec<u8>,
        entries: impl Iterator<Item = &'e String>,
    ) {
        push_head(out, moment.time_ns, ZERO_HASH, self.variant);
        put!(out, r#"{{"{}":["#, self.list);
        for (place, entry) in entries.enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(entry.as_bytes());
        }
        out.extend_from_slice(b"]}}}");
    }
}

fn push_funding(moment: &mut Moment, misc: &mut Elements) {
    let mut entries: Vec<_> =
        (0..moment.users.len()).map(|user| (user, funding_delta(moment, user))).collect();
    // Some users hold several positions, which do not stand side by side.
    for _ in 0..moment.users.len() / 3 + 1 {
        let user = moment.users.draw(&mut moment.rng);
        entries.push((user, funding_delta(moment, user)));
    }
    Split { variant: "Funding", list: "deltas", entries }.push(moment, misc);
}

fn funding_delta(moment: &mut Moment, user: usize) -> String {
    let rng = &mut moment.rng;
    format!(
        r#"{{"user":"{}","coin":"{}","funding_amount":"{}","szi":"{}","funding_rate":"{}"}}"#,
        moment.users.name(user),
        ["BTC", "ETH", "ZEC", "HYPE", "xyz:NVDA"][rng.usize(..5)],
        decimal(rng.i64(-90_000_000..90_000_000), 6),
        decimal(rng.i64(-900_000..900_000), 2),
        decimal(rng.i64(-1_000_000..1_000_000), 10),
    )
}

fn push_rewards(moment: &mut Moment, misc: &mut Elements) {
    let count = moment.users.len().min(VALIDATORS);
    let entries = (0..count)
        .map(|user| {
            let reward = decimal(moment.rng.i64(1..50_000_000), 8);
            (user, format!(r#"["{}","{reward}"]"#, moment.users.name(user)))
        })
        .collect();
    let rewards = Split { variant: "ValidatorRewards", list: "validator_to_reward", entries };
    rewards.push(moment, misc);
}

fn push_auction(moment: &mut Moment, misc: &mut Elements) {
    let (slot, gas) = (moment.rng.u32(..5), decimal(moment.rng.i64(1..90_000_000), 8));
    let out = begin(misc, moment.time_ns, ZERO_HASH, "GossipPriorityAuctionRestart");
    put!(
        out,
        r#"{{"slot_id":{slot},"previous_winner":{{"Ip":"192.0.2.{}"}},"end_gas":"{gas}"}}}}}}"#,
        moment.rng.u8(..)
    );
    end(misc, &[]);
}

fn push_ledger_update(moment: &mut Moment, misc: &mut Elements) {
    let hash = moment.hash();
    let update = deltas::draw(moment);
    let out = begin(misc, moment.time_ns, &hash, "LedgerUpdate");
    out.extend_from_slice(br#"{"users":["#);
    for (place, user) in update.users.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        put!(out, r#"{comma}"{}""#, moment.users.name(*user));
    }
    put!(out, r#"],"delta":{}}}}}}}"#, update.delta);
    let mut distinct = Vec::new();
    for user in update.users {
        let address = moment.users.address(user);
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    end(misc, &distinct);
}

fn push_deposit(moment: &mut Moment, misc: &mut Elements) {
    let (hash, user) = (moment.hash(), moment.users.draw(&mut moment.rng));
    let amount = decimal(moment.rng.i64(1..5_000_000_000), 8);
    let out = begin(misc, moment.time_ns, &hash, "CDeposit");
    put!(out, r#"{{"user":"{}","amount":"{amount}"}}}}}}"#, moment.users.name(user));
    end(misc, &[moment.users.address(user)]);
}

fn push_withdrawal(moment: &mut Moment, misc: &mut Elements) {
    let (hash, user) = (moment.hash(), moment.users.draw(&mut moment.rng));
    let (amount, is_final) = (decimal(moment.rng.i64(1..5_000_000_000), 8), moment.rng.bool());
    let out = begin(misc, moment.time_ns, &hash, "CWithdrawal");
    put!(
        out,
        r#"{{"user":"{}","amount":"{amount}","is_finalized":{is_final}}}}}}}"#,
        moment.users.name(user)
    );
    end(misc, &[moment.users.address(user)]);
}

fn push_delegation(moment: &mut Moment, misc: &mut Elements) {
    let (hash, user) = (moment.hash(), moment.users.draw(&mut moment.rng));
    let amount = decimal(moment.rng.i64(1..500_000), 1);
    let undelegates = moment.rng.bool();
    // The validator is a user elsewhere, and not concerned here.
    let validator = moment.rng.usize(..moment.users.len().min(VALIDATORS));
    let out = begin(misc, moment.time_ns, &hash, "Delegation");
    put!(
        out,
        r#"{{"user":"{}","validator":"{}","amount":"{amount}","is_undelegate":{undelegates}}}}}}}"#,
        moment.users.name(user),
        moment.users.name(validator)
    );
    end(misc, &[moment.users.address(user)]);
}

/// A variant of tomorrow: addresses stand anywhere, one of them twice, one only within a text.
fn push_unknown_with_addresses(moment: &mut Moment, misc: &mut Elements) {
    let hash = moment.hash();
    let first = moment.users.draw(&mut moment.rng);
    let second = moment.users.draw_other(&mut moment.rng, first);
    let third = moment.rng.usize(..moment.users.len());
    let out = begin(misc, moment.time_ns, &hash, "FutureAgreement");
    let (one, two) = (moment.users.name(first), moment.users.name(second));
    put!(
        out,
        r#"{{"enabled":true,"parties":[{{"who":"{one}","weights":["1.0","2.0"]}},["{two}",["{one}"]]],"memo":"on behalf of {}: it's \"fine\" \u00e9 🚀"}}}}}}"#,
        moment.users.name(third)
    );
    let (one, two) = (moment.users.address(first), moment.users.address(second));
    if one == two {
        end(misc, &[one]);
    } else {
        end(misc, &[one, two]);
    }
}

fn push_unknown_without_addresses(moment: &mut Moment, misc: &mut Elements) {
    let hash = moment.hash();
    let out = begin(misc, moment.time_ns, &hash, "FutureSetting");
    put!(out, r#"{{"enabled":{},"values":["1.0","2.0"],"next":null}}}}}}"#, moment.rng.bool());
    end(misc, &[]);
}
