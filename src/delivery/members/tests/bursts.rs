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
        dialect::{Dialect, Shown, plain::Plain},
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
    Official,
}

/// Of one of three users, so much longer than others.
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
}

impl Speaks {
    fn dialect(self) -> &'static dyn Dialect {
        match self {
            Self::Native | Self::Packed => Door::Native.dialect(),
            Self::Plain => &Plain,
            Self::Official => Door::Open.settle(r#"{"method":"ping"}"#).unwrap(),
        }
    }
}

impl Asks {
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
    fn listen(&mut self, asks: &Asks) -> Listener {
        let casting = self.members.casting.clone();
        let client =
            Client::of(Some(Ipv4Addr::LOCALHOST.into()), &HeaderMap::new(), &HttpConfig::default());
        let limits = SessionConfig::default();
        let permit = casting.sessions.enter(client, &limits).unwrap();
        let (bytes, frames) = asks.room;
        let body = Body::new(bytes, frames, casting.stats.clone(), permit);
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
        Listener { id, asks: asks.clone(), body, subscriptions, received: Vec::new() }
    }

    fn append_made(&mut self, batch: &[Made]) {
        self.block += 1;
        let before = Arc::new(heads(self.block - 1));
        let events = batch.iter().zip(0..).map(|(&(user, length), index)| {
            self.seq += 1;
            let id = EventId { topic: FILLS, position: self.block, index, part: 0 };
            let body = FILL.replace("0xe9ce", &format!("0x{}", "e9".repeat(length))).into();
            let user = Some(Address([user; 20]));
            let event = Event { id, time: Timestamp(0), user, keys: Keys::default(), body };
            LogEvent::new(SequencedEvent { seq: self.seq, late: false, event }, before.clone())
        });
        let events = events.collect();
        self.append_batch(events, Vec::new());
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
        // Only polls have a limit in frames.
        let frames = if speaks == Speaks::Plain { frames } else { usize::MAX };
        Asks { speaks, wanted, room: (bytes, frames) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn each_gets_what_he_wants_in_order_whoever_wants_the_same(
        kinds in prop::collection::vec((asks(), 1..6_usize), 1..5),
        batches in prop::collection::vec(prop::collection::vec((0..3_u8, 1..300_usize), 1..50), 1..4),
        turns in any::<[bool; 3]>(),
    ) {
        actix_rt::System::new().block_on(async {
            let mut scene = Scene::new().await;
            let mut listeners = Vec::new();
            // Those of one kind do not follow each other.
            for turn in 0..6 {
                for (asks, _) in kinds.iter().filter(|(_, count)| turn < *count) {
                    listeners.push(scene.listen(asks));
                }
            }

            for (batch, takes_turn) in batches.iter().zip(turns) {
                scene.append_made(batch);
                while takes_turn && scene.members.turn() {}
            }
            while scene.members.turn() {}
            let live: Vec<_> = listeners.iter_mut().map(|one| {
                one.received.extend(one.body.take_frames());
                one.received.len()
            }).collect();
            // Who wants no more than so many frames has them.
            let is_slow = |one: &Listener| one.asks.room.1 == usize::MAX;
            while scene.members.members.iter().any(|(id, member)| {
                !member.is_live() && listeners.iter().any(|one| one.id == *id && is_slow(one))
            }) {
                let slow = listeners.iter_mut().filter(|one| is_slow(one));
                slow.for_each(|one| one.take(&mut scene.members));
                while scene.members.turn() {}
            }
            listeners.iter_mut().for_each(|one| one.received.extend(one.body.take_frames()));

            let segments = scene.log.read(0, usize::MAX).segments;
            let all = || segments.iter().flat_map(|one| (0..one.events.len()).map(move |at| (&*one.events, at)));
            for (listener, live) in listeners.into_iter().zip(live) {
                let (bytes, frames) = listener.asks.room;
                // What had room while nothing was taken: of an event all, if its first frame had.
                let (mut expected, mut queued, mut full) = (Vec::new(), 0, false);
                for (events, at) in all() {
                    let of_one = listener.asks.frames(events, at, false);
                    let Some(first) = of_one.first() else { continue };
                    full |= expected.len() >= frames
                        || (queued + first.len() > bytes && !expected.is_empty());
                    if full {
                        break;
                    }
                    queued += of_one.iter().map(Bytes::len).sum::<usize>();
                    expected.extend(of_one);
                }
                prop_assert_eq!(&listener.received[..live], &expected, "{:?}", listener.asks);
                if full && frames == usize::MAX {
                    // The rest comes from the log.
                    let rest = all()
                        .flat_map(|(events, at)| listener.asks.frames(events, at, true))
                        .skip(live);
                    prop_assert_eq!(
                        &listener.received[live..],
                        &rest.collect::<Vec<_>>(),
                        "{:?}",
                        listener.asks
                    );
                    prop_assert_eq!(
                        scene.members.cursor_of(listener.id),
                        scene.members.cursor()
                    );
                }
            }
            Ok(())
        })?;
    }
}
