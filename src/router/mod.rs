//! Order: what was delivered already, which `seq` an event gets, and the log all readers share.

mod actor;
pub mod gaps;
pub mod ledger;
pub mod log;
pub mod readers;
#[cfg(test)]
mod tests;
mod track;

pub use self::actor::{CastLate, Restart, Router, StoredIds};
