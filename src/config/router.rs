//! `[router]`: the events in memory.

use super::{
    key::Key,
    units::{KIB, TIB},
};

/// The events in memory that readers share.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Most bytes of committed events that stay in memory for readers. Default 64 MiB.
    pub recent_bytes: usize,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self { recent_bytes: 64 << 20 }
    }
}

pub(super) fn keys() -> Vec<Key> {
    vec![Key::size("router.recent_bytes", 64 * KIB..=TIB, |config| &mut config.router.recent_bytes)]
}
