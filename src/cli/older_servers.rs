//! The older service's flags of Redis and PostgreSQL, put together to the addresses that the
//! configuration knows.
//!
//! `-redis_*` names the Redis of the whitelist and of the positions, which the older service reads
//! at its start and writes while it runs. Values may be passwords and are not repeated in faults.

use std::collections::BTreeMap;

use crate::config::{Fault, Inputs, Origin};

use super::flags;

/// One of the two servers.
struct Server {
    /// In front of the names of its flags.
    prefix: &'static str,
    /// The part of the address that a name behind the prefix stands for, besides [`COMMON`].
    names: &'static [(&'static str, Part)],
    default_port: u16,
}

impl Server {
    fn names(&self) -> impl Iterator<Item = &'static (&'static str, Part)> {
        COMMON.iter().chain(self.names)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Host,
    Port,
    User,
    Password,
    Database,
    SslMode,
}

/// The names that both have.
const COMMON: &[(&str, Part)] = &[
    ("host", Part::Host),
    ("addr", Part::Host),
    ("port", Part::Port),
    ("user", Part::User),
    ("username", Part::User),
    ("password", Part::Password),
    // As the older service spells it.
    ("pasword", Part::Password),
    ("db", Part::Database),
    ("database", Part::Database),
];

const REDIS: Server = Server { prefix: "redis_", names: &[], default_port: 6379 };

const POSTGRES: Server = Server {
    prefix: "postgres_",
    names: &[("dbname", Part::Database), ("name", Part::Database), ("sslmode", Part::SslMode)],
    default_port: 5432,
};

/// What was given of each server.
#[derive(Default)]
pub struct OlderServers {
    redis: Given,
    postgres: Given,
}

/// Each part with the flag that gave it.
#[derive(Default)]
struct Given {
    parts: BTreeMap<Part, (String, String)>,
    is_faulty: bool,
}

impl OlderServers {
    /// Whether a flag is one of ours.
    pub fn knows(name: &str) -> bool {
        name.starts_with(REDIS.prefix) || name.starts_with(POSTGRES.prefix)
    }

    /// Takes a flag, without its dashes.
    pub fn take(&mut self, name: &str, value: Option<String>, faults: &mut Vec<Fault>) {
        let (server, given) = if name.starts_with(REDIS.prefix) {
            (&REDIS, &mut self.redis)
        } else {
            (&POSTGRES, &mut self.postgres)
        };
        if let Err(why) = given.take(server, name, value) {
            given.is_faulty = true;
            faults.push(fault(name, why));
        }
    }

    /// Adds the addresses to what the configuration is made from.
    pub fn add_to(self, inputs: &mut Inputs) {
        if let Some((flag, url)) = self.redis.url("redis", &REDIS, &mut inputs.faults) {
            let flag = format!("-{flag}");
            inputs.flags.push(flags::text(&flag, "whitelist.redis_url", url));
            let positions = "import-and-mirror".to_owned();
            inputs.flags.push(flags::text(&flag, "redis.positions", positions));
        }
        if let Some((flag, url)) = self.postgres.url("postgres", &POSTGRES, &mut inputs.faults) {
            inputs.flags.push(flags::text(&format!("-{flag}"), "store.url", url));
        }
    }
}

impl Given {
    fn take(&mut self, server: &Server, name: &str, value: Option<String>) -> Result<(), String> {
        let suffix = &name[server.prefix.len()..];
        let known = server.names().find(|(known, _)| *known == suffix);
        let Some((_, part)) = known else {
            let names = server.names().map(|(name, _)| format!("-{}{name}", server.prefix));
            return Err(format!("not known; accepted: {}", names.collect::<Vec<_>>().join(", ")));
        };
        let may_be_empty = matches!(part, Part::User | Part::Password);
        let value = match value {
            Some(value) if may_be_empty || !value.is_empty() => value,
            _ => return Err("has no value".to_owned()),
        };
        let is_number = match part {
            Part::Port => value.parse::<u16>().is_ok_and(|port| port > 0),
            Part::Database if server.prefix == REDIS.prefix => value.parse::<u16>().is_ok(),
            _ => true,
        };
        if !is_number {
            return Err("is not a whole number in its range".to_owned());
        }
        match self.parts.insert(*part, (name.to_owned(), value.clone())) {
            Some((other, before)) if before != value => {
                Err(format!("contradicts -{other}: give one of the two"))
            }
            _ => Ok(()),
        }
    }

