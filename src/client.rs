//! Who a client is: its address, and the identity that a proxy has found, both by the word of proxies
//! that the operator trusts.

use std::{fmt, net::IpAddr, sync::Arc};

use actix_http::header::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::config::HttpConfig;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Longest identity that is taken, in bytes; a longer one is cut there, so that it counts all the same.
const MAX_IDENTITY_BYTES: usize = 256;

/// Who asks for a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    pub address: Option<IpAddr>,
    /// None where no trusted proxy has named one.
    pub identity: Option<Arc<str>>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.identity, &self.address) {
            (Some(identity), Some(address)) => {
                write!(f, "{} at {address}", identity.escape_debug())
            }
            (Some(identity), None) => write!(f, "{}", identity.escape_debug()),
            (None, Some(address)) => address.fmt(f),
            (None, None) => f.write_str("unknown"),
        }
    }
}

impl Client {
    pub fn of(connected: Option<IpAddr>, headers: &HeaderMap, config: &HttpConfig) -> Self {
        let trusted = &config.trusted_proxies;
        Self {
            address: address(connected, headers, trusted),
            identity: config
                .identity_header
                .as_ref()
                .and_then(|name| identity(connected, headers, trusted, name)),
        }
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|net| net.contains(&address))
}

/// The identity that a trusted proxy states. Of several the last: what stands before it the client
/// itself may have written, to a proxy that only adds.
fn identity(
    connected: Option<IpAddr>,
    headers: &HeaderMap,
    trusted: &[IpNet],
    name: &HeaderName,
) -> Option<Arc<str>> {
    if !is_trusted(connected?, trusted) {
        return None;
    }
    let stated = headers.get_all(name).last()?.as_bytes();
    // Cut behind it: what is left of a longer one is never taken for a short one.
    let stated = stated.trim_ascii();
    let stated = &stated[..stated.len().min(MAX_IDENTITY_BYTES)];
    (!stated.is_empty()).then(|| String::from_utf8_lossy(stated).into())
}

/// The address of who asks: that of the connection, or, where that is a trusted proxy's, the last one in
/// `X-Forwarded-For` that is not. What stands before it anybody may have written.
fn address(connected: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let connected = connected.map(|address| address.to_canonical())?;
    if !is_trusted(connected, trusted) {
        return Some(connected);
    }
    let lines: Vec<_> =
        headers.get_all(FORWARDED_FOR).filter_map(|line| line.to_str().ok()).collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    let mut last = connected;
    for hop in hops {
        // What is no address was written by nobody who can be trusted.
        let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
        last = hop.to_canonical();
        if !is_trusted(last, trusted) {
            break;
        }
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(connected: &str, forwarded: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        address(Some(connected.parse().unwrap()), &headers, &trusted).unwrap().to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_know() {
        // M40
        assert_eq!(of("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(of("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(of("::1", &["1.2.3.4, 198.51.100.7, 10.9.9.9"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &["1.2.3.4", "198.51.100.7, 10.2.3.4"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["1.2.3.4, nobody, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(of("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn an_identity_is_taken_from_trusted_proxies_only_and_is_the_last_that_is_stated() {
        let of = |connected: &str, stated: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in stated {
                headers.append(HeaderName::from_static("x-forwarded-user"), line.parse().unwrap());
            }
            let config = HttpConfig {
                trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
                identity_header: Some(HeaderName::from_static("x-forwarded-user")),
                ..HttpConfig::default()
            };
            let silent = HttpConfig { identity_header: None, ..config.clone() };
            let connected = Some(connected.parse().unwrap());
            assert_eq!(Client::of(connected, &headers, &silent).identity, None);
            Client::of(connected, &headers, &config).identity.map(|one| one.to_string())
        };

        assert_eq!(of("10.0.0.1", &["ann@example.org"]).as_deref(), Some("ann@example.org"));
        assert_eq!(of("::ffff:10.0.0.1", &["ann"]).as_deref(), Some("ann"));
        assert_eq!(of("192.0.2.1", &["ann"]), None, "a client's own word");
        assert_eq!(of("10.0.0.1", &["ann", " bob "]).as_deref(), Some("bob"));
        assert_eq!(of("10.0.0.1", &["  "]), None);
        assert_eq!(of("10.0.0.1", &[]), None);
        let padded = format!("ann{}x", " ".repeat(MAX_IDENTITY_BYTES)).leak();
        assert_eq!(of("10.0.0.1", &[padded]).unwrap().len(), MAX_IDENTITY_BYTES, "not ann");
    }
}
