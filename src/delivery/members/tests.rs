mod behind;
mod bursts;
mod parting;

use std::cell::{Cell, RefCell};

use actix::Actor;
use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{
    config::{Config, LiveConfig, SessionConfig},
    delivery::{
        Foundation,
        bundle::Bundle,
        dialect::Door,
        outbox::Full,
        outlet::Flush,
        replay::{Cause, Place},
        subscription::{Change, Users},
    },
    event::{Address, Event, EventId, Keys, SequencedEvent},
    router::{
        ledger::Gap,
        log::{Heads, LogEvent, NewSegment, Notice},
        readers::Purpose,
    },
    source::{BatchLost, Budget, Density, Form, Progress, Stream, StreamState},
    store::StoreError,
    testing::{Probe, ProbeHandle, Records, foundation, recorded_log},
};

const FILLS: Topic = Topic::new("fills");

/// What the store has before the log begins.
const FIRST_SEQ: u64 = 1_000;
const FIRST_BLOCK: u64 = 50_000;

/// Which members were flushed, and how many frames left.
type Flushed = Rc<RefCell<Vec<(usize, usize)>>>;

/// A client that takes all, or nothing.
struct Pipe {
    number: usize,
    queued: Cell<usize>,
    blocked: Cell<bool>,
    full: Cell<bool>,
    awaited: Cell<bool>,
    /// How many frames the bundles had that it was given.
    bundles: RefCell<Vec<usize>>,
    flushed: Flushed,
}

impl Outlet for Pipe {
    fn push(&self, frame: Bytes) -> Result<(), Full> {
        if self.full.get() {
            return Err(Full);
        }
        self.force(frame);
        Ok(())
    }

    fn push_bundle(&self, bundle: &Rc<Bundle>) -> Result<(), Full> {
        bundle.frames().try_for_each(|frame| self.push(frame))?;
        self.bundles.borrow_mut().push(bundle.frame_count());
        Ok(())
    }

    fn force(&self, _: Bytes) {
        self.queued.set(self.queued.get() + 1);
    }

    fn flush(&self) -> Flush {
        if self.blocked.get() {
            return Flush::Blocked;
        }
        self.flushed.borrow_mut().push((self.number, self.queued.take()));
        Flush::Drained
    }

    fn count(&self) {}

    fn waiting_bytes(&self) -> usize {
        // Who is blocked has so much that nothing more is queued for him.
        if self.blocked.get() { usize::MAX } else { self.queued.get() }
    }

    fn claim_wait(&self) -> bool {
        !self.awaited.replace(true)
    }
}

fn heads(block: u64) -> Heads {
    Heads { positions: vec![(FILLS, block)], ..Heads::default() }
}

/// A gap of one block.
fn gap_at(block: u64) -> Gap {
    Gap { topic: FILLS, first: block, last: block, opened: Timestamp(1), closed: None }
}

impl Members {
    /// Gives them a bell, which nobody has rung.
    pub(super) fn hang_a_bell(&mut self) {
        let casting = self.casting.clone();
        let others = Rc::new(RefCell::new(Members::new(casting.clone())));
        let shard = Shard::new(casting.clone(), others).start();
        let reader = casting.readers.register(shard.clone().recipient(), Purpose::Delivery);
        self.hang(reader, shard);
        self.answer_line();
    }
}

