//! `[store]`: where events are kept, and for how long.

use std::{fmt, path::Path, time::Duration};

use super::{
    check::Conflict,
    key::{Key, Refused},
    postgres::PostgresUrl,
    units::{GIB, KIB, TIB},
};

/// Where events are kept, and for how long.
#[derive(Clone)]
pub struct StoreConfig {
    /// `sqlite:PATH` or `postgres://..`; default: `sqlite:{state_dir}/nodecast.db`. May hold a password: shown by
    /// [`without_password`] only.
    pub url: String,
    /// A commit happens when this many events wait, default 5,000,
    pub batch_events: usize,
    /// or this many bytes of bodies, default 4 MiB,
    pub batch_bytes: usize,
    /// or when the oldest has waited this long, default 50 ms.
    pub batch_delay: Duration,
    /// Whether each commit is on the disk before it counts (`synchronous = FULL`). Without it a
    /// power loss may take the last commits; the files are read again from the checkpoint.
    /// Default: yes.
    pub durable: bool,
    /// How long events are kept, by event time. Default 7 days.
    pub retention: Duration,
    /// How often retention looks for what is due. Default 1 h.
    pub retention_interval: Duration,
    /// Size of the database in bytes above which the oldest events go early; 0 (default): no limit.
    pub max_bytes: u64,
    /// Free bytes on the file system below which the oldest events go early. Default 1 GiB.
    pub min_free_bytes: u64,
    /// Connections for history queries. Default 4.
    pub read_connections: u32,
    /// After this time a history query is broken off. Default 10 s.
    pub query_timeout: Duration,
    /// After this time without an answer of PostgreSQL a commit is broken off: its connection is
    /// dropped, and the next try looks up whether it was done. Default 30 s.
    pub write_timeout: Duration,
    /// Whether a start waits for the lease that another daemon holds, instead of being refused.
    /// Default: no.
    pub standby: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            batch_events: 5_000,
            batch_bytes: 4 << 20,
            batch_delay: Duration::from_millis(50),
            durable: true,
            retention: Duration::from_secs(7 * 86_400),
            retention_interval: Duration::from_secs(3_600),
            max_bytes: 0,
            min_free_bytes: 1 << 30,
            read_connections: 4,
            query_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            standby: false,
        }
    }
}

/// Hides the password of the address. Every field is named, so that a new one cannot be forgotten.
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            url,
            batch_events,
            batch_bytes,
            batch_delay,
            durable,
            retention,
            retention_interval,
            max_bytes,
            min_free_bytes,
            read_connections,
            query_timeout,
            write_timeout,
            standby,
        } = self;
        f.debug_struct("StoreConfig")
            .field("url", &without_password(url))
            .field("batch_events", batch_events)
            .field("batch_bytes", batch_bytes)
            .field("batch_delay", batch_delay)
            .field("durable", durable)
            .field("retention", retention)
            .field("retention_interval", retention_interval)
            .field("max_bytes", max_bytes)
            .field("min_free_bytes", min_free_bytes)
            .field("read_connections", read_connections)
            .field("query_timeout", query_timeout)
            .field("write_timeout", write_timeout)
            .field("standby", standby)
            .finish()
    }
}

pub(super) fn keys() -> Vec<Key> {
    let (ms, secs) = (Duration::from_millis, Duration::from_secs);
    vec![
        Key::text(
            "store.url",
            "sqlite:PATH, such as \"sqlite:/var/lib/nodecast/nodecast.db\", or \
             postgres://USER:PASSWORD@HOST:PORT/DATABASE",
            read_url,
            |url| without_password(url),
            |config| &mut config.store.url,
        ),
        Key::count("store.batch_events", 1..=1_000_000, |config| &mut config.store.batch_events),
        Key::size("store.batch_bytes", KIB..=GIB, |config| &mut config.store.batch_bytes),
        Key::duration("store.batch_delay", ms(1)..=secs(10), |config| {
            &mut config.store.batch_delay
        }),
        Key::switch("store.durable", |config| &mut config.store.durable),
        Key::duration("store.retention", secs(60)..=secs(3_650 * 86_400), |config| {
            &mut config.store.retention
        }),
        Key::duration("store.retention_interval", secs(1)..=secs(86_400), |config| {
            &mut config.store.retention_interval
        }),
        Key::size("store.max_bytes", 0..=1_024 * TIB, |config| &mut config.store.max_bytes),
        Key::size("store.min_free_bytes", 0..=1_024 * TIB, |config| {
            &mut config.store.min_free_bytes
        }),
        Key::count("store.read_connections", 1..=64, |config| &mut config.store.read_connections),
        Key::duration("store.query_timeout", ms(1)..=secs(3_600), |config| {
            &mut config.store.query_timeout
        }),
        Key::duration("store.write_timeout", ms(100)..=secs(3_600), |config| {
            &mut config.store.write_timeout
        }),
        Key::switch("store.standby", |config| &mut config.store.standby),
    ]
}

