//! The whitelist: does it load, from wherever it comes.

use std::time::Duration;

use bb8_redis::redis;

use super::{people, report::Report};
use crate::{
    config::{Config, RedisUrl},
    redis_client,
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
            Ok(_) => report.ok(format!("{}: {addresses} addresses", path.display())),
            Err(fault) => {
                let (what, remedy) = people::hindrance(path).unwrap_or_else(|| {
                    let remedy =
                        "one address a line: 0x and 40 hexadecimal digits; # starts a comment";
                    (fault.to_string(), remedy.to_owned())
                });
                report.fail(format!("{}: {what}", path.display()), remedy);
            }
        }
    }
    if !whitelist.addresses.is_empty() {
        report.ok(format!("{} addresses in the configuration", whitelist.addresses.len()));
    }
    if let Some(url) = &whitelist.redis_url {
        let key = &whitelist.redis_key;
        match tokio::time::timeout(PATIENCE, ask(url, key)).await {
            Ok(Ok(found)) => judge(&found, url, key, report),
            Ok(Err(error)) => {
                let remedy = if error.kind() == redis::ErrorKind::AuthenticationFailed
                    || error
                        .code()
                        .is_some_and(|code| ["NOAUTH", "WRONGPASS", "NOPERM"].contains(&code))
                {
                    "correct user and password in whitelist.redis_url"
                } else {
                    "see whether Redis runs there, and correct whitelist.redis_url"
                };
                report.fail(format!("{url}: {error}"), remedy);
            }
            Err(_) => report.fail(
                format!("{url} does not answer within {} s", PATIENCE.as_secs()),
                "see whether Redis runs there, and correct whitelist.redis_url",
            ),
        }
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
    let members = found.members;
    match found.kind.as_str() {
        "zset" => report.ok(format!("{url}: the sorted set {key} has {members} members")),
        "set" => report.ok(format!("{url}: the set {key} has {members} members")),
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
