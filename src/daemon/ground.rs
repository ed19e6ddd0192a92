//! What a daemon stands on: the state directory, the ports, the whitelist and the store, all known to be
//! good before the first actor is born.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use slog::Logger;

use super::capacity;
use crate::{
    config::Config,
    event::Timestamp,
    source::quarantine::Quarantine,
    store::{self, EventStore, Recovered, StoreError, StoreWriter},
    whitelist::WhitelistKeeper,
};

/// All but the store.
pub struct Ground {
    pub config: Config,
    pub started: Timestamp,
    pub listener: TcpListener,
    /// Where `http.metrics_listen` names an address.
    pub metrics_listener: Option<TcpListener>,
    pub keeper: WhitelistKeeper,
    pub quarantine: Quarantine,
    /// Once it was opened.
    store: Option<Arc<dyn EventStore>>,
}

/// A store under the lease of this process, and what it holds.
pub struct Leased {
    pub store: Arc<dyn EventStore>,
    pub writer: Box<dyn StoreWriter>,
    pub recovered: Recovered,
}

impl Ground {
    /// # Errors
    /// When the state directory, a port or the whitelist cannot be used.
    pub async fn prepare(config: Config, logger: &Logger) -> anyhow::Result<Self> {
        let started = Timestamp::now();
        create_state_dir(&config.state_dir)?;
        capacity::allow_files(&config, logger);
        let listener = capacity::listen(config.http.listen)
            .with_context(|| format!("cannot listen on {}", config.http.listen))?;
        let metrics_listener = listen_for_metrics(config.http.metrics_listen)?;
        let keeper = WhitelistKeeper::open(&config.whitelist, &config.state_dir, logger).await?;
        let quarantine = Quarantine::open(&config.state_dir, config.source.quarantine_max_bytes)
            .context("cannot open the quarantine in the state directory")?;
        Ok(Self { config, started, listener, metrics_listener, keeper, quarantine, store: None })
    }

    /// Opens the store, unless an earlier call has, and takes the writer's lease.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] that names the daemon which holds it, among others.
    pub async fn lease(&mut self) -> Result<Leased, StoreError> {
        let store = match &self.store {
            Some(store) => store.clone(),
            None => self.store.insert(self.open_store().await?).clone(),
        };
        let (writer, recovered) = store.open_writer().await?;
        Ok(Leased { store, writer, recovered })
    }

    /// # Errors
    /// When this program cannot use the store, as after a newer one has changed its tables.
    pub async fn open_store(&self) -> Result<Arc<dyn EventStore>, StoreError> {
        store::open(&self.config.store.url, &self.config.store).await
    }

    /// Where it listens: the configured address, with the port that was found for port 0.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }
}

/// Binds at once, so that an address that is taken refuses the start.
fn listen_for_metrics(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address);
    let listener =
        listener.with_context(|| format!("cannot listen on {address} for http.metrics_listen"))?;
    Ok(Some(listener))
}

fn create_state_dir(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create the state directory {}", directory.display()))
}
