//! A half-dead daemon is worse than a dead one: a panic on a thread of the pipeline ends the
//! process, which the service manager then starts anew from its checkpoints.
//!
//! actix and tokio catch panics of tasks, so without this an actor would vanish in silence while
//! the rest goes on. Panics while a client's frame or request is handled end only that client.

use std::{panic, process};

use crate::essential;

/// Makes a panic abort the process wherever [`essential::is_essential`] holds.
pub fn abort_on_essential_threads() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        if essential::is_essential() {
            process::abort();
        }
    }));
}
