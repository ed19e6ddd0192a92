//! Bursts: with whomever a session shares them, it gets what it wants as if it were alone.

use std::net::Ipv4Addr;

use actix_web::http::header::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::{
    client::Client,
    config::HttpConfig,
    delivery::{
        body::Body,
        deflate,
        dialect::{Dialect, Shown, plain::Plain, sse::Sse},
        subscription::Wanted,
        view::{View, Views},
    },
    official::tests::FILL,
};

/// How a client is connected, and what it wants.
#[derive(Clone, Debug)]
struct Asks {
    speaks: Speaks,
    /// Of one user or of all; the view is for who speaks the official protocol.
    wanted: Vec<(Option<u8>, u8)>,
    /// Room for so many bytes and frames.
    room: (usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Native,
    Packed,
    Plain,
    Sse,
    Official,
}

/// An event: of which user, and how many bytes longer than the shortest.
type Made = (u8, usize);

/// A body that is compressed.
struct Packing(Rc<Body>);

/// Shorter frames are not.
const PACKS_FROM: usize = 600;

impl Outlet for Packing {
    fn push(&self, frame: Bytes) -> Result<(), Full> {
        self.0.push(frame)
    }

    fn push_bundle(&self, bundle: &Rc<Bundle>) -> Result<(), Full> {
        self.0.push_bundle(bundle)
    }

    fn force(&self, frame: Bytes) {
        self.0.force(frame);
    }

    fn flush(&self) -> Flush {
        self.0.flush()
    }

    fn count(&self) {
        self.0.count();
    }

    fn packs_from(&self) -> usize {
        PACKS_FROM
    }

    fn waiting_bytes(&self) -> usize {
        self.0.waiting_bytes()
    }

    fn claim_wait(&self) -> bool {
        self.0.claim_wait()
    }
}

/// A session and what it has received.
struct Listener {
    id: SessionId,
    asks: Asks,
    body: Rc<Body>,
    subscriptions: Subscriptions,
    received: Vec<Bytes>,
    /// How much of that came before it took anything.
    live: usize,
}

impl Speaks {
    fn dialect(self) -> &'static dyn Dialect {
        match self {
            Self::Native | Self::Packed => Door::Native.dialect(),
            Self::Plain => &Plain,
            Self::Sse => &Sse,
            Self::Official => Door::Open.settle(r#"{"method":"ping"}"#).unwrap(),
        }
    }
}

impl Asks {
    /// Only answers to polls have a limit in frames.
    fn is_stream(&self) -> bool {
        self.room.1 == usize::MAX
    }

    /// The views in which it gets an event of a user.
    fn views(&self, user: u8) -> Views {
        let wanted = self.wanted.iter().filter(|(one, _)| one.is_none_or(|one| one == user));
        wanted.map(|(_, view)| self.view(*view)).fold(Views::NONE, Views::and)
    }

    fn view(&self, number: u8) -> Views {
        match self.speaks {
            Speaks::Official => Views::of(View::new(number)),
            _ => Views::default(),
        }
    }

    /// The frames of an event, with their places and sizes apart from all that delivery does.
    fn frames(&self, events: &[LogEvent], at: usize, replayed: bool) -> Vec<Bytes> {
        let user = events[at].sequenced.event.user.expect("each has one").0[0];
        let shown = self.views(user).iter().map(|view| Shown { events, at, view });
        let plain = shown.map(|shown| self.speaks.dialect().event(shown, replayed));
        let plain = plain.filter(|frame| !frame.is_empty());
        let stats = Default::default();
        plain
            .map(|frame| match self.speaks {
                Speaks::Packed if frame.len() >= PACKS_FROM => {
                    deflate::pack(&frame, &stats).unwrap_or(frame)
                }
                _ => frame,
            })
            .collect()
    }
}

impl Scene {
    fn is_live(&self, id: SessionId) -> bool {
        self.members.members[&id].is_live()
    }

    /// All that was cast.
    fn all(&self) -> Vec<Arc<Segment>> {
        self.log.read(0, usize::MAX).segments
    }

    fn listen(&mut self, asks: &Asks) -> Listener {
        let casting = self.members.casting.clone();
        let client =
            Client::of(Some(Ipv4Addr::LOCALHOST.into()), &HeaderMap::new(), &HttpConfig::default());
        let limits = SessionConfig::default();
        let permit = casting.sessions.enter(client, &limits).unwrap();
        let (outbox_bytes, frames) = asks.room;
        let limits = SessionConfig { outbox_bytes, ..limits };
        let body = Body::new(&limits, frames, casting.stats.clone(), permit);
        let wire: Rc<dyn Outlet> = match asks.speaks {
            Speaks::Packed => Rc::new(Packing(body.clone())),
            _ => body.clone(),
        };
        let dialect = asks.speaks.dialect();
        let id = self.members.join(self.told.recipient(), wire, dialect, 1 << 20);
        let mut subscriptions = Subscriptions::default();
        for (number, &(user, view)) in asks.wanted.iter().enumerate() {
            let users = user.map_or(Users::All, |user| Users::Listed([Address([user; 20])].into()));
            let wanted = Wanted { views: asks.view(view), ..Wanted::new(FILLS, users) };
            let change = subscriptions.begin(&number.to_string(), wanted, &limits).unwrap();
            self.members.settle();
            self.members.change(id, &[change], &subscriptions);
        }
        Listener { id, asks: asks.clone(), body, subscriptions, received: Vec::new(), live: 0 }
    }

