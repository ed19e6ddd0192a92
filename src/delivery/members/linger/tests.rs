use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use actix::Actor;
use bytes::Bytes;

use super::*;
use crate::{
    config::SessionConfig,
    delivery::{
        Casting,
        bundle::Bundle,
        dialect::plain::Plain,
        outbox::Full,
        outlet::{Flush, Outlet},
        session::Told,
        shard::Shard,
        subscription::{Change, Subscriptions, Users, Wanted},
    },
    event::{Address, Event, EventId, Keys, SequencedEvent, Timestamp, Topic},
    roll_call::RollCall,
    router::{
        log::{Heads, Log, LogEvent, NewSegment},
        readers::Appended,
    },
    source::{BatchLost, Budget, Density, Form, Progress, Stream},
    testing::{Probe, ProbeHandle, foundation},
};

const FILLS: Topic = Topic::new("fills");

/// Takes everything when it is flushed, and notes how much at a time.
#[derive(Default)]
struct Recorder {
    waiting: Cell<usize>,
    bytes: Cell<usize>,
    flushes: RefCell<Vec<usize>>,
    counted: Cell<usize>,
}

impl Outlet for Recorder {
    fn push(&self, frame: Bytes) -> Result<(), Full> {
        self.force(frame);
        Ok(())
    }

    fn force(&self, frame: Bytes) {
        self.waiting.set(self.waiting.get() + 1);
        self.bytes.set(self.bytes.get() + frame.len());
    }

    fn push_bundle(&self, bundle: &Rc<Bundle>) -> Result<(), Full> {
        bundle.frames().try_for_each(|frame| self.push(frame))
    }

    fn flush(&self) -> Flush {
        self.bytes.set(0);
        self.flushes.borrow_mut().push(self.waiting.take());
        Flush::Drained
    }

    fn count(&self) {
        self.counted.set(self.counted.get() + 1);
    }

    fn waiting_bytes(&self) -> usize {
        self.bytes.get()
    }

    fn claim_wait(&self) -> bool {
        true
    }
}

struct Scene {
    members: Members,
    log: Arc<Log>,
    budget: Arc<Budget>,
    seq: u64,
    told: ProbeHandle<Told>,
}

fn address(number: u8) -> Address {
    Address([number; 20])
}

impl Scene {
    async fn new() -> Self {
        let log = Log::new(1 << 20, 0, Heads::default());
        // Nothing is read from the store.
        let (foundation, _) = foundation(log.clone()).await;
        let casting = Casting::new(foundation);
        let budget = Budget::new(usize::MAX, Probe::<BatchLost>::start().recipient());
        // Nothing touches the store from here on.
        tokio::time::pause();
        let members = Members::new(casting);
        Self { members, log, budget, seq: 0, told: Probe::start() }
    }

    /// A session with a subscription for each of these users, that may wait so long.
    fn join(&mut self, subscriptions: &[(u8, u16)]) -> Rc<Recorder> {
        let wire = Rc::<Recorder>::default();
        let id = self.members.join(self.told.recipient(), wire.clone(), &Plain, 1 << 20);
        let mut all = Subscriptions::default();
        let changes: Vec<_> = subscriptions
            .iter()
            .map(|&(user, linger_ms)| {
                let users = Users::Listed([address(user)].into());
                let wanted = Wanted { linger_ms, ..Wanted::new(FILLS, users) };
                all.begin(&user.to_string(), wanted, &SessionConfig::default()).unwrap()
            })
            .collect();
        self.members.change(id, &changes, &all);
        wire
    }

    /// An event of a user comes, in a turn of its own.
    fn event(&mut self, user: u8, bytes: usize) {
        self.append(user, bytes);
        assert!(!self.members.turn());
    }

    fn append(&mut self, user: u8, bytes: usize) {
        self.append_batch(&[user], bytes);
    }

