//! The list that holds, for those who answer clients, and how a client's users come onto it.
//!
//! Place in the pipeline: beside it. `WhitelistKeeper` -[`CurrentList`]-> **`Listing`** <- sessions and
//! HTTP. Invariants: whoever is said to be listed here is known to the filters; one change is made at a
//! time, and few wait for their turn; a change that has begun is made to its end and told in the log,
//! whether or not its client is still there.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use slog::{Discard, Logger, info, o, warn};
use tokio::{
    sync::{Mutex, Notify, Semaphore, watch},
    time::{Instant, timeout_at},
};

use super::{
    edit::Edit,
    place::Place,
    set::{Verdict, Whitelist},
    status::{SourceKind, WhitelistState},
};
use crate::{config::WhitelistConfig, event::Address, stats::Stats};

/// Most additions that are made or wait for their turn.
pub const MAX_ADDITIONS: usize = 100;

/// How long a client waits until those whom it adds are listed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses of one line of the log.
const LOGGED_ADDRESSES: usize = 50;

/// The list that holds now. The keeper puts every new one here when the filters have been given it.
pub struct CurrentList {
    list: watch::Sender<Arc<Whitelist>>,
    /// The sources whose present content is not used.
    unused: std::sync::Mutex<Vec<SourceKind>>,
    /// Asks the keeper to look at its sources at once.
    looks: Notify,
}

impl CurrentList {
    pub fn new(list: Arc<Whitelist>) -> Arc<Self> {
        let list = watch::Sender::new(list);
        Arc::new(Self { list, unused: Default::default(), looks: Notify::new() })
    }

    pub fn get(&self) -> Arc<Whitelist> {
        self.list.borrow().clone()
    }

    /// Puts another list in its place.
    pub fn set(&self, list: Arc<Whitelist>) {
        self.list.send_replace(list);
    }

    /// Notes which sources are not used: who adds to one of them would make it look sound.
    pub fn note(&self, state: &WhitelistState) {
        let unused = state.sources.iter().filter(|source| !source.is_used);
        let unused = unused.map(|source| source.kind).collect();
        *self.unused.lock().unwrap_or_else(PoisonError::into_inner) = unused;
    }

    fn is_used(&self, source: SourceKind) -> bool {
        !self.unused.lock().unwrap_or_else(PoisonError::into_inner).contains(&source)
    }

    /// Waits until somebody has changed a source and wants that to hold soon.
    pub async fn is_to_look(&self) {
        self.looks.notified().await;
    }

    fn look(&self) {
        self.looks.notify_one();
    }

    /// Waits until all of them are listed.
    async fn lists(&self, users: &BTreeSet<Address>) {
        let mut lists = self.list.subscribe();
        let list = lists.wait_for(|list| users.iter().all(|user| is_listed(list, user)));
        // It ends with the other end of the channel, which is ours.
        if list.await.is_err() {
            std::future::pending().await
        }
    }
}

/// Without the exact lists a stranger may pass; his events are kept then as well.
fn is_listed(list: &Whitelist, user: &Address) -> bool {
    list.contains(user) == Verdict::Listed
}

/// Why users are not listed now. The text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    #[error(
        "nobody can be added to the whitelist of this daemon: it is neither in a file \
         (whitelist.file) nor in Redis (whitelist.redis_url)"
    )]
    NoPlace,
    #[error("too many additions to the whitelist are waiting, try again later")]
    Busy,
    #[error(
        "the whitelist of this daemon has a problem that its operator has to see to first, try again \
         later"
    )]
    NotUsed,
    /// The log says more.
    #[error("the whitelist of this daemon cannot be changed at the moment, try again later")]
    Failed,
    #[error(
        "the addition to the whitelist goes on, but has not come to hold within \
         {PATIENCE:?}: subscribe again later"
    )]
    Slow,
}

/// Tells who is listed, and lists others.
pub struct Listing {
    current: Arc<CurrentList>,
    /// `None`: nobody can be added.
    place: Option<Place>,
    /// Those who may come in, and one of them at work.
    entry: Arc<Semaphore>,
    turn: Mutex<()>,
    stats: Arc<Stats>,
    logger: Logger,
}

impl Listing {
    pub fn new(
        current: Arc<CurrentList>,
        config: &WhitelistConfig,
        stats: Arc<Stats>,
        logger: Logger,
    ) -> Arc<Self> {
        let (entry, turn) = (Arc::new(Semaphore::new(MAX_ADDITIONS)), Mutex::default());
        Arc::new(Self { current, place: Place::of(config), entry, turn, stats, logger })
    }

    /// A list that stays as it is.
    pub fn unchanging(list: Whitelist) -> Arc<Self> {
        let logger = Logger::root(Discard, o!());
        let current = CurrentList::new(Arc::new(list));
        Self::new(current, &WhitelistConfig::default(), Arc::default(), logger)
    }

    pub fn is_listed(&self, user: &Address) -> bool {
        is_listed(&self.current.list.borrow(), user)
    }

    /// Lists users for a client, and waits until they are: their events are kept from then on. Who is
    /// listed already is passed over.
    ///
    /// # Errors
    /// They may be listed later all the same, see [`AddError::Slow`].
    ///
    /// # Cancel safety
    /// What has begun is made to its end.
    pub async fn add(
        self: Arc<Self>,
        users: BTreeSet<Address>,
        client: String,
    ) -> Result<(), AddError> {
        let deadline = Instant::now() + PATIENCE;
        if users.iter().all(|user| self.is_listed(user)) {
            return Ok(());
        }
        let place = self.place.clone().ok_or(AddError::NoPlace)?;
        if !self.current.is_used(place.kind()) {
            return Err(AddError::NotUsed);
        }
        let entered = self.entry.clone().try_acquire_owned().map_err(|_full| {
            self.stats.official.refused_additions.add(1);
            AddError::Busy
        })?;
        let (listing, asked) = (self.clone(), users.clone());
        let change = tokio::spawn(async move {
            let _entered = entered;
            let _addition = listing.stats.official.additions.one_more();
            listing.change(&place, asked, &client).await
        });
        match timeout_at(deadline, change).await {
            Ok(Ok(changed)) => changed?,
            // It has panicked, or the thread that it was on ends.
            Ok(Err(_)) => return Err(AddError::Failed),
            Err(_) => return Err(AddError::Slow),
        }
        timeout_at(deadline, self.current.lists(&users)).await.map_err(|_| AddError::Slow)
    }

    /// Changes the place when it is free.
    async fn change(
        &self,
        place: &Place,
        mut users: BTreeSet<Address>,
        client: &str,
    ) -> Result<(), AddError> {
        let _turn = self.turn.lock().await;
        // Somebody else may have added the same ones before.
        users.retain(|user| !self.is_listed(user));
        if users.is_empty() {
            return Ok(());
        }
        let edited = place.edit(Edit::AddToExisting, &users).await.map_err(|fault| {
            warn!(self.logger, "users were not added to the whitelist"; "client" => client,
                "users" => users.len(), "place" => %place, "error" => %fault);
            AddError::Failed
        })?;
        self.stats.official.added_users.add(edited.changed.len() as u64);
        let changed: Vec<_> = edited.changed.iter().map(ToString::to_string).collect();
        for addresses in changed.chunks(LOGGED_ADDRESSES) {
            info!(self.logger, "users added to the whitelist by a client"; "client" => client,
                "users" => addresses.join(" "), "place" => %place);
        }
        self.current.look();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
