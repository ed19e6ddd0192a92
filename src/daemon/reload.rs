//! A reload: the whole configuration is read again from where it came, and the whitelist with it.
//!
//! Invariants: it is taken as a whole or not at all; nobody is disconnected by it; a key that cannot
//! change while the daemon runs keeps its value, and is named.

use std::sync::Arc;

use sd_notify::NotifyState;
use slog::{Logger, error, info, warn};

use super::{Daemon, watchdog};
use crate::{
    config::{Config, Inputs, LiveConfig, Need, Reload},
    event::Timestamp,
    logging::Levels,
    source::Horizon,
    store::Reconfigure,
    whitelist::ReloadWhitelist,
};

/// What a reload starts from. Without it only the whitelist is read again.
pub struct Origins {
    /// File, environment and flags, as the start was given them.
    pub inputs: Inputs,
    pub levels: Levels,
}

/// Those who are told of a new configuration and are no actors.
pub(super) struct Live {
    pub config: Arc<LiveConfig>,
    pub horizon: Arc<Horizon>,
}

impl Daemon {
    /// Reads everything again, as SIGHUP asks for.
    pub(super) async fn reload(&self, origins: &Origins) {
        let mut states = vec![NotifyState::Reloading];
        // Where there is no such clock the manager does without.
        states.extend(NotifyState::monotonic_usec_now().ok());
        watchdog::tell(&states, &self.logger);
        let outcome = self.try_reload(origins).await;
        log_reload(&outcome, &self.logger);
        self.live.config.reloaded(outcome);
        watchdog::tell(&[NotifyState::Ready], &self.logger);
    }

    async fn try_reload(&self, origins: &Origins) -> Reload {
        let refused = |problem: String| Reload {
            at: Timestamp::now(),
            ok: false,
            problem: Some(problem),
            changed: Vec::new(),
            needs_restart: Vec::new(),
        };
        let inputs = origins.inputs.clone();
        // Off this thread: the directories that are named may lie on a disk that is slow.
        let loaded = tokio::task::spawn_blocking(move || inputs.load(Need::Run)).await;
        let new = match loaded {
            Ok(Ok(loaded)) => loaded.config,
            Ok(Err(faults)) => return refused(faults.to_string()),
            Err(error) => return refused(error.to_string()),
        };
        match self.keeper.send(ReloadWhitelist).await {
            Ok(Ok(change)) => info!(self.logger, "whitelist reloaded";
                "added" => change.added, "removed" => change.removed),
            Ok(Err(error)) => return refused(format!("whitelist: {error}")),
            Err(error) => return refused(format!("whitelist: {error}")),
        }
        let old = self.live.config.get();
        let merged = old.with_live_keys_of(&new);
        let reload = Reload {
            at: Timestamp::now(),
            ok: true,
            problem: None,
            changed: old.differences(&merged),
            needs_restart: merged.differences(&new),
        };
        self.apply(merged, &origins.levels);
        reload
    }

    fn apply(&self, config: Config, levels: &Levels) {
        levels.set(&config.log);
        self.sessions.set_max(config.session.max_sessions);
        self.live.horizon.set_retention(config.store.retention);
        self.writer.do_send(Reconfigure(config.store.clone()));
        self.live.config.set(config);
    }
}

fn log_reload(reload: &Reload, logger: &Logger) {
    if let Some(problem) = &reload.problem {
        error!(logger, "reload refused, everything stays as it was"; "problem" => problem);
        return;
    }
    info!(logger, "configuration reloaded"; "changed" => reload.changed.join(", "));
    if !reload.needs_restart.is_empty() {
        warn!(logger, "changed keys need a restart and keep their old values";
            "keys" => reload.needs_restart.join(", "));
    }
}
