//! `[backfill]`: older events of users who are listed later.

use super::{key::Key, units::TIB};

/// Older events of users who are listed later.
#[derive(Clone, Debug)]
pub struct BackfillConfig {
    /// Whether the files are read again for users who are added to the list. Default: yes. Orders by
    /// hand (`nodecast backfill`) work in any case.
    pub enabled: bool,
    /// Most bytes that the daemon reads in a second for back-filling; 0: no limit. Default 32 MiB.
    pub max_bytes_per_second: u64,
}

impl Default for BackfillConfig {
    fn default() -> Self {
        Self { enabled: true, max_bytes_per_second: 32 << 20 }
    }
}

pub(super) fn keys() -> Vec<Key> {
    vec![
        Key::switch("backfill.enabled", |config| &mut config.backfill.enabled),
        Key::size("backfill.max_bytes_per_second", 0..=TIB, |config| {
            &mut config.backfill.max_bytes_per_second
        }),
    ]
}
