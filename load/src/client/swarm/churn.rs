//! Clients that go, each in one of several ways, and others that come instead.

use super::Swarm;
use crate::{
    client::{Order, session::Session},
    frame::{self, CLOSE, TEXT},
};

impl Swarm {
    /// The oldest client goes in one of several ways, and another one comes.
    pub(super) fn replace_oldest(&mut self) {
        while let Some((number, at)) = self.oldest.pop_front() {
            let is_it = self.sessions[at].0 == number
                && self.sessions[at].1.as_ref().is_some_and(Session::is_live);
            if !is_it {
                continue;
            }
            let Some(mut session) = self.remove(at) else { continue };
            self.settle(&session);
            let mut order = Order { from: None, ..session.order.clone() };
            // A third goes on where the old one was.
            if self.random.u8(..3) == 0 && !session.cursor.is_empty() {
                order.from = Some((session.cursor.as_str().into(), session.judge.rest()));
                self.state.resumed += 1;
            }
            self.waiting.push_back(order);
            // The server may have gone in between: it is all the same to a client that leaves.
            match self.random.u8(..10) {
                0 => drop(session.reset()),
                1 => drop(session.send(b"no frame of a client")),
                2 => drop(session.send(&frame::of_client(TEXT, br#"{"type":"nonsense""#))),
                3 => {}
                _ => drop(session.send(&frame::of_client(CLOSE, &1_000_u16.to_be_bytes()))),
            }
            return;
        }
    }
}
