//! How a Redis is reached: in plain or by TLS, with bounded waiting, from a pool where many ask.

use std::{fs, sync::Once, time::Duration};

use bb8_redis::{
    bb8::ManageConnection,
    redis::{
        self, AsyncConnectionConfig, Client, ErrorKind, RedisError, TlsCertificates,
        aio::MultiplexedConnection,
    },
};

use crate::config::RedisUrl;

/// How long a new connection may take, its handshakes included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take. The library waits half a second, too short for a busy server.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to nobody yet.
///
/// # Errors
/// When the file of trusted certificates cannot be used.
pub fn open(url: &RedisUrl) -> Result<Client, RedisError> {
    let secret = url.secret();
    if !secret.starts_with("rediss://") {
        return Client::open(secret);
    }
    use_one_provider();
    let root_cert = url.trusted_file().map(fs::read).transpose()?;
    if root_cert.as_ref().is_some_and(|file| !holds_certificate(file)) {
        return Err((ErrorKind::InvalidClientConfig, "sslrootcert holds no certificate").into());
    }
    Client::build_with_tls(secret, TlsCertificates { client_tls: None, root_cert })
}

/// The client takes the provider of the process, and there may be several to choose from.
fn use_one_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let provider = rustls::crypto::ring::default_provider();
        // Somebody else may have chosen before: that one serves as well.
        provider.install_default().ok();
    });
}

/// Without one the client would trust nobody and say so only by refusing every server.
fn holds_certificate(file: &[u8]) -> bool {
    memchr::memmem::find(file, b"-----BEGIN CERTIFICATE-----").is_some()
}

/// Connects. The connection is driven by the thread on which it is made.
///
/// # Errors
/// When the server is away or refuses us.
pub async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Makes the connections of a pool.
pub struct Manager(Client);

impl Manager {
    /// # Errors
    /// See [`open`].
    pub fn new(url: &RedisUrl) -> Result<Self, RedisError> {
        Ok(Self(open(url)?))
    }
}

impl ManageConnection for Manager {
    type Connection = MultiplexedConnection;
    type Error = RedisError;

    async fn connect(&self) -> Result<Self::Connection, RedisError> {
        connect(&self.0).await
    }

    /// A connection does not mend itself: one that does not answer is replaced.
    async fn is_valid(&self, connection: &mut Self::Connection) -> Result<(), RedisError> {
        redis::cmd("PING").query_async(connection).await
    }

    fn has_broken(&self, _: &mut Self::Connection) -> bool {
        false
    }
}
