//! The state directory, and the file that may hold a password.

use std::path::Path;

use super::{people, report::Report};
use crate::{
    cli::{preflight, units},
    config::{Config, Origin, RedisUrl, without_password},
};

/// The free space of the state directory's file system below which nothing works well.
const LITTLE: u64 = 100 << 20;

/// Looks at the state directory.
pub fn check_state_dir(config: &Config, report: &mut Report) {
    report.group("state directory");
    let directory = &config.state_dir;
    if directory.as_os_str().is_empty() {
        return;
    }
    let user = people::user();
    if let Some(why) = preflight::state_dir(directory) {
        let path = directory.display();
        let remedy = match (directory.is_dir(), people::owner(directory)) {
            (true, Some(owner)) => {
                format!("run this as {owner}, whose directory it is, or: chown {user} {path}")
            }
            _ if why.ends_with("is not a directory") => "give a directory in state_dir".to_owned(),
            _ => format!(
                "install -d -o {user} -m 0750 {path} (the service makes /var/lib/nodecast by itself)"
            ),
        };
        report.fail(format!("{path}: {why}"), remedy);
        return;
    }
    let path = directory.display();
    report.ok(match directory.is_dir() {
        true => format!("{user} may write in {path}"),
        false => format!("{path} does not exist yet: `run` makes it, and {user} may"),
    });
    if let Some(free) = preflight::free_bytes(directory).filter(|free| *free < LITTLE) {
        report.fail(
            format!("{}: {} are free", directory.display(), units::bytes(free)),
            "make room: the quarantine and an embedded database lie there",
        );
    }
}

/// Looks whether a password can be read by everybody.
pub fn check_secrets(
    config: &Config,
    file: Option<&Path>,
    origin: impl Fn(&str) -> Origin,
    report: &mut Report,
) {
    let Some(file) = file else { return };
    let redis = |url: &Option<RedisUrl>| url.as_ref().map(|url| url.secret().to_owned());
    let urls = [
        ("store.url", Some(config.store.url.clone())),
        ("whitelist.redis_url", redis(&config.whitelist.redis_url)),
        ("redis.url", redis(&config.redis.url)),
    ];
    for (key, url) in urls {
        let has_password = url.is_some_and(|url| without_password(&url) != url);
        let in_file = matches!(origin(key), Origin::File { .. });
        if !(has_password && in_file) {
            continue;
        }
        let path = file.display();
        match people::is_open_to_all(file) {
            Ok(true) => report.fail(
                format!("{path} holds the password of {key} and everybody may read it"),
                format!("chgrp nodecast {path} && chmod 0640 {path}"),
            ),
            Ok(false) => report.ok(format!("the password of {key} is not for everybody to read")),
            Err(error) => report.warn(format!("{path}: {error}"), "see why it cannot be read"),
        }
    }
}