    /// An event of each of these users comes in one batch.
    fn append_batch(&mut self, users: &[u8], bytes: usize) {
        let event = |&user| {
            self.seq += 1;
            let id = EventId { topic: FILLS, position: self.seq, index: 0, part: 0 };
            let body = format!("{{\"x\":\"{}\"}}", "x".repeat(bytes)).into();
            let (keys, user) = (Keys::default(), Some(address(user)));
            let event = Event { id, time: Timestamp(0), user, keys, body };
            let sequenced = SequencedEvent { seq: self.seq, late: false, event };
            LogEvent::new(sequenced, Arc::default())
        };
        let events = users.iter().map(event).collect();
        let stream = Stream {
            name: "fills".into(),
            node: "node".into(),
            topic: FILLS,
            form: Form::ByBlock,
            density: Density::Dense,
            directory: "fills".into(),
        };
        self.log.append(NewSegment {
            generation: 0,
            events,
            notices: vec![],
            seen: vec![],
            heads: Arc::default(),
            progress: Progress {
                stream: Arc::new(stream),
                files: vec![],
                state: Default::default(),
            },
            read_at: Timestamp::now(),
            credit: self.budget.take(1, 0),
        });
    }

    /// Time goes by; the alarm rings if it is due.
    async fn pass(&mut self, ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
        if self.members.next_due().is_some_and(|due| due <= Instant::now()) {
            self.members.flush_due(Instant::now());
        }
    }
}

#[actix_rt::test]
async fn what_may_wait_goes_in_one_write_when_the_first_of_it_has_waited_long_enough() {
    let mut scene = Scene::new().await;
    let wire = scene.join(&[(1, 100)]);

    for _ in 0..5 {
        scene.event(1, 10);
        scene.pass(20).await;
    }

    // The fifth one was 20 ms ago, the first one 100 ms.
    assert_eq!(*wire.flushes.borrow(), [5]);
    assert_eq!(wire.counted.get(), 5, "what waits is known all the time");
    assert_eq!(scene.members.next_due(), None);
    scene.event(1, 10);
    scene.pass(99).await;
    assert_eq!(*wire.flushes.borrow(), [5]);
    scene.pass(1).await;
    assert_eq!(*wire.flushes.borrow(), [5, 1]);
}

#[actix_rt::test]
async fn what_may_not_wait_takes_the_rest_along_and_the_shortest_time_counts() {
    let mut scene = Scene::new().await;
    let wire = scene.join(&[(1, 1_000), (2, 0), (3, 50)]);
    let other = scene.join(&[(1, 1_000)]);

    scene.event(1, 10);
    scene.event(2, 10);
    assert_eq!(*wire.flushes.borrow(), [2], "at once");
    scene.event(1, 10);
    scene.event(3, 10);
    scene.pass(50).await;

    assert_eq!(*wire.flushes.borrow(), [2, 2]);
    assert_eq!(*other.flushes.borrow(), [0; 0], "that is no business of another session");
    scene.pass(950).await;
    assert_eq!(*other.flushes.borrow(), [2]);
    assert_eq!(wire.flushes.borrow().len(), 2);
}

#[actix_rt::test]
async fn of_what_comes_together_all_goes_as_soon_as_the_shortest_time_allows() {
    let mut scene = Scene::new().await;
    // Some that get the same, and one alone.
    let several = (0..6).map(|_| scene.join(&[(1, 1_000), (2, 0), (3, 50)])).collect::<Vec<_>>();
    let alone = vec![scene.join(&[(4, 1_000), (5, 0), (6, 50)])];

    for (wires, [long, none, short]) in [(several, [1, 2, 3]), (alone, [4, 5, 6])] {
        let flushed = |expected: &[usize]| wires.iter().all(|wire| wire.flushes.take() == expected);
        for users in [[long, none, short], [short, long, none], [none, short, long]] {
            scene.append_batch(&users, 10);
            assert!(!scene.members.turn());
            assert!(flushed(&[3]), "at once");
        }
        for users in [[long, short], [short, long]] {
            scene.append_batch(&users, 10);
            assert!(!scene.members.turn());
            scene.pass(49).await;
            assert!(flushed(&[]));
            scene.pass(1).await;
            assert!(flushed(&[2]));
        }
    }
}

