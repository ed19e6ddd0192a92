//! Unites the whitelist's sources, follows them and hands every new list to the filters.
//!
//! Place in the pipeline: beside it. `WhitelistKeeper` -[`ReplaceWhitelist`]-> each
//! `WhitelistFilter`, then -[`ListNews`]-> who wants to know. Reading and building a long list
//! takes seconds, so it runs on a thread that serves nobody else.
//! Invariants: each source keeps its own list when it has a fault, and the others go on; what the
//! state directory keeps of a list is written when those who want to know of its change have heard
//! of it, so that the next start tells again what a crash swallowed.

use std::sync::Arc;

use actix::prelude::*;
use slog::{Logger, info, warn};
use tokio::sync::oneshot;

use super::{
    change::{ListChanged, ListNews, Since, WhitelistChange},
    filter::ReplaceWhitelist,
    list::AddressList,
    listing::CurrentList,
    redis::News,
    set::Whitelist,
    sources::{ConfigSource, FileSource, Folder, Held, RedisSource, WhitelistError},
    status::{SourceKind, WhitelistState, WhitelistStatus},
};
use crate::{
    config::WhitelistConfig,
    event::{Address, Timestamp},
};

mod looks;
mod open;

/// Reads the sources again and accepts what each says, a large shrink too. Sent on SIGHUP.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<WhitelistChange, Unread>")]
pub struct ReloadWhitelist;

/// Asks for an answer when everything is told and kept for the next start. Sent on stopping.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Settle;

/// Why some sources keep the lists they had; the others were read.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Unread(Vec<WhitelistError>);

/// The actor.
pub struct WhitelistKeeper {
    config: WhitelistConfig,
    sources: Sources,
    /// Where the last known lists are kept.
    folder: Folder,
    list: Arc<Whitelist>,
    /// The same for those who answer clients.
    current: Arc<CurrentList>,
    filters: Vec<Recipient<ReplaceWhitelist>>,
    /// Who wants to know of changes.
    listener: Option<Recipient<ListNews>>,
    /// What the filters know and the listener was not told, or could not take: all of it as one
    /// change, so that it needs no more room the longer he cannot.
    untold: Option<(ListChanged, Since)>,
    /// Whether the listener was told something that he has not handled.
    is_unheard: bool,
    /// Who waits for all to be told and kept.
    settling: Vec<oneshot::Sender<()>>,
    /// Sources that were configured in the last run and are no more.
    gone: Vec<SourceKind>,
    started: Timestamp,
    status: Arc<WhitelistStatus>,
    /// The next look at Redis; none while one is under way.
    next_look: Option<SpawnHandle>,
    /// Somebody wants another look at once behind that one.
    looks_again: bool,
    logger: Logger,
}

/// What is configured of them.
#[derive(Default)]
struct Sources {
    file: Option<FileSource>,
    redis: Option<RedisSource>,
    configured: Option<ConfigSource>,
}

impl Sources {
    fn held(&self) -> impl Iterator<Item = &Held> {
        let file = self.file.iter().map(|source| &source.held);
        let redis = self.redis.iter().map(|source| &source.held);
        file.chain(redis).chain(self.configured.iter().map(|source| &source.held))
    }

    fn held_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        let file = self.file.iter_mut().map(|source| &mut source.held);
        let redis = self.redis.iter_mut().map(|source| &mut source.held);
        file.chain(redis).chain(self.configured.iter_mut().map(|source| &mut source.held))
    }

    fn lists(&self) -> Vec<AddressList> {
        self.held().map(|held| held.list().clone()).collect()
    }

    /// What the change of one source's list changes for all together.
    fn change(&self, kind: SourceKind, old: &AddressList) -> ListChanged {
        let of_others = |address: &Address| {
            let mut others = self.held().filter(|held| held.kind() != kind);
            others.any(|held| held.list().contains(address))
        };
        let Some(new) = self.held().find(|held| held.kind() == kind) else {
            return ListChanged::of([], []);
        };
        let added = new.list().difference(old).filter(|address| !of_others(address));
        let removed = old.difference(new.list()).filter(|address| !of_others(address));
        ListChanged::of(added, removed)
    }
}