/// A shard without its actor.
struct Scene {
    members: Members,
    log: Arc<Log>,
    budget: Arc<Budget>,
    told: ProbeHandle<Told>,
    flushed: Flushed,
    pipes: Vec<Rc<Pipe>>,
    /// Of those who join.
    max_queued: usize,
    seq: u64,
    /// Of the newest event.
    block: u64,
    records: Records,
    _lost: ProbeHandle<BatchLost>,
    _directory: TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::configured(|_| {}).await
    }

    async fn configured(configure: impl FnOnce(&mut SessionConfig)) -> Self {
        let log = Log::new(1 << 30, FIRST_SEQ, heads(FIRST_BLOCK));
        let (foundation, directory) = foundation(log.clone()).await;
        let (logger, records) = recorded_log();
        let mut config = Config::default();
        (config.http.workers, config.session.max_replays) = (1, 1);
        configure(&mut config.session);
        let config = Arc::new(LiveConfig::new(config));
        let casting = Casting::new(Foundation { config, logger, ..foundation });
        let lost = Probe::start();
        Self {
            members: Members::new(casting),
            log,
            budget: Budget::new(usize::MAX, lost.recipient()),
            told: Probe::start(),
            flushed: Flushed::default(),
            pipes: Vec::new(),
            max_queued: usize::MAX,
            seq: FIRST_SEQ,
            block: FIRST_BLOCK,
            records,
            _lost: lost,
            _directory: directory,
        }
    }

    /// A member that wants everything, from now on or from behind a `seq`.
    fn join(&mut self, blocked: bool, begins: Option<u64>) {
        // It knows of no gaps.
        self.join_with(blocked, begins.map(|seq| (seq, 0)));
    }

    /// The same from behind a `seq`, of a client that knows of the gaps up to a block.
    fn join_at(&mut self, blocked: bool, seq: u64, heard: u64) {
        self.join_with(blocked, Some((seq, heard)));
    }

    fn join_with(&mut self, blocked: bool, begins: Option<(u64, u64)>) {
        let (flushed, number) = (self.flushed.clone(), self.pipes.len());
        let (blocked, awaited, queued) = (Cell::new(blocked), Cell::new(false), Cell::new(0));
        let (full, bundles) = (Cell::default(), RefCell::default());
        let pipe = Rc::new(Pipe { number, queued, blocked, full, awaited, bundles, flushed });
        let dialect = Door::Native.dialect();
        let id = self.members.join(self.told.recipient(), pipe.clone(), dialect, self.max_queued);
        self.pipes.push(pipe);
        let mut all = Subscriptions::default();
        let limits = SessionConfig::default();
        let change = all.subscribe("a", FILLS, Users::All, None, &limits).unwrap();
        self.members.settle();
        let heard = begins.map(|(_, heard)| heard);
        let begins = begins.map(|(seq, _)| Cursor { epoch: 0, run: 0, seq, positions: Vec::new() });
        self.members.change(id, &[Change { begins, heard, ..change }], &all);
    }

    fn append(&mut self) {
        self.append_with(Vec::new());
    }

    /// Appends an event behind these notices.
    fn append_with(&mut self, notices: Vec<Notice>) {
        self.append_block(1, notices);
    }

    /// Appends a batch of blocks with an event each, or of one without any, which goes beyond the gaps that
    /// are opened.
    fn append_block(&mut self, events: usize, notices: Vec<Notice>) {
        self.append_blocks(events, 1, notices);
    }

    /// The same of blocks with so many events each.
    fn append_blocks(&mut self, blocks: usize, events_of_one: u32, notices: Vec<Notice>) {
        let gaps = &self.members.casting.stats.router.gaps;
        let mut open = gaps.list();
        for notice in &notices {
            match notice.gap() {
                (gap, false) => open.push(gap.clone()),
                (gap, true) => open.retain(|one| one.last != gap.last),
            }
        }
        gaps.replace(open);
        let gaps: Vec<_> = notices.iter().map(Notice::gap).filter(|(_, closed)| !closed).collect();
        let is_missing = |block: u64| gaps.iter().any(|(gap, _)| gap.last == block);
        let before = Arc::new(heads(self.block));
        let mut next = |index| {
            self.block += u64::from(index == 0);
            while is_missing(self.block) {
                self.block += 1;
            }
            self.event(index, None, Bytes::from_static(b"{}"), &before)
        };
        let events = (0..blocks).flat_map(|_| 0..events_of_one).map(&mut next).collect();
        let last = gaps.iter().map(|(gap, _)| gap.last + 1).max();
        self.block = self.block.max(last.unwrap_or(0));
        self.append_batch(events, notices);
    }

    /// The next event, of the newest block.
    fn event(
        &mut self,
        index: u32,
        user: Option<Address>,
        body: Bytes,
        before: &Arc<Heads>,
    ) -> LogEvent {
        self.seq += 1;
        let id = EventId { topic: FILLS, position: self.block, index, part: 0 };
        let event = Event { id, time: Timestamp(0), user, keys: Keys::default(), body };
        LogEvent::new(SequencedEvent { seq: self.seq, late: false, event }, before.clone())
    }

    /// Appends a block of events of these users with these bodies.
    fn append_bodies(&mut self, bodies: impl IntoIterator<Item = (Option<Address>, Bytes)>) {
        let before = Arc::new(heads(self.block));
        self.block += 1;
        let events = (0..).zip(bodies);
        let events = events.map(|(index, (user, body))| self.event(index, user, body, &before));
        let events = events.collect();
        self.append_batch(events, Vec::new());
    }

    /// Appends a batch of these.
    fn append_batch(&mut self, events: Vec<LogEvent>, notices: Vec<Notice>) {
        let stream = Stream {
            name: "a/fills".into(),
            node: "a".into(),
            topic: FILLS,
            form: Form::ByBlock,
            density: Density::Dense,
            directory: "fills".into(),
        };
        self.log.append(NewSegment {
            generation: 1,
            events,
            notices,
            seen: Vec::new(),
            heads: Arc::new(heads(self.block)),
            progress: Progress {
                stream: Arc::new(stream),
                files: Vec::new(),
                state: StreamState::default(),
            },
            read_at: Timestamp::now(),
            credit: self.budget.take(1, 0),
        });
    }

    /// Takes a turn. Gives whether more is to do, and who was flushed with how many frames.
    fn turn(&mut self) -> (bool, Vec<(usize, usize)>) {
        let more = self.members.turn();
        (more, self.flushed.take())
    }
}

