//! The runs there are: one file for each question.

mod fanout;
mod isolation;
mod scale;
mod soak;
mod storm;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;

use crate::{
    client::{Due, Group, Order, Transport},
    options::{Common, Profile},
    run::Run,
    server::raw_writer,
    traffic::Mix,
};

/// Where clients are to stall: small, so that one is behind soon after it stops, and not after minutes.
const SMALL_BUFFERS: [(&str, &str); 2] =
    [("session.send_buffer_bytes", "16KiB"), ("session.outbox_bytes", "64KiB")];

/// Events in a block of what was missed.
const MISSED_BLOCK: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(profile: Profile) -> anyhow::Result<ExitCode> {
    match profile {
        Profile::Fanout(options) => fanout::run(&options),
        Profile::Scale(options) => scale::run(&options),
        Profile::Isolation(options) => isolation::run(&options),
        Profile::Storm(options) => storm::run(&options),
        Profile::Soak(options) => soak::run(&options),
        Profile::Raw(options) => {
            raw_writer::run(options.payload_bytes)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Clients that are there all the time.
fn steady(common: &Common, count: u32, mix: &Mix) -> Vec<Order> {
    let traffic = common.traffic();
    (0..u64::from(count)).map(|nth| Order::now(Group::Steady, mix.wish(nth, &traffic))).collect()
}

/// The same, of which a share is measured, spread evenly over all. The others are read in turn: on this
/// machine every read is taken from the server.
fn audience(common: &Common, count: u32, mix: &Mix) -> Vec<Order> {
    let mut orders = steady(common, count, mix);
    // Who polls has to be read to ask again.
    if common.transport != Transport::Poll {
        let measured = common.measured / 100.0;
        let is_measured = |nth: usize| (nth as f64 * measured).fract() < measured;
        for (_, order) in orders.iter_mut().enumerate().filter(|(nth, _)| !is_measured(*nth)) {
            order.group = Group::Bulk;
        }
    }
    orders
}

/// Per cent of a number, at least one.
fn share(count: u32, per_cent: f64) -> u32 {
    ((f64::from(count) * per_cent / 100.0).round() as u32).max(1)
}

/// Writes events that others will have missed. Gives the cursor before them, and what comes first
/// behind it. Somebody must be live who gets everything.
fn miss(run: &mut Run, events: u64) -> anyhow::Result<(Arc<str>, Due)> {
    let last = run.ledger.events();
    let cursor = run.clients.capture(last)?;
    run.feed(1)?;
    let mut left = events;
    while left > 0 {
        let now = left.min(MISSED_BLOCK);
        run.feed(now)?;
        // Who is live keeps up: too much would wait for all of them together, and this is not what is measured.
        run.settle()?;
        left -= now;
    }
    let cursor = cursor.recv_timeout(PATIENCE).context("no event came")?;
    Ok((cursor.into(), Due { event: last + 1, exact: true }))
}
