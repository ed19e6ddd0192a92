//! The URL of a PostgreSQL server, read as the store reads it: what the driver would refuse when it
//! connects is a fault of the configuration, and no reason to try again.
//!
//! Invariant: a message repeats nothing of the URL but names of options. Where a password is not
//! written as it has to be, its parts stand in the place of the host and of the options.

use std::{error::Error, net::IpAddr};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_postgres::{Config, config::Host};

/// A server, and how it wants to be reached.
pub struct PostgresUrl {
    /// What the driver connects with; holds the password. Nothing of TLS is set in it.
    pub config: Config,
    pub mode: TlsMode,
    /// The file with the certificates that are trusted instead of the system's.
    pub roots: Option<String>,
}

/// How a server wants to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    /// The certificate is checked.
    Require,
    /// In plain on this machine, else by TLS.
    ByPlace,
}

impl PostgresUrl {
    /// Reads a URL such as `postgres://user:password@host:5432/database?sslmode=verify-full`.
    ///
    /// # Errors
    /// With what the URL does wrong: `names no host`.
    pub fn parse(url: &str) -> Result<Self, String> {
        if !is_encoded(url) {
            return Err(
                "has a % that is not followed by two hexadecimal digits (a % in a password is \
                        written as %25)"
                    .to_owned(),
            );
        }
        let (url, mode, roots) = take_tls_parameters(url)?;
        let config: Config = url.parse().map_err(|error| refusal(&error))?;
        if config.get_hosts().is_empty() {
            return Err("names no host; such as postgres://HOST/DATABASE".to_owned());
        }
        if !config.get_hosts().iter().all(is_possible) {
            return Err("has a host that is neither a name nor an address (an @ in a password is \
                        written as %40)"
                .to_owned());
        }
        let (hosts, ports) = (config.get_hosts().len(), config.get_ports());
        if ports.contains(&0) || (ports.len() > 1 && ports.len() != hosts) {
            return Err(BAD_PORT.to_owned());
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err("names no database; such as postgres://HOST/DATABASE".to_owned());
        }
        Ok(Self { config, mode, roots })
    }

    /// Reads the certificates of the file that is named, if one is: also where the server is reached
    /// in plain, for who names a file means it.
    ///
    /// # Errors
    /// With the file, and what is wrong with it.
    pub fn trusted(&self) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
        let Some(path) = &self.roots else { return Ok(None) };
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let found: Vec<_> = read.map_err(|error| format!("sslrootcert {path}: {error}"))?;
        match found.is_empty() {
            true => Err(format!("sslrootcert {path} holds no certificate")),
            false => Ok(Some(found)),
        }
    }
}

const BAD_PORT: &str = "has a port that is not a whole number from 1 to 65535";

/// What the driver's parser says, without what it repeats.
fn refusal(error: &tokio_postgres::Error) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let option = cause.strip_prefix("unknown option `").and_then(|rest| rest.strip_suffix('`'));
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match (option, cause.as_str()) {
        (Some(option), _) if is_name(option) => format!("has an unknown option {option}"),
        (_, "invalid value for option `port`") => BAD_PORT.to_owned(),
        // The names of options are the driver's own here.
        (_, cause) if cause.starts_with("invalid value for option") => format!("has an {cause}"),
        _ => "is not understood".to_owned(),
    }
}

/// Whether every `%` begins a byte; the driver would take another one as it stands.
fn is_encoded(url: &str) -> bool {
    let is_byte = |part: &str| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    url.split('%').skip(1).all(is_byte)
}

fn is_possible(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let is_plain = |c: char| c.is_alphanumeric() || "-._".contains(c);
            let is_name = !name.is_empty() && name.chars().all(is_plain);
            is_name || name.parse::<IpAddr>().is_ok()
        }
    }
}

/// Takes `sslmode` and `sslrootcert` out of a URL: the driver knows less of them than we do.
fn take_tls_parameters(url: &str) -> Result<(String, TlsMode, Option<String>), String> {
    let (mut mode, mut roots) = (TlsMode::ByPlace, None);
    let Some((base, parameters)) = url.split_once('?') else {
        return Ok((url.to_owned(), mode, roots));
    };
    let mut others = Vec::new();
    for parameter in parameters.split('&') {
        match parameter.split_once('=') {
            Some(("sslmode", "disable")) => mode = TlsMode::Disable,
            // Each of them checks the certificate: encryption to an unknown server hides nothing.
            Some(("sslmode", "require" | "verify-ca" | "verify-full")) => mode = TlsMode::Require,
            Some(("sslmode", _)) => {
                return Err("has an sslmode that is not disable, require or verify-full".to_owned());
            }
            Some(("sslrootcert", path)) => roots = Some(path.to_owned()),
            _ => others.push(parameter),
        }
    }
    let url = if others.is_empty() { base.into() } else { format!("{base}?{}", others.join("&")) };
    Ok((url, mode, roots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_no_server_can_be_reached_by_is_refused_without_repeating_it() {
        for (url, why) in [
            ("postgres://h/d?sslmode=bogus", "an sslmode"),
            ("postgres://h/d?sslmode=prefer", "an sslmode"),
            ("postgres:///d", "no host"),
            ("postgres://:5432/d", "a host"),
            ("postgres://h h/d", "a host"),
            ("postgres://u:sec@ret@h/d", "%40"),
            ("postgres://u:%zzret@h/d", "%25"),
            ("postgres://u:ret%@h/d", "%25"),
            ("postgres://u:ret%2@h/d", "%25"),
            ("postgres://h:0/d", "a port"),
            ("postgres://h:70000/d", "a port"),
            ("postgres://h:x/d", "a port"),
            ("postgres://h", "no database"),
            ("postgres://h/", "no database"),
            ("postgres://h/d?connect_timeout=soon", "`connect_timeout`"),
            ("postgres://h/d?sslmod=require", "option sslmod"),
            ("postgres://h/d?port=1,2", "a port"),
            // No option has such a name: it can be a part of a password.
            ("postgres://u:12/a?4ret=x", "is not understood"),
        ] {
            let read = PostgresUrl::parse(url);

            let said = read.err().unwrap_or_else(|| panic!("{url} is accepted"));
            assert!(said.contains(why), "{url}: {said}");
            assert!(!said.contains("ret"), "{url}: {said}");
        }
    }

    #[test]
    fn every_way_to_name_a_server_is_read() {
        for url in [
            "postgres://h/d",
            "postgresql://u:p%40@db-1.example.com:5433/d?sslmode=verify-full&sslrootcert=/ca.pem",
            "postgres://a,b:5433/d?target_session_attrs=read-write",
            "postgres://[::1]:5432/d?connect_timeout=3",
            "postgres://%2Frun%2Fpostgresql/d",
            "postgres:///d?host=/run/postgresql",
            "postgres://127.0.0.1/d?sslmode=disable",
            "postgres://h/d?connect_timeout=3&sslmode=require&application_name=a",
        ] {
            let read = PostgresUrl::parse(url);
            assert!(read.is_ok(), "{url}: {:?}", read.err());
        }
        let url = PostgresUrl::parse("postgres://h/d?sslrootcert=/ca.pem&sslmode=require").unwrap();
        assert_eq!((url.mode, url.roots.as_deref()), (TlsMode::Require, Some("/ca.pem")));
    }
}
