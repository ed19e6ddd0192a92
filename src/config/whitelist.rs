//! `[whitelist]`: whose events are kept.

use std::{fmt, path::PathBuf, time::Duration};

use bb8_redis::redis::IntoConnectionInfo;

use crate::event::Address;

use super::{
    check::Conflict,
    key::{Key, Refused},
    store::without_password,
};

/// The parameter of a Redis address that names trusted certificates.
const TRUSTED_FILE: &str = "sslrootcert=";

/// What an address of Redis is.
pub(super) const REDIS_URL: &str = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], such as \
     \"redis://127.0.0.1:6379/0\", or rediss:// for TLS";

/// The sorted set in which the older service looks for its users.
const DEFAULT_REDIS_KEY: &str = "wallet_eoa_cache";

/// Whose events are kept: those of every source together.
#[derive(Clone, Debug)]
pub struct WhitelistConfig {
    /// Keep everything, for everybody. Excludes every list. Default: no.
    pub all: bool,
    /// One address a line, `#` starts a comment. Read again when it changes. Default: none.
    pub file: Option<PathBuf>,
    /// A Redis that holds a list. Default: none.
    pub redis_url: Option<RedisUrl>,
    /// The key of the list in that Redis: a sorted set with the time of listing as score, in
    /// seconds or milliseconds, or a plain set. Default: `wallet_eoa_cache`.
    pub redis_key: String,
    /// Addresses that are listed besides those of the file and of Redis. Default: none.
    pub addresses: Vec<String>,
    /// Share of unlisted addresses that may pass the Bloom filter, 0.000001 to 0.5, default 0.01.
    pub false_positive_rate: f64,
    /// The Bloom filter is sized for at least this many addresses. Default 10,000.
    pub min_capacity: usize,
    /// Whether what passes the Bloom filter is confirmed by the exact list. Without it unlisted
    /// users slip through at `false_positive_rate`. Default: yes.
    pub exact: bool,
    /// A list of the file or of Redis that lost more than this share of its addresses is refused, 0
    /// to 1, default 0.2.
    pub max_shrink: f64,
    /// How often the file is looked at, besides its change events; Redis is asked twice in this
    /// time, so that its new members hold within it. 100 ms to 1 h, default 5 s.
    pub refresh_interval: Duration,
}

/// The address of a Redis. May hold a password, which is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The address as the client reads it, with the password.
    pub fn secret(&self) -> String {
        self.parts().0
    }

    /// The file with the certificates that are trusted instead of the system's.
    pub fn trusted_file(&self) -> Option<PathBuf> {
        self.parts().1.map(PathBuf::from)
    }

    /// Takes `sslrootcert` out of the address: it is named as for PostgreSQL, and the client knows
    /// no such parameter.
    fn parts(&self) -> (String, Option<String>) {
        let Some((base, parameters)) = self.0.split_once('?') else {
            return (self.0.clone(), None);
        };
        let (roots, others): (Vec<_>, Vec<_>) =
            parameters.split('&').partition(|parameter| parameter.starts_with(TRUSTED_FILE));
        let roots = roots.last().map(|parameter| parameter[TRUSTED_FILE.len()..].to_owned());
        let base = base.to_owned();
        let url = if others.is_empty() { base } else { format!("{base}?{}", others.join("&")) };
        (url, roots)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Default for WhitelistConfig {
    fn default() -> Self {
        Self {
            all: false,
            file: None,
            redis_url: None,
            redis_key: DEFAULT_REDIS_KEY.to_owned(),
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
        Key::optional(
            "whitelist.redis_url",
            REDIS_URL,
            read_redis_url,
            ToString::to_string,
            |config| &mut config.whitelist.redis_url,
        ),
        Key::text(
            "whitelist.redis_key",
            "the name of a sorted set or a set in Redis",
            |text| match text {
                "" => Err(Refused::because("names no key")),
                text => Ok(text.to_owned()),
            },
            Clone::clone,
            |config| &mut config.whitelist.redis_key,
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
        self.all || self.file.is_some() || self.redis_url.is_some() || !self.addresses.is_empty()
    }

    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let rule = "`all` keeps everybody and excludes a list: remove one of the two";
        let lists = [
            ("whitelist.file", self.file.is_some()),
            ("whitelist.redis_url", self.redis_url.is_some()),
            ("whitelist.addresses", !self.addresses.is_empty()),
        ];
        lists
            .into_iter()
            .filter(|(_, is_given)| self.all && *is_given)
            .map(|(other, _)| Conflict { key: "whitelist.all", other, rule })
            .collect()
    }
}

/// What can be wrong is told without the text, which may hold a password.
pub(super) fn read_redis_url(text: &str) -> Result<RedisUrl, Refused> {
    let url = RedisUrl(text.to_owned());
    let is_encrypted = text.starts_with("rediss://");
    let (address, roots) = url.parts();
    // Behind `#` the client would take the wish for an unchecked certificate.
    let is_redis = (is_encrypted || text.starts_with("redis://")) && !text.contains('#');
    if !is_redis || address.into_connection_info().is_err() {
        return Err(Refused::not_understood());
    }
    if roots.is_some() && !is_encrypted {
        return Err(Refused::because("has an sslrootcert, which is for rediss:// alone"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trusted_file_is_not_part_of_what_the_client_reads() {
        for (text, secret, file) in [
            ("redis://h/1", "redis://h/1", None),
            ("rediss://h?sslrootcert=/ca", "rediss://h", Some("/ca")),
            ("rediss://h?sslrootcert=/ca&protocol=resp3", "rediss://h?protocol=resp3", Some("/ca")),
        ] {
            let url = read_redis_url(text).unwrap();

            assert_eq!(url.secret(), secret);
            assert_eq!(url.trusted_file(), file.map(PathBuf::from));
        }
    }

    #[test]
    fn an_address_of_redis_is_checked_and_its_password_never_shown() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379", Some("redis://127.0.0.1:6379")),
            ("redis://:secret@host:6379/1", Some("redis://:***@host:6379/1")),
            ("redis://user:secret@host", Some("redis://user:***@host")),
            ("rediss://:secret@host", Some("rediss://:***@host")),
            (
                "rediss://:secret@host:6380/1?sslrootcert=/ca.pem",
                Some("rediss://:***@host:6380/1?sslrootcert=/ca.pem"),
            ),
            ("redis://:secret@host?sslrootcert=/ca.pem", None),
            ("rediss://:secret@host/#insecure", None),
            ("redis://", None),
            ("redis://host:port", None),
            ("redis://host/database", None),
            ("http://host", None),
            ("host:6379", None),
        ] {
            let read = read_redis_url(text);

            let config = WhitelistConfig { redis_url: read.clone().ok(), ..Default::default() };
            assert_eq!(
                config.redis_url.as_ref().map(ToString::to_string).as_deref(),
                shown,
                "{text}"
            );
            assert!(!format!("{config:?} {read:?}").contains("secret"), "{config:?}");
        }
    }
}
