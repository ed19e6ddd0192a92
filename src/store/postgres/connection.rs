//! Connections to PostgreSQL: the address, TLS, time limits.

use std::{fmt, sync::Arc, time::Duration};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::AsyncPgConnection;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tokio_postgres::{
    Config, NoTls,
    config::{Host, SslMode, SslNegotiation},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    fault::{self, Fault},
    sqlstate,
};
use crate::{
    config::{PostgresUrl, TlsMode},
    store::StoreError,
};

/// How long a server may take until a new connection can be used, unless the URL has a
/// `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The driver's, where the URL names none.
const DEFAULT_PORT: u16 = 5432;

/// A server whose machine has gone without a word is noticed after about as long, by the kernel:
/// as well when we wait for what it says as when it does not take what we say.
const UNHEARD: Duration = Duration::from_secs(10);

/// Time between two questions of the kernel whether the server's is there.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How much longer than the server we wait for what it may take its time for: its own word that
/// the time is over says more than our clock, by which it may just be away.
pub const GRACE: Duration = Duration::from_secs(2);

/// Where the database is, and how it is reached.
#[derive(Clone)]
pub struct Server {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl Server {
    /// Reads a URL such as `postgres://user:password@host:5432/database?sslmode=verify-full`.
    ///
    /// Without `sslmode` a server on this machine is reached in plain and any other by TLS.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for a URL that cannot be understood, without repeating it: it may
    /// hold a password.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let url = PostgresUrl::parse(url)
            .map_err(|why| StoreError::Unusable(format!("the database URL {why}")))?;
        let roots = url.trusted().map_err(StoreError::Unusable)?;
        let PostgresUrl { mut config, mode, .. } = url;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(2);
        config.tcp_user_timeout(UNHEARD);
        config.application_name("nodecast");
        let encrypted = match mode {
            TlsMode::Disable => false,
            TlsMode::Require => true,
            TlsMode::ByPlace => !config.get_hosts().iter().all(is_local),
        };
        config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        let tls = encrypted.then(|| connector(roots)).transpose()?;
        Ok(Self { config, tls })
    }

    /// What the driver connects with; holds the password.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Connects once.
    ///
    /// # Errors
    /// Which server, and why not; [`StoreError::Unavailable`] also when it takes a connection and
    /// says nothing on it.
    pub async fn connect(&self) -> Result<AsyncPgConnection, StoreError> {
        // The driver's own limit ends with the handshake of TCP, which a hung server's kernel makes.
        let connecting =
            async { Ok(self.establish().await.map_err(|e| fault::of_connecting(&e))?) };
        limited(self.connect_limit(), connecting).await.map_err(|error| self.within(error))
    }

    /// For all hosts that the URL names, one after the other.
    fn connect_limit(&self) -> Duration {
        let of_one = self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        of_one.saturating_mul(self.config.get_hosts().len().max(1) as u32)
    }

    async fn establish(&self) -> ConnectionResult<AsyncPgConnection> {
        let failed = |error: tokio_postgres::Error| {
            ConnectionError::CouldntSetupConfiguration(diesel::result::Error::QueryBuilderError(
                Box::new(error),
            ))
        };
        let mut config = self.config.clone();
        match &self.tls {
            Some(tls) => {
                let (client, connection) =
                    config.connect(sqlstate::Encrypted(tls.clone())).await.map_err(failed)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
            None if config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_))) => {
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
            None => {
                // Not encrypted; see there.
                config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
                let (client, connection) = config.connect(sqlstate::Plain).await.map_err(failed)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
        }
    }

    /// Says which server it was.
    pub fn within(&self, error: StoreError) -> StoreError {
        let at = |text: String| format!("{self}: {text}");
        match error {
            StoreError::Unavailable(text) => StoreError::Unavailable(at(text)),
            StoreError::Unusable(text) => StoreError::Unusable(at(text)),
            StoreError::Denied(text) => StoreError::Denied(at(text)),
            StoreError::Failed(text) => StoreError::Failed(at(text)),
            other => other,
        }
    }
}

impl fmt::Display for Server {
    /// Hosts, ports and database, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{}", port(at)),
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => format!("{}:{}", path.display(), port(at)),
        });
        let hosts: Vec<_> = hosts.collect();
        write!(f, "postgres:{}/{}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Waits for a piece of work, but not for ever.
///
/// # Errors
/// [`StoreError::Unavailable`] after the limit. The work is dropped then, in whatever state it is:
/// its connection must not be used again.
pub async fn limited<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => {
            Err(StoreError::Unavailable(format!("the server gives no answer within {limit:?}")))
        }
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// Trusts these certificates, else those of the system.
fn connector(roots: Option<Vec<CertificateDer<'_>>>) -> Result<MakeRustlsConnect, StoreError> {
    let unusable = |text: String| StoreError::Unusable(text);
    let mut store = RootCertStore::empty();
    match roots {
        Some(certificates) => {
            let (added, _) = store.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(unusable("sslrootcert: no certificate is understood".to_owned()));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(format!("TLS: {error}")))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
