//! Which records are wanted: by their level, and by the component that speaks.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use slog::{Drain, Key, Level, Never, OwnedKVList, Record, RecordStatic};

use crate::config::LogConfig;

/// Keys by which a logger names its component. The innermost logger's counts.
const COMPONENT_KEYS: [&str; 2] = ["actor", "component"];

/// The `log` target of the HTTP protocol, and how its records about the connection of a client begin.
/// It calls each request that is no HTTP an error; a port scan must not fill the log with them. What
/// it says of our own answers begins otherwise and keeps its level.
const HTTP_PROTOCOL: &str = "actix_http";
const OF_A_CLIENT: &str = "stream error: ";

/// The levels that hold now. Clones are the same levels.
#[derive(Clone)]
pub struct Levels(Arc<SharedLevels>);

struct SharedLevels {
    /// [`Rules::widest`] by itself, for the many records that are not wanted anyhow.
    widest: AtomicUsize,
    rules: RwLock<Rules>,
}

/// Which records are wanted.
struct Rules {
    level: Level,
    /// Levels of single components.
    levels: HashMap<String, Level>,
    /// The most talkative and the most silent of all levels: between them the component decides.
    widest: Level,
    narrowest: Level,
}

impl Levels {
    pub(super) fn new(config: &LogConfig) -> Self {
        let rules = Rules::new(config);
        let widest = AtomicUsize::new(rules.widest.as_usize());
        Self(Arc::new(SharedLevels { widest, rules: RwLock::new(rules) }))
    }

    /// Takes the levels of a configuration; its other keys are of no effect here.
    pub fn set(&self, config: &LogConfig) {
        let rules = Rules::new(config);
        let mut known = self.0.rules.write().unwrap_or_else(PoisonError::into_inner);
        self.0.widest.store(rules.widest.as_usize(), Ordering::Relaxed);
        *known = rules;
    }

    fn may_want(&self, level: Level) -> bool {
        level.as_usize() <= self.0.widest.load(Ordering::Relaxed)
    }

    fn wants(&self, record: &Record, values: &OwnedKVList) -> bool {
        let rules = self.0.rules.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = |limit: Level| record.level().is_at_least(limit);
        wanted(rules.narrowest) || wanted(rules.widest) && wanted(rules.level_of(record, values))
    }
}

impl Rules {
    fn new(config: &LogConfig) -> Self {
        let levels: HashMap<_, _> = config.levels.iter().cloned().collect();
        let all = || levels.values().copied().chain([config.level]);
        let by_verbosity = |level: &Level| level.as_usize();
        let widest = all().max_by_key(by_verbosity).unwrap_or(config.level);
        let narrowest = all().min_by_key(by_verbosity).unwrap_or(config.level);
        Self { level: config.level, levels, widest, narrowest }
    }

    fn level_of(&self, record: &Record, values: &OwnedKVList) -> Level {
        let mut component = Component::default();
        // A pair that cannot be formatted names no component; what was found before it counts.
        if slog::KV::serialize(values, record, &mut component).is_err() {
            return self.level;
        }
        let found = component.name.and_then(|name| self.levels.get(&name));
        found.copied().unwrap_or(self.level)
    }
}

/// Drops what is below the level of its component.
pub(super) struct LevelFilter<D> {
    pub levels: Levels,
    pub next: D,
}

impl<D: Drain<Ok = (), Err = Never>> Drain for LevelFilter<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record, values: &OwnedKVList) -> Result<(), Never> {
        if record.level().is_at_least(Level::Info) && is_of_a_client(record) {
            let lowered = RecordStatic {
                location: record.location(),
                tag: record.tag(),
                level: Level::Debug,
            };
            let kv = record.kv();
            return self.log(&Record::new(&lowered, record.msg(), kv), values);
        }
        let passes = self.levels.may_want(record.level()) && self.levels.wants(record, values);
        if passes { self.next.log(record, values) } else { Ok(()) }
    }

    fn is_enabled(&self, level: Level) -> bool {
        self.levels.may_want(level)
    }
}

fn is_of_a_client(record: &Record) -> bool {
    record.tag().starts_with(HTTP_PROTOCOL) && record.msg().to_string().starts_with(OF_A_CLIENT)
}

/// Finds the first pair that names a component. The pairs of the innermost logger come first.
#[derive(Default)]
struct Component {
    name: Option<String>,
}

impl slog::Serializer for Component {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments) -> slog::Result {
        if self.name.is_none() && COMPONENT_KEYS.contains(&key) {
            self.name = Some(value.to_string());
        }
        Ok(())
    }
}
