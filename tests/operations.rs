//! What an operator meets: a second start, signals, lists and directories that change, a disk that
//! is full, a file that is not a database.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

#[path = "operations/accounts.rs"]
mod accounts;
#[path = "operations/harness.rs"]
mod harness;
#[path = "operations/metrics.rs"]
mod metrics;
#[path = "operations/outages.rs"]
mod outages;
#[path = "operations/reading.rs"]
mod reading;
#[path = "operations/starting.rs"]
mod starting;
#[path = "operations/stopping.rs"]
mod stopping;
#[cfg(feature = "failpoints")]
#[path = "operations/watchdog.rs"]
mod watchdog;

/// The day of the hour files that are made by hand.
const DAY: u32 = 20_260_315;
