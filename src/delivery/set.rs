//! All sessions of the daemon: who may have one, and their common end.
//!
//! Place in the pipeline: beside the shards; the one thing they share.
//! Invariants: a session is counted from its entry until its socket or body is dropped; nobody has a
//! place who entered after the gate was shut; every refusal is counted by its reason.

mod places;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use actix::Addr;
use futures_util::future::join_all;
use tokio::{sync::Notify, time::Instant};

pub use self::places::EnterError;
use self::places::{Gate, Places};
use super::{
    close::CloseReason,
    rate::SharedAllowances,
    shard::{LetStay, SendAway, Shard},
};
use crate::{
    client::Client, config::SessionConfig, event::Timestamp, fail_point, roll_call::RollCall,
    stats::Stats,
};

/// All sessions of the daemon, of every HTTP worker: who may have one, and their common end.
pub struct SessionSet {
    places: Mutex<Places>,
    /// Rung when the last session is gone.
    gone: Notify,
    /// Rung when nobody is let in any more, for good.
    shutting: Notify,
    shards: Mutex<Vec<Addr<Shard>>>,
    /// Somebody sees to it that less waits for all clients together.
    pub(super) relieving: AtomicBool,
    stats: Arc<Stats>,
}

/// The place of one session.
pub struct Permit {
    set: Arc<SessionSet>,
    client: Client,
    allowances: SharedAllowances,
}

impl SessionSet {
    pub fn new(stats: Arc<Stats>) -> Arc<Self> {
        let (places, shards) = (Mutex::default(), Mutex::default());
        let relieving = AtomicBool::new(false);
        let (gone, shutting) = (Notify::new(), Notify::new());
        Arc::new(Self { places, gone, shutting, shards, relieving, stats })
    }

