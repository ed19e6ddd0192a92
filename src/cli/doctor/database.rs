//! The database: reachable, ours, with room and rights, and how long the disk will do.

use std::time::Duration;

use super::{people, report::Report};
use crate::{
    cli::{preflight, units},
    config::{Config, sqlite_path, without_password},
    event::Timestamp,
    store::{
        StoreError,
        inspect::{Content, Inspection, ServerFacts, inspect},
    },
};

/// The daemon's connections beside those for history: the writer, its own questions, and one more
/// while it migrates.
const OWN_CONNECTIONS: i64 = 3;

/// Less than this of history says nothing about a rate.
const LEAST_HISTORY: Duration = Duration::from_secs(3_600);

/// The disk should do for so long.
const FEW_DAYS: f64 = 7.0;

const DAY: Duration = Duration::from_secs(86_400);

/// Looks at the database, and at the disks. `rates`: node directories and the bytes that their files
/// grow by in an hour.
pub async fn check(config: &Config, rates: &[(String, u64)], report: &mut Report) {
    report.group("database");
    let content = check_store(config, report).await;
    report.group("disk");
    store_disk(config, content.as_ref(), report);
    for (node, rate) in rates {
        node_disk(node, *rate, report);
    }
}

async fn check_store(config: &Config, report: &mut Report) -> Option<Content> {
    let shown = without_password(&config.store.url);
    if let Some(why) = preflight::database(config) {
        report.fail(format!("{shown}: {why}"), remedy_of_place(&config.store.url));
        return None;
    }
    match inspect(&config.store.url).await {
        Ok(None) => {
            report.ok(format!("{shown} does not exist yet: `run` makes it"));
            None
        }
        Ok(Some(found)) => {
            judge(config, &found, report);
            found.content
        }
        Err(error) => {
            let remedy = remedy_of_failure(&error, sqlite_path(&config.store.url).is_some());
            report.fail(format!("{shown}: {error}"), remedy);
            None
        }
    }
}

/// What to do about a place that cannot be used.
fn remedy_of_place(url: &str) -> String {
    let Some(path) = sqlite_path(url) else {
        return "correct sslrootcert in store.url".to_owned();
    };
    if let Some((_, remedy)) = people::hindrance(path) {
        return remedy;
    }
    match people::owner(path) {
        Some(owner) => {
            format!("run this as {owner}, whose file it is, or correct store.url")
        }
        None => "make that directory for the daemon's user, or correct store.url".to_owned(),
    }
}

/// What to do about a database that is there and does not do, by what it said.
fn remedy_of_failure(error: &StoreError, is_embedded: bool) -> &'static str {
    let text = error.to_string();
    let says = |part: &str| text.contains(part);
    if is_embedded {
        return match error {
            StoreError::Unavailable(_) => "see whether the disk is well, and who holds the file",
            _ => "give another file in store.url, or restore a backup",
        };
    }
    if says("pg_hba.conf") {
        "let this machine and user in: pg_hba.conf of the server"
    } else if says("certificate") || says("TLS") {
        "name the server's certificate by ?sslrootcert=FILE in store.url, or trust the network by \
         ?sslmode=disable"
    } else if says("password") || says("authentication") {
        "correct user and password in store.url"
    } else if says("role") && says("does not exist") {
        "createuser --pwprompt, or correct the user in store.url"
    } else if says("does not exist") {
        "createdb --owner=USER, or correct the database in store.url"
    } else if matches!(error, StoreError::Unavailable(_)) {
        "see whether the server runs there and takes connections (pg_isready), or correct store.url"
    } else {
        "correct store.url, or the rights of its user"
    }
}

fn judge(config: &Config, found: &Inspection, report: &mut Report) {
    report.ok(format!("{}: {}", found.store, found.version));
    match (&found.schema.unknown[..], &found.schema.pending[..]) {
        ([], []) => report.ok("its tables are those of this program"),
        ([newer, ..], _) => report.fail(
            format!("it was made by a newer nodecast (migration {newer} is unknown here)"),
            "install that version, or give another database",
        ),
        (_, pending) => report.ok(format!(
            "{} to be applied: `run` does it, or `nodecast db migrate`",
            units::count(pending.len() as u64, "migration")
        )),
    }
    if let Some(holder) = &found.holder {
        report.ok(format!("a daemon writes to it: {holder}"));
    }
    if let Some(server) = &found.server {
        judge_server(config, server, found.holder.is_some(), report);
    }
    if let Some(content) = found.content.as_ref().filter(|content| content.open_gaps > 0) {
        report.warn(
            format!(
                "{} open: blocks that the node's files lack",
                units::count(content.open_gaps, "gap")
            ),
            "GET /v1/status shows them; the directory of another node closes them (source.data_dirs)",
        );
    }
}

