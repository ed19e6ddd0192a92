//! `[official]`: what clients of the official protocol are given.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hyper::Uri;

use super::{
    HttpConfig, WhitelistConfig,
    check::Conflict,
    key::{Key, Refused},
};

/// What clients of the official protocol are given.
#[derive(Clone, Debug)]
pub struct OfficialConfig {
    /// Most rows of one answer of history over `POST /info` and `post`. Default 2,000, as the official
    /// service; an answer also ends at 64 MiB.
    pub max_rows: usize,
    /// Most rows of the snapshot that a subscription begins with. Default 2,000.
    pub snapshot_rows: usize,
    /// Who is asked for what is not known here: a node that serves info, or the official service. Default:
    /// nobody.
    pub info_upstream: Option<InfoUrl>,
    /// A WebSocket of this protocol that wants nothing, and to which nothing was said for so long, is closed.
    /// Default 60 s, as by the official service.
    pub idle_timeout: Duration,
    /// What becomes of a subscription to a user who is not on the whitelist. Default: it is rejected.
    pub unlisted: Unlisted,
    /// Who may add users by it, where that adds them: identities as `http.identity_header` states them.
    /// Default: nobody.
    pub may_add: Vec<String>,
}

/// What becomes of a subscription to a user who is not on the whitelist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// It is refused with a text that says so.
    #[default]
    Reject,
    /// It is taken, and stays empty as long as he is not listed.
    Accept,
    /// He is listed by it, where its client may do that; else it is refused.
    Add,
}

impl Unlisted {
    const ALL: [Self; 3] = [Self::Reject, Self::Accept, Self::Add];

    fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Accept => "accept",
            Self::Add => "add",
        }
    }
}

/// Longest identity that may be named, in bytes. A stated one that is longer than what is read of it is
/// longer than this too, so that the beginning of another one is not taken for it.
const MAX_IDENTITY_BYTES: usize = 255;

impl Default for OfficialConfig {
    fn default() -> Self {
        Self {
            max_rows: 2_000,
            snapshot_rows: 2_000,
            info_upstream: None,
            idle_timeout: Duration::from_secs(60),
            unlisted: Unlisted::default(),
            may_add: Vec::new(),
        }
    }
}

impl OfficialConfig {
    /// All that keeps everybody from adding users, where that is wanted.
    pub(super) fn adding_conflicts(
        &self,
        http: &HttpConfig,
        whitelist: &WhitelistConfig,
    ) -> Vec<Conflict> {
        let is_fixed = !whitelist.addresses.is_empty()
            && whitelist.file.is_none()
            && whitelist.redis_url.is_none();
        let all = [
            (
                http.identity_header.is_none(),
                "http.identity_header",
                "only clients whom a trusted proxy names can add users: name the header, or give \
                 \"reject\" or \"accept\"",
            ),
            (
                http.trusted_proxies.is_empty(),
                "http.trusted_proxies",
                "only clients whom a trusted proxy names can add users: name the proxies, or give \
                 \"reject\" or \"accept\"",
            ),
            (
                self.may_add.is_empty(),
                "official.may_add",
                "nobody may add users: name who may, or give \"reject\"",
            ),
            (
                is_fixed,
                "whitelist.addresses",
                "users are added to the whitelist's file, or to its key in Redis: set one of them, or \
                 give \"reject\" or \"accept\"",
            ),
        ];
        let missing = all
            .into_iter()
            .filter(|(is_missing, ..)| self.unlisted == Unlisted::Add && *is_missing);
        let key = "official.unlisted";
        missing.map(|(_, other, rule)| Conflict { key, other, rule }).collect()
    }

    pub(super) fn conflict(&self, listen: SocketAddr) -> Option<Conflict> {
        let asks_itself = self.info_upstream.as_ref().is_some_and(|url| url.is_at(listen));
        asks_itself.then_some(Conflict {
            key: "official.info_upstream",
            other: "http.listen",
            rule: "a daemon that asks itself gets no answer: name a node that serves info, or the \
                   official service",
        })
    }
}

/// Where info requests are posted to: `http://` or `https://`, and a path that ends with `/info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoUrl(Uri);

impl InfoUrl {
    /// Reads a URL with or without its path: `http://127.0.0.1:3001` means `http://127.0.0.1:3001/info`.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const NOT_UNDERSTOOD: &str = "is not understood";
        let uri: Uri = text.parse().map_err(|_| NOT_UNDERSTOOD)?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
        let (Some(scheme), Some(authority)) = (scheme, uri.authority()) else {
            return Err(NOT_UNDERSTOOD);
        };
        if authority.as_str().contains('@') {
            return Err("has a user name: credentials are not sent");
        }
        // A part behind # is not read.
        if authority.host().is_empty() || uri.query().is_some() || text.contains('#') {
            return Err(NOT_UNDERSTOOD);
        }
        if uri.path().contains("***") {
            return Err("is the form in which it is shown, without its folder");
        }
        // What is no port is none to the reader.
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("has a port that is none");
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/info").unwrap_or(path);
        let whole = format!("{scheme}://{authority}{path}/info");
        whole.parse().map(Self).map_err(|_| NOT_UNDERSTOOD)
    }

    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether it is plain that this is where somebody listens.
    fn is_at(&self, listen: SocketAddr) -> bool {
        let host = self.0.host().unwrap_or_default().trim_matches(['[', ']']);
        let default_port = if self.0.scheme_str() == Some("https") { 443 } else { 80 };
        let is_local = match host.parse::<IpAddr>() {
            Ok(address) if address == listen.ip() => true,
            Ok(address) => address.is_loopback() && listen.ip().is_unspecified(),
            Err(_) => {
                host == "localhost" && (listen.ip().is_loopback() || listen.ip().is_unspecified())
            }
        };
        is_local && self.0.port_u16().unwrap_or(default_port) == listen.port()
    }
}