impl StoreConfig {
    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        if self.retention_interval <= self.retention {
            return Vec::new();
        }
        vec![Conflict {
            key: "store.retention_interval",
            other: "store.retention",
            rule: "events would outlive the retention: give retention_interval <= retention",
        }]
    }
}

fn read_url(text: &str) -> Result<String, Refused> {
    match text.split_once(':') {
        Some(("sqlite", _)) => match sqlite_path(text) {
            Some(_) => Ok(text.to_owned()),
            None => Err(Refused::because("names no file")),
        },
        Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
            PostgresUrl::parse(text).map_err(|why| Refused::because(&why))?;
            Ok(text.to_owned())
        }
        _ => Err(Refused::not_understood()),
    }
}

/// The file that `sqlite:PATH` or `sqlite://PATH` names, with the path as it is written there.
/// Nothing that lives in memory only: what is stored has to outlive the process.
pub fn sqlite_path(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = Some(Path::new(path)).filter(|path| *path != Path::new(":memory:"))?;
    path.file_name().is_some().then_some(path)
}

/// The address with `***` in the place of a password, both in `user:password@host` and in
/// `?password=...`. What holds no such part is unchanged.
pub fn without_password(url: &str) -> String {
    let mut shown = url.to_owned();
    if let Some(start) = shown.find("://").map(|at| at + 3) {
        // The last `@` before the path ends the credentials: a password may hold an unescaped one.
        let end = shown[start..].find(['/', '?', '#']).map_or(shown.len(), |at| start + at);
        // A password may hold an unescaped slash too; then the `@` lies behind it.
        let end = if shown[start..end].contains('@') { end } else { shown.len() };
        if let Some(at) = shown[start..end].rfind('@').map(|at| start + at)
            && let Some(colon) = shown[start..at].find(':').map(|colon| start + colon)
        {
            shown.replace_range(colon + 1..at, "***");
        }
    }
    if let Some((address, query)) = shown.split_once('?') {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("password") => {
                format!("{name}=***")
            }
            _ => pair.to_owned(),
        });
        shown = format!("{address}?{}", pairs.collect::<Vec<_>>().join("&"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_sqlite_names_a_file() {
        for (url, path) in [
            ("sqlite:/a/n.db", Some("/a/n.db")),
            ("sqlite:///a/n.db", Some("/a/n.db")),
            ("sqlite:n.db", Some("n.db")),
            ("sqlite:", None),
            ("sqlite://", None),
            ("sqlite:/", None),
            ("sqlite:/a/..", None),
            ("sqlite::memory:", None),
            ("sqlite://:memory:", None),
        ] {
            assert_eq!(sqlite_path(url), path.map(Path::new), "{url}");
            assert_eq!(read_url(url).is_ok(), path.is_some(), "{url}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://user:secret@host/db",
            "postgres://user:sec@secret@host:5432/db?sslmode=require",
            "postgres://user:a/secret@host/db",
            "postgres://host/db?user=x&password=secret",
        ] {
            let config = StoreConfig { url: url.to_owned(), ..StoreConfig::default() };

            let shown = format!("{config:?}");

            assert!(!shown.contains("secret"), "{shown}");
            assert!(shown.contains("***") && shown.contains("host"), "{shown}");
        }
    }

    #[test]
    fn an_address_without_password_is_shown_whole() {
        for url in ["sqlite:/var/lib/nodecast/nodecast.db", "postgres://host:5432/db?a=b"] {
            assert_eq!(without_password(url), url);
        }
    }
}
