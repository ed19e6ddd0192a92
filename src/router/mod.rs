//! Order: what was delivered already, which `seq` an event gets, and the log all readers share.

pub mod ledger;
pub mod log;
pub mod readers;
