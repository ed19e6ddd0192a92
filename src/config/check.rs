//! Rules that concern more than one key, checked when all layers are laid.

use std::{fs, path::Path};

use super::{
    Config,
    fault::{Fault, Origin},
    load::Layers,
};

/// Two keys whose values exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The key that is named first.
    pub key: &'static str,
    pub other: &'static str,
    /// What must hold, and what to give.
    pub rule: &'static str,
}

/// The conflicts of all sections.
fn conflicts(config: &Config) -> Vec<Conflict> {
    let of_sections =
        [config.source.conflicts(), config.whitelist.conflicts(), config.store.conflicts()];
    let mut conflicts = of_sections.concat();
    conflicts.extend(config.official.conflict(config.http.listen));
    conflicts.extend(config.official.adding_conflicts(&config.http, &config.whitelist));
    conflicts
}

/// Finds keys whose values exclude each other.
pub(super) fn no_conflicts(layers: &mut Layers) {
    for conflict in conflicts(&layers.config) {
        if layers.refused.contains(conflict.key) || layers.refused.contains(conflict.other) {
            continue;
        }
        let shown = |path: &str| {
            let key = layers.keys.iter().find(|key| key.path == path);
            let value = key.and_then(|key| key.show(&layers.config));
            format!("{path} = {}", value.unwrap_or_default())
        };
        let origin_of = |path| layers.origins.get(path).cloned().unwrap_or(Origin::Default);
        let message = |first, second| {
            let from = origin_of(second);
            format!("{} contradicts {} ({from}): {}", shown(first), shown(second), conflict.rule)
        };
        // A default cannot be mended: the fault is told where somebody wrote something.
        let (first, second) = match origin_of(conflict.key) {
            Origin::Default => (conflict.other, conflict.key),
            _ => (conflict.key, conflict.other),
        };
        let (origin, message) = (origin_of(first), message(first, second));
        layers.faults.push(Fault { origin: Some(origin), message });
    }
}

/// Refuses a node directory that is named twice, also through a link: each of its events would be
/// read twice.
pub(super) fn distinct_directories(layers: &mut Layers) {
    let directories = &layers.config.source.data_dirs;
    let mut faults = Vec::new();
    for (ordinal, second) in directories.iter().enumerate() {
        if let Some(first) = directories[..ordinal].iter().find(|first| are_one(first, second)) {
            let message = format!(
                "source.data_dirs: {} and {} are the same directory: give it once",
                first.display(),
                second.display()
            );
            let origin = layers.origins.get("source.data_dirs").cloned();
            faults.push(Fault { origin, message });
        }
    }
    layers.faults.extend(faults);
}

/// What does not exist yet is compared as it is written.
fn are_one(first: &Path, second: &Path) -> bool {
    match (fs::canonicalize(first), fs::canonicalize(second)) {
        (Ok(first), Ok(second)) => first == second,
        _ => first == second,
    }
}

/// What `run` cannot do without. A value that was refused is not called missing.
pub(super) fn can_run(layers: &mut Layers) {
    let config = &layers.config;
    let refused = |paths: &[&str]| paths.iter().any(|path| layers.refused.contains(path));
    let mut missing = Vec::new();
    if config.source.data_dirs.is_empty() && !refused(&["source.data_dirs"]) {
        missing.push(
            "no data directory: give --data-dir DIR, the node's data directory such as ~/hl/data, \
             or set source.data_dirs",
        );
    }
    let whitelist =
        ["whitelist.all", "whitelist.file", "whitelist.redis_url", "whitelist.addresses"];
    if !config.whitelist.is_given() && !refused(&whitelist) {
        missing.push(
            "no whitelist: give --whitelist FILE with one address a line, or --whitelist all to \
             keep everybody's events, or set whitelist.file, whitelist.redis_url, \
             whitelist.addresses or whitelist.all",
        );
    }
    if config.lacks_positions_url() && !refused(&["redis.url", "whitelist.redis_url"]) {
        missing.push("no Redis for redis.positions: set redis.url or whitelist.redis_url");
    }
    let faults = missing.iter().map(|text| Fault { origin: None, message: (*text).to_owned() });
    layers.faults.extend(faults);
}
