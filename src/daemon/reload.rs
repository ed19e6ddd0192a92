//! A reload: the whole configuration is read again from where it came, and the whitelist with it.
//!
//! Invariants: the keys are taken as a whole or not at all, and with a fault in them the whitelist is
//! not touched either; a source of the whitelist that is faulty or away keeps its list and holds
//! neither the keys nor the other sources back; nobody is disconnected; a key that cannot change
//! while the daemon runs keeps its value, and is named.

use std::{rc::Rc, sync::Arc};

use actix::Addr;
use sd_notify::NotifyState;
use slog::{Logger, error, info, warn};
use tokio::sync::Mutex;

use super::{Daemon, watchdog};
use crate::{
    config::{Config, Inputs, LiveConfig, Need, Reload},
    event::Timestamp,
    logging::{Levels, Queued},
    source::Horizon,
    store::{DbWriter, Reconfigure},
    whitelist::{ReloadWhitelist, WhitelistKeeper},
};

/// What a reload starts from. Without it only the whitelist is read again.
pub struct Origins {
    /// File, environment and flags, as the start was given them.
    pub inputs: Inputs,
    pub levels: Levels,
    /// The channel of the log, for the metrics.
    pub queued: Queued,
}

/// Those who are told of a new configuration and are no actors.
#[derive(Clone)]
pub(super) struct Live {
    pub config: Arc<LiveConfig>,
    pub horizon: Arc<Horizon>,
}

/// What a reload works with. It goes on beside the daemon's own waiting: a source of the whitelist
/// that hangs must not hold up a stop.
pub(super) struct Reloading {
    origins: Origins,
    live: Live,
    keeper: Addr<WhitelistKeeper>,
    writer: Addr<DbWriter>,
    /// One after the other, so that the last signal has the last word.
    turn: Mutex<()>,
    logger: Logger,
}

impl Daemon {
    pub(super) fn reloading(&self, origins: Origins) -> Reloading {
        Reloading {
            origins,
            live: self.live.clone(),
            keeper: self.keeper.clone(),
            writer: self.writer.clone(),
            turn: Mutex::new(()),
            logger: self.logger.clone(),
        }
    }
}

impl Reloading {
    /// Reads everything again, as SIGHUP asks for.
    pub fn start(self: Rc<Self>) {
        actix_rt::spawn(async move {
            let _turn = self.turn.lock().await;
            let mut states = vec![NotifyState::Reloading];
            // Where there is no such clock the manager does without.
            states.extend(NotifyState::monotonic_usec_now().ok());
            watchdog::tell(&states, &self.logger);
            let outcome = self.reload().await;
            self.live.config.reloaded(outcome);
            watchdog::tell(&[NotifyState::Ready], &self.logger);
        });
    }

    async fn reload(&self) -> Reload {
        let refused = |problem: String| {
            error!(self.logger, "reload refused, everything stays as it was"; "problem" => &problem);
            let (changed, needs_restart) = (Vec::new(), Vec::new());
            let problem = Some(problem);
            Reload { at: Timestamp::now(), ok: false, problem, changed, needs_restart }
        };
        let inputs = self.origins.inputs.clone();
        // Off this thread: the directories that are named may lie on a disk that is slow.
        let loaded = tokio::task::spawn_blocking(move || inputs.load(Need::Run)).await;
        let new = match loaded {
            Ok(Ok(loaded)) => loaded.config,
            Ok(Err(faults)) => return refused(faults.to_string()),
            Err(error) => return refused(error.to_string()),
        };
        let old = self.live.config.get();
        let merged = old.with_live_keys_of(&new);
        let (changed, needs_restart) = (old.differences(&merged), merged.differences(&new));
        self.apply(merged);
        info!(self.logger, "configuration reloaded"; "changed" => changed.join(", "));
        if !needs_restart.is_empty() {
            warn!(self.logger, "changed keys need a restart and keep their old values";
                "keys" => needs_restart.join(", "));
        }
        let problem = self.reload_whitelist().await;
        Reload { at: Timestamp::now(), ok: problem.is_none(), problem, changed, needs_restart }
    }

    /// Gives what its sources that keep their old lists suffer from.
    async fn reload_whitelist(&self) -> Option<String> {
        let problem = match self.keeper.send(ReloadWhitelist).await {
            Ok(Ok(change)) => {
                info!(self.logger, "whitelist reloaded";
                    "added" => change.added, "removed" => change.removed);
                return None;
            }
            Ok(Err(unread)) => unread.to_string(),
            Err(error) => format!("whitelist: {error}"),
        };
        error!(self.logger, "whitelist not reloaded as a whole, what cannot be read keeps its old list";
            "problem" => &problem);
        Some(problem)
    }

    fn apply(&self, config: Config) {
        self.origins.levels.set(&config.log);
        self.live.horizon.set_retention(config.store.retention);
        self.writer.do_send(Reconfigure(config.store.clone()));
        self.live.config.set(config);
    }
}
