//! The question that every stage of the pipeline answers: that is how the watchdog knows that the
//! daemon is alive.
//!
//! It waits in the mailbox like any other message, so the answer says that the stage has handled
//! what came before. It asks for nothing else: a stage without data is alive.

use actix::prelude::*;

/// Answered by each stage in its turn.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct RollCall;