#[actix_rt::test]
async fn a_turn_flushes_a_portion_and_those_first_who_have_waited_longest() {
    let mut scene = Scene::new().await;
    (0..1_200).for_each(|_| scene.join(false, None));

    scene.append();
    let (more, first) = scene.turn();
    assert!(more);
    assert!(first.iter().copied().eq((0..512).map(|number| (number, 1))));

    // What comes meanwhile goes along, and keeps nobody waiting who waits already.
    scene.append();
    let (more, second) = scene.turn();
    assert!(more);
    assert!(second.iter().copied().eq((512..1_024).map(|number| (number, 2))));
    let (_, third) = scene.turn();
    let expected = (1_024..1_200).map(|number| (number, 2)).chain((0..336).map(|one| (one, 1)));
    assert!(third.iter().copied().eq(expected));

    let (more, fourth) = scene.turn();
    assert!(fourth.iter().copied().eq((336..512).map(|number| (number, 1))));
    assert!(!more, "nothing is left");
    assert!(scene.pipes.iter().all(|pipe| pipe.queued.get() == 0));
}

#[actix_rt::test]
async fn what_is_live_does_not_wait_for_the_sockets_of_those_who_are_behind() {
    let mut scene = Scene::new().await;
    scene.join(false, None);
    scene.append();
    (0..100).for_each(|_| scene.join(true, Some(FIRST_SEQ)));
    while scene.turn().0 {}
    assert!(scene.pipes[1..].iter().all(|pipe| pipe.awaited.get()), "they wait for room");
    assert_eq!(scene.told.take().await.len(), 100);

    // All sockets take something at once.
    for (id, pipe) in scene.pipes.iter().enumerate().skip(1) {
        pipe.blocked.set(false);
        pipe.awaited.set(false);
        assert!(scene.members.writable(id as SessionId), "the shard writes");
    }
    assert!(!scene.members.writable(0), "who is live writes himself");
    scene.append();
    let (more, flushed) = scene.turn();

    assert!(more);
    let numbers: Vec<_> = flushed.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..=32).collect::<Vec<_>>(), "the live one, and a portion of the others");
    let mut sent = vec![0; scene.pipes.len()];
    loop {
        let (more, flushed) = scene.turn();
        assert!(flushed.len() <= 512 + 32);
        flushed.iter().for_each(|(number, frames)| sent[*number] += frames);
        if !more {
            break;
        }
    }
    // Two events and `live`.
    assert!(sent[1..].iter().all(|frames| *frames == 3), "{sent:?}");
}

