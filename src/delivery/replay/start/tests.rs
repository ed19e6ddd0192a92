use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::{sync::Semaphore, time::Instant};

use super::*;
use crate::{
    event::{EventId, Keys, SequencedEvent},
    router::log::Log,
    stats::Stats,
    store::{Arrivals, EventStore, ReadConnections, Recovered, StoreSize, StoreWriter},
};

/// A store in which every read waits until the test lets it go on.
struct Slow {
    /// Reads that may end.
    ends: Semaphore,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl EventStore for Slow {
    fn describe(&self) -> String {
        "slow".to_owned()
    }

    fn read_connections(&self) -> ReadConnections {
        ReadConnections::default()
    }

    async fn open_writer(&self) -> Result<(Box<dyn StoreWriter>, Recovered), StoreError> {
        Err(StoreError::Unusable("only read".to_owned()))
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<SequencedEvent>, StoreError> {
        assert!(query.limit <= SEARCH_ROWS, "{query:?}");
        let under_way = self.under_way.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(under_way, SeqCst);
        self.ends.acquire().await.expect("it is never closed").forget();
        self.under_way.fetch_sub(1, SeqCst);
        Ok(Vec::new())
    }

    async fn arrivals(&self, _: u64, _: usize) -> Result<Arrivals, StoreError> {
        Ok(Arrivals::default())
    }

    async fn stored(&self, _: Vec<EventId>) -> Result<HashSet<EventId>, StoreError> {
        Ok(HashSet::new())
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        Ok(StoreSize::default())
    }
}

fn pages() -> (Arc<Slow>, Pages) {
    let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let store = Arc::new(Slow { ends: Semaphore::new(0), under_way, most });
    let log = Log::new(1 << 20, 100, Heads { epoch: 1, run: 2, positions: vec![] });
    let stats = Arc::new(Stats::default());
    let keys = |_, _: &[u8]| Keys::default();
    (store.clone(), Pages::new(store, log, keys, vec![], stats))
}

/// All that makes the store search.
fn searches() -> [Since; 4] {
    let of_another_store = Cursor { epoch: 7, run: 7, seq: 7, positions: vec![] };
    [Since::Block(1), Since::Time(Timestamp(1)), Since::Last(3), Since::Cursor(of_another_store)]
}

fn wanted() -> Wanted {
    Wanted::new(Topic::new("fills"), Users::All)
}

#[actix_rt::test]
async fn few_look_for_their_place_at_one_time_and_all_find_it() {
    let (store, pages) = pages();
    let wanted = wanted();
    let all = (0..5).flat_map(|_| searches()).map(|from| pages.start(from, &wanted));
    let all = join_all(all);

    let let_go = async {
        for _ in 0..20 {
            while store.under_way.load(SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            store.ends.add_permits(1);
            tokio::task::yield_now().await;
        }
    };
    let (starts, ()) = tokio::join!(all, let_go);

    assert_eq!(starts.len(), 20);
    starts.into_iter().for_each(|start| drop(start.unwrap()));
    assert_eq!(store.most.load(SeqCst), SEARCHES);
}

#[actix_rt::test]
async fn who_waits_too_long_for_others_is_refused_and_the_page_of_a_replay_is_not() {
    tokio::time::pause();
    let (store, pages) = pages();
    let wanted = wanted();
    let begun = Instant::now();
    let hang = join_all((0..SEARCHES).map(|_| pages.start(Since::Block(1), &wanted)));
    let others = async {
        for from in searches() {
            let refused = pages.start(from, &wanted).await;
            assert!(matches!(refused, Err(ResumeError::Busy)), "{refused:?}");
        }
        assert_eq!(begun.elapsed().as_secs(), 4 * MAX_WAIT.as_secs());
        pages.page(0).await.unwrap();
        store.ends.add_permits(SEARCHES);
    };

    let (found, ()) = tokio::join!(hang, others);

    found.into_iter().for_each(|start| drop(start.unwrap()));
    // Places are given back.
    store.ends.add_permits(1);
    pages.start(Since::Block(1), &wanted).await.unwrap();
}
