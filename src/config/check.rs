//! Rules that concern more than one key.

use super::Config;

/// Two keys whose values exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The key that is named first.
    pub key: &'static str,
    pub other: &'static str,
    /// What must hold, and what to give.
    pub rule: &'static str,
}

/// The conflicts of all sections.
pub(super) fn conflicts(config: &Config) -> Vec<Conflict> {
    [config.source.conflicts(), config.whitelist.conflicts(), config.store.conflicts()].concat()
}