#[actix_rt::test]
async fn a_turn_tells_a_portion_of_many_notices_and_nobody_joins_between_them() {
    const MEMBERS: usize = 512;
    const NOW: usize = MEMBERS + 1;
    const GAPS: usize = 600;
    let mut scene = Scene::new().await;
    (0..MEMBERS).for_each(|_| scene.join(false, None));
    let gaps =
        (0..GAPS as u64).map(|number| Notice::GapOpened(gap_at(FIRST_BLOCK + 2 * (number + 1))));
    scene.append_with(gaps.collect());

    let (more, mut flushed) = scene.turn();
    flushed.sort_unstable();

    assert!(more);
    let portion = Work::TURN.frames / MEMBERS;
    assert!(flushed.iter().copied().eq((0..MEMBERS).map(|number| (number, portion))));
    // Who begins before all that has to be told all of it, though the next turn ends between them too; and
    // so has who begins now, as the block that he is told of lies before.
    scene.join(false, Some(FIRST_SEQ));
    scene.join(false, None);
    let mut sent = [portion, 0, 0];
    loop {
        let (more, flushed) = scene.turn();
        for (number, frames) in flushed {
            match number {
                0 => sent[0] += frames,
                MEMBERS => sent[1] += frames,
                NOW => sent[2] += frames,
                _ => {}
            }
        }
        if !more {
            break;
        }
    }
    // The event too, and for one of them that it is live.
    assert_eq!(sent, [GAPS + 1, GAPS + 2, GAPS + 1]);
}

#[actix_rt::test]
async fn who_is_held_back_keeps_no_place_at_the_store() {
    let mut scene = Scene::new().await;
    (0..2).for_each(|_| scene.join(false, Some(0)));
    scene.turn();
    assert_eq!(scene.members.catch_up.unadmitted, [1]);

    // It asks for more while its page is read.
    scene.members.hold(0, true);
    scene.members.retry(0);
    scene.turn();
    scene.turn();

    assert_eq!(scene.members.catch_up.unadmitted, [0; 0], "the other one has it");
    scene.members.hold(0, false);
    scene.turn();
    assert_eq!(scene.members.catch_up.unadmitted, [0], "it asks again");
}

#[actix_rt::test]
async fn who_leaves_waits_for_no_place_at_the_store() {
    let mut scene = Scene::new().await;
    (0..4).for_each(|_| scene.join(false, Some(0)));
    scene.turn();
    assert_eq!(scene.members.catch_up.unadmitted, [1, 2, 3]);

    scene.members.leave(2, Subscriptions::default());
    assert_eq!(scene.members.catch_up.unadmitted, [1, 3]);
    scene.members.hang_a_bell();
    scene.members.leave(0, Subscriptions::default());
    assert!(scene.members.rung, "there is a place for the next one");
    scene.turn();
    assert_eq!(scene.members.catch_up.unadmitted, [3]);
    let asked: Vec<_> = scene.members.take_fetches().iter().map(|fetch| fetch.session).collect();
    assert_eq!(asked, [0, 1]);
}

#[actix_rt::test]
async fn pages_that_cannot_be_read_are_warned_of_once_an_outage() {
    let mut scene = Scene::new().await;
    scene.join(false, Some(0));
    scene.turn();
    let pages = &scene.members.casting.clone().pages;
    let away = || Err(StoreError::Unavailable("away".to_owned()));

    for outage in 1..=2 {
        for failures in 1..=3 {
            assert_eq!(scene.members.fetched(0, away()), Some(failures));
        }
        let warnings = scene.records.with("WARN what has been cannot be read");
        assert_eq!(warnings.len(), outage, "{warnings:?}");
        assert!(warnings[0].contains("error=the store is not available: away"));
        assert_eq!(scene.members.fetched(0, pages.page(0).await), None);
        assert_eq!(scene.records.with("INFO what has been is read again").len(), outage);
    }
}

#[actix_rt::test]
async fn who_is_told_to_close_gets_what_his_last_cursor_says() {
    let mut scene = Scene::new().await;
    scene.join(false, None);

    let now = Instant::now();
    scene.members.send_away(CloseReason::ShuttingDown, std::time::Duration::ZERO, now);
    scene.members.part(now);
    // Its client asks for its answer, or for its farewell, after the shard's next turn.
    scene.append();
    let (_, flushed) = scene.turn();

    assert_eq!(flushed, [(0, 1)]);
    assert_eq!(scene.members.cursor_of(0).seq, scene.seq);
}

