//! `[health]`: when the daemon calls itself ready.

use std::time::Duration;

use super::key::Key;

/// When the daemon calls itself ready.
#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// `/readyz` holds while the last usable line is younger than this. Default 30 s.
    pub max_lag: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { max_lag: Duration::from_secs(30) }
    }
}

pub(super) fn keys() -> Vec<Key> {
    vec![Key::duration(
        "health.max_lag",
        Duration::from_millis(100)..=Duration::from_secs(86_400),
        |config| &mut config.health.max_lag,
    )]
}