fn judge_server(config: &Config, server: &ServerFacts, is_running: bool, report: &mut Report) {
    if server.is_read_only {
        report.fail("it only reads: a replica, or set so", "give the primary in store.url");
    }
    for missing in &server.missing_rights {
        report.fail(format!("{} {}", server.user, missing.what), missing.remedy.clone());
    }
    let wanted = i64::from(config.store.read_connections) + OWN_CONNECTIONS;
    let left = server.max_connections - server.used_connections;
    let text = format!(
        "{} of {} connections are in use, we want {wanted}",
        server.used_connections, server.max_connections
    );
    // A running daemon has its own already.
    if left >= wanted || is_running {
        report.ok(text);
    } else {
        report.warn(text, "raise max_connections, or lower store.read_connections");
    }
}

/// How long the disk of an embedded store will do at the rate of what is stored.
fn store_disk(config: &Config, content: Option<&Content>, report: &mut Report) {
    let Some(path) = sqlite_path(&config.store.url) else {
        let grows = match content.and_then(rate_per_day) {
            Some(rate) => format!("the store grows by {} a day", units::bytes(rate)),
            None => "how fast the store grows is not known yet".to_owned(),
        };
        report.ok(format!("the disk of the server cannot be seen from here; {grows}"));
        return;
    };
    let Some(free) = preflight::free_bytes(path) else { return };
    let shown = format!("{} are free for the database", units::bytes(free));
    let floor = config.store.min_free_bytes;
    if free < floor {
        report.fail(
            format!(
                "{shown}, store.min_free_bytes is {}: events go before their time",
                units::bytes(floor)
            ),
            "make room, or lower store.min_free_bytes",
        );
        return;
    }
    let rate = content.and_then(|content| Some((content, rate_per_day(content)?)));
    let Some((content, rate)) = rate.filter(|(_, rate)| *rate > 0) else {
        report.ok(format!("{shown}; how fast it grows is not known yet"));
        return;
    };
    let days = days_left(content, rate, free - floor, config.store.retention);
    let grows = format!("{shown}; it grows by {} a day", units::bytes(rate));
    match days {
        None => report.ok(format!(
            "{grows}, which is enough for the retention of {}",
            units::span(config.store.retention)
        )),
        Some(days) => {
            let text = format!(
                "{grows} and will be full in {}, before the retention of {}",
                units::span(DAY.mul_f64(days)),
                units::span(config.store.retention)
            );
            let remedy = "make room, or shorten store.retention";
            if days < FEW_DAYS { report.fail(text, remedy) } else { report.warn(text, remedy) }
        }
    }
}

fn rate_per_day(content: &Content) -> Option<u64> {
    let held = content.newest?.since(content.oldest?);
    (held >= LEAST_HISTORY)
        .then(|| (content.bytes as f64 / held.as_secs_f64() * DAY.as_secs_f64()) as u64)
}

/// Days until the room is used up; `None` when retention stops the growth before.
fn days_left(content: &Content, rate: u64, room: u64, retention: Duration) -> Option<f64> {
    let held = content.newest.unwrap_or_default().since(content.oldest.unwrap_or(Timestamp(0)));
    let until_steady = retention.saturating_sub(held).as_secs_f64() / DAY.as_secs_f64();
    let until_full = room as f64 / rate as f64;
    (until_full < until_steady).then_some(until_full)
}

