//! How the keeper comes to its first list: what the sources say now, or said last.

use std::{path::Path, sync::Arc};

use slog::{Logger, info, o};

use super::{
    super::{
        change::{ListChanged, ListMark, Since},
        list::AddressList,
        listing::CurrentList,
        set::{Whitelist, mark_of},
        sources::{ConfigSource, FileSource, Folder, Kept, RedisSource, WhitelistError},
        status::{SourceKind, WhitelistState, WhitelistStatus},
        union::Union,
    },
    Sources, WhitelistKeeper,
};
use crate::{config::WhitelistConfig, event::Timestamp};

/// What the last run knew, of sources that are configured no more too.
struct LastRun([Option<Kept>; SourceKind::ALL.len()]);

impl LastRun {
    fn of(folder: &Folder, logger: &Logger) -> Self {
        Self(SourceKind::ALL.map(|kind| folder.last(kind, logger)))
    }

    fn get(&self, kind: SourceKind) -> Option<Kept> {
        self.0[kind as usize].clone()
    }

    /// Sources that are configured no more.
    fn without(&self, sources: &Sources) -> Vec<SourceKind> {
        let is_configured = |kind| sources.held().any(|held| held.kind() == kind);
        let known = SourceKind::ALL.into_iter().filter(|kind| self.0[*kind as usize].is_some());
        known.filter(|kind| !is_configured(*kind)).collect()
    }

    fn lists(&self) -> Vec<&AddressList> {
        self.0.iter().flatten().map(|kept| &kept.list).collect()
    }

    /// Who was added and removed since, and since which list. `None` when it is the first run, or
    /// nothing has changed.
    fn change(&self, sources: &Sources) -> Option<(ListChanged, ListMark)> {
        let old = self.lists();
        let is_same =
            sources.held().count() == old.len() && sources.held().all(|held| held.is_kept());
        if old.is_empty() || is_same {
            return None;
        }
        let new = sources.lists();
        let added = Union::of(&new).without(Union::of(old.iter().copied()));
        let removed = Union::of(old.iter().copied()).without(Union::of(&new));
        let change = ListChanged::of(added, removed);
        (!change.is_empty()).then(|| (change, mark_of(old)))
    }
}

impl WhitelistKeeper {
    /// Reads the first list, from wherever it is. What the state directory keeps is left alone: the
    /// list is known only when a daemon writes by it.
    ///
    /// # Errors
    /// When a source is faulty and nothing is known of it: without a whole list nothing should
    /// start. A faulty file refuses in any case: whoever starts can mend it.
    pub async fn open(
        config: &WhitelistConfig,
        state_dir: &Path,
        logger: &Logger,
    ) -> Result<Self, WhitelistError> {
        let logger = logger.new(o!("actor" => "whitelist_keeper"));
        let folder = Folder::of_state(state_dir);
        let started = Timestamp::now();
        let keeper = |sources: Sources, list: Whitelist, change, since, gone| {
            let state = WhitelistState { size: None, sources: Vec::new(), started };
            let list = Arc::new(list);
            let keeper = Self {
                config: config.clone(),
                sources,
                folder: folder.clone(),
                current: CurrentList::new(list.clone()),
                list,
                filters: Vec::new(),
                listener: None,
                untold: Some((change, Since::LastRun(since))),
                is_unheard: false,
                settling: Vec::new(),
                gone,
                started,
                status: Arc::new(WhitelistStatus::new(state)),
                next_look: None,
                looks_again: false,
                logger: logger.clone(),
            };
            let state = keeper.state();
            info!(logger, "whitelist loaded"; "whitelist" => ?keeper.list,
                "source" => state.describe());
            keeper.publish(state);
            keeper.warn_if_empty();
            keeper
        };
        if config.all {
            let none = ListChanged::default();
            return Ok(keeper(Sources::default(), Whitelist::all(), none, None, Vec::new()));
        }
        let last = LastRun::of(&folder, &logger);
        // The file and the configuration first: to ask Redis may take seconds.
        let configured = ConfigSource::open(config, last.get(SourceKind::Config), &logger)?;
        let file = match &config.file {
            None => None,
            Some(path) => {
                let kept = last.get(SourceKind::File);
                Some(FileSource::open(path, config, kept, &folder, &logger)?)
            }
        };
        let redis = match &config.redis_url {
            None => None,
            Some(url) => {
                let kept = last.get(SourceKind::Redis);
                Some(RedisSource::open(url, config, kept, &folder, &logger).await?)
            }
        };
        let sources = Sources { file, redis, configured };
        let change = last.change(&sources);
        if let Some((change, _)) = &change {
            info!(logger, "whitelist changed since the last run";
                "added" => change.added_count, "removed" => change.removed);
        }
        let list = Whitelist::build(sources.lists(), config);
        let gone = last.without(&sources);
        let (change, since) = change.unzip();
        Ok(keeper(sources, list, change.unwrap_or_default(), since, gone))
    }
}