impl WhitelistKeeper {
    /// The list that holds now: what the filters are born with.
    pub fn list(&self) -> Arc<Whitelist> {
        self.list.clone()
    }

    /// The list that holds, from now on.
    pub fn current(&self) -> Arc<CurrentList> {
        self.current.clone()
    }

    pub fn status(&self) -> Arc<WhitelistStatus> {
        self.status.clone()
    }

    /// Names the filters that get every new list.
    pub fn feed(mut self, filters: Vec<Recipient<ReplaceWhitelist>>) -> Self {
        self.filters = filters;
        self
    }

    /// Names who is told of every change, when the filters have the new list.
    pub fn tell(mut self, listener: Recipient<ListNews>) -> Self {
        self.listener = Some(listener);
        self
    }

    fn state(&self) -> WhitelistState {
        let sources = self.sources.held().map(Held::state).collect();
        WhitelistState { size: self.list.size(), sources, started: self.started }
    }

    /// Unites the lists anew, one of which replaced `old`, and gives them to the filters.
    fn unite(&mut self, kind: SourceKind, old: Option<AddressList>) -> WhitelistChange {
        let Some(old) = old else { return WhitelistChange::default() };
        let change = self.sources.change(kind, &old);
        let lists = self.sources.lists();
        let list = if change.is_cut() {
            Whitelist::build(lists, &self.config)
        } else {
            self.list.changed(lists, &change.added, change.removed, &self.config)
        };
        self.replace(list);
        let counts = change.counts();
        info!(self.logger, "whitelist reloaded"; "whitelist" => ?self.list, "source" => %kind,
            "added" => counts.added, "removed" => counts.removed);
        self.warn_if_empty();
        if !change.is_empty() {
            self.add_untold(change, Since::LastTold);
        }
        counts
    }

    fn replace(&mut self, list: Whitelist) {
        self.list = Arc::new(list);
        for filter in &self.filters {
            filter.do_send(ReplaceWhitelist(self.list.clone()));
        }
        // Behind the filters: who is told that somebody is listed gets his events.
        self.current.set(self.list.clone());
    }

    fn warn_if_empty(&self) {
        if self.list.size() == Some(0) {
            warn!(self.logger, "the whitelist is empty: nobody's events are kept");
        }
    }

    /// Notes a change that comes behind the one that is not told.
    fn add_untold(&mut self, change: ListChanged, since: Since) {
        self.untold = Some(match self.untold.take() {
            Some((earlier, since)) => (earlier.and(&change), since),
            None => (change, since),
        });
    }

    /// Tells what happened: the status, the listener, and the state directory when he has heard it.
    fn tell_all(&mut self, ctx: &mut Context<Self>) {
        if !self.is_unheard {
            self.tell_listener(ctx);
        }
        // Else the listener is busy, and is told the rest when he answers.
        if !self.is_unheard {
            self.keep();
            // Dropped, they say so.
            self.settling.clear();
        }
        self.publish(self.state());
    }

    /// Shows how the sources stand.
    fn publish(&self, state: WhitelistState) {
        self.current.note(&state);
        self.status.set(state);
    }

    fn tell_listener(&mut self, ctx: &mut Context<Self>) {
        let Some((change, since)) = self.untold.take() else { return };
        let Some(listener) = &self.listener else { return };
        self.is_unheard = true;
        let news = ListNews { list: self.list.clone(), change: change.clone(), since };
        let told = listener.send(news).into_actor(self);
        ctx.spawn(told.map(move |heard, keeper, ctx| match heard {
            Ok(Ok(())) => {
                keeper.is_unheard = false;
                keeper.tell_all(ctx);
            }
            // He says why himself. What came meanwhile is told with it.
            Ok(Err(_)) => {
                keeper.is_unheard = false;
                let later = keeper.untold.take();
                keeper.untold = Some((change, since));
                if let Some((later, since)) = later {
                    keeper.add_untold(later, since);
                }
                keeper.publish(keeper.state());
                ctx.run_later(keeper.config.refresh_interval, Self::tell_all);
            }
            // Nobody hears any more: the next start tells it again.
            Err(_) => {}
        }));
    }

