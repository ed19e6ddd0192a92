//! The configuration of a daemon that runs: a reload replaces what can change without a restart.
//!
//! Invariant: what readers see is always one valid configuration as a whole, never a mixture of two.

use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use super::{Config, HttpConfig, LogConfig, OfficialConfig, StoreConfig, keys};
use crate::event::Timestamp;

/// The configuration that holds now. Who needs it for longer than a moment keeps the `Arc`.
#[derive(Debug)]
pub struct LiveConfig {
    config: RwLock<Arc<Config>>,
    last_reload: RwLock<Option<Reload>>,
}

/// What a reload did, for status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reload {
    pub at: Timestamp,
    /// Whether everything was taken, configuration and whitelist.
    pub ok: bool,
    /// Why nothing has changed, or which sources of the whitelist keep their old lists.
    pub problem: Option<String>,
    /// Keys with a new value since then.
    pub changed: Vec<&'static str>,
    /// Keys whose new value waits for a restart; until then the old one holds.
    pub needs_restart: Vec<&'static str>,
}

impl LiveConfig {
    pub fn new(config: Config) -> Self {
        Self { config: RwLock::new(Arc::new(config)), last_reload: RwLock::default() }
    }

    pub fn get(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// `None` before the first.
    pub fn last_reload(&self) -> Option<Reload> {
        self.last_reload.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn reloaded(&self, reload: Reload) {
        *self.last_reload.write().unwrap_or_else(PoisonError::into_inner) = Some(reload);
    }
}

impl Config {
    /// This configuration with everything of `new` that takes effect without a restart. What a key
    /// needs for that is said in the default file.
    #[must_use]
    pub fn with_live_keys_of(&self, new: &Self) -> Self {
        let mut merged = self.clone();
        merged.log = LogConfig {
            format: self.log.format,
            channel_records: self.log.channel_records,
            level: new.log.level,
            levels: new.log.levels.clone(),
        };
        // Sessions that are open keep what they were made with.
        merged.session = new.session.clone();
        merged.health = new.health.clone();
        merged.http = HttpConfig {
            max_connections: new.http.max_connections,
            max_body_bytes: new.http.max_body_bytes,
            max_page_size: new.http.max_page_size,
            max_limit: new.http.max_limit,
            ..self.http.clone()
        };
        merged.official = OfficialConfig {
            info_upstream: self.official.info_upstream.clone(),
            ..new.official.clone()
        };
        merged.store = StoreConfig {
            retention: new.store.retention,
            max_bytes: new.store.max_bytes,
            min_free_bytes: new.store.min_free_bytes,
            ..self.store.clone()
        };
        merged
    }

    /// The keys whose values differ.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        // Passwords are not shown, and a new one is a difference too.
        let secret = |config: &Self, path: &str| match path {
            "store.url" => Some(config.store.url.clone()),
            "whitelist.redis_url" => {
                config.whitelist.redis_url.as_ref().map(|url| url.secret().to_owned())
            }
            "redis.url" => config.redis.url.as_ref().map(|url| url.secret().to_owned()),
            "official.info_upstream" => {
                config.official.info_upstream.as_ref().map(|url| url.uri().to_string())
            }
            _ => None,
        };
        let differs = |key: &super::Key| {
            key.show(self) != key.show(other) || secret(self, key.path) != secret(other, key.path)
        };
        keys().iter().filter(|key| differs(key)).map(|key| key.path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InfoUrl, Unlisted};

    #[test]
    fn live_keys_change_and_the_others_wait_each_by_its_name() {
        let old = Config::default();
        let mut new = old.clone();
        new.log.level = slog::Level::Debug;
        new.session.max_users = 5;
        new.http.max_limit = 7;
        new.http.workers += 1;
        new.official.max_rows = 8;
        new.official.unlisted = Unlisted::Add;
        new.official.may_add = vec!["ann".to_owned()];
        new.official.info_upstream = InfoUrl::parse("http://node:3001").ok();
        new.store.retention *= 2;
        new.store.url = "postgres://ann:new@host/db".to_owned();

        let merged = old.with_live_keys_of(&new);

        assert_eq!(
            old.differences(&merged),
            [
                "store.retention",
                "http.max_limit",
                "session.max_users",
                "official.max_rows",
                "official.unlisted",
                "official.may_add",
                "log.level"
            ]
        );
        let wait = ["store.url", "http.workers", "official.info_upstream"];
        assert_eq!(merged.differences(&new), wait);
        let mut other = new.clone();
        other.store.url = "postgres://ann:old@host/db".to_owned();
        assert_eq!(new.differences(&other), ["store.url"]);
    }
}
