//! Connections to PostgreSQL: the address, TLS, the pool for history, and the tables.

use std::{fmt, sync::Arc, time::Duration};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection,
    async_connection_wrapper::AsyncConnectionWrapper,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, bb8},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use futures_util::FutureExt;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{
    Config, NoTls,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::{self, Fault};
use crate::store::StoreError;

pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

pub type ReadPool = bb8::Pool<AsyncPgConnection>;

/// How long the server may take to answer a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a history query waits for a connection before it is answered as unavailable.
const READER_WAIT: Duration = Duration::from_secs(5);

/// A server that has gone without a word is noticed after about as long.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Of all daemons at once, so that two that start together do not make the tables twice.
pub const MIGRATION_LOCK: i64 = 0x6e6f_6465_6361_7374;

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
        let unusable = |text: String| StoreError::Unusable(format!("the database URL: {text}"));
        let (url, mode, roots) = take_tls_parameters(url).map_err(unusable)?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            unusable(cause.unwrap_or_else(|| error.to_string()))
        })?;
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(unusable("it names no database; such as postgres://HOST/DATABASE".into()));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config.keepalives_idle(KEEPALIVE).tcp_user_timeout(KEEPALIVE);
        config.application_name("nodecast");
        let encrypted = match mode {
            Mode::Disable => false,
            Mode::Require => true,
            Mode::ByPlace => !config.get_hosts().iter().all(is_local),
        };
        config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        let tls = encrypted.then(|| connector(roots.as_deref())).transpose()?;
        Ok(Self { config, tls })
    }

    /// What the driver connects with; holds the password.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Connects once.
    pub async fn connect(&self) -> Result<AsyncPgConnection, StoreError> {
        self.establish().await.map_err(|error| self.within(fault::of_connecting(&error)))
    }

    async fn establish(&self) -> ConnectionResult<AsyncPgConnection> {
        let failed = |error: tokio_postgres::Error| {
            ConnectionError::CouldntSetupConfiguration(diesel::result::Error::QueryBuilderError(
                Box::new(error),
            ))
        };
        match &self.tls {
            Some(tls) => {
                let (client, connection) =
                    self.config.connect(tls.clone()).await.map_err(failed)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(failed)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
        }
    }

    /// Says which server it was.
    fn within(&self, error: StoreError) -> StoreError {
        let at = |text: String| format!("{self}: {text}");
        match error {
            StoreError::Unavailable(text) => StoreError::Unavailable(at(text)),
            StoreError::Unusable(text) => StoreError::Unusable(at(text)),
            StoreError::Failed(text) => StoreError::Failed(at(text)),
            other => other,
        }
    }

    /// Makes the pool for reads, whose statements end after `timeout`. It connects when it is used.
    pub fn read_pool(&self, connections: u32, timeout: Duration) -> ReadPool {
        let server = self.clone();
        let mut config = ManagerConfig::default();
        // A query for each checkout costs a round trip; what is broken is seen by its state.
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |_| {
            let server = server.clone();
            async move {
                let mut connection = server.establish().await?;
                let set_up = format!(
                    "SET statement_timeout = {}; SET default_transaction_read_only = on",
                    timeout.as_millis()
                );
                let set_up = connection.batch_execute(&set_up).await;
                set_up.map_err(ConnectionError::CouldntSetupConfiguration)?;
                Ok(connection)
            }
            .boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config("", config);
        bb8::Pool::builder()
            .max_size(connections.max(1))
            .connection_timeout(READER_WAIT)
            .build_unchecked(manager)
    }

    /// Makes the tables of a new database and brings an older store up to this program.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for tables that a newer program made: nothing has changed then.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.connect().await?;
        let prepare = format!(
            "SELECT pg_advisory_lock({MIGRATION_LOCK}); \
             DO $$ BEGIN \
                 IF to_regnamespace('nodecast') IS NULL THEN CREATE SCHEMA nodecast; END IF; \
             END $$; \
             SET search_path TO nodecast"
        );
        connection.batch_execute(&prepare).await.map_err(Fault::from)?;
        let migrated = tokio::task::spawn_blocking(move || run_migrations(connection)).await;
        migrated
            .unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
            .map_err(|error| self.within(error))
    }
}

impl fmt::Display for Server {
    /// Host and database, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
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

/// How a server wants to be reached.
pub enum Mode {
    Disable,
    Require,
    ByPlace,
}

/// Takes `sslmode` and `sslrootcert` out of a URL: the driver knows less of them than we do.
pub fn take_tls_parameters(url: &str) -> Result<(String, Mode, Option<String>), String> {
    let (mut mode, mut roots) = (Mode::ByPlace, None);
    let Some((base, parameters)) = url.split_once('?') else {
        return Ok((url.to_owned(), mode, roots));
    };
    let mut others = Vec::new();
    for parameter in parameters.split('&') {
        match parameter.split_once('=') {
            Some(("sslmode", "disable")) => mode = Mode::Disable,
            // Each of them checks the certificate: encryption to an unknown server hides nothing.
            Some(("sslmode", "require" | "verify-ca" | "verify-full")) => mode = Mode::Require,
            Some(("sslmode", other)) => {
                return Err(format!("sslmode is disable, require or verify-full, not `{other}`"));
            }
            Some(("sslrootcert", path)) => roots = Some(path.to_owned()),
            _ => others.push(parameter),
        }
    }
    let url = if others.is_empty() { base.into() } else { format!("{base}?{}", others.join("&")) };
    Ok((url, mode, roots))
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

/// Trusts the certificates of a file, else those of the system.
fn connector(roots: Option<&str>) -> Result<MakeRustlsConnect, StoreError> {
    let unusable = |text: String| StoreError::Unusable(text);
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| unusable(format!("sslrootcert {path}: {error}")))?;
            let (added, _) = store.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(unusable(format!("sslrootcert {path} holds no certificate")));
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

/// Blocks. The lock that was taken before ends with the connection.
fn run_migrations(connection: AsyncPgConnection) -> Result<(), StoreError> {
    let failed =
        |error: Box<dyn std::error::Error + Send + Sync>| fault::of_text(&error.to_string());
    let mut connection = AsyncConnectionWrapper::<AsyncPgConnection>::from(connection);
    let known = diesel::migration::MigrationSource::<diesel::pg::Pg>::migrations(&MIGRATIONS)
        .map_err(failed)?;
    let applied = connection.applied_migrations().map_err(failed)?;
    let unknown = applied
        .iter()
        .find(|version| !known.iter().any(|migration| migration.name().version() == **version));
    if let Some(version) = unknown {
        return Err(StoreError::Unusable(format!(
            "it was made by a newer nodecast (migration {version} is unknown here)"
        )));
    }
    connection.run_pending_migrations(MIGRATIONS).map_err(failed)?;
    Ok(())
}