    /// Keeps the lists for the next start.
    fn keep(&mut self) {
        let mut is_long = false;
        for held in self.sources.held_mut() {
            is_long |= held.keep(&self.folder) && held.list().is_mapped();
        }
        // A list that is forgotten too early hides who was removed with it, one too late who is new.
        self.gone.retain(|kind| self.folder.forget(*kind).is_err());
        // What was kept of a long list needs less memory than the list it was made of.
        if is_long {
            self.replace(self.list.changed(self.sources.lists(), &[], 0, &self.config));
        }
    }

    /// Reads the file, whatever it looks like.
    fn read_file(&mut self, accept_shrink: bool) -> Result<WhitelistChange, WhitelistError> {
        let Some(file) = &mut self.sources.file else { return Ok(WhitelistChange::default()) };
        let max_shrink = (!accept_shrink).then_some(self.config.max_shrink);
        let list = file.read(&self.folder, &self.logger);
        let old = list.and_then(|list| file.take(list, max_shrink));
        match old {
            Ok(old) => Ok(self.unite(SourceKind::File, old)),
            Err(error) => {
                file.held.note_fault(&error);
                Err(error)
            }
        }
    }
}

impl Actor for WhitelistKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look_at_redis_later(ctx);
        self.look_when_told(ctx);
        let file = self.sources.file.as_ref();
        if let Some(path) = file.map(|file| file.path().to_owned()) {
            if let Err(error) = self.watch(&path, ctx) {
                warn!(self.logger, "whitelist file is not watched, only looked at on a timer";
                    "path" => %path.display(), "error" => %error);
            }
            // What changed between loading and watching.
            if self.sources.file.as_ref().is_some_and(FileSource::has_changed) {
                self.file_changed(ctx);
            }
            ctx.run_interval(self.config.refresh_interval, |keeper, ctx| {
                keeper.look_at_file();
                keeper.tell_all(ctx);
            });
        }
        self.tell_all(ctx);
    }
}

impl Handler<Settle> for WhitelistKeeper {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Settle, ctx: &mut Self::Context) -> Self::Result {
        let (settling, settled) = oneshot::channel();
        self.settling.push(settling);
        self.tell_all(ctx);
        // It ends by the loss of the other end.
        Box::pin(async move { drop(settled.await) })
    }
}

impl Handler<ReloadWhitelist> for WhitelistKeeper {
    type Result = ResponseActFuture<Self, Result<WhitelistChange, Unread>>;

    fn handle(&mut self, _: ReloadWhitelist, ctx: &mut Self::Context) -> Self::Result {
        let of_file = self.read_file(true);
        self.tell_all(ctx);
        let Some(redis) = &self.sources.redis else {
            return Box::pin(fut::ready(of_file.map_err(|error| Unread(vec![error]))));
        };
        let scan = redis.scan(self.config.refresh_interval, None).into_actor(self);
        Box::pin(scan.map(|answer, keeper, ctx| {
            let of_redis = match &mut keeper.sources.redis {
                Some(redis) => redis
                    .take(answer.map(News::Whole), None)
                    .map(|old| keeper.unite(SourceKind::Redis, old)),
                None => Ok(WhitelistChange::default()),
            };
            keeper.tell_all(ctx);
            match (of_file, of_redis) {
                (Ok(file), Ok(redis)) => Ok(WhitelistChange {
                    added: file.added + redis.added,
                    removed: file.removed + redis.removed,
                }),
                (file, redis) => Err(Unread(file.err().into_iter().chain(redis.err()).collect())),
            }
        }))
    }
}

#[cfg(test)]
mod tests;
