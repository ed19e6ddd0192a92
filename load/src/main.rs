//! Drives a nodecast with thousands of clients and measures what a delivery costs, beside a writer
//! that does nothing else. What it measures and how it is run: README.md beside this package.
//!
//! One thread writes events, as the node does, and keeps time ([`node`], [`ledger`]); one thread is all
//! clients ([`client`]); the server is another process ([`server`]). A run is a [`profile`].
//! Invariant: a run whose counts do not add up says so and fails.

mod client;
mod frame;
mod histogram;
mod ledger;
mod node;
mod options;
mod process;
mod profile;
mod report;
mod run;
mod server;
mod traffic;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;

use crate::options::Cli;

fn main() -> ExitCode {
    profile::run(Cli::parse().command).unwrap_or_else(|error| {
        // Where standard error is closed nobody reads it.
        drop(writeln!(io::stderr(), "error: {error:#}"));
        ExitCode::FAILURE
    })
}
