//! All sessions of the daemon: how many there may be, and their end.
//!
//! Place in the pipeline: beside the shards; the one thing they share.
//! Invariant: `sessions.open` counts each session until its socket is dropped.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::Addr;
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{
    close::CloseReason,
    shard::{CloseAll, Shard},
};
use crate::{roll_call::RollCall, stats::Stats};

/// Why a client may not have a session now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnterError {
    #[error("as many sessions are open as are allowed")]
    Full,
    #[error("as many sessions of this address are open as are allowed")]
    Crowded,
    #[error("the server is shutting down")]
    Closing,
}

/// All sessions of the daemon, of every HTTP worker: how many there may be, and their common end.
pub struct SessionSet {
    max: AtomicUsize,
    /// Most of one address; 0: no limit.
    max_per_address: AtomicUsize,
    /// How many each address has open.
    addresses: Mutex<HashMap<IpAddr, usize>>,
    open: AtomicUsize,
    closing: AtomicBool,
    /// Rung when the last session of a closing set is gone.
    gone: Notify,
    shards: Mutex<Vec<Addr<Shard>>>,
    /// Somebody sees to it that less waits for all clients together.
    pub(super) relieving: AtomicBool,
    stats: Arc<Stats>,
}

/// The place of one session.
pub struct Permit {
    set: Arc<SessionSet>,
    address: Option<IpAddr>,
}

impl SessionSet {
    pub fn new(max: usize, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicUsize::new(max),
            max_per_address: AtomicUsize::new(0),
            addresses: Mutex::default(),
            open: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            gone: Notify::new(),
            shards: Mutex::default(),
            relieving: AtomicBool::new(false),
            stats,
        })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// When none is free, or the set is closing.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Permit, EnterError> {
        let max = self.max.load(Ordering::SeqCst);
        let more = |open| (open < max).then_some(open + 1);
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .map_err(|_| EnterError::Full)?;
        self.stats.sessions.open.add(1);
        self.stats.sessions.opened.add(1);
        let of_address = address.map_or(0, |address| {
            let mut addresses = self.addresses();
            let open = addresses.entry(address).or_default();
            *open += 1;
            *open
        });
        // From here on the place is given back whatever happens.
        let permit = Permit { set: self.clone(), address };
        let most = self.max_per_address.load(Ordering::SeqCst);
        if most > 0 && of_address > most {
            return Err(EnterError::Crowded);
        }
        // Looked at only now: `close_all` either sees this place or is seen here.
        if self.closing.load(Ordering::SeqCst) { Err(EnterError::Closing) } else { Ok(permit) }
    }

    /// Changes how many there may be. Those above it stay; nobody else is let in until they have gone.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::SeqCst);
    }

    /// Changes how many one address may have; 0: no limit.
    pub fn set_max_per_address(&self, max: usize) {
        self.max_per_address.store(max, Ordering::SeqCst);
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Tells every session to end, lets nobody in any more, and waits until all are gone, but not
    /// longer than `deadline`. Gives how many are left.
    ///
    /// # Cancel safety
    /// The sessions close also when nobody waits for it.
    pub async fn close_all(&self, reason: CloseReason, deadline: Duration) -> usize {
        self.closing.store(true, Ordering::SeqCst);
        for shard in self.shards().iter() {
            shard.do_send(CloseAll { reason: reason.clone() });
        }
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

impl Drop for Permit {
    fn drop(&mut self) {
        let Self { set, address } = self;
        if let Some(address) = address {
            let mut addresses = set.addresses();
            if let Some(open) = addresses.get_mut(address) {
                *open -= 1;
                if *open == 0 {
                    addresses.remove(address);
                }
            }
        }
        set.stats.sessions.open.add(-1);
        set.stats.sessions.closed.add(1);
        if set.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            set.gone.notify_waiters();
        }
    }
}
