//! The threads of the pipeline.

use actix::{Arbiter, prelude::*};

use std::ffi::CStr;

use crate::essential;

/// Threads that must not panic and go on; they end with the daemon.
#[derive(Default)]
pub struct Threads(Vec<Arbiter>);

impl Threads {
    /// Starts an actor on a thread of its own.
    pub fn start<A>(&mut self, name: &'static CStr, actor: A) -> Addr<A>
    where
        A: Actor<Context = Context<A>> + Send,
    {
        let thread = self.new_thread(name);
        self.start_on(&thread, actor)
    }

    /// Starts an actor on a thread that it shares with others.
    pub fn start_on<A>(&self, thread: &ArbiterHandle, actor: A) -> Addr<A>
    where
        A: Actor<Context = Context<A>> + Send,
    {
        A::start_in_arbiter(thread, |_| actor)
    }

    pub fn new_thread(&mut self, name: &'static CStr) -> ArbiterHandle {
        let thread = Arbiter::new();
        thread.spawn_fn(move || {
            essential::essential_thread();
            // Only what `top` shows depends on it.
            rustix::thread::set_name(name).ok();
        });
        let handle = thread.handle();
        self.0.push(thread);
        handle
    }

    /// Ends the threads once their actors have nothing left to do.
    pub fn stop(self) {
        for thread in self.0 {
            thread.stop();
        }
    }
}
