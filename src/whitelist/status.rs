//! What is told of the whitelist: by status, by the metrics, by the reasons of a degraded state.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use crate::event::Timestamp;

/// Where a list comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    File,
    Redis,
    Config,
}

impl SourceKind {
    pub const ALL: [Self; 3] = [Self::File, Self::Redis, Self::Config];

    /// As it stands in status, in metrics and in the names of kept lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Redis => "redis",
            Self::Config => "config",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of one source.
#[derive(Clone, Debug)]
pub struct SourceState {
    pub kind: SourceKind,
    /// Which file, which key of which Redis; no password.
    pub name: String,
    /// Addresses of its list that holds now.
    pub size: usize,
    /// When that list was read. A list of the last run, used because its source is away, has the
    /// time at which that run got it.
    pub loaded_at: Timestamp,
    /// Why the source's present content is not used, or not kept for the next start; `None` while
    /// all is well.
    pub problem: Option<String>,
    /// Whether its present content is used: else `problem` says why not.
    pub is_used: bool,
    /// Members of the source that are no addresses.
    pub skipped: usize,
    /// One of them.
    pub skipped_example: Option<String>,
}

/// What is known of the whole whitelist.
#[derive(Clone, Debug)]
pub struct WhitelistState {
    /// Number of listed addresses, each counted once; `None`: everybody.
    pub size: Option<usize>,
    /// None where everybody is listed.
    pub sources: Vec<SourceState>,
    /// Since when it is so, where there is no source.
    pub started: Timestamp,
}

impl WhitelistState {
    /// All sources in one text.
    pub fn describe(&self) -> String {
        let mut names = self.sources.iter().map(|source| source.name.as_str());
        match names.next() {
            None => "all".to_owned(),
            Some(first) => names.fold(first.to_owned(), |text, name| text + " and " + name),
        }
    }

    /// When the source that was read longest ago was read. The configuration never changes and
    /// counts only where it is alone.
    pub fn loaded_at(&self) -> Timestamp {
        let sources = self.sources.iter().filter(|source| source.kind != SourceKind::Config);
        let oldest = sources.map(|source| source.loaded_at).min();
        let first = || self.sources.first().map(|source| source.loaded_at);
        oldest.or_else(first).unwrap_or(self.started)
    }

    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().filter_map(|source| source.problem.as_deref())
    }
}

/// [`WhitelistState`], shared between the keeper and those who tell it.
#[derive(Debug)]
pub struct WhitelistStatus(Mutex<WhitelistState>);

impl WhitelistStatus {
    pub(super) fn new(state: WhitelistState) -> Self {
        Self(Mutex::new(state))
    }

    pub fn get(&self) -> WhitelistState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, state: WhitelistState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
