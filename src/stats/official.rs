//! What the info service of the official protocol counts.

use super::{Counter, Gauge};

/// Answers of history, and what is asked of the upstream.
#[derive(Debug, Default)]
pub struct OfficialStats {
    /// Bytes that are set aside for answers until their clients have taken them.
    pub answer_bytes: Gauge,
    /// Requests that found no room for their answer in time.
    pub no_room: Counter,
    /// Snapshots that read the store now.
    pub snapshots: Gauge,
    /// Requests that the upstream is asked on behalf of clients now.
    pub passing: Gauge,
    pub passed: Counter,
    /// Requests that were not passed on, as too many were under way.
    pub not_passed: Counter,
    /// Posted requests of clients for whom too many were waiting.
    pub refused_posts: Counter,
    /// Additions to the whitelist that are made or wait for their turn.
    pub additions: Gauge,
    /// Users whom clients have added to the whitelist.
    pub added_users: Counter,
    /// Additions that found too many waiting.
    pub refused_additions: Counter,
    /// Questions to the upstream, ours for `meta` among them, that it gave no answer to.
    pub upstream_failures: Counter,
}