    fn append_made(&mut self, batch: &[Made]) {
        let body = |length| FILL.replace("0xe9ce", &format!("0x{}", "e9".repeat(length))).into();
        let bodies = batch.iter().map(|&(user, length)| (Some(Address([user; 20])), body(length)));
        self.append_bodies(bodies);
    }
}

impl Listener {
    /// Takes what waits; the one who is behind goes on.
    fn take(&mut self, members: &mut Members) {
        self.received.extend(self.body.take_frames());
        members.learn(self.id, &self.subscriptions);
        members.room(self.id);
    }
}

fn asks() -> impl Strategy<Value = Asks> {
    let speaks = prop_oneof![
        Just(Speaks::Native),
        Just(Speaks::Packed),
        Just(Speaks::Plain),
        Just(Speaks::Sse),
        Just(Speaks::Official),
    ];
    let user = prop_oneof![Just(None), (0..3_u8).prop_map(Some)];
    let wanted = prop::collection::vec((user, 0..5_u8), 1..3);
    let room = prop_oneof![
        2 => Just((usize::MAX, usize::MAX)),
        1 => (0..20_000_usize).prop_map(|bytes| (bytes, usize::MAX)),
        1 => (0..60_usize).prop_map(|frames| (usize::MAX, frames)),
    ];
    (speaks, wanted, room).prop_map(|(speaks, wanted, (bytes, frames))| {
        let frames = if speaks == Speaks::Plain { frames } else { usize::MAX };
        Asks { speaks, wanted, room: (bytes, frames) }
    })
}

/// All events, each among those that came with it.
fn places(segments: &[Arc<Segment>]) -> impl Iterator<Item = (&[LogEvent], usize)> {
    segments.iter().flat_map(|one| (0..one.events.len()).map(|at| (&*one.events, at)))
}

/// Rounds in which whoever is slow gets all he has missed: some frames in each.
const ROUNDS: usize = 10_000;

/// Casts these batches to these clients, who take nothing meanwhile; then they take all.
async fn check(
    clients: &[Asks],
    batches: &[Vec<Made>],
    turns: &[bool],
) -> Result<(), TestCaseError> {
    let mut scene = Scene::new().await;
    let mut listeners: Vec<_> = clients.iter().map(|asks| scene.listen(asks)).collect();
    for (batch, takes_turn) in batches.iter().zip(turns) {
        scene.append_made(batch);
        while *takes_turn && scene.members.turn() {}
    }
    while scene.members.turn() {}

    for listener in &mut listeners {
        check_live(listener, &scene)?;
    }
    for _ in 0..ROUNDS {
        let slow = listeners.iter_mut().filter(|one| one.asks.is_stream());
        let mut slow: Vec<_> = slow.filter(|one| !scene.is_live(one.id)).collect();
        if slow.is_empty() {
            break;
        }
        slow.iter_mut().for_each(|one| one.take(&mut scene.members));
        while scene.members.turn() {}
    }
    for listener in &mut listeners {
        check_rest(listener, &scene)?;
    }

    let stats = scene.members.casting.stats.clone();
    drop((scene, listeners));
    let counts = &stats.sessions;
    let (queued, sent) = (counts.frames_queued.get(), counts.frames_sent.get());
    prop_assert_eq!(queued, sent + counts.frames_dropped.get());
    prop_assert_eq!(counts.outbox_bytes.get(), 0);
    Ok(())
}

/// What had room while nothing was taken: of an event all, if its first frame had.
fn check_live(listener: &mut Listener, scene: &Scene) -> Result<(), TestCaseError> {
    let (bytes, frames) = listener.asks.room;
    let (mut expected, mut queued) = (Vec::new(), 0);
    let mut delivered = scene.members.cursor().seq;
    let segments = scene.all();
    for (events, at) in places(&segments) {
        let of_one = listener.asks.frames(events, at, false);
        let Some(first) = of_one.first() else { continue };
        if expected.len() >= frames || (queued + first.len() > bytes && !expected.is_empty()) {
            delivered = events[at].sequenced.seq - 1;
            break;
        }
        queued += of_one.iter().map(Bytes::len).sum::<usize>();
        expected.extend(of_one);
    }

    prop_assert_eq!(scene.members.cursor_of(listener.id).seq, delivered);
    listener.received = listener.body.take_frames();
    listener.live = listener.received.len();
    prop_assert_eq!(&listener.received, &expected, "{:?}", listener.asks);
    Ok(())
}

/// The rest comes from the log, for who is not answered once and for all.
fn check_rest(listener: &mut Listener, scene: &Scene) -> Result<(), TestCaseError> {
    if !listener.asks.is_stream() {
        return Ok(());
    }
    prop_assert!(scene.is_live(listener.id), "{:?}", listener.asks);
    listener.received.extend(listener.body.take_frames());
    let segments = scene.all();
    let replayed =
        places(&segments).flat_map(|(events, at)| listener.asks.frames(events, at, true));
    let replayed: Vec<_> = replayed.collect();
    let live = listener.live;

    prop_assert_eq!(&listener.received[live..], &replayed[live..], "{:?}", listener.asks);
    prop_assert_eq!(scene.members.cursor_of(listener.id), scene.members.cursor());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn each_gets_what_he_wants_in_order_whoever_wants_the_same(
        kinds in prop::collection::vec((asks(), 1..6_usize), 1..5),
        batches in prop::collection::vec(prop::collection::vec((0..3_u8, 1..300_usize), 1..50), 1..4),
        turns in any::<[bool; 3]>(),
    ) {
        // Those of one kind do not follow each other.
        let of_turn = |turn| kinds.iter().filter(move |(_, count)| turn < *count);
        let clients: Vec<_> = (0..6).flat_map(of_turn).map(|(asks, _)| asks.clone()).collect();

        actix_rt::System::new().block_on(check(&clients, &batches, &turns))?;
    }
}

#[actix_rt::test]
async fn who_wants_more_of_one_event_of_a_burst_shares_no_piece_with_those_who_do_not() {
    let official = |wanted: &[_]| Asks {
        speaks: Speaks::Official,
        wanted: wanted.to_vec(),
        room: (usize::MAX, usize::MAX),
    };
    let [less, more] = [official(&[(None, 0)]), official(&[(None, 0), (Some(1), 2)])];
    let batches = [vec![(0, 1), (1, 1)]];

    for clients in [[&less, &more], [&more, &less]] {
        let clients: Vec<_> = (0..4).flat_map(|_| clients).cloned().collect();
        check(&clients, &batches, &[true]).await.unwrap();
    }
}

#[actix_rt::test]
async fn who_catches_up_leaves_room_for_those_who_are_live() {
    const TOTAL: usize = 16_000_000;
    const CLIENTS: usize = 100;
    let mut scene = Scene::configured(|session| session.outbox_total_bytes = TOTAL).await;
    let asks =
        Asks { speaks: Speaks::Native, wanted: vec![(None, 0)], room: (1 << 20, usize::MAX) };
    // They fall behind in one moment, as when the log has gone on without its shard, and take nothing.
    let mut listeners: Vec<_> = (0..CLIENTS).map(|_| scene.listen(&asks)).collect();
    scene.members.missed(0);
    for listener in &listeners {
        scene.members.learn(listener.id, &listener.subscriptions);
    }
    let events = vec![(0, 1); 1_000];
    scene.append_made(&events);
    let frame = asks.frames(&scene.all()[0].events, 0, true)[0].len();
    for listener in &listeners {
        scene.members.room(listener.id);
    }
    while scene.members.turn() {}

    let stats = scene.members.casting.stats.clone();
    let waiting = stats.sessions.outbox_bytes.get() as usize;
    // What one turn queues is counted behind it: those who came first have more than the others.
    assert!((TOTAL / 4..TOTAL / 4 * 3).contains(&waiting), "{waiting}");
    let least = listeners.iter().map(|one| one.body.waiting_bytes()).min().unwrap();
    assert!(least >= TOTAL / 4 / CLIENTS && least < TOTAL / 4 / CLIENTS + frame, "{least}");

    for _ in 0..ROUNDS {
        listeners.iter_mut().for_each(|one| one.take(&mut scene.members));
        while scene.members.turn() {}
        if listeners.iter().all(|one| scene.is_live(one.id)) {
            break;
        }
    }
    for listener in &mut listeners {
        listener.received.extend(listener.body.take_frames());
        assert_eq!(listener.received.len(), events.len());
    }
}

#[actix_rt::test]
async fn each_event_of_the_longest_burst_makes_a_difference() {
    let of_user = |user| Asks {
        speaks: Speaks::Native,
        wanted: vec![(Some(user), 0)],
        room: (usize::MAX, usize::MAX),
    };
    let clients: Vec<_> = [0, 1].into_iter().cycle().take(10).map(of_user).collect();

    for distance in 1..BURST_EVENTS {
        let mut batch = vec![(2, 1); BURST_EVENTS];
        (batch[0], batch[distance]) = ((0, 1), (1, 1));
        check(&clients, &[batch], &[true]).await.unwrap();
    }
}