/// The node's own disk: a node that cannot write stops, and we with it.
fn node_disk(node: &str, rate: u64, report: &mut Report) {
    let Some(free) = preflight::free_bytes(node.as_ref()) else { return };
    let days = free as f64 / (rate as f64 * 24.0);
    let text = format!(
        "{node}: {} are free, its files grow by {} a day: {} if nobody prunes them",
        units::bytes(free),
        units::bytes(rate * 24),
        units::span(DAY.mul_f64(days.min(3_650.0)))
    );
    if days < 1.0 {
        report.fail(text, "prune old hour files: a node that cannot write stops");
    } else if days < FEW_DAYS {
        report.warn(text, "see that old hour files are pruned");
    } else {
        report.ok(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Mark;

    /// How many lines are to be looked at, and how many are wrong.
    fn verdict(look: impl FnOnce(&mut Report)) -> (usize, usize) {
        let mut report = Report::default();
        look(&mut report);
        (report.count(Mark::Warn), report.count(Mark::Fail))
    }

    #[test]
    fn what_keeps_a_daemon_from_writing_is_wrong_and_what_may_become_short_is_to_look_at() {
        let judged = |change: fn(&mut Inspection, &mut ServerFacts)| {
            let mut found = Inspection::default();
            let mut server =
                ServerFacts { max_connections: 97, used_connections: 1, ..Default::default() };
            change(&mut found, &mut server);
            found.server = Some(server);
            verdict(|report| judge(&Config::default(), &found, report))
        };

        assert_eq!(judged(|_, _| {}), (0, 0));
        assert_eq!(judged(|found, _| found.schema.pending = vec!["2".to_owned()]), (0, 0));
        assert_eq!(judged(|found, _| found.schema.unknown = vec!["9".to_owned()]), (0, 1));
        assert_eq!(judged(|_, server| server.is_read_only = true), (0, 1));
        assert_eq!(judged(|_, server| server.used_connections = 96), (1, 0));
        // A running daemon has its own already.
        let full = ServerFacts { max_connections: 97, used_connections: 96, ..Default::default() };
        let running = |report: &mut Report| judge_server(&Config::default(), &full, true, report);
        assert_eq!(verdict(running), (0, 0));
        let with_gap = judged(|found, _| {
            found.content = Some(Content { open_gaps: 1, ..Content::default() });
        });
        assert_eq!(with_gap, (1, 0));
    }

    #[test]
    fn the_remedy_fits_what_the_database_said() {
        let unusable = |text: &str| StoreError::Unusable(text.to_owned());
        let away = |text: &str| StoreError::Unavailable(text.to_owned());
        for (error, is_embedded, remedy) in [
            (away("Connection refused"), false, "pg_isready"),
            (away("disk I/O error"), true, "the disk"),
            (unusable("file is not a database"), true, "another file"),
            (unusable("password authentication failed for user \"u\""), false, "user and password"),
            (unusable("database \"d\" does not exist"), false, "createdb"),
            (unusable("role \"u\" does not exist"), false, "createuser"),
            (unusable("no pg_hba.conf entry for host \"::1\""), false, "pg_hba.conf"),
            (away("invalid peer certificate: UnknownIssuer"), false, "sslrootcert"),
        ] {
            let said = remedy_of_failure(&error, is_embedded);
            assert!(said.contains(remedy), "{error}: {said}");
        }
    }

    #[test]
    fn a_disk_without_room_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.url = format!("sqlite:{}", folder.path().join("n.db").display());
        config.store.min_free_bytes = 0;
        assert_eq!(verdict(|report| store_disk(&config, None, report)), (0, 0));
        config.store.min_free_bytes = u64::MAX;
        assert_eq!(verdict(|report| store_disk(&config, None, report)), (0, 1));

        let node = folder.path().display().to_string();
        assert_eq!(verdict(|report| node_disk(&node, 1, report)), (0, 0));
        assert_eq!(verdict(|report| node_disk(&node, u64::MAX / 24, report)), (0, 1));
    }

    #[test]
    fn the_disk_is_measured_against_what_retention_will_keep() {
        let days = |days: u64| DAY * days as u32;
        let content = |held: u64| Content {
            bytes: held * 1_000,
            oldest: Some(Timestamp(0)),
            newest: Some(Timestamp(0).plus(days(held))),
            ..Content::default()
        };

        let young = content(2);
        let rate = rate_per_day(&young).unwrap();

        assert_eq!(rate, 1_000);
        // Five days of growth are to come until retention takes as much as arrives.
        assert_eq!(days_left(&young, rate, 5_001, days(7)), None);
        assert_eq!(days_left(&young, rate, 3_000, days(7)), Some(3.0));
        assert_eq!(days_left(&content(7), rate, 10, days(7)), None);
        assert_eq!(rate_per_day(&Content::default()), None);
    }
}