    /// The address, and a flag to name it by.
    fn url(
        &self,
        scheme: &str,
        server: &Server,
        faults: &mut Vec<Fault>,
    ) -> Option<(String, String)> {
        let (flag, _) = self.parts.values().next()?;
        if self.is_faulty {
            return None;
        }
        let part = |part| self.parts.get(&part).map(|(_, value)| value.as_str());
        let text = |wanted| part(wanted).filter(|value| !value.is_empty());
        let (host, port) = match (part(Part::Host).unwrap_or("127.0.0.1"), part(Part::Port)) {
            (host, Some(port)) => (host, port.to_owned()),
            (host, None) => match host.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') => (name, port.to_owned()),
                _ => (host, server.default_port.to_string()),
            },
        };
        let host = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let is_redis = server.prefix == REDIS.prefix;
        let user = text(Part::User).map(encoded);
        let user = user.or_else(|| (!is_redis).then(|| "postgres".to_owned())).unwrap_or_default();
        let login = match text(Part::Password) {
            Some(password) => format!("{user}:{}@", encoded(password)),
            None if user.is_empty() => String::new(),
            None => format!("{user}@"),
        };
        let database = match text(Part::Database) {
            Some(database) => encoded(database),
            None if is_redis => "0".to_owned(),
            None => {
                faults.push(fault(flag, "names no database: add -postgres_db".to_owned()));
                return None;
            }
        };
        let mode = part(Part::SslMode).map(|mode| format!("?sslmode={}", encoded(mode)));
        let mode = mode.unwrap_or_default();
        Some((flag.clone(), format!("{scheme}://{login}{host}:{port}/{database}{mode}")))
    }
}

fn fault(name: &str, message: String) -> Fault {
    Fault { origin: Some(Origin::Flag(format!("-{name}"))), message }
}

/// As it stands in an address: what has a meaning there is written as `%XX`.
fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses and the faults of a line of flags.
    fn read(line: &str) -> (Vec<(String, String)>, Vec<String>) {
        let mut servers = OlderServers::default();
        let mut inputs = Inputs::default();
        for flag in line.split(' ') {
            let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
            servers.take(name, Some(value.to_owned()), &mut inputs.faults);
        }
        servers.add_to(&mut inputs);
        let values = inputs.flags.iter().map(|flag| (flag.key.to_owned(), flag.values.join(",")));
        (values.collect(), inputs.faults.iter().map(ToString::to_string).collect())
    }

    fn url(line: &str) -> String {
        let (values, faults) = read(line);
        assert!(faults.is_empty(), "{faults:?}");
        values[0].1.clone()
    }

    // H44
    #[test]
    fn the_parts_of_a_server_become_its_address() {
        for (line, expected) in [
            ("redis_host=cache", "redis://cache:6379/0"),
            ("redis_addr=cache:7000 redis_password=", "redis://cache:7000/0"),
            ("redis_pasword=p@:/% redis_db=3", "redis://:p%40%3A%2F%25@127.0.0.1:6379/3"),
            ("redis_password=x redis_pasword=x redis_user=u", "redis://u:x@127.0.0.1:6379/0"),
            ("redis_host=::1 redis_port=7", "redis://[::1]:7/0"),
            ("postgres_host=db postgres_db=events", "postgres://postgres@db:5432/events"),
            (
                "postgres_user=u postgres_password=p? postgres_dbname=e postgres_sslmode=disable",
                "postgres://u:p%3F@127.0.0.1:5432/e?sslmode=disable",
            ),
        ] {
            assert_eq!(url(line), expected, "{line}");
        }
    }

    // H18, H44
    #[test]
    fn redis_is_that_of_the_whitelist_and_of_the_positions() {
        let (values, _) = read("redis_host=cache");

        let keys: Vec<_> = values.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["whitelist.redis_url", "redis.positions"]);
        assert_eq!(values[1].1, "import-and-mirror");
    }

    #[test]
    fn a_faulty_part_is_named_without_its_value_and_gives_no_address() {
        for (line, flag, why) in [
            ("redis_port=hunter2", "-redis_port", "whole number"),
            ("redis_db=hunter2", "-redis_db", "whole number"),
            ("redis_password=a redis_pasword=hunter2", "-redis_pasword", "-redis_password"),
            ("redis_cluster=hunter2", "-redis_cluster", "-redis_pasword"),
            ("redis_host=", "-redis_host", "no value"),
            ("postgres_password=hunter2", "-postgres_password", "-postgres_db"),
        ] {
            let (values, faults) = read(line);

            assert!(values.is_empty(), "{values:?}");
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(flag) && faults[0].contains(why), "{faults:?}");
            assert!(!faults[0].contains("hunter2"), "{faults:?}");
        }
    }
}
