//! Where a list is changed, by a command or for a client: its file, or its key in Redis.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
};

use super::{
    edit::{Edit, EditFault, Edited, edit_file},
    redis::{RedisFault, RedisList},
    sources::{Folder, WhitelistError},
    status::SourceKind,
};
use crate::{
    config::{RedisUrl, WhitelistConfig},
    event::Address,
};

/// A part of the whitelist that can be changed while a daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    Redis { url: RedisUrl, key: String },
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceFault {
    #[error(transparent)]
    File(#[from] EditFault),
    #[error(transparent)]
    Redis(#[from] WhitelistError),
}

impl Place {
    /// The file, where one is configured, else the key in Redis. `None`: what is listed stands in the
    /// configuration, or everybody is.
    pub fn of(config: &WhitelistConfig) -> Option<Self> {
        Self::file(config).or_else(|| Self::redis(config)).filter(|_| !config.all)
    }

    pub fn file(config: &WhitelistConfig) -> Option<Self> {
        config.file.clone().map(Self::File)
    }

    pub fn redis(config: &WhitelistConfig) -> Option<Self> {
        let url = config.redis_url.clone()?;
        Some(Self::Redis { url, key: config.redis_key.clone() })
    }

    pub fn kind(&self) -> SourceKind {
        match self {
            Self::File(_) => SourceKind::File,
            Self::Redis { .. } => SourceKind::Redis,
        }
    }

    /// Adds addresses, or removes them. A daemon that follows the place finds it by itself.
    ///
    /// # Errors
    /// Nothing was changed then.
    ///
    /// # Cancel safety
    /// The change may be made all the same.
    pub async fn edit(
        &self,
        edit: Edit,
        addresses: &BTreeSet<Address>,
    ) -> Result<Edited, PlaceFault> {
        match self {
            Self::File(path) => {
                let (file, addresses) = (path.clone(), addresses.clone());
                // A long list is written anew, and another editor is waited for.
                let editing = move || edit_file(&file, edit, &addresses);
                let edited = tokio::task::spawn_blocking(editing).await.map_err(|error| {
                    EditFault::Write { path: path.clone(), error: io::Error::other(error) }
                })?;
                Ok(edited?)
            }
            Self::Redis { url, key } => {
                let edited = edit_redis(url, key, edit, addresses).await;
                Ok(edited.map_err(|fault| WhitelistError::Redis {
                    url: url.clone(),
                    key: key.clone(),
                    fault,
                })?)
            }
        }
    }
}

async fn edit_redis(
    url: &RedisUrl,
    key: &str,
    edit: Edit,
    addresses: &BTreeSet<Address>,
) -> Result<Edited, RedisFault> {
    // No list is built.
    let mut server = RedisList::new(url, key, Folder::at(Path::new("")))?;
    match edit {
        Edit::Add => server.add(addresses, true).await,
        Edit::AddToExisting => server.add(addresses, false).await,
        Edit::Remove => server.remove(addresses).await,
    }
}

/// As it is told to people.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Redis { url, key } => write!(f, "{url} {key}"),
        }
    }
}
