//! The whitelist: does it load, from wherever it comes; and the Redis of the older service's
//! positions.

use std::time::Duration;

use bb8_redis::redis;

use super::{people, report::Report};
use crate::{
    cli::units,
    config::{Config, Positions, RedisUrl},
    mirror, redis_client,
    whitelist::read_list_into,
};

/// How long Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn check(config: &Config, report: &mut Report) {
    report.group("whitelist");
    let whitelist = &config.whitelist;
    if whitelist.all {
        report.ok("everybody is kept");
        return;
    }
    if let Some(path) = &whitelist.file {
        let mut addresses = 0;
        let read = read_list_into(path, |_| {
            addresses += 1;
            Ok(())
        });
        match read {
            Ok(_) => {
                let addresses = units::count(addresses, "address");
                report.ok(format!("{}: {addresses}", path.display()));
            }
            Err(fault) => {
                let (what, remedy) = people::hindrance(path).unwrap_or_else(|| {
                    let remedy = match path.is_file() {
                        true => {
                            "one address a line: 0x and 40 hexadecimal digits; # starts a comment"
                        }
                        false => "make that file, or correct whitelist.file",
                    };
                    (fault.to_string(), remedy.to_owned())
                });
                report.fail(format!("{}: {what}", path.display()), remedy);
            }
        }
    }
    if !whitelist.addresses.is_empty() {
        let addresses = units::count(whitelist.addresses.len() as u64, "address");
        report.ok(format!("{addresses} in the configuration"));
    }
    if let Some(url) = &whitelist.redis_url {
        let key = &whitelist.redis_key;
        match tokio::time::timeout(PATIENCE, ask(url, key)).await {
            Ok(Ok(found)) => judge(&found, url, key, report),
            Ok(Err(error)) => {
                report.fail(format!("{url}: {error}"), remedy(&error, "whitelist.redis_url"));
            }
            Err(_) => report.fail(
                format!("{url} does not answer within {} s", PATIENCE.as_secs()),
                "see whether Redis runs there, and correct whitelist.redis_url",
            ),
        }
    }
}

/// Asks the Redis of the positions as the daemon does that imports them.
pub async fn check_positions(config: &Config, report: &mut Report) {
    let positions = config.redis.positions;
    let Some(url) = config.positions_url().filter(|_| positions != Positions::Off) else { return };
    report.group("positions");
    let key = if config.redis.url.is_some() { "redis.url" } else { "whitelist.redis_url" };
    let (what, remedy) = match tokio::time::timeout(PATIENCE, ask_positions(url)).await {
        Ok(Ok(())) => return report.ok(format!("{url} answers")),
        Ok(Err(error)) => (format!("{url}: {error}"), remedy(&error, key)),
        Err(_) => (
            format!("{url} does not answer within {} s", PATIENCE.as_secs()),
            format!("see whether Redis runs there, and correct {key}"),
        ),
    };
    if positions.imports() {
        report.fail(what, format!("{remedy}; or set redis.positions to \"off\" or \"mirror\""));
    } else {
        // The daemon starts without it and goes on trying.
        report.warn(what, remedy);
    }
}

async fn ask_positions(url: &RedisUrl) -> Result<(), redis::RedisError> {
    let mut connection = redis_client::connect(&redis_client::open(url)?).await?;
    redis::cmd("EXISTS").arg(mirror::KEYS.as_slice()).exec_async(&mut connection).await
}

/// What to do about a Redis that refuses us or is away, by the key that names it.
fn remedy(error: &redis::RedisError, key: &str) -> String {
    let refusals = ["NOAUTH", "WRONGPASS", "NOPERM"];
    if error.kind() == redis::ErrorKind::AuthenticationFailed
        || error.code().is_some_and(|code| refusals.contains(&code))
    {
        format!("correct user and password in {key}")
    } else {
        format!("see whether Redis runs there, and correct {key}")
    }
}

/// The key as it is in Redis.
struct Found {
    kind: String,
    members: u64,
}

async fn ask(url: &RedisUrl, key: &str) -> Result<Found, redis::RedisError> {
    let mut connection = redis_client::connect(&redis_client::open(url)?).await?;
    let kind: String = redis::cmd("TYPE").arg(key).query_async(&mut connection).await?;
    let members = match kind.as_str() {
        "zset" => redis::cmd("ZCARD").arg(key).query_async(&mut connection).await?,
        "set" => redis::cmd("SCARD").arg(key).query_async(&mut connection).await?,
        _ => 0,
    };
    Ok(Found { kind, members })
}

fn judge(found: &Found, url: &RedisUrl, key: &str, report: &mut Report) {
    let members = units::count(found.members, "member");
    match found.kind.as_str() {
        "zset" => report.ok(format!("{url}: the sorted set {key} has {members}")),
        "set" => report.ok(format!("{url}: the set {key} has {members}")),
        "none" => report.fail(
            format!("{url}: there is no key {key}"),
            "fill it, or correct whitelist.redis_key and the number of the database in the URL",
        ),
        other => report.fail(
            format!("{url}: the key {key} is a {other}"),
            "give a sorted set or a set in whitelist.redis_key",
        ),
    }
}
