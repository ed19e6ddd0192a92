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
    (Metrics { state: Arc::new(state), quarantine }, folder)
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
