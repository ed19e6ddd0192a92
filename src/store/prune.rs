//! The request `prune` of the control socket: the running daemon deletes old events.
//!
//! Place: between [`ControlServer`](crate::control::ControlServer) and `DbWriter`, which is the one
//! that may write. Invariants: commits go first, so it deletes in portions with a pause between them;
//! another store than the daemon's own is refused; who hangs up ends it behind the portion that is
//! under way.

use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Retained, StoreError};
use crate::{
    control::{Command, Refusal, Told},
    event::Timestamp,
};

/// Of the request. Its parameters are a [`PruneOrder`], what it tells and its result [`Deleted`].
pub const PRUNE: &str = "prune";

/// Code of the refusal to prune a store that is not the daemon's.
pub const OTHER_STORE: &str = "other_store";

/// Time between two portions, in which commits go first.
const PAUSE: Duration = Duration::from_millis(10);

/// Deletes one portion of the events that are older. Between two of them the live stream has its
/// turn.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Pruned, StoreError>")]
pub struct Prune {
    pub edge: Timestamp,
}

/// What became of a [`Prune`].
#[derive(Clone, Copy, Debug)]
pub enum Pruned {
    Done(Retained),
    /// Nothing: the live stream has more waiting than a few events. To be asked for again later.
    Postponed,
}

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneOrder {
    /// The store that is meant, by its [name](super::EventStore::describe).
    pub store: String,
    /// Events before it go, microseconds since 1970.
    pub before: i64,
}

/// How many events are gone.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Deleted {
    pub deleted: usize,
}

/// Has `DbWriter` delete.
pub struct PruneCommand {
    /// Of the daemon.
    pub store: String,
    pub writer: Recipient<Prune>,
}

#[async_trait(?Send)]
impl Command for PruneCommand {
    fn name(&self) -> &'static str {
        PRUNE
    }

    async fn run(&self, parameters: Value, told: &Told) -> Result<Value, Refusal> {
        let order: PruneOrder = serde_json::from_value(parameters).map_err(Refusal::bad_request)?;
        if order.store != self.store {
            let text = format!("this daemon writes to {} and not to {}", self.store, order.store);
            return Err(Refusal::new(OTHER_STORE, text));
        }
        let edge = Timestamp(order.before);
        if edge > Timestamp::now() {
            return Err(Refusal::bad_request(format!("{edge} lies in the future")));
        }
        let mut deleted = 0;
        loop {
            let portion = self.writer.send(Prune { edge }).await;
            let portion = portion.map_err(|_| Refusal::new("stopping", "the daemon stops"))?;
            match portion {
                Ok(Pruned::Done(retained)) => {
                    deleted += retained.deleted;
                    if !retained.more {
                        return Ok(json!(Deleted { deleted }));
                    }
                    told.tell(&Deleted { deleted }).await;
                }
                Ok(Pruned::Postponed) => {}
                Err(error) => {
                    let text = format!("stopped after {deleted} events: {error}");
                    return Err(Refusal::new("store", text));
                }
            }
            actix_rt::time::sleep(PAUSE).await;
        }
    }
}
