//! When the keeper looks at its sources: at their signs, by timers, and when somebody says that he has
//! changed one.

use std::{io, mem, path::Path, time::Duration};

use actix::prelude::*;
use futures_util::stream;
use inotify::{EventMask, EventOwned, Inotify, WatchMask};
use slog::error;

use super::{
    super::{sources::FileSource, status::SourceKind},
    WhitelistKeeper,
};

/// Bytes for the events of one read from inotify: some hundred.
const EVENT_BUFFER_BYTES: usize = 16 << 10;

/// Somebody has changed a source. Its own signs would be noticed too, later.
struct Look;

impl WhitelistKeeper {
    /// Looks whenever somebody has changed a source.
    pub(super) fn look_when_told(&self, ctx: &mut Context<Self>) {
        ctx.add_stream(stream::unfold(self.current.clone(), |current| async {
            current.is_to_look().await;
            Some((Look, current))
        }));
    }

    /// Reads the file. Answers are in the log and the status.
    pub(super) fn file_changed(&mut self, ctx: &mut Context<Self>) {
        if let Err(error) = self.read_file(false) {
            slog::debug!(self.logger, "whitelist file not used"; "error" => %error);
        }
        self.tell_all(ctx);
    }

    /// Reads the file when it has changed.
    pub(super) fn look_at_file(&mut self) {
        let Some(file) = &mut self.sources.file else { return };
        let answer = match file.look() {
            Ok(false) => return,
            Ok(true) => self.read_file(false).map(drop),
            Err(error) => {
                file.held.note_fault(&error);
                Err(error)
            }
        };
        if let Err(error) = answer {
            slog::debug!(self.logger, "whitelist file not used"; "error" => %error);
        }
    }

    /// Watches the directory of the file: an editor replaces the file itself.
    pub(super) fn watch(&self, path: &Path, ctx: &mut Context<Self>) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let inotify = Inotify::init()?;
        inotify.watches().add(directory, WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO)?;
        ctx.add_stream(inotify.into_event_stream(vec![0; EVENT_BUFFER_BYTES])?);
        Ok(())
    }

    /// Looks at Redis when it is time to. Only one look is under way at a time.
    pub(super) fn look_at_redis_later(&mut self, ctx: &mut Context<Self>) {
        let Some(redis) = &self.sources.redis else { return };
        let pause = if mem::take(&mut self.looks_again) { Duration::ZERO } else { redis.pause() };
        self.next_look = Some(ctx.run_later(pause, Self::look_at_redis));
    }

    fn look_at_redis(&mut self, ctx: &mut Context<Self>) {
        let Some(redis) = &self.sources.redis else { return };
        self.next_look = None;
        // Meanwhile the file is followed: a Redis that hangs holds nobody up.
        let look = redis.look(self.config.refresh_interval).into_actor(self);
        ctx.spawn(look.map(|answer, keeper, ctx| {
            let Some(redis) = &mut keeper.sources.redis else { return };
            match redis.take(answer, Some(keeper.config.max_shrink)) {
                Ok(old) => drop(keeper.unite(SourceKind::Redis, old)),
                Err(error) => {
                    slog::debug!(keeper.logger, "whitelist in Redis not used"; "error" => %error);
                }
            }
            keeper.tell_all(ctx);
            keeper.look_at_redis_later(ctx);
        }));
    }
}

impl StreamHandler<Look> for WhitelistKeeper {
    fn handle(&mut self, _: Look, ctx: &mut Self::Context) {
        // It was replaced in one step: there is nothing to wait for.
        if self.sources.file.as_ref().is_some_and(FileSource::has_changed) {
            self.file_changed(ctx);
        }
        match self.next_look.take() {
            Some(look) => {
                ctx.cancel_future(look);
                self.look_at_redis(ctx);
            }
            // The one that is under way may have begun before the change.
            None => self.looks_again = true,
        }
    }
}

impl StreamHandler<io::Result<EventOwned>> for WhitelistKeeper {
    fn handle(&mut self, event: io::Result<EventOwned>, ctx: &mut Self::Context) {
        let Some(path) = self.sources.file.as_ref().map(FileSource::path) else { return };
        match event {
            // An overflow may have swallowed the event of our file.
            Ok(event) if event.mask.contains(EventMask::Q_OVERFLOW) => self.file_changed(ctx),
            Ok(event) if event.name.is_some() && event.name.as_deref() == path.file_name() => {
                self.file_changed(ctx);
            }
            Ok(_) => {}
            Err(error) => error!(self.logger, "watch of the whitelist file failed";
                "path" => %path.display(), "error" => %error),
        }
    }

    /// The timer goes on looking when the watch ends.
    fn finished(&mut self, _ctx: &mut Self::Context) {}
}