#[actix_rt::test]
async fn a_long_queue_does_not_wait_and_one_that_has_left_is_forgotten() {
    let mut scene = Scene::new().await;
    let wire = scene.join(&[(1, 1_000)]);

    scene.event(1, MAX_BYTES / 2);
    assert_eq!(*wire.flushes.borrow(), [0; 0]);
    scene.event(1, MAX_BYTES / 2);
    assert_eq!(*wire.flushes.borrow(), [2]);
    assert_eq!(scene.members.next_due(), None, "nothing waits");

    scene.event(1, 10);
    assert!(scene.members.next_due().is_some());
    let id = *scene.members.members.keys().next().unwrap();
    scene.members.leave(id, Subscriptions::default());
    assert_eq!(scene.members.next_due(), None);
}

#[actix_rt::test]
async fn the_alarm_rings_for_who_may_wait_least_and_again_for_the_others() {
    let mut scene = Scene::new().await;
    let patient = scene.join(&[(1, 1_000)]);
    let hasty = scene.join(&[(2, 10)]);
    scene.event(1, 10);
    let casting = scene.members.casting.clone();
    let members = mem::replace(&mut scene.members, Members::new(casting.clone()));
    let shard = Shard::new(casting, Rc::new(RefCell::new(members))).start();
    shard.send(RollCall).await.unwrap();

    // Its time is over long before that for which the alarm is set.
    scene.append(2, 10);
    shard.send(Appended).await.unwrap();
    let pass = async |ms| {
        tokio::time::advance(Duration::from_millis(ms)).await;
        // What the alarm does is done behind the first answer.
        shard.send(RollCall).await.unwrap();
        shard.send(RollCall).await.unwrap();
    };
    // Timers ring in the millisecond that follows.
    pass(11).await;
    assert_eq!((&**hasty.flushes.borrow(), &**patient.flushes.borrow()), (&[1][..], &[][..]));

    pass(990).await;
    assert_eq!(*patient.flushes.borrow(), [1]);
}

#[actix_rt::test]
async fn more_than_one_portion_that_is_due_at_once_goes_without_waiting_for_an_event() {
    let mut scene = Scene::new().await;
    let wires: Vec<_> = (0..600).map(|_| scene.join(&[(1, 100)])).collect();
    let flushed = || wires.iter().filter(|wire| *wire.flushes.borrow() == [1]).count();
    scene.event(1, 10);
    scene.members.hang_a_bell();

    scene.pass(100).await;

    assert_eq!(flushed(), 512);
    assert_eq!(scene.members.next_due(), None, "no alarm comes for the others");
    assert!(scene.members.rung, "but a turn does");
    assert!(!scene.members.turn());
    assert_eq!(flushed(), 600);
}

#[actix_rt::test]
async fn who_is_held_back_while_his_time_ends_is_moved_on_when_he_is_let_go() {
    let mut scene = Scene::new().await;
    let wire = scene.join(&[(1, 100)]);
    scene.event(1, 10);
    let id = *scene.members.members.keys().next().unwrap();
    // He asks for what has been, and goes on talking.
    scene.members.hold(id, true);
    let mut all = Subscriptions::default();
    let limits = SessionConfig::default();
    let change = all.subscribe("past", FILLS, Users::All, None, &limits).unwrap();
    let begins = Some(crate::event::Cursor { epoch: 0, run: 0, seq: 0, positions: Vec::new() });
    scene.members.change(id, &[Change { begins, ..change }], &all);
    assert!(!scene.members.turn(), "he is passed over");
    scene.members.hang_a_bell();

    scene.pass(100).await;
    assert_eq!(*wire.flushes.borrow(), [1], "what was live before");
    scene.members.hold(id, false);

    assert!(scene.members.rung, "there is somebody to be moved on");
    while scene.members.turn() {}
    assert_eq!(scene.members.casting.stats.sessions.behind.get(), 0, "he is live");
}
