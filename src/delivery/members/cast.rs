//! Casts events to the sessions that are live.

use std::{mem, time::Duration};

use bytes::Bytes;
use slog::warn;

use super::{
    Member, Members, Work,
    bundles::{BUNDLE_BYTES, Bundles, Kind},
    burst::{Burst, Share},
    warm::WARMED,
};
use crate::{
    delivery::{
        bundle::Bundle,
        deflate,
        dialect::Shown,
        index::SessionId,
        outbox::Full,
        replay::{Behind, Cause, Heard, Place, Waits},
        session::Told,
        view::Views,
    },
    event::{Cursor, Timestamp},
    router::log::LogEvent,
    stats::Stats,
};

/// Numbers are given by the clock, and run ahead of it by the events of a batch.
const BATCH_MICROS: i64 = 1_000_000;

/// What became of a burst at one session.
struct Put {
    /// The shortest time that something of it may wait; none, if nothing of it is queued.
    linger_ms: Option<u16>,
    /// The first event that did not fit.
    refused: Option<usize>,
}

impl Members {
    /// Puts the next of these events into the outboxes of those who want them, as many as are left of the turn.
    /// Gives what that was.
    pub(super) fn cast(&mut self, events: &[LogEvent], left: Work) -> Work {
        let mut burst = mem::take(&mut self.burst);
        let mut bundles = mem::take(&mut self.bundles);
        let done = burst.gather(&self.index, events, self.done, left);
        let (mut shares, mut fallen) = (Vec::new(), Vec::new());
        let mut walk = burst.walk();
        for visit in 0.. {
            if visit % WARMED == 0 {
                self.warm(walk.ahead());
            }
            let Some(id) = walk.next(&mut shares) else { break };
            let member = self.members.get_mut(&id).filter(|member| member.is_live());
            let Some(member) = member else { continue };
            let put = member.put_all(events, &shares, &burst, &mut bundles, &self.casting.stats);
            if let Some(ms) = put.linger_ms {
                let linger = Duration::from_millis(ms.into());
                member.leave_by(id, linger, &mut self.flushing.touched, &mut self.lingering);
            }
            fallen.extend(put.refused.map(|at| (id, at)));
        }
        for (id, at) in fallen {
            let seq = events[at].sequenced.seq - 1;
            let cursor = Cursor { seq, ..self.delivered.clone() };
            let place = Place::Log { segment: self.position, done: at };
            self.fall_behind(id, place, cursor, Cause::Slow);
        }
        bundles.clear();
        (self.burst, self.bundles) = (burst, bundles);
        done
    }

    /// The log went on without us: every subscriber gets the rest from the store.
    pub(super) fn missed(&mut self, segments: u64) {
        let delivered = self.delivered.clone();
        self.casting.stats.sessions.missed_segments.add(segments);
        warn!(self.casting.logger, "delivery fell behind the log: sessions go on from the store";
            "segments" => segments, "delivered" => %delivered);
        let live = self.members.iter().filter(|(_, one)| one.is_live() && !one.topics.is_empty());
        let live: Vec<_> = live.map(|(&id, _)| id).collect();
        for id in live {
            self.fall_behind(id, Place::Seq(delivered.seq), delivered.clone(), Cause::Past);
        }
    }

    /// A session is live no more, and goes on from `place` when its socket has room.
    pub(super) fn fall_behind(
        &mut self,
        id: SessionId,
        place: Place,
        cursor: Cursor,
        cause: Cause,
    ) {
        if let Some(behind) = self.begin_behind(id, place, cursor, cause) {
            behind.waits = Waits::Room;
        }
        if let Some(member) = self.members.get(&id) {
            member.session.do_send(Told::Behind);
        }
    }

