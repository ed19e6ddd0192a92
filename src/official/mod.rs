//! The shapes of the official protocol, made from stored events.
//!
//! Place in the pipeline: none; plain rules for whoever speaks that protocol, live or from history. They know
//! [`event`](crate::event) and nothing of clients, frames or the store. Only [`info`], which answers requests by
//! them, reads the store and the log.
//!
//! | what official clients call | is made of |
//! |---|---|
//! | a fill | the body of a fill, as it is |
//! | a fill with `aggregateByTime` | the fills of one crossing order in one block: [`aggregate()`] |
//! | a funding | a delta of a `Funding` event: [`Funding`] |
//! | a non-funding ledger update | a `LedgerUpdate` event: [`LedgerUpdate`] |
//! | a TWAP slice fill | a fill with a `twapId`: [`push_twap_slice_fill`] |
//! | a trade | the two fills of one `tid`: [`Trade`] |
//!
//! Invariants: what can be copied is copied byte by byte, decimals stay the text that the node wrote (only
//! [`aggregate()`] calculates, and exactly); a body of another shape gives nothing, and never a panic.
//!
//! Sources of the shapes: the pages `info-endpoint` and `websocket/subscriptions` of the official API's
//! documentation, and recorded answers of the service.

mod admission;
mod aggregate;
mod decimal;
mod fill;
mod funding;
pub mod info;
mod ledger;
mod rows;
mod text;
mod trade;
mod twap;

#[cfg(test)]
pub(crate) mod tests;

use crate::event::{Event, Topic};

pub use self::{
    admission::{Admission, Refusal},
    aggregate::{aggregate, aggregated_at},
    fill::{Fill, Side},
    funding::{Delta, Funding},
    ledger::{LedgerUpdate, Liquidation},
    rows::{Asked, Rows},
    text::Text,
    trade::Trade,
    twap::push_twap_slice_fill,
};

pub const FILLS: Topic = Topic::new("fills");
pub const MISC: Topic = Topic::new("misc");

const IN_MEMORY: &str = "writing to memory does not fail";

/// The time of an event as the official protocol has it: milliseconds since 1970, the floor of the
/// block's time. A fill's own `time` is the same number.
pub fn time_ms(event: &Event) -> i64 {
    event.time.0.div_euclid(1_000)
}
