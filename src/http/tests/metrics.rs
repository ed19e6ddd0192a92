//! The page of metrics: its table in the documentation, its names, and what was never measured.

use std::collections::BTreeMap;

use super::*;
use crate::{
    http::metrics::{Metrics, page},
    source::quarantine::Quarantine,
};

/// One family as the page declares it.
#[derive(Debug, Default)]
struct Declared {
    help: String,
    kind: String,
    labels: Vec<String>,
    samples: usize,
}

fn metrics(state: ApiState) -> (Metrics, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let quarantine = Arc::new(Quarantine::open(folder.path(), 4_096).unwrap());
    (Metrics { state: Arc::new(state), quarantine, queued: None }, folder)
}

/// The families of a page in their order.
fn declared(page: &str) -> Vec<(String, Declared)> {
    let mut found: Vec<(String, Declared)> = Vec::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            let declared = Declared { help: help.to_owned(), ..Declared::default() };
            found.push((name.to_owned(), declared));
            continue;
        }
        let (name, family) = found.last_mut().unwrap();
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family.kind = kind.strip_prefix(&format!("{name} ")).unwrap().to_owned();
            continue;
        }
        assert!(line.starts_with(name.as_str()), "{line} stands below {name}");
        let labels = line.split_once('{').map_or("", |(_, labels)| labels);
        let parts = labels.split("=\"").filter(|part| !part.contains("} "));
        let names = parts.map(|part| part.rsplit(['"', ',']).next().unwrap().to_owned());
        family.labels = names.filter(|name| !name.is_empty() && name != "le").collect();
        family.samples += 1;
    }
    found
}