#[actix_rt::test]
async fn what_waits_for_who_is_told_to_go_is_about_to_leave_and_he_is_told_once() {
    let mut scene = Scene::new().await;
    (0..3).for_each(|_| scene.join(false, None));
    (0..5).for_each(|_| scene.pipes[0].force(Bytes::new()));
    scene.pipes[1].force(Bytes::new());
    // What is kept for a slow one waits, too.
    let stats = scene.members.casting.stats.clone();
    let mut behind = Behind::new(Place::Seq(1), scene.members.cursor(), 0, Cause::Slow);
    let (cursor, slots) = (scene.members.cursor(), vec![(0, "BTC".into())]);
    behind.keep(1, Bytes::from_static(&[0; 70]), cursor, slots, &stats);
    scene.members.members.get_mut(&2).unwrap().behind = Some(Box::new(behind));

    let sorted = |mut waiting: Waiting| {
        waiting.outboxes.sort_unstable();
        (waiting.outboxes, waiting.leaving_bytes)
    };
    assert_eq!(sorted(scene.members.waiting()), (vec![(1, 1), (5, 0), (70, 2)], 0));
    (0..2).for_each(|_| scene.members.evict(&[0]));

    assert_eq!(sorted(scene.members.waiting()), (vec![(1, 1), (70, 2)], 5));
    let told = scene.told.take().await;
    assert!(matches!(told[..], [Told::Close(CloseReason::Evicted)]), "{told:?}");
}

#[actix_rt::test]
async fn a_burst_that_one_turn_cannot_queue_for_all_still_goes_out_in_one_piece() {
    let mut scene = Scene::new().await;
    (0..10_000).for_each(|_| scene.join(false, None));
    (0..16).for_each(|_| scene.append());

    assert_eq!(scene.turn(), (true, vec![]), "the rest is queued first");

    let (more, flushed) = scene.turn();
    assert!(more);
    assert!(flushed.iter().copied().eq((0..512).map(|number| (number, 16))));
}

#[actix_rt::test]
async fn a_turn_ends_in_the_middle_of_a_long_batch() {
    let mut scene = Scene::new().await;
    scene.join(false, None);
    scene.append_block(1_200, vec![Notice::GapOpened(gap_at(FIRST_BLOCK + 1))]);

    let turns = [(); 3].map(|()| scene.turn());

    let of_one = |frames| vec![(0, frames)];
    assert_eq!(turns, [(true, of_one(512)), (true, of_one(512)), (false, of_one(177))]);
}

#[actix_rt::test]
async fn what_all_want_of_a_burst_goes_to_all_but_the_first_in_one_piece() {
    let mut scene = Scene::new().await;
    (0..5).for_each(|_| scene.join(false, None));

    scene.append_block(10, Vec::new());
    let (_, flushed) = scene.turn();

    assert!(flushed.iter().copied().eq((0..5).map(|number| (number, 10))));
    let bundles: Vec<_> = scene.pipes.iter().map(|pipe| pipe.bundles.take()).collect();
    assert_eq!(bundles, [vec![], vec![10], vec![10], vec![10], vec![10]]);

    // Too long, and too few.
    let long = Bytes::from(format!("\"{}\"", "x".repeat(bundles::BUNDLE_BYTES / 10)));
    scene.append_bodies((0..10).map(|_| (None, long.clone())));
    scene.turn();
    assert!(scene.pipes.iter().all(|pipe| pipe.bundles.take().is_empty()));
    let mut scene = Scene::new().await;
    (0..3).for_each(|_| scene.join(false, None));
    scene.append_block(10, Vec::new());
    scene.turn();
    assert!(scene.pipes.iter().all(|pipe| pipe.bundles.take().is_empty()));
}

#[actix_rt::test]
async fn who_leaves_with_many_users_is_forgotten_by_turns_of_their_own() {
    let mut scene = Scene::new().await;
    scene.join(false, None);
    scene.join(false, None);
    let mut all = Subscriptions::default();
    let users = |number: u32| {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Address(bytes)
    };
    let users = Users::Listed((0..3 * FORGOTTEN_PLACES as u32).map(users).collect());
    let change = all.subscribe("b", FILLS, users, None, &SessionConfig::default()).unwrap();
    scene.members.change(0, &[change], &all);
    scene.members.hang_a_bell();

    scene.members.leave(0, all);

    assert!(scene.members.rung && scene.members.index.is_leaving());
    while scene.turn().0 {}
    assert!(!scene.members.index.is_leaving());
}