    /// Takes a place. Those above a limit that was lowered stay; nobody else is let in until they have
    /// gone.
    ///
    /// # Errors
    /// When none is free, or nobody is let in.
    pub fn enter(
        self: &Arc<Self>,
        client: Client,
        limits: &SessionConfig,
    ) -> Result<Permit, EnterError> {
        let mut places = self.places();
        let entered = places.enter(&client, limits, Instant::now());
        let allowances =
            entered.inspect_err(|error| error.counter(&self.stats.sessions.refusals).add(1))?;
        let stats = &self.stats.sessions;
        stats.open.add(1);
        stats.opened.add(1);
        stats.identities.set(places.identities() as i64);
        Ok(Permit { set: self.clone(), client, allowances })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open(&self) -> usize {
        self.places().open()
    }

    /// Lets nobody in any more and sends away whoever has a session, spread evenly over a time; those
    /// who wait for one answer get it at once. A drain that is under way takes the new time.
    ///
    /// # Errors
    /// When all are sent away for good already.
    pub fn drain(&self, over: Duration) -> Result<(), EnterError> {
        // Held until the shards are told, so that they hear of drains in the order of the gate.
        let mut places = self.places();
        if places.gate == Gate::Closing {
            return Err(EnterError::Closing);
        }
        places.gate = Gate::Draining;
        let stats = &self.stats.sessions;
        let now = Timestamp::now();
        stats.draining_since.set(now.0);
        stats.draining_until.set(now.plus(over).0);
        self.send_away(&CloseReason::Draining, over);
        Ok(())
    }

    /// Ends a drain: clients are let in again, and those who were not sent away yet stay. Gives whether
    /// there was one.
    pub fn cancel_drain(&self) -> bool {
        let mut places = self.places();
        if places.gate != Gate::Draining {
            return false;
        }
        places.gate = Gate::Open;
        self.no_drain();
        for shard in self.shards().iter() {
            shard.do_send(LetStay);
        }
        true
    }

    /// Whether all are sent away for good.
    pub fn is_shut(&self) -> bool {
        self.places().gate == Gate::Closing
    }

    pub fn is_draining(&self) -> bool {
        self.places().gate == Gate::Draining
    }

    fn no_drain(&self) {
        self.stats.sessions.draining_since.set(0);
        self.stats.sessions.draining_until.set(0);
    }

    /// Lets nobody in any more. Those who are in stay until [`close_all`](Self::close_all).
    pub fn shut(&self) {
        self.places().gate = Gate::Closing;
        self.no_drain();
        self.stats.sessions.closing.set(1);
        self.shutting.notify_waiters();
    }

    /// Does something for a client that has its place and is not known to a shard yet, which could tell it to
    /// go.
    ///
    /// # Errors
    /// When all are sent away for good before it is done.
    pub async fn unless_shut<T>(&self, work: impl Future<Output = T>) -> Result<T, EnterError> {
        let shut = async {
            // Asked for before looking, so that no bell is missed.
            let shutting = self.shutting.notified();
            if !self.is_shut() {
                shutting.await;
            }
        };
        tokio::select! {
            biased;
            () = shut => Err(EnterError::Closing),
            done = work => Ok(done),
        }
    }

    /// Sends every session away, spread over a time, lets nobody in any more, and waits until all are
    /// gone, but not longer than `deadline`. Gives how many are left.
    ///
    /// # Cancel safety
    /// The sessions close also when nobody waits for it.
    pub async fn close_all(&self, over: Duration, deadline: Duration) -> usize {
        self.shut();
        self.send_away(&CloseReason::ShuttingDown, over);
        self.all_gone(deadline).await
    }

    /// Waits until no session is open, but not longer than `deadline`. Gives how many are left.
    pub async fn all_gone(&self, deadline: Duration) -> usize {
        let all_gone = async {
            loop {
                // Asked for before looking, so that no bell is missed.
                let gone = self.gone.notified();
                if self.open() == 0 {
                    return;
                }
                gone.await;
            }
        };
        // Those that are left are what the caller asks for.
        drop(tokio::time::timeout(deadline, all_gone).await);
        self.open()
    }

    fn send_away(&self, reason: &CloseReason, over: Duration) {
        for shard in self.shards().iter() {
            shard.do_send(SendAway { reason: reason.clone(), over });
        }
    }

    /// Asks every shard; whether all have answered.
    pub fn call_roll(&self) -> impl Future<Output = bool> + use<> {
        let answers: Vec<_> = self.shards().iter().map(|shard| shard.send(RollCall)).collect();
        async move { join_all(answers).await.iter().all(Result::is_ok) }
    }

    pub(super) fn add(&self, shard: Addr<Shard>) {
        self.shards().push(shard);
    }

    pub(super) fn shards(&self) -> MutexGuard<'_, Vec<Addr<Shard>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// What this client may send; shared by all sessions of its identity.
    pub fn allowances(&self) -> SharedAllowances {
        self.allowances.clone()
    }

    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let set = &self.set;
        let stats = &set.stats.sessions;
        let mut places = set.places();
        let open = places.leave(&self.client, Instant::now());
        // Whoever sees no session open also sees all of them closed.
        stats.closed.add(1);
        stats.open.add(-1);
        stats.identities.set(places.identities() as i64);
        if open == 0 {
            set.gone.notify_waiters();
        }
        drop(places);
        fail_point!("session.gone");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn of(address: u8, identity: Option<&str>) -> Client {
        Client { address: Some([127, 0, 0, address].into()), identity: identity.map(Arc::from) }
    }

    #[actix_rt::test]
    async fn who_looks_for_his_place_when_all_are_sent_away_is_told() {
        let set = SessionSet::new(Arc::default());

        assert_eq!(set.unless_shut(async { 1 }).await, Ok(1));
        let endless = set.unless_shut(std::future::pending::<()>());
        let (told, ()) = futures_util::future::join(endless, async { set.shut() }).await;

        assert_eq!(told, Err(EnterError::Closing));
        assert_eq!(set.unless_shut(async { 2 }).await, Err(EnterError::Closing), "later, too");
    }

    #[test]
    fn who_has_said_too_much_does_not_begin_anew_by_coming_back() {
        let set = SessionSet::new(Arc::default());
        let limits = SessionConfig { max_bytes_per_minute: 1_000, ..SessionConfig::default() };
        let enter = |identity| set.enter(of(1, identity), &limits).unwrap();
        let now = Instant::now();

        let [first, second] = [enter(Some("ann")), enter(Some("ann"))];
        assert!(!first.allowances().take_bytes(1_100, now));
        drop((first, second));
        assert!(!enter(Some("ann")).allowances().take_bytes(1, now), "again");
        assert!(!enter(Some("ann")).allowances().take_bytes(1, now), "and once more");

        assert!(enter(Some("bob")).allowances().take_bytes(1_000, now));
        assert!(enter(None).allowances().take_bytes(1_000, now));
        assert_eq!(set.stats.sessions.identities.get(), 0);
    }

    #[test]
    fn limits_hold_in_all_by_address_and_by_identity_and_every_refusal_is_counted() {
        let set = SessionSet::new(Arc::default());
        let limits = SessionConfig {
            max_sessions: 4,
            max_per_address: 2,
            max_per_identity: 1,
            ..SessionConfig::default()
        };
        let enter = |client| set.enter(client, &limits);
        let refused = |client| enter(client).err().map(EnterError::code);

        let ann = enter(of(1, Some("ann"))).unwrap();
        assert_eq!(refused(of(2, Some("ann"))), Some("too_many_of_identity"));
        let nobody = enter(of(1, None)).unwrap();
        assert_eq!(refused(of(1, Some("bob"))), Some("too_many_of_address"));
        let others: Vec<_> = (2..4).map(|address| enter(of(address, None)).unwrap()).collect();
        assert_eq!(refused(of(9, Some("bob"))), Some("too_many_sessions"));
        drop((ann, nobody));
        let again = enter(of(1, Some("ann"))).unwrap();
        assert_eq!(set.stats.sessions.identities.get(), 1);
        set.drain(Duration::ZERO).unwrap();
        assert_eq!(refused(of(9, None)), Some("draining"));
        let waits: HashSet<_> = (0..100).map(|_| EnterError::Draining.retry_after_secs()).collect();
        assert!(waits.len() > 1 && waits.iter().all(|wait| (5..=15).contains(wait)), "{waits:?}");
        assert!(set.cancel_drain() && !set.cancel_drain());
        drop(enter(of(9, None)).unwrap());
        set.shut();
        assert_eq!(refused(of(9, None)), Some("shutting_down"));
        assert_eq!(set.drain(Duration::ZERO), Err(EnterError::Closing));
        drop((again, others));

        let stats = &set.stats.sessions;
        let counts = &stats.refusals;
        for counter in [
            &counts.too_many_sessions,
            &counts.too_many_of_address,
            &counts.too_many_of_identity,
            &counts.draining,
            &counts.shutting_down,
        ] {
            assert_eq!(counter.get(), 1);
        }
        assert!(set.places().addresses() == 0, "no address is remembered");
        assert_eq!((set.open(), stats.open.get(), stats.identities.get()), (0, 0, 0));
        assert_eq!((stats.opened.get(), stats.closed.get()), (6, 6), "who is refused never was in");
    }
}
