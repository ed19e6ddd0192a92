//! Retention, sizes and compaction, with commits in between.

use super::{super::upkeep::PORTION, *};

#[actix_rt::test]
async fn retention_comes_soon_after_the_start_and_then_at_its_interval() {
    // H41
    tokio::time::pause();
    let config = StoreConfig {
        retention: Duration::from_secs(100),
        retention_interval: Duration::from_secs(60),
        min_free_bytes: 7,
        max_bytes: 9,
        ..StoreConfig::default()
    };
    let more = Retained { deleted: PORTION, more: true, ..Retained::default() };
    let last = Retained { deleted: 3, shortened: true, ..Retained::default() };
    let bench = Bench::with(config, |script| {
        script.size.free_disk_bytes = Some(7);
        script.retained.extend([more, more, last]);
    });

    bench.pass(6_000).await;

    {
        let script = bench.script.script();
        assert_eq!(script.retain_calls.len(), 3);
        let limits = script.retain_calls[0];
        assert_eq!(limits.edge, block_time(0).minus(Duration::from_secs(100)));
        assert_eq!((limits.max_bytes, limits.min_free_bytes), (Some(9), 7));
    }
    assert_eq!(bench.stats.store.deleted.get(), 2 * PORTION as u64 + 3);
    assert_eq!(bench.stats.store.retention_shortened.get(), 1);
    bench.pass(55_000).await;
    assert_eq!(bench.script.script().retain_calls.len(), 4);
    assert_eq!(bench.stats.store.retention_shortened.get(), 0);
    assert_eq!(bench.script.script().compactions, 1);
}

#[actix_rt::test]
async fn retention_that_failed_is_tried_again_soon_and_then_more_rarely() {
    tokio::time::pause();
    let day = Duration::from_secs(86_400);
    let config =
        StoreConfig { retention_interval: day, max_bytes: 1_000, ..StoreConfig::default() };
    let bench = Bench::with(config, |script| script.retain_failures = 10);
    let calls = || bench.script.script().retain_calls.len();

    // The first after 5 s; then after 1, 2, 4, 8 s.
    bench.pass(5_500).await;
    assert_eq!(calls(), 1);
    bench.pass(1_000).await;
    assert_eq!(calls(), 2);
    bench.pass(14_000).await;
    assert_eq!(calls(), 5);
    // A full disk asks every ten seconds, and that makes no more timers.
    bench.script.script().size.bytes = 1_001;
    bench.pass(40_000).await;
    assert_eq!(calls(), 9);
    bench.script.script().size.bytes = 0;
    bench.pass(600_000).await;
    // The last failure, and the try that succeeds.
    assert_eq!(calls(), 11);
}

#[actix_rt::test]
async fn commits_come_between_the_portions_of_retention() {
    tokio::time::pause();
    let more = Retained { deleted: PORTION, more: true, ..Retained::default() };
    let mut bench = Bench::scripted(|script| script.retained.extend((0..1_000).map(|_| more)));
    bench.pass(6_000).await;
    bench.append(1, 1);

    bench.pass(100).await;

    assert_eq!(bench.stored(), vec![1]);
    assert!(!bench.script.script().retained.is_empty());
}

#[actix_rt::test]
async fn a_store_above_its_budget_is_noticed_within_seconds() {
    tokio::time::pause();
    let config = StoreConfig {
        max_bytes: 1_000,
        min_free_bytes: 0,
        retention_interval: Duration::from_secs(86_400),
        ..StoreConfig::default()
    };
    let bench = Bench::with(config, |_| {});
    bench.pass(9_000).await;
    let before = bench.script.script().retain_calls.len();
    bench.script.script().size = StoreSize { bytes: 1_001, ..StoreSize::default() };

    bench.pass(10_000).await;

    assert_eq!(before, 1);
    assert_eq!(bench.script.script().retain_calls.len(), 2);
    assert_eq!(bench.stats.store.size_bytes.get(), 1_001);
}

#[actix_rt::test]
async fn with_nothing_to_commit_the_lease_is_renewed_and_room_is_made_ahead() {
    tokio::time::pause();
    let bench = Bench::start();

    bench.pass(9_500).await;
    assert_eq!(bench.script.script().renewals, 3);
    bench.pass(51_000).await;

    assert_eq!(bench.script.script().preparations, 1);
    assert!(bench.tried().is_empty());
}

