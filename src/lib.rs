//! nodecast follows the hour files that a blockchain node writes, keeps the events of listed
//! users, stores each exactly once and casts them live to clients that can resume.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod delivery;
pub mod demo;
pub mod essential;
pub mod event;
pub mod failpoint;
pub mod generate;
pub mod http;
pub mod logging;
pub mod router;
pub mod source;
pub mod stats;
pub mod store;
#[cfg(test)]
mod testing;
pub mod whitelist;
