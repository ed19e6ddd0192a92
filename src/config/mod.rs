//! Configuration: TOML file < credentials < environment < flags, complete and valid before anything starts.
//!
//! A section is a struct in a file of its own; each field says its unit, default and effect. The
//! table in `key.rs` says how each key is read, checked and shown; `load.rs` lays the layers over
//! each other and collects every fault before it reports any.
//!
//! Invariants: a [`Config`] that the loader gave out is valid; every field has a key and every key
//! an effect; a password is never shown.

use std::path::PathBuf;

mod backfill;
mod check;
mod credentials;
mod fault;
mod file;
mod health;
mod http;
mod key;
mod kind;
mod live;
mod load;
mod log;
mod official;
mod postgres;
mod redis;
mod router;
mod service;
mod session;
mod show;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod units;
mod whitelist;

pub use backfill::BackfillConfig;
pub use fault::{Fault, Faults, Origin};
pub use health::HealthConfig;
pub use http::HttpConfig;
pub use live::{LiveConfig, Reload};
pub use load::{Finding, FlagValue, Inputs, Loaded, Need};
pub use log::{LogConfig, LogFormat, level_name};
pub use official::{InfoUrl, OfficialConfig, Unlisted};
pub use postgres::{PostgresUrl, TlsMode};
pub use redis::{Positions, RedisConfig};
pub use router::RouterConfig;
pub use service::Service;
pub use session::SessionConfig;
pub use source::{SourceConfig, StartFrom};
pub use store::{StoreConfig, sqlite_path, without_password};
pub use units::read_duration;
pub use whitelist::{RedisUrl, WhitelistConfig};

use key::{Key, Refused};

/// The commented default file, as `config default` prints it.
pub const DEFAULT_FILE: &str = include_str!("../../config/nodecast.toml");

/// The line of the default file that the package's says otherwise: its commands have to find what the
/// service does, and only that is told its directory by systemd.
const NO_STATE_DIR: &str = "# state_dir = \"/var/lib/nodecast\"\n";

/// The default file as the package has it, for the service that its unit makes.
pub fn packaged_file() -> String {
    DEFAULT_FILE.replacen(NO_STATE_DIR, &NO_STATE_DIR["# ".len()..], 1)
}

/// Everything the daemon was told. Made by the loader only, so it is always valid.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub source: SourceConfig,
    pub whitelist: WhitelistConfig,
    pub redis: RedisConfig,
    pub router: RouterConfig,
    pub store: StoreConfig,
    pub backfill: BackfillConfig,
    pub http: HttpConfig,
    pub session: SessionConfig,
    pub official: OfficialConfig,
    pub health: HealthConfig,
    pub log: LogConfig,
    /// Where the daemon keeps what it must find again: database, quarantine, the last known
    /// whitelists, back-fills under way; and its control socket. Default:
    /// `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/nodecast`, else `~/.local/state/nodecast`.
    pub state_dir: PathBuf,
}

/// Every key there is, in the order of the default file.
fn keys() -> Vec<Key> {
    let state_dir = Key::text(
        "state_dir",
        "the path of a directory",
        |text| match text {
            "" => Err(Refused::not_understood()),
            text => Ok(PathBuf::from(text)),
        },
        |path| path.display().to_string(),
        |config| &mut config.state_dir,
    );
    let sections = [
        vec![state_dir],
        source::keys(),
        whitelist::keys(),
        redis::keys(),
        router::keys(),
        store::keys(),
        backfill::keys(),
        http::keys(),
        session::keys(),
        official::keys(),
        health::keys(),
        log::keys(),
    ];
    sections.into_iter().flatten().collect()
}
