//! Snapshots: what the store and the log hold together, each event once, up to the cursor.

use std::{
    collections::{HashSet, VecDeque},
    pin::pin,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::poll;

use super::*;
use crate::store::{Arrivals, EventQuery, ReadConnections, Recovered, StoreSize};

/// A store that is committed to while it is read.
struct Overtaken {
    store: Arc<dyn EventStore>,
    log: Arc<Log>,
    /// Batches of the log that are committed with each read.
    batches: Mutex<VecDeque<u64>>,
    reads: AtomicUsize,
}

#[async_trait]
impl EventStore for Overtaken {
    fn describe(&self) -> String {
        self.store.describe()
    }

    fn read_connections(&self) -> ReadConnections {
        self.store.read_connections()
    }

    async fn open_writer(&self) -> Result<(Box<dyn StoreWriter>, Recovered), StoreError> {
        unreachable!("snapshots do not write")
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<SequencedEvent>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let events = self.store.events(query).await;
        if let Some(batch) = self.batches.lock().unwrap().pop_front() {
            self.log.commit(batch + 1);
        }
        events
    }

    async fn arrivals(&self, _after: u64, _limit: usize) -> Result<Arrivals, StoreError> {
        unreachable!("snapshots do not resume")
    }

    async fn stored(&self, _ids: Vec<EventId>) -> Result<HashSet<EventId>, StoreError> {
        unreachable!("snapshots do not ask for identities")
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        unreachable!("snapshots do not ask for sizes")
    }
}

const ALL: Rows = Rows::Fills { aggregate: false };

fn tids(newest: &Newest) -> Vec<u64> {
    newest.items.iter().map(|item| tid(std::str::from_utf8(item).unwrap())).collect()
}

#[actix_rt::test]
async fn a_snapshot_has_what_is_stored_and_what_is_only_cast_each_once() {
    let mut scene = Scene::of_rows(10).await;
    let stored = [fill(1, 0, 1), fill(2, 0, 2)].map(|event| scene.number(event));
    let number = scene.cast(&stored);
    scene.commit(&stored).await;
    scene.log.commit(number + 1);
    // Stored, and the log does not know yet.
    let both = [scene.number(fill(3, 1, 31))];
    scene.cast(&both);
    scene.commit(&both).await;
    // Only cast: one of the same block that came first there, one that is late, one of somebody else.
    let others = event(FILLS, 4, 0, 8, &fill_body(4, 40));
    let cast = [fill(3, 0, 30), fill(2, 1, 21), others].map(|event| scene.number(event));
    scene.cast(&cast);

    let newest = scene.info.newest(ALL, user(7)).await.unwrap();

    assert_eq!(tids(&newest), [30, 31, 2, 21, 1]);
    assert_eq!((newest.cursor.seq, newest.cursor.run), (6, 2));
}

#[actix_rt::test]
async fn a_snapshot_is_cut_at_its_rows_and_partial_fills_are_whole() {
    let mut scene = Scene::of_rows(2).await;
    scene.store([partial(1, 0, 1), partial(1, 1, 2), partial(2, 0, 3), partial(3, 0, 5)]).await;
    let cast = [partial(2, 1, 4)].map(|event| scene.number(event));
    scene.cast(&cast);

    let newest = scene.info.newest(Rows::Fills { aggregate: true }, user(7)).await.unwrap();
    let single = scene.info.newest(ALL, user(7)).await.unwrap();

    let sizes = newest.items.iter().map(|item| serde_json::from_slice::<Value>(item).unwrap());
    let sizes: Vec<_> = sizes.map(|fill| fill["sz"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sizes, ["3.9", "7.8"], "one half of it is in the store, one in the log");
    assert_eq!(tids(&single), [5, 3]);
}

#[actix_rt::test]
async fn snapshots_have_the_shapes_of_subscriptions() {
    let mut scene = Scene::of_rows(10).await;
    scene.store([funding(1), update(2, r#"{"type":"deposit"}"#), slice(3, 0, 5)]).await;
    let cast = [funding(4), update(4, "{}"), fill(5, 0, 6)].map(|event| scene.number(event));
    scene.cast(&cast);
    let text = async |of| {
        let newest = scene.info.newest(of, user(7)).await.unwrap();
        newest
            .items
            .iter()
            .map(|item| String::from_utf8(item.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };

    let fundings = text(Rows::Fundings).await;
    assert_eq!(fundings.len(), 4);
    let first = format!(r#"{{"time":{},"coin":"ZEC","usdc":"9.330246","#, block_ms(4));
    assert!(fundings[0].starts_with(&first), "{}", fundings[0]);
    assert!(fundings[3].contains("\"BTC\"") && fundings[3].contains(&block_ms(1).to_string()));
    let updates = text(Rows::LedgerUpdates).await;
    let newest = format!(r#"{{"time":{},"hash":"0x5a44","delta":{{}}}}"#, block_ms(4));
    assert_eq!((updates.len(), &updates[0]), (2, &newest));
    let slices = text(Rows::TwapSliceFills).await;
    assert_eq!(slices.len(), 1);
    assert!(slices[0].starts_with(r#"{"fill":{"#) && slices[0].ends_with(r#","twapId":1671203}"#));
}

#[actix_rt::test]
async fn an_empty_snapshot_still_says_where_live_begins() {
    let mut scene = Scene::of_rows(10).await;
    let nothing = scene.info.newest(ALL, user(7)).await.unwrap();
    let others = [event(FILLS, 4, 0, 8, &fill_body(4, 40))].map(|event| scene.number(event));
    scene.cast(&others);
    scene.cast(&[]);

    let newest = scene.info.newest(ALL, user(7)).await.unwrap();

    assert!(nothing.items.is_empty() && newest.items.is_empty());
    assert_eq!((nothing.cursor.seq, newest.cursor.seq), (0, 1));
}

#[actix_rt::test]
async fn what_was_given_up_and_left_the_log_does_not_hide_what_is_there() {
    let mut scene = Scene::of_rows(10).await;
    let log = Log::new(0, 0, Heads { epoch: 1, run: 2, positions: vec![] });
    scene.log = log.clone();
    let lost = [fill(1, 0, 1)].map(|event| scene.number(event));
    scene.cast(&lost);
    log.abandon_uncommitted();
    // With this one the lost one leaves, and no committed number is as high as its own.
    let empty = scene.cast(&[]);
    log.commit(empty + 1);
    let state = log.state();
    assert_eq!((state.left_seq, state.committed_seq), (1, 0));
    let again = [fill(1, 0, 1), fill(2, 0, 2)].map(|event| scene.number(event));
    scene.cast(&again);
    let newest = async |scene: &Scene| {
        newest::newest(&*scene.info.store, &log, ALL, user(7), 10).await.unwrap()
    };

    let in_log = newest(&scene).await;
    scene.commit(&again).await;
    let in_both = newest(&scene).await;

    assert_eq!((tids(&in_log), in_log.cursor.seq), (vec![2, 1], 3));
    assert_eq!((tids(&in_both), in_both.cursor.seq), (vec![2, 1], 3));
}

/// A log that keeps nothing that is committed, and a store that knows each batch before the log does.
async fn overtaken(batches: usize) -> (Overtaken, Scene) {
    let mut scene = Scene::of_rows(10).await;
    scene.log = Log::new(0, 0, Heads { epoch: 1, run: 2, positions: vec![] });
    let mut numbers = VecDeque::new();
    for block in 1..=batches as u64 {
        let events = [fill(block, 0, block)].map(|event| scene.number(event));
        numbers.push_back(scene.cast(&events));
    }
    let store = Overtaken {
        store: scene.info.store.clone(),
        log: scene.log.clone(),
        batches: Mutex::new(numbers),
        reads: AtomicUsize::new(0),
    };
    (store, scene)
}

#[actix_rt::test]
async fn what_left_the_log_during_the_read_is_looked_for_again() {
    let (store, mut scene) = overtaken(3).await;
    let log = scene.log.clone();
    let events = (1..=3).zip([1, 2, 3]).map(|(block, seq)| SequencedEvent {
        seq,
        late: false,
        event: fill(block, 0, block),
    });
    scene.commit(&events.collect::<Vec<_>>()).await;

    let found = newest::newest(&store, &log, ALL, user(7), 10).await.unwrap();

    // Each read was overtaken by a commit, until there was none.
    assert_eq!(tids(&found), [3, 2, 1]);
    assert_eq!((found.cursor.seq, store.reads.load(Ordering::SeqCst)), (3, 4));
}

#[actix_rt::test]
async fn a_snapshot_that_is_overtaken_for_ever_is_an_error() {
    let (store, scene) = overtaken(9).await;

    let error = newest::newest(&store, &scene.log, ALL, user(7), 10).await.unwrap_err();

    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
}

#[actix_rt::test]
async fn only_some_snapshots_read_the_store_at_one_time() {
    let mut scene = Scene::of_rows(10).await;
    scene.store([fill(1, 0, 1)]).await;
    let others = scene.info.reads.acquire_many(MAX_READS as u32).await.unwrap();

    let mut newest = pin!(scene.info.newest(ALL, user(7)));
    let waits = poll!(newest.as_mut()).is_pending();
    drop(others);

    assert!(waits);
    assert_eq!(tids(&newest.await.unwrap()), [1]);
    assert_eq!(scene.stats.official.snapshots.get(), 0);
}

#[actix_rt::test]
async fn a_snapshot_that_has_no_turn_in_time_is_an_error() {
    let scene = Scene::of_rows(10).await;
    let _others = scene.info.reads.acquire_many(MAX_READS as u32).await.unwrap();
    // Time goes on by itself while everybody waits.
    tokio::time::pause();

    let error = scene.info.newest(ALL, user(7)).await.unwrap_err();

    assert!(error.to_string().contains("too many snapshots are read"), "{error}");
    assert_eq!(scene.stats.official.snapshots.get(), 0);
}