/// Without the folder before `/info`, which may be a secret.
impl fmt::Display for InfoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host) = (self.0.scheme_str(), self.0.authority());
        let (scheme, host) = (scheme.unwrap_or_default(), host.map_or("", |host| host.as_str()));
        let folder = if self.0.path() == "/info" { "" } else { "/***" };
        write!(f, "{scheme}://{host}{folder}/info")
    }
}

/// How long who wants nothing may have nothing said to him, at least and at most.
const MIN_IDLE: Duration = Duration::from_secs(1);
const MAX_IDLE: Duration = Duration::from_secs(86_400);

pub(super) fn keys() -> Vec<Key> {
    vec![
        Key::count("official.max_rows", 1..=1_000_000, |config| &mut config.official.max_rows),
        Key::count("official.snapshot_rows", 0..=100_000, |config| {
            &mut config.official.snapshot_rows
        }),
        Key::duration("official.idle_timeout", MIN_IDLE..=MAX_IDLE, |config| {
            &mut config.official.idle_timeout
        }),
        Key::optional(
            "official.info_upstream",
            "a URL such as \"http://127.0.0.1:3001\" or \"https://api.hyperliquid.xyz\"",
            |text| InfoUrl::parse(text).map_err(Refused::because),
            ToString::to_string,
            |config| &mut config.official.info_upstream,
        ),
        Key::text(
            "official.unlisted",
            "\"reject\", \"accept\" or \"add\"",
            |text| {
                let found = Unlisted::ALL.into_iter().find(|unlisted| unlisted.name() == text);
                found.ok_or_else(Refused::not_understood)
            },
            |unlisted| unlisted.name().to_owned(),
            |config| &mut config.official.unlisted,
        ),
        Key::list(
            "official.may_add",
            "a list of identities as the header of http.identity_header has them, each of 1 to 255 bytes",
            |text| {
                let is_one = (1..=MAX_IDENTITY_BYTES).contains(&text.len()) && text.trim() == text;
                is_one.then(|| text.to_owned())
            },
            Clone::clone,
            |config| &mut config.official.may_add,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        InfoUrl::parse(text).ok().map(|url| url.uri().to_string())
    }

    #[test]
    fn a_url_with_or_without_its_path_is_the_same() {
        for text in [
            "http://127.0.0.1:3001",
            "http://127.0.0.1:3001/",
            "http://127.0.0.1:3001/info",
            "http://127.0.0.1:3001/info/",
        ] {
            assert_eq!(read(text).as_deref(), Some("http://127.0.0.1:3001/info"), "{text}");
        }
        let behind = read("https://[::1]/hyper/info").unwrap();
        assert_eq!(behind, "https://[::1]/hyper/info");
        assert_eq!(read(&behind), Some(behind.clone()));
        assert_eq!(InfoUrl::parse(&behind).unwrap().to_string(), "https://[::1]/***/info");
    }

    #[test]
    fn a_daemon_is_not_its_own_upstream() {
        for (url, listen, is_itself) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("http://localhost:8080/info", "0.0.0.0:8080", true),
            ("http://[::1]:8080", "[::]:8080", true),
            ("http://127.0.0.1", "127.0.0.1:80", true),
            ("https://127.0.0.1", "127.0.0.1:80", false),
            ("http://127.0.0.1:3001", "127.0.0.1:8080", false),
            ("http://10.0.0.1:8080", "127.0.0.1:8080", false),
            ("http://node:8080", "0.0.0.0:8080", false),
        ] {
            let info_upstream = Some(InfoUrl::parse(url).unwrap());
            let config = OfficialConfig { info_upstream, ..OfficialConfig::default() };

            let conflict = config.conflict(listen.parse().unwrap());

            assert_eq!(conflict.is_some(), is_itself, "{url} {listen}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for text in [
            "",
            "127.0.0.1:3001",
            "localhost",
            "/info",
            "ftp://host",
            "http://",
            "ws://host",
            "http://ann:secret@host",
            "http://host/?x=1",
            "http://host/info#part",
            "http://host/***/info",
            "http://host:",
            "http://host:0",
            "http://host:65536",
            "http://host:port",
            "http://[::1]:99999",
            "http://ho st",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