    /// A session is live no more, from here on. Of what is notices and not events it knows what was told to
    /// all who are live.
    pub(super) fn begin_behind(
        &mut self,
        id: SessionId,
        place: Place,
        cursor: Cursor,
        cause: Cause,
    ) -> Option<&mut Behind> {
        let member = self.members.get_mut(&id)?;
        let current = self.current.as_ref().filter(|now| self.told == now.notices.len());
        let heads = current.map_or(&self.delivered.positions, |current| &current.heads().positions);
        self.casting.stats.sessions.behind.add(1);
        let delivered = Timestamp(cursor.seq as i64).min(Timestamp::now());
        let mut behind = Behind::new(place, cursor, self.casting.pages.deleted_seq(), cause);
        if let (Place::Log { done, .. }, Some(now)) = (place, &self.current) {
            behind.note_block(&now.events, done);
        }
        if !member.topics.is_empty() {
            behind.untold_since = Timestamp(delivered.0 - BATCH_MICROS);
        }
        behind.heard = Heard::all(&member.topics, heads);
        behind.told = matches!(place, Place::Log { .. }).then_some((self.position, self.told));
        Some(member.behind.insert(Box::new(behind)))
    }

    /// Where the live ones are.
    pub(super) fn here(&self) -> Place {
        Place::Log { segment: self.position, done: self.done }
    }
}

impl Member {
    /// Who is behind finds what is cast now when he comes there. Who is told to close gets what comes until
    /// he has heard it: his last cursor says so.
    pub(super) fn is_live(&self) -> bool {
        self.behind.is_none()
    }

    /// Queues what its client gets of a burst: in one piece, if others get the same.
    fn put_all(
        &self,
        events: &[LogEvent],
        shares: &[Share],
        burst: &Burst,
        bundles: &mut Bundles,
        stats: &Stats,
    ) -> Put {
        let kind = Kind::of(self.dialect.encoding(), self.packs_from, shares, burst);
        let bundle = kind.and_then(|kind| bundles.get(kind, || self.bundle(events, shares, stats)));
        if bundle.is_some_and(|bundle| self.wire.push_bundle(bundle).is_ok()) {
            let linger_ms = shares.iter().map(|share| share.interest.linger_ms()).min();
            return Put { linger_ms, refused: None };
        }
        let mut put = Put { linger_ms: None, refused: None };
        for &Share { at, interest } in shares {
            let mut frames = self.frames(events, at, interest.views(), false, stats);
            let Some(first) = frames.next() else { continue };
            if self.wire.push(first) == Err(Full) {
                put.refused = Some(at);
                break;
            }
            // All of an event goes where its first frame has gone.
            frames.for_each(|frame| self.wire.force(frame));
            let ms = interest.linger_ms();
            put.linger_ms = Some(put.linger_ms.map_or(ms, |shortest| shortest.min(ms)));
        }
        put
    }

    /// What it gets of a burst, in one piece. None, if that would be too long or has no frames.
    fn bundle(&self, events: &[LogEvent], shares: &[Share], stats: &Stats) -> Option<Bundle> {
        let frames = shares
            .iter()
            .flat_map(|share| self.frames(events, share.at, share.interest.views(), false, stats));
        let frames: Vec<_> = frames.collect();
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        (1..=BUNDLE_BYTES).contains(&bytes).then(|| Bundle::new(&frames))
    }

    /// The frames of an event, of the views that show it.
    pub(super) fn frames<'a>(
        &'a self,
        events: &'a [LogEvent],
        at: usize,
        views: Views,
        replayed: bool,
        stats: &'a Stats,
    ) -> impl Iterator<Item = Bytes> + 'a {
        let shown = views.iter().map(move |view| Shown { events, at, view });
        shown.filter_map(move |shown| self.frame(shown, replayed, stats))
    }

    /// The frame of an event as its client wants it: shared by all who want it so.
    fn frame(&self, shown: Shown<'_>, replayed: bool, stats: &Stats) -> Option<Bytes> {
        let plain = self.dialect.event(shown, replayed);
        if plain.is_empty() {
            return None;
        }
        if plain.len() < self.packs_from {
            return Some(plain);
        }
        let slot = self.dialect.slot(shown.view, replayed);
        let packed = shown.event().packed(slot, || deflate::pack(&plain, &stats.sessions));
        Some(packed.unwrap_or(plain))
    }
}
