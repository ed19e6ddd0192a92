//! `[whitelist]`: whose events are kept.

use std::{path::PathBuf, time::Duration};

use crate::event::Address;

use super::{check::Conflict, key::Key};

/// Whose events are kept.
#[derive(Clone, Debug)]
pub struct WhitelistConfig {
    /// Keep everything, for everybody. Excludes `file` and `addresses`. Default: no.
    pub all: bool,
    /// One address a line, `#` starts a comment. Read again when it changes. Default: none.
    pub file: Option<PathBuf>,
    /// Addresses that are kept besides those of the file. Default: none.
    pub addresses: Vec<String>,
    /// Share of unlisted addresses that may pass the Bloom filter, 0.000001 to 0.5, default 0.01.
    pub false_positive_rate: f64,
    /// The Bloom filter is sized for at least this many addresses. Default 10,000.
    pub min_capacity: usize,
    /// Whether what passes the Bloom filter is confirmed by the exact list. Without it unlisted
    /// users slip through at `false_positive_rate`. Default: yes.
    pub exact: bool,
    /// A reloaded list that lost more than this share of its addresses is refused, 0 to 1, default
    /// 0.2.
    pub max_shrink: f64,
    /// How often the file is looked at, besides its change events. 100 ms to 1 h, default 5 s.
    pub refresh_interval: Duration,
}

impl Default for WhitelistConfig {
    fn default() -> Self {
        Self {
            all: false,
            file: None,
            addresses: Vec::new(),
            false_positive_rate: 0.01,
            min_capacity: 10_000,
            exact: true,
            max_shrink: 0.2,
            refresh_interval: Duration::from_secs(5),
        }
    }
}

pub(super) fn keys() -> Vec<Key> {
    vec![
        Key::switch("whitelist.all", |config| &mut config.whitelist.all),
        Key::optional(
            "whitelist.file",
            "the path of a file with one address a line",
            |text| Ok(PathBuf::from(text)),
            |path| path.display().to_string(),
            |config| &mut config.whitelist.file,
        ),
        Key::list(
            "whitelist.addresses",
            "a list of addresses, each 0x and 40 hexadecimal digits",
            |text| text.parse::<Address>().is_ok().then(|| text.to_owned()),
            Clone::clone,
            |config| &mut config.whitelist.addresses,
        ),
        Key::share("whitelist.false_positive_rate", 0.000_001..=0.5, |config| {
            &mut config.whitelist.false_positive_rate
        }),
        Key::count("whitelist.min_capacity", 1..=1_000_000_000, |config| {
            &mut config.whitelist.min_capacity
        }),
        Key::switch("whitelist.exact", |config| &mut config.whitelist.exact),
        Key::share("whitelist.max_shrink", 0.0..=1.0, |config| &mut config.whitelist.max_shrink),
        Key::duration(
            "whitelist.refresh_interval",
            Duration::from_millis(100)..=Duration::from_secs(3_600),
            |config| &mut config.whitelist.refresh_interval,
        ),
    ]
}

impl WhitelistConfig {
    /// Whether anybody at all is meant to be kept.
    pub fn is_given(&self) -> bool {
        self.all || self.file.is_some() || !self.addresses.is_empty()
    }

    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let rule = "`all` keeps everybody and excludes a list: remove one of the two";
        let mut conflicts = Vec::new();
        if self.all && self.file.is_some() {
            conflicts.push(Conflict { key: "whitelist.all", other: "whitelist.file", rule });
        }
        if self.all && !self.addresses.is_empty() {
            conflicts.push(Conflict { key: "whitelist.all", other: "whitelist.addresses", rule });
        }
        conflicts
    }
}