#[test]
fn the_documentation_has_a_row_for_every_metric_and_no_other() {
    let state = state(&["/data"]);
    let fills = stream(&state, "/data", "fills");
    line_came(&fills, NOW);
    fills.last_block_time.set(NOW.0);
    let (metrics, _folder) = metrics(state);

    let declared = declared(&page(&metrics, NOW));

    let documented = include_str!("../../../docs/http.md").lines();
    let documented: Vec<_> = documented
        .filter(|row| row.starts_with("| `nodecast_") || row.starts_with("| `process_"))
        .collect();
    let rows = declared.iter().map(|(name, family)| {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {} | {} | {} |", family.kind, labels.join(", "), family.help)
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(documented, rows, "the table has to be:\n{}", rows.join("\n"));
}

#[test]
fn names_follow_the_rules_and_are_declared_once() {
    let (metrics, _folder) = metrics(state(&["/data"]));

    let declared = declared(&page(&metrics, NOW));

    let mut names = BTreeMap::new();
    for (name, family) in &declared {
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        // The names of the process are those of everybody.
        let is_named = name.starts_with("nodecast_") || name.starts_with("process_");
        assert!(is_named && name.bytes().all(lower), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}");
        // Base units only.
        for unit in ["_ms", "_micros", "_milli", "_minutes", "_kib", "_mib", "_percent"] {
            assert!(!name.contains(unit), "{name}");
        }
        if family.kind == "histogram" {
            assert!(name.ends_with("_seconds"), "{name}");
        }
        assert!(family.help.ends_with('.') || family.help.contains(": "), "{name} says nothing");
        assert!(names.insert(name, ()).is_none(), "{name} is declared twice");
    }
    assert!(names.len() > 60, "only {} families", names.len());
}

#[test]
fn what_was_never_measured_has_no_sample_and_what_was_has_its_value() {
    let state = state(&["/data"]);
    let fills = stream(&state, "/data", "fi\"lls");
    let (metrics, _folder) = metrics(state);
    let never = [
        "nodecast_source_lag_seconds",
        "nodecast_source_node_lag_seconds",
        "nodecast_source_last_line_timestamp_seconds",
        "nodecast_source_last_block",
        "nodecast_store_last_commit_timestamp_seconds",
        "nodecast_store_failing_since_timestamp_seconds",
        "nodecast_store_bytes",
        "nodecast_store_free_disk_bytes",
    ];

    let before = page(&metrics, NOW);
    line_came(&fills, NOW.minus(2 * SECOND));
    fills.last_block_time.set(NOW.minus(5 * SECOND).0);
    metrics.state.stats.store.failing_since.set(NOW.0);
    let after = page(&metrics, NOW);

    let samples = |page: &str, name: &str| {
        declared(page).into_iter().find(|(known, _)| known == name).unwrap().1.samples
    };
    for name in never {
        assert_eq!(samples(&before, name), 0, "{name}");
    }
    for line in [
        r#"nodecast_source_lag_seconds{stream="/data/fi\"lls"} 2"#,
        r#"nodecast_source_node_lag_seconds{stream="/data/fi\"lls"} 3"#,
        "nodecast_store_failing_since_timestamp_seconds 1773532800",
        "nodecast_degradations 1",
        "nodecast_ready 1",
    ] {
        assert!(after.lines().any(|written| written == line), "{line} is not in\n{after}");
    }
}

#[test]
fn each_source_of_the_whitelist_has_its_own_figures() {
    let mut state = state(&[]);
    state.whitelist = Box::new(|| whitelist(Some("away")));
    let (metrics, _folder) = metrics(state);

    let page = page(&metrics, NOW);

    for line in [
        "nodecast_whitelist_addresses 5",
        r#"nodecast_whitelist_source_addresses{source="file"} 2"#,
        r#"nodecast_whitelist_source_addresses{source="redis"} 4"#,
        r#"nodecast_whitelist_problem{source="file"} 0"#,
        r#"nodecast_whitelist_problem{source="redis"} 1"#,
        r#"nodecast_whitelist_skipped{source="redis"} 1"#,
    ] {
        assert!(page.lines().any(|written| written == line), "{line} is not in\n{page}");
    }
}

/// Bounds whose fill has another name than theirs without `limit`.
const FILLS: [(&str, &str); 4] = [
    ("nodecast_store_batch_limit_events", "nodecast_store_queued_events"),
    ("nodecast_backfill_limit_bytes_per_second", "nodecast_backfill_read_bytes_total"),
    ("nodecast_session_subscriptions_limit", "nodecast_subscriptions"),
    ("nodecast_session_outbox_limit_bytes", "nodecast_outbox_bytes"),
];

/// Keys that bound one line, frame, read or request, and nothing that fills: how often they were met
/// is a counter, or an answer to who asked.
const OF_ONE: [&str; 16] = [
    "session.max_users_per_subscription",
    "session.max_per_address",
    "session.max_per_identity",
    "session.max_messages_per_minute",
    "session.max_bytes_per_minute",
    "source.max_line_bytes",
    "source.read_bytes",
    "store.batch_bytes",
    "http.max_body_bytes",
    "http.max_page_size",
    "http.max_limit",
    "official.max_rows",
    "session.send_buffer_bytes",
    "session.max_frame_bytes",
    "session.compress_min_bytes",
    "health.max_lag",
];

#[test]
fn every_bound_stands_beside_its_fill() {
    let (metrics, _folder) = metrics(state(&["/data"]));

    let declared = declared(&page(&metrics, NOW));

    let names: Vec<_> = declared.iter().map(|(name, _)| name.as_str()).collect();
    let bounds: Vec<_> = names.iter().filter(|name| name.contains("_limit")).collect();
    for bound in &bounds {
        let renamed = FILLS.iter().find(|(known, _)| known == *bound).map(|(_, fill)| *fill);
        let fill = renamed.map_or_else(|| bound.replace("_limit", ""), str::to_owned);
        assert!(names.contains(&&*fill), "{bound} has no {fill}");
    }
    assert!(bounds.len() >= 16, "only {bounds:?}");
}

#[test]
fn every_key_that_bounds_what_fills_is_named_by_a_metric() {
    let (metrics, _folder) = metrics(state(&["/data"]));
    let config: toml::Table = include_str!("../../../config/nodecast.toml").parse().unwrap();

    let declared = declared(&page(&metrics, NOW));

    let (mut bounds, mut named) = (0, 0);
    for (section, keys) in config.iter().filter_map(|(name, keys)| Some((name, keys.as_table()?))) {
        for key in keys.keys() {
            let is_bound = ["max_", "_bytes", "_events", "_records", "_connections"];
            let key = format!("{section}.{key}");
            if !is_bound.iter().any(|part| key.contains(part)) || key == "whitelist.max_shrink" {
                continue;
            }
            bounds += 1;
            let is_named = declared
                .iter()
                .any(|(name, family)| name.contains("_limit") && names_key(&family.help, &key));
            named += usize::from(is_named);
            assert!(is_named != OF_ONE.contains(&&*key), "{key}");
        }
    }
    assert_eq!(bounds, named + OF_ONE.len());
}

/// Whether a text has a key as a whole word.
fn names_key(text: &str, key: &str) -> bool {
    let of_a_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    text.split(|c| !of_a_key(c)).any(|word| word.trim_end_matches('.') == key)
}

#[test]
fn a_bound_says_what_holds_now() {
    let state = state(&["/data"]);
    let stats = state.stats.clone();
    stats.sessions.users.set(7);
    stats.sessions.refused_users.add(2);
    stats.router.ledger_pieces.set(5);
    stats.control_clients.set(1);
    let (metrics, _folder) = metrics(state);

    let page = page(&metrics, NOW);

    for line in [
        "nodecast_store_read_connections 3",
        "nodecast_store_read_connections_limit 4",
        "nodecast_session_users 7",
        "nodecast_session_users_limit 100000",
        r#"nodecast_session_refusals_total{reason="too_many_users"} 2"#,
        r#"nodecast_router_ledger_entries{memory="pieces"} 5"#,
        "nodecast_control_clients 1",
        "nodecast_control_clients_limit 16",
        "nodecast_backfill_jobs_limit 8",
    ] {
        assert!(page.lines().any(|written| written == line), "{line} is not in\n{page}");
    }
}
