//! A session's place in its shard.
//!
//! Place in the pipeline: between `Session`, which owns it, and `Members`, which the shard shares
//! with its sessions.
//! Invariants: the place is given back whatever happens to the session, also when it panics; the
//! shard's state is touched by essential code only, never by what may fail for one client.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::Addr;

use super::{
    Casting,
    dialect::Dialect,
    index::SessionId,
    members::Members,
    session::Session,
    socket::Wire,
    subscription::{Change, Subscriptions},
};
use crate::{essential::essential, event::Cursor};

/// A session's place in its shard, given back whatever happens to the session.
pub struct Seat {
    id: Option<SessionId>,
    members: Rc<RefCell<Members>>,
    pub subscriptions: Subscriptions,
    /// How many of them the gauge knows.
    counted: i64,
    casting: Arc<Casting>,
}

impl Seat {
    pub fn new(members: Rc<RefCell<Members>>, casting: Arc<Casting>) -> Self {
        Self { id: None, members, subscriptions: Subscriptions::default(), counted: 0, casting }
    }

    pub fn take(&mut self, session: Addr<Session>, wire: Rc<Wire>, dialect: &'static dyn Dialect) {
        self.id = Some(essential(|| self.members.borrow_mut().join(session, wire, dialect)));
    }

    pub fn speaks(&self, dialect: &'static dyn Dialect) {
        if let Some(id) = self.id {
            essential(|| self.members.borrow_mut().speaks(id, dialect));
        }
    }

    /// Fixes where a subscription that is made now begins; the answer tells that cursor.
    pub fn settle(&self) -> impl Fn() -> Cursor + use<> {
        let members = self.members.clone();
        essential(|| members.borrow_mut().settle());
        move || essential(|| members.borrow().cursor())
    }

    /// Lets the shard know what a dialect has changed in `subscriptions`.
    pub fn apply(&mut self, changes: &[Change]) {
        let Some(id) = self.id else { return };
        let before = self.counted;
        essential(|| self.members.borrow_mut().change(id, changes, &self.subscriptions));
        self.counted = self.subscriptions.len() as i64;
        self.casting.stats.sessions.subscriptions.add(self.counted - before);
    }

    /// Gives the place back. A second call does nothing.
    pub fn leave(&mut self) {
        let Some(id) = self.id.take() else { return };
        self.casting.stats.sessions.subscriptions.add(-self.counted);
        // Borrowed only when a panic passes through a turn, which ends the process.
        if let Ok(mut members) = self.members.try_borrow_mut() {
            essential(|| members.leave(id, &self.subscriptions));
        }
        self.subscriptions = Subscriptions::default();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}
