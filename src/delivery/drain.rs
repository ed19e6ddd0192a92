//! The request `drain` of the control socket: clients are sent away while the daemon goes on.
//!
//! Place: between [`ControlServer`](crate::control::ControlServer) and the [`SessionSet`].
//! Invariants: reading, storing and HTTP other than live events are not touched; a drain holds until it
//! is cancelled or the daemon ends, also when the command that asked for it is gone; the command tells
//! how many are left until all are gone, or have had their time.

use std::{sync::Arc, time::Duration};

use actix_rt::time::sleep;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use slog::{Logger, info};
use tokio::time::Instant;

use super::{session::LINGER, set::SessionSet};
use crate::control::{Command, Refusal, Told};

/// Of the request. Its parameters are a [`DrainOrder`], what it tells and its result [`Drained`].
pub const DRAIN: &str = "drain";

/// Longest time over which sessions can be spread.
pub const MAX_OVER: Duration = Duration::from_secs(24 * 3_600);

/// Time between two looks how many are left.
const LOOK: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DrainOrder {
    /// Clients are sent away, spread over this time.
    Begin { over_ms: u64 },
    /// Clients are let in again.
    Cancel,
}

/// How many sessions are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    pub left: usize,
    /// Whether there was a drain, for [`DrainOrder::Cancel`]; else whether it still holds.
    pub draining: bool,
    /// The daemon stops.
    pub stopping: bool,
}

/// Has the sessions drained.
pub struct DrainCommand {
    pub sessions: Arc<SessionSet>,
    pub logger: Logger,
}

impl DrainCommand {
    fn drained(&self) -> Drained {
        let (left, draining) = (self.sessions.open(), self.sessions.is_draining());
        Drained { left, draining, stopping: self.sessions.is_shut() }
    }

    async fn drain(&self, over: Duration, told: &Told) -> Result<Drained, Refusal> {
        self.sessions.drain(over).map_err(|_| Refusal::new("stopping", "the daemon stops"))?;
        info!(self.logger, "clients are sent away and none let in, until this is cancelled";
            "sessions" => self.sessions.open(), "over_ms" => over.as_millis());
        // The last one is told at the end of the time, and may take its farewell late.
        let deadline = Instant::now() + over + 2 * LINGER;
        loop {
            let drained = self.drained();
            // Another command may have let clients in again.
            if drained.left == 0 || !drained.draining || Instant::now() >= deadline {
                return Ok(drained);
            }
            told.tell(&drained).await;
            sleep(LOOK).await;
        }
    }
}

#[async_trait(?Send)]
impl Command for DrainCommand {
    fn name(&self) -> &'static str {
        DRAIN
    }

    async fn run(&self, parameters: Value, told: &Told) -> Result<Value, Refusal> {
        let order = serde_json::from_value(parameters).map_err(Refusal::bad_request)?;
        let drained = match order {
            DrainOrder::Begin { over_ms } => {
                let over = Duration::from_millis(over_ms);
                if over > MAX_OVER {
                    let text = format!("sessions are spread over {MAX_OVER:?} at most");
                    return Err(Refusal::bad_request(text));
                }
                self.drain(over, told).await?
            }
            DrainOrder::Cancel => {
                let draining = self.sessions.cancel_drain();
                if draining {
                    info!(self.logger, "clients are let in again"; "sessions" => self.sessions.open());
                }
                Drained { draining, ..self.drained() }
            }
        };
        Ok(json!(drained))
    }
}
