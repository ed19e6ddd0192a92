//! A session's place in its shard.
//!
//! Place in the pipeline: between `Session`, which owns it, and `Members`, which the shard shares
//! with its sessions.
//! Invariants: the place is given back whatever happens to the session, also when it panics; the
//! shard's state is touched by essential code only, never by what may fail for one client.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::Recipient;

use super::{
    Casting,
    dialect::Dialect,
    index::SessionId,
    members::Members,
    outlet::Outlet,
    session::Told,
    subscription::{Change, Subscriptions},
};
use crate::{essential::essential, event::Cursor};

/// A session's place in its shard, given back whatever happens to the session.
pub struct Seat {
    id: Option<SessionId>,
    members: Rc<RefCell<Members>>,
    pub subscriptions: Subscriptions,
    /// How many of them, and of their users, the gauges know.
    counted: (i64, i64),
    /// Most bytes that are queued while it is behind.
    max_queued: usize,
    casting: Arc<Casting>,
}

impl Seat {
    pub fn new(members: Rc<RefCell<Members>>, casting: Arc<Casting>, max_queued: usize) -> Self {
        let subscriptions = Subscriptions::default();
        Self { id: None, members, subscriptions, counted: (0, 0), max_queued, casting }
    }

    pub fn take(
        &mut self,
        session: Recipient<Told>,
        wire: Rc<dyn Outlet>,
        dialect: &'static dyn Dialect,
    ) {
        let mut members = self.members.borrow_mut();
        let most = self.max_queued;
        self.id = Some(essential(|| members.join(session, wire, dialect, most)));
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

    /// "Delivered up to here" to this session.
    pub fn delivered(&self) -> impl Fn() -> Cursor + use<> {
        let (members, id) = (self.members.clone(), self.id);
        move || {
            essential(|| {
                let members = members.borrow();
                id.map_or_else(|| members.cursor(), |id| members.cursor_of(id))
            })
        }
    }

    /// The same now, also where nothing is wanted yet.
    pub fn delivered_now(&self) -> Cursor {
        drop(self.settle());
        self.delivered()()
    }

    /// Whether the session has missed something that it has to be sent.
    pub fn needs_everything(&self) -> bool {
        self.id.is_some_and(|id| essential(|| self.members.borrow().needs_everything(id)))
    }

    /// The session is told that it is behind: what it wants is asked for event by event from now on.
    pub fn learn(&self) {
        if let Some(id) = self.id {
            essential(|| self.members.borrow_mut().learn(id, &self.subscriptions));
        }
    }

    /// Holds the session's past back, or lets it begin.
    pub fn hold(&self, held: bool) {
        if let Some(id) = self.id {
            essential(|| self.members.borrow_mut().hold(id, held));
        }
    }

    /// Lets the shard take a turn, at the end of which it looks at what waits for all clients.
    pub fn ring(&self) {
        essential(|| self.members.borrow_mut().ring());
    }

    /// The socket has taken all that was queued.
    pub fn room(&self) {
        if let Some(id) = self.id {
            essential(|| self.members.borrow_mut().room(id));
        }
    }

    /// The socket takes more. Gives whether the shard writes to it.
    pub fn writable(&self) -> bool {
        self.id.is_some_and(|id| essential(|| self.members.borrow_mut().writable(id)))
    }

    /// Lets the shard know what a dialect has changed in `subscriptions`.
    pub fn apply(&mut self, changes: &[Change]) {
        let Some(id) = self.id else { return };
        essential(|| self.members.borrow_mut().change(id, changes, &self.subscriptions));
        self.count((self.subscriptions.len() as i64, self.subscriptions.users() as i64));
    }

    /// Gives the place back. A second call does nothing.
    pub fn leave(&mut self) {
        let Some(id) = self.id.take() else { return };
        self.count((0, 0));
        let subscriptions = std::mem::take(&mut self.subscriptions);
        // Borrowed only when a panic passes through a turn, which ends the process.
        if let Ok(mut members) = self.members.try_borrow_mut() {
            essential(|| members.leave(id, subscriptions));
        }
    }

    fn count(&mut self, now: (i64, i64)) {
        let stats = &self.casting.stats.sessions;
        let before = std::mem::replace(&mut self.counted, now);
        stats.subscriptions.add(now.0 - before.0);
        stats.users.add(now.1 - before.1);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}
