//! Casts events and notices to the sessions that are live.

use std::{collections::VecDeque, mem, time::Duration};

use bytes::Bytes;
use slog::warn;

use super::{Member, Members, TURN_EVENTS, TURN_FRAMES};
use crate::{
    delivery::{
        deflate,
        dialect::Shown,
        index::SessionId,
        outbox::Full,
        replay::{Behind, Cause, Heard, Place, Waits},
        session::Told,
        view::Views,
    },
    event::{Cursor, Timestamp},
    router::log::{ENCODINGS, LogEvent, Notice, Segment},
    stats::Stats,
};

/// Numbers are given by the clock, and run ahead of it by the events of a batch.
const BATCH_MICROS: i64 = 1_000_000;

impl Members {
    /// Puts one of these events into the outboxes of those who want it. Gives their number.
    pub(super) fn cast(&mut self, events: &[LogEvent], at: usize) -> usize {
        let event = &events[at];
        let mut interested = mem::take(&mut self.interested);
        self.index.interested(&event.sequenced.event, &mut interested);
        let mut fallen = Vec::new();
        for interest in &interested {
            let id = interest.session();
            if let Some(member) = self.members.get_mut(&id).filter(|member| member.is_live()) {
                let (views, stats) = (interest.views(), &self.casting.stats);
                let shown = member.first_frame(events, at, views, false, stats);
                let Some((frame, rest)) = shown else { continue };
                let put = match interest.linger_ms() {
                    0 => member.put(id, frame, &mut self.flushing.touched),
                    ms => {
                        let linger = Duration::from_millis(ms.into());
                        member.put_by(
                            id,
                            frame,
                            linger,
                            &mut self.flushing.touched,
                            &mut self.lingering,
                        )
                    }
                };
                match put {
                    Ok(()) => member.show_rest(events, at, rest, false, stats),
                    Err(Full) => fallen.push(id),
                }
            }
        }
        for id in fallen {
            let seq = event.sequenced.seq - 1;
            let cursor = Cursor { seq, ..self.delivered.clone() };
            self.fall_behind(id, self.here(), cursor, Cause::Slow);
        }
        let count = interested.len();
        self.interested = interested;
        count
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
    fn fall_behind(&mut self, id: SessionId, place: Place, cursor: Cursor, cause: Cause) {
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

    /// Tells what is not told yet of a segment's notices, as much as fits into the turn. Gives whether that
    /// is all of them.
    pub(super) fn tell_notices(
        &mut self,
        segment: &Segment,
        events: &mut usize,
        frames: &mut usize,
    ) -> bool {
        while let Some(notice) = segment.notices.get(self.told) {
            if *events >= TURN_EVENTS || *frames >= TURN_FRAMES {
                return false;
            }
            *frames += self.tell(notice);
            *events += 1;
            self.told += 1;
        }
        true
    }

    /// Whether notices of a segment are told and no event of it is done: whoever joined here would miss
    /// some.
    pub(super) fn is_telling(&self) -> bool {
        self.done == 0 && self.told > 0
    }

    /// Tells subscribers of its topic what their dialect has for a notice. Gives how many sessions were
    /// looked at: that is the work.
    fn tell(&mut self, notice: &Notice) -> usize {
        let (gap, closed) = notice.gap();
        let mut fallen = Vec::new();
        let mut frames: [Option<Option<Bytes>>; ENCODINGS] = Default::default();
        for (&id, member) in &mut self.members {
            if member.is_live()
                && member.topics.contains(&gap.topic)
                && let Some(frame) = frames[member.dialect.encoding()]
                    .get_or_insert_with(|| member.dialect.gap(gap, closed))
                    .clone()
                && member.put(id, frame, &mut self.flushing.touched) == Err(Full)
            {
                fallen.push(id);
            }
        }
        for id in fallen {
            self.fall_behind(id, self.here(), self.delivered.clone(), Cause::Slow);
        }
        self.members.len()
    }
}

impl Member {
    /// Who is behind finds what is cast now when he comes there. Who is told to close gets what comes until
    /// he has heard it: his last cursor says so.
    pub(super) fn is_live(&self) -> bool {
        self.behind.is_none()
    }

    /// The first frame of an event, of the views that show it, and those that are left.
    pub(super) fn first_frame(
        &self,
        events: &[LogEvent],
        at: usize,
        mut views: Views,
        replayed: bool,
        stats: &Stats,
    ) -> Option<(Bytes, Views)> {
        while let Some(view) = views.pop_first() {
            if let Some(frame) = self.frame(Shown { events, at, view }, replayed, stats) {
                return Some((frame, views));
            }
        }
        None
    }

    /// Queues the other frames of an event: all of it goes where the first one has gone.
    pub(super) fn show_rest(
        &self,
        events: &[LogEvent],
        at: usize,
        mut views: Views,
        replayed: bool,
        stats: &Stats,
    ) {
        while let Some((frame, left)) = self.first_frame(events, at, views, replayed, stats) {
            self.wire.force(frame);
            views = left;
        }
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

    /// Queues what is live.
    fn put(
        &mut self,
        id: SessionId,
        frame: Bytes,
        touched: &mut VecDeque<SessionId>,
    ) -> Result<(), Full> {
        self.wire.push(frame)?;
        self.touch(id, touched);
        Ok(())
    }
}
