//! The runs there are: one file for each question.

mod fanout;
mod isolation;
mod scale;
mod soak;
mod storm;

use std::process::ExitCode;

use crate::{
    client::{Group, Order},
    options::{Common, Profile},
    server::raw_writer,
    traffic::Mix,
};

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

/// Per cent of a number, at least one.
fn share(count: u32, per_cent: f64) -> u32 {
    ((f64::from(count) * per_cent / 100.0).round() as u32).max(1)
}