#[actix_rt::test]
async fn a_lease_that_is_lost_with_nothing_to_commit_stops_the_daemon() {
    tokio::time::pause();
    let bench = Bench::scripted(|script| script.is_overtaken = true);

    bench.pass(20_000).await;

    let faults = bench.faults.take().await;
    assert!(matches!(faults[..], [StoreFault::Fatal(StoreError::LeaseLost(_))]), "{faults:?}");
    assert_eq!(bench.script.script().renewals, 1);
}

#[actix_rt::test]
async fn an_outage_with_nothing_to_commit_is_one_outage_however_many_renewals_fail() {
    tokio::time::pause();
    let bench = Bench::scripted(|script| script.is_away = true);
    let stats = bench.stats.clone();
    bench.pass(2_000).await;
    let sizes = stats.store.size_bytes.get();

    bench.pass(58_500).await;

    assert_eq!(bench.script.script().renewals, 20);
    assert_eq!((stats.store.outages.get(), stats.store.failures.get()), (1, 20));
    assert_ne!(stats.store.failing_since.get(), 0);
    assert_eq!(stats.store.failure.get(), "database is locked");
    // A store that is away is not bothered with anything else.
    let calls = bench.script.script().retain_calls.len();
    assert_eq!((calls, bench.script.script().preparations), (0, 0));
    assert_eq!(stats.store.size_bytes.get(), sizes);

    bench.script.script().is_away = false;
    bench.pass(3_500).await;
    assert_eq!((stats.store.failing_since.get(), stats.store.failure.get().as_str()), (0, ""));
    assert_eq!(stats.store.outages.get(), 1);

    // The next one is another.
    bench.script.script().is_away = true;
    bench.pass(3_500).await;
    assert_eq!(stats.store.outages.get(), 2);
}

#[actix_rt::test]
async fn a_commit_that_fails_in_an_outage_that_is_known_is_no_second_one() {
    tokio::time::pause();
    let mut bench = Bench::scripted(|script| {
        script.is_away = true;
        script.answers.extend([away(), away()]);
    });
    bench.pass(4_000).await;

    bench.append(1, 1);
    bench.pass(2_000).await;

    assert_eq!(bench.stored(), vec![1]);
    assert_eq!(bench.stats.store.outages.get(), 1);
    assert_eq!(bench.stats.store.failing_since.get(), 0);
}

#[actix_rt::test]
async fn a_command_to_prune_waits_while_the_live_stream_has_more_than_a_few_events_waiting() {
    let batch_delay = Duration::from_secs(3_600);
    let config = StoreConfig { batch_events: 10, batch_delay, ..StoreConfig::default() };
    let more = Retained { deleted: 7, more: true, ..Retained::default() };
    let mut bench = Bench::with(config, |script| script.retained.push_back(more));
    let prune = store::Prune { edge: block_time(5) };

    bench.append(2, 0);
    let postponed = bench.writer.send(prune).await.unwrap().unwrap();
    assert!(matches!(postponed, store::Pruned::Postponed), "{postponed:?}");
    bench.writer.send(Hurry).await.unwrap();
    let done = bench.writer.send(prune).await.unwrap().unwrap();

    assert!(matches!(done, store::Pruned::Done(retained) if retained == more), "{done:?}");
    assert_eq!(bench.stored(), [1, 2]);
    assert_eq!(bench.script.script().retain_calls[0].edge, block_time(5));
    assert_eq!(bench.stats.store.deleted.get(), 7);
}

#[actix_rt::test]
async fn a_command_to_prune_that_finds_the_lease_lost_stops_the_daemon_and_no_other_one_is_done() {
    let bench = Bench::scripted(|script| script.is_overtaken = true);
    let prune = store::Prune { edge: block_time(5) };

    let lost = bench.writer.send(prune).await.unwrap();
    let after = bench.writer.send(prune).await.unwrap();

    assert!(matches!(lost, Err(StoreError::LeaseLost(_))), "{lost:?}");
    assert!(matches!(after, Err(StoreError::Unusable(_))), "{after:?}");
    let faults = bench.faults.take().await;
    assert!(matches!(faults[..], [StoreFault::Fatal(StoreError::LeaseLost(_))]), "{faults:?}");
    assert_eq!(bench.script.script().retain_calls.len(), 1);
    assert_eq!(bench.stats.store.at_work_since.get(), 0);
}
