//! What a job takes: whose events, and how old.

use std::{fmt, sync::Arc, time::Duration};

use ahash::HashSet;

use crate::{
    event::{Address, Timestamp},
    whitelist::{Verdict, Whitelist},
};

/// Whose events a job is for.
#[derive(Clone)]
pub enum Users {
    /// Everybody on the list as it is now.
    Listed(Arc<Whitelist>),
    /// These.
    Named(HashSet<Address>),
    /// Those of these who are still on the list.
    NamedAndListed(HashSet<Address>, Arc<Whitelist>),
}

impl Users {
    /// Whether somebody's events are taken; `None`: what concerns nobody.
    pub fn want(&self, user: Option<&Address>) -> bool {
        let listed = |list: &Whitelist| match user {
            Some(user) => list.contains(user) == Verdict::Listed,
            // Only those who keep everything get what concerns nobody.
            None => list.is_all(),
        };
        let named = |names: &HashSet<Address>| user.is_some_and(|user| names.contains(user));
        match self {
            Self::Listed(list) => listed(list),
            Self::Named(names) => named(names),
            Self::NamedAndListed(names, list) => named(names) && listed(list),
        }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(list) => list.fmt(f),
            Self::Named(names) | Self::NamedAndListed(names, _) => {
                write!(f, "{} users", names.len())
            }
        }
    }
}

/// What a pass takes.
#[derive(Clone, Debug)]
pub struct Scope {
    pub users: Users,
    /// Blocks before it are refused.
    pub edge: Timestamp,
    /// The highest block that is known, against which the first of a file is held.
    pub height: Option<u64>,
    pub max_line_bytes: usize,
}

/// The time before which blocks are refused: the retention, or a longer time for this job alone,
/// counted back from the newest block or from now.
pub fn edge(
    newest: Option<Timestamp>,
    now: Timestamp,
    retention: Duration,
    keep: Option<Duration>,
) -> Timestamp {
    newest.unwrap_or(now).min(now).minus(keep.unwrap_or(retention))
}
