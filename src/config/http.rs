//! `[http]`: the listener and what a request may cost.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use actix_http::header::HeaderName;
use ipnet::IpNet;

use super::{
    key::{Key, Refused},
    units::{KIB, MIB},
};

/// The listener and what a request may cost.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Address and port of HTTP and WebSocket. Default 127.0.0.1:8080; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address and port of `/metrics`, apart from everything else: it tells of the inside of the
    /// process, which is not for everybody. Default: off.
    pub metrics_listen: Option<SocketAddr>,
    /// Proxies whose word on the client's address is taken, from `X-Forwarded-For`. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Header in which one of them states who the client is, for `session.max_per_identity` and
    /// `official.may_add`. From anybody else it is ignored. Default: off.
    pub identity_header: Option<HeaderName>,
    /// Worker threads, each with its shard of the sessions. Default: the number of cores.
    pub workers: usize,
    /// Most connections at one time beside as many as `session.max_sessions`: those that ask, are answered
    /// or are idle. Default 1,500.
    pub max_connections: usize,
    /// Most bytes of a request's body. Default 1 MiB.
    pub max_body_bytes: usize,
    /// Most rows of one answer of `POST /events`. Default 1,000.
    pub max_page_size: usize,
    /// Most rows of one answer of `GET /v1/events`. Default 10,000.
    pub max_limit: usize,
    /// Most time a client may take to send the head of a request, and as much again for its body. Default
    /// 10 s.
    pub request_timeout: Duration,
    /// A client that takes nothing of an answer for so long loses its connection. Default 30 s.
    pub write_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            metrics_listen: None,
            trusted_proxies: Vec::new(),
            identity_header: None,
            // Where the number of cores is not known, two: one slow turn must not stop everybody.
            workers: thread::available_parallelism().map_or(2, usize::from),
            max_connections: 1_500,
            max_body_bytes: 1 << 20,
            max_page_size: 1_000,
            max_limit: 10_000,
            request_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
        }
    }
}

pub(super) fn keys() -> Vec<Key> {
    vec![
        Key::text(
            "http.listen",
            "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
            |text| text.parse().map_err(|_| Refused::not_understood()),
            SocketAddr::to_string,
            |config| &mut config.http.listen,
        ),
        Key::text(
            "http.metrics_listen",
            "\"off\", or an IP address and a port, such as \"127.0.0.1:9464\"",
            |text| match text {
                "off" => Ok(None),
                text => text.parse().map(Some).map_err(|_| Refused::not_understood()),
            },
            |address| {
                address.map_or_else(|| "off".to_owned(), |address: SocketAddr| address.to_string())
            },
            |config| &mut config.http.metrics_listen,
        ),
        Key::list(
            "http.trusted_proxies",
            "a list of addresses and networks, such as [\"127.0.0.1\", \"10.0.0.0/8\"]",
            |text| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)),
            ToString::to_string,
            |config| &mut config.http.trusted_proxies,
        ),
        Key::text(
            "http.identity_header",
            "\"off\", or the name of a header, such as \"x-forwarded-user\"",
            |text| match text {
                "off" => Ok(None),
                text => text.parse().map(Some).map_err(|_| Refused::not_understood()),
            },
            |name| name.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string),
            |config| &mut config.http.identity_header,
        ),
        Key::count("http.workers", 1..=512, |config| &mut config.http.workers),
        Key::count("http.max_connections", 1..=1_000_000, |config| {
            &mut config.http.max_connections
        }),
        Key::size("http.max_body_bytes", KIB..=256 * MIB, |config| &mut config.http.max_body_bytes),
        Key::count("http.max_page_size", 1..=100_000, |config| &mut config.http.max_page_size),
        Key::count("http.max_limit", 1..=1_000_000, |config| &mut config.http.max_limit),
        Key::duration(
            "http.request_timeout",
            Duration::from_millis(100)..=Duration::from_secs(600),
            |config| &mut config.http.request_timeout,
        ),
        Key::duration(
            "http.write_timeout",
            Duration::from_millis(100)..=Duration::from_secs(3_600),
            |config| &mut config.http.write_timeout,
        ),
    ]
}
