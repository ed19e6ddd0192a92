use super::*;
use crate::{config::WhitelistConfig, testing::log};

fn address(number: u8) -> Address {
    Address([number; 20])
}

fn added(numbers: &[u8]) -> ListChanged {
    ListChanged::of(numbers.iter().copied().map(address), [])
}

fn backfills(directory: &std::path::Path) -> Arc<Backfills> {
    let list = Whitelist::build(Vec::new(), &WhitelistConfig::default());
    Backfills::new(directory.to_owned(), true, list.into(), Arc::default(), log())
}

fn users(directory: &std::path::Path, job: &Job) -> Option<Vec<Address>> {
    Saved::read(directory, &job.name).unwrap().users
}

#[actix_rt::test]
async fn additions_during_a_job_wait_for_one_next_job() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let backfills = backfills(path);

    backfills.list_changed(&added(&[1])).unwrap();
    let first = backfills.next().await;
    backfills.list_changed(&added(&[4, 2])).unwrap();
    backfills.list_changed(&added(&[3, 2])).unwrap();
    assert_eq!(backfills.stats.backfill.waiting.get(), 1);
    backfills.finished();
    let second = backfills.next().await;

    assert_eq!(users(path, &first), Some(vec![address(1)]));
    assert_eq!(users(path, &second), Some([2, 3, 4].map(address).to_vec()));
    // A kill: both are there again, and none of them takes in somebody else.
    let again = self::backfills(path);
    again.take_up().unwrap();
    assert_eq!(again.next().await.name, first.name);
    assert_eq!(again.next().await.name, second.name);
}

#[actix_rt::test]
async fn a_job_by_list_whose_store_failed_comes_again() {
    tokio::time::pause();
    let directory = tempfile::tempdir().unwrap();
    let backfills = backfills(directory.path());
    backfills.list_changed(&added(&[1])).unwrap();

    let job = backfills.next().await;
    job.tell(&Report { state: JobState::Failed, ..Report::default() });
    backfills.finished();

    let again = backfills.next().await;
    assert_eq!((&again.name, again.follow().borrow().state), (&job.name, JobState::Waiting));
    again.tell(&Report { state: JobState::Done, ..Report::default() });
    backfills.finished();
    assert_eq!(backfills.stats.backfill.waiting.get(), 0);
}

#[actix_rt::test]
async fn so_many_that_they_are_not_named_are_the_whole_list() {
    let directory = tempfile::tempdir().unwrap();
    let backfills = backfills(directory.path());
    backfills.list_changed(&added(&[1])).unwrap();
    let many = ListChanged { added_count: 9, ..added(&[2]) };

    backfills.list_changed(&many).unwrap();
    backfills.list_changed(&added(&[3])).unwrap();

    let job = backfills.next().await;
    assert_eq!(users(directory.path(), &job), None);
    assert_eq!(backfills.stats.backfill.waiting.get(), 0);
}

#[actix_rt::test]
async fn nothing_is_to_do_for_everybody_for_nobody_or_when_it_is_switched_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let backfills = backfills(path);
    backfills.list_changed(&ListChanged::of([], [address(1)])).unwrap();
    backfills.replace_list(Whitelist::all().into());
    backfills.list_changed(&added(&[1])).unwrap();
    let off = Backfills::new(path.into(), false, backfills.list(), Arc::default(), log());
    off.replace_list(Whitelist::build(Vec::new(), &WhitelistConfig::default()).into());
    off.list_changed(&added(&[1])).unwrap();

    assert_eq!(backfills.stats.backfill.waiting.get(), 0);
    assert_eq!(off.stats.backfill.waiting.get(), 0);
    assert!(Saved::list(path).unwrap().is_empty());
}

#[actix_rt::test]
async fn an_order_has_one_name_whoever_gives_it_and_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let backfills = backfills(directory.path());
    let order = |path: &str| Order {
        paths: vec![path.into()],
        users: None,
        keep_ms: None,
        broadcast: false,
    };

    let job = backfills.submit(order("/a"), Vec::new()).await.unwrap();
    assert_eq!(backfills.submit(order("/a"), Vec::new()).await.err().unwrap().code, "busy");
    backfills.cancel(&job);
    backfills.submit(order("/a"), Vec::new()).await.unwrap();
    for number in 1..MAX_WAITING {
        backfills.submit(order(&number.to_string()), Vec::new()).await.unwrap();
    }
    assert_eq!(backfills.submit(order("/z"), Vec::new()).await.err().unwrap().code, "busy");
    let cast = Order { broadcast: true, ..order("/a") };
    assert_ne!(order("/a").name(None), cast.name(None));
}

#[test]
fn an_order_for_the_list_is_another_one_when_the_list_is() {
    let list = |numbers: &[u8]| {
        let addresses = numbers.iter().copied().map(address).collect();
        Whitelist::build(vec![addresses], &WhitelistConfig::default())
    };
    let (two, three) = (list(&[1, 2]), list(&[1, 2, 3]));
    let for_all = Order { paths: vec!["/a".into()], users: None, keep_ms: None, broadcast: false };
    let named = Order { users: Some(vec![address(1)]), ..for_all.clone() };

    assert_eq!(for_all.name(Some(&two)), for_all.name(Some(&list(&[2, 1]))));
    assert_ne!(for_all.name(Some(&two)), for_all.name(Some(&three)));
    assert_eq!(named.name(Some(&two)), named.name(Some(&three)));
}

#[actix_rt::test]
async fn a_change_whose_job_cannot_be_kept_is_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    // No directory can be made below a file.
    std::fs::write(&path, "").unwrap();
    let backfills = backfills(&path);

    assert!(backfills.list_changed(&added(&[1])).is_err());
    assert_eq!(backfills.stats.backfill.waiting.get(), 0);
    std::fs::remove_file(&path).unwrap();
    backfills.list_changed(&added(&[1])).unwrap();
    assert_eq!(users(&path, &*backfills.next().await), Some(vec![address(1)]));
}

#[actix_rt::test]
async fn a_job_that_fails_comes_again_ever_later_and_lets_others_pass() {
    // Nothing else is to do: time moves on to the next job.
    tokio::time::pause();
    let directory = tempfile::tempdir().unwrap();
    let backfills = backfills(directory.path());
    backfills.list_changed(&added(&[1])).unwrap();
    for seconds in [0, 10, 20, 40, 80, 160, 320, 320] {
        let before = Instant::now();
        let job = backfills.next().await;
        let waited = before.elapsed();
        assert!(waited >= Duration::from_secs(seconds), "{waited:?}");
        assert!(waited < Duration::from_secs(seconds + 1), "{waited:?}");
        job.tell(&Report { state: JobState::Failed, ..Report::default() });
        backfills.finished();
    }

    tokio::time::resume();
    let order =
        Order { paths: Vec::new(), users: Some(Vec::new()), keep_ms: None, broadcast: false };
    let job = backfills.submit(order, Vec::new()).await.unwrap();

    assert_eq!(backfills.next().await.name, job.name);
}
