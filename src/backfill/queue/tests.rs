use async_trait::async_trait;

use super::*;
use crate::{
    backfill::report::Report,
    config::WhitelistConfig,
    testing::log,
    whitelist::{ListChanged, ListMark, Since},
};

/// Books in memory.
#[derive(Default)]
struct Book {
    pending: Mutex<Pending>,
    is_away: AtomicBool,
}

impl Book {
    fn pending(&self) -> Pending {
        self.pending.lock().unwrap().clone()
    }

    fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
        match self.is_away.load(Ordering::Relaxed) {
            false => Ok(answer),
            true => Err(StoreError::Unavailable("it is away".to_owned())),
        }
    }
}

#[async_trait]
impl Books for Book {
    async fn load(&self) -> Result<Pending, StoreError> {
        self.answer(self.pending())
    }

    async fn save(&self, pending: &Pending) -> Result<(), StoreError> {
        self.answer(())?;
        *self.pending.lock().unwrap() = pending.clone();
        Ok(())
    }
}

fn address(number: u8) -> Address {
    Address([number; 20])
}

fn list_of(numbers: &[u8]) -> Whitelist {
    let addresses = numbers.iter().copied().map(address).collect();
    Whitelist::build(vec![addresses], &WhitelistConfig::default())
}

fn news(change: ListChanged) -> ListNews {
    let list = Whitelist::build(vec![change.added.iter().copied().collect()], &Default::default());
    ListNews { list: list.into(), change, since: Since::LastTold }
}

fn added(numbers: &[u8]) -> ListNews {
    news(ListChanged::of(numbers.iter().copied().map(address), []))
}

/// With a state directory that is not there: none is needed before a job begins.
fn with_book(book: &Arc<Book>) -> Arc<Backfills> {
    let books: Arc<dyn Books> = book.clone();
    Backfills::new("gone".into(), true, books, list_of(&[]).into(), Arc::default(), log())
}

fn backfills() -> (Arc<Book>, Arc<Backfills>) {
    let book = Arc::default();
    let backfills = with_book(&book);
    (book, backfills)
}

async fn finish(backfills: &Backfills, job: &Job, state: JobState) {
    job.tell(&Report { state, ..Report::default() });
    backfills.finished().await;
}

#[actix_rt::test]
async fn additions_during_a_job_wait_for_one_next_job() {
    let (book, backfills) = backfills();

    backfills.list_changed(&added(&[1])).await.unwrap();
    let first = backfills.next().await;
    backfills.list_changed(&added(&[4, 2])).await.unwrap();
    backfills.list_changed(&added(&[3, 2])).await.unwrap();
    assert_eq!(backfills.stats.backfill.waiting.get(), 1);
    // A kill, and another machine: both are there again, and none of them takes in somebody else.
    let again = with_book(&book);
    again.read_books().await.unwrap();
    again.list_changed(&added(&[9])).await.unwrap();
    let jobs = [again.next().await, again.next().await, again.next().await];
    let users = jobs.each_ref().map(|job| again.users(&job.name).unwrap());
    assert_eq!(users, [vec![address(1)], [2, 3, 4].map(address).to_vec(), vec![address(9)]]);
    assert_eq!(jobs[0].name, first.name);
    let taken_over: Vec<_> =
        again.stats.backfill.pending().iter().map(|job| (job.users, job.taken_over)).collect();
    assert_eq!(taken_over, [(Some(1), true), (Some(3), true), (Some(1), false)]);
    // The one that ran last is done: the others are owed as before.
    finish(&again, &jobs[2], JobState::Done).await;
    let left: Vec<_> = book.pending().jobs.into_iter().map(|job| job.name).collect();
    assert_eq!(left, [&*jobs[0].name, &*jobs[1].name]);
}

#[actix_rt::test]
async fn a_job_by_list_leaves_the_books_when_it_is_done_and_not_before() {
    tokio::time::pause();
    let (book, backfills) = backfills();
    backfills.list_changed(&added(&[1])).await.unwrap();
    let mark = added(&[1]).list.mark();

    let job = backfills.next().await;
    finish(&backfills, &job, JobState::Failed).await;
    let again = backfills.next().await;
    assert_eq!((&again.name, again.follow().borrow().state), (&job.name, JobState::Waiting));
    finish(&backfills, &again, JobState::Cancelled).await;
    let expected = PendingJob { name: job.name.clone(), users: Some(vec![address(1)]) };
    assert_eq!(book.pending(), Pending { list: Some(mark), jobs: vec![expected] });

    let third = with_book(&book);
    third.read_books().await.unwrap();
    let job = third.next().await;
    // The store is away when it is done: it goes on trying.
    book.is_away.store(true, Ordering::Relaxed);
    job.tell(&Report { state: JobState::Done, ..Report::default() });
    let comes_back = async {
        sleep(Duration::from_secs(60)).await;
        book.is_away.store(false, Ordering::Relaxed);
    };
    tokio::join!(third.finished(), comes_back);

    assert_eq!(book.pending(), Pending { list: Some(mark), jobs: Vec::new() });
    assert_eq!(third.stats.backfill.waiting.get(), 0);
    assert!(third.stats.backfill.pending().is_empty());
}

#[actix_rt::test]
async fn so_many_that_they_are_not_named_are_the_whole_list() {
    let (_book, backfills) = backfills();
    backfills.list_changed(&added(&[1])).await.unwrap();
    let many = ListChanged { added_count: 9, ..added(&[2]).change };

    backfills.list_changed(&news(many)).await.unwrap();
    backfills.list_changed(&added(&[3])).await.unwrap();

    let job = backfills.next().await;
    assert_eq!(backfills.users(&job.name), None);
    assert_eq!(backfills.stats.backfill.waiting.get(), 0);
}

#[actix_rt::test]
async fn names_that_come_one_after_the_other_are_no_more_than_one_change_has() {
    let (book, backfills) = backfills();
    let many = |begin: usize, end: usize| {
        let address = |number: usize| {
            let mut bytes = [0; 20];
            bytes[12..].copy_from_slice(&(number as u64).to_be_bytes());
            Address(bytes)
        };
        news(ListChanged::of((begin..end).map(address), []))
    };

    backfills.list_changed(&many(0, 60_000)).await.unwrap();
    backfills.list_changed(&many(50_000, MAX_NAMED)).await.unwrap();
    let all_fit = book.pending().jobs[0].users.as_ref().map(Vec::len);
    backfills.list_changed(&many(MAX_NAMED, MAX_NAMED + 1)).await.unwrap();

    assert_eq!(all_fit, Some(MAX_NAMED));
    let jobs = book.pending().jobs;
    assert_eq!((jobs.len(), &jobs[0].users), (1, &None));
}

#[actix_rt::test]
async fn nothing_is_to_do_for_everybody_for_nobody_or_when_it_is_switched_off() {
    let (book, backfills) = backfills();
    let removed = news(ListChanged::of([], [address(1)]));
    backfills.list_changed(&removed).await.unwrap();
    let all = ListNews { list: Whitelist::all().into(), ..added(&[1]) };
    backfills.list_changed(&all).await.unwrap();
    let books: Arc<dyn Books> = book.clone();
    let list = backfills.list();
    let off = Backfills::new("gone".into(), false, books, list, Arc::default(), log());
    off.list_changed(&added(&[1])).await.unwrap();

    assert_eq!(backfills.stats.backfill.waiting.get(), 0);
    assert_eq!(off.stats.backfill.waiting.get(), 0);
    assert_eq!(book.pending(), Pending { list: Some(added(&[1]).list.mark()), jobs: Vec::new() });
}

#[actix_rt::test]
async fn what_an_earlier_writer_has_left_stays_in_the_books_where_it_is_switched_off() {
    let (book, backfills) = backfills();
    backfills.list_changed(&added(&[1])).await.unwrap();
    let left = book.pending();

    let books: Arc<dyn Books> = book.clone();
    let off =
        Backfills::new("gone".into(), false, books, list_of(&[]).into(), Arc::default(), log());
    off.read_books().await.unwrap();

    assert_eq!(off.stats.backfill.waiting.get(), 0);
    assert_eq!(off.stats.backfill.pending().len(), 1);
    assert_eq!(book.pending(), left);
}

#[actix_rt::test]
async fn whoever_takes_over_reads_for_the_whole_list_only_when_it_cannot_know_who_is_new() {
    let start = |numbers: &[u8], own: Option<ListMark>| ListNews {
        list: list_of(numbers).into(),
        change: ListChanged::default(),
        since: Since::LastRun(own),
    };
    // The first writer of all has nothing to add to.
    let (book, first) = backfills();
    first.list_changed(&start(&[1, 2], None)).await.unwrap();
    assert_eq!(book.pending().list, Some(list_of(&[1, 2]).mark()));

    // Another machine has the same list, and a third one another.
    let second = with_book(&book);
    second.list_changed(&start(&[2, 1], None)).await.unwrap();
    assert!(book.pending().jobs.is_empty());
    let third = with_book(&book);
    third.list_changed(&start(&[1, 2, 3], None)).await.unwrap();

    let Pending { list, jobs } = book.pending();
    assert_eq!(list, Some(list_of(&[1, 2, 3]).mark()));
    assert_eq!((jobs.len(), &jobs[0].users), (1, &None));
    assert_eq!(third.next().await.name, jobs[0].name);
}

#[actix_rt::test]
async fn takeovers_between_different_lists_leave_one_job_for_the_whole_list() {
    let book: Arc<Book> = Arc::default();
    let state_dir = tempfile::tempdir().unwrap();
    let machine = |numbers: &[u8]| {
        let books: Arc<dyn Books> = book.clone();
        let path = state_dir.path().to_owned();
        Backfills::new(path, true, books, list_of(numbers).into(), Arc::default(), log())
    };
    let start = |numbers: &[u8]| ListNews {
        list: list_of(numbers).into(),
        change: ListChanged::default(),
        since: Since::LastRun(None),
    };
    machine(&[1]).list_changed(&start(&[1])).await.unwrap();
    machine(&[1]).list_changed(&added(&[7])).await.unwrap();

    for takeover in 0..11 {
        let numbers: &[u8] = if takeover % 2 == 0 { &[1, 2] } else { &[1, 3] };
        let last = machine(numbers);
        last.list_changed(&start(numbers)).await.unwrap();
        assert_eq!(last.stats.backfill.waiting.get(), 1);
        // It has begun here: what is new with the next takeover needs another one.
        let name = last.next().await.name.clone();
        Saved::default().write(state_dir.path(), &name).unwrap();
    }

    let jobs = book.pending().jobs;
    assert_eq!(jobs.iter().map(|job| &job.users).collect::<Vec<_>>(), [&None]);
    assert_eq!(Saved::list(state_dir.path()).unwrap(), [jobs[0].name.clone()]);
}

#[actix_rt::test]
async fn a_job_for_the_whole_list_absorbs_all_that_wait_but_not_the_one_that_runs() {
    let (book, backfills) = backfills();
    let job = |number: u8, users: Option<&[u8]>| PendingJob {
        name: format!("list-{number:020}"),
        users: users.map(|users| users.iter().copied().map(address).collect()),
    };
    let left = vec![job(1, None), job(2, Some(&[5])), job(3, None), job(4, Some(&[6]))];
    book.pending.lock().unwrap().jobs = left.clone();

    // Rows that were left before one absorbed the others.
    backfills.read_books().await.unwrap();
    assert_eq!(book.pending().jobs, left[2..]);
    let running = backfills.next().await;
    let unknown = ListNews { since: Since::LastRun(None), ..added(&[9]) };
    book.pending.lock().unwrap().list = Some(list_of(&[1]).mark());
    backfills.lock().pending.as_mut().unwrap().list = Some(list_of(&[1]).mark());
    backfills.list_changed(&unknown).await.unwrap();

    let next = backfills.next().await;
    assert_eq!(running.name, left[2].name);
    let expected = [left[2].clone(), PendingJob { name: next.name.clone(), users: None }];
    assert_eq!(book.pending().jobs, expected);
    assert_eq!(backfills.stats.backfill.waiting.get(), 0);
}

#[actix_rt::test]
async fn jobs_by_list_take_no_room_from_those_by_hand() {
    let (book, backfills) = backfills();
    let owed = |number: usize| PendingJob {
        name: format!("list-{number:020}"),
        users: Some(vec![address(1)]),
    };
    book.pending.lock().unwrap().jobs = (0..=MAX_WAITING).map(owed).collect();
    backfills.read_books().await.unwrap();
    let order = |number: usize| Order {
        paths: vec![number.to_string().into()],
        users: None,
        keep_ms: None,
        broadcast: false,
    };

    for number in 0..MAX_WAITING {
        backfills.submit(order(number), Vec::new()).await.unwrap();
    }
    assert_eq!(backfills.submit(order(99), Vec::new()).await.err().unwrap().code, "busy");
}

#[actix_rt::test]
async fn the_progress_of_what_another_machine_has_done_is_forgotten() {
    let state_dir = tempfile::tempdir().unwrap();
    let (book, backfills) = backfills();
    backfills.list_changed(&added(&[1])).await.unwrap();
    let name = backfills.next().await.name.clone();
    Saved::default().write(state_dir.path(), &name).unwrap();
    Saved::default().write(state_dir.path(), "list-0").unwrap();
    Saved::default().write(state_dir.path(), "order-0").unwrap();

    let books: Arc<dyn Books> = book.clone();
    let path = state_dir.path().to_owned();
    let again = Backfills::new(path, true, books, backfills.list(), Arc::default(), log());
    again.read_books().await.unwrap();

    assert_eq!(Saved::list(state_dir.path()).unwrap(), [name]);
    assert!(state_dir.path().join("backfill/order-0.json").exists());
}

#[actix_rt::test]
async fn an_order_has_one_name_whoever_gives_it_and_is_taken_once() {
    let (_book, backfills) = backfills();
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
    let (two, three) = (list_of(&[1, 2]), list_of(&[1, 2, 3]));
    let for_all = Order { paths: vec!["/a".into()], users: None, keep_ms: None, broadcast: false };
    let named = Order { users: Some(vec![address(1)]), ..for_all.clone() };

    assert_eq!(for_all.name(Some(&two)), for_all.name(Some(&list_of(&[2, 1]))));
    assert_ne!(for_all.name(Some(&two)), for_all.name(Some(&three)));
    assert_eq!(named.name(Some(&two)), named.name(Some(&three)));
}

#[actix_rt::test]
async fn news_that_cannot_be_kept_are_not_taken() {
    let (book, backfills) = backfills();
    book.is_away.store(true, Ordering::Relaxed);

    // Before the books were read, and behind it.
    assert!(backfills.list_changed(&added(&[1])).await.is_err());
    book.is_away.store(false, Ordering::Relaxed);
    backfills.read_books().await.unwrap();
    book.is_away.store(true, Ordering::Relaxed);
    assert!(backfills.list_changed(&added(&[1])).await.is_err());
    assert_eq!(backfills.stats.backfill.waiting.get(), 0);
    assert!(backfills.stats.backfill.pending().is_empty());
    assert_eq!(book.pending(), Pending::default());

    book.is_away.store(false, Ordering::Relaxed);
    backfills.list_changed(&added(&[1])).await.unwrap();
    let name = backfills.next().await.name.clone();
    let users = Some(vec![address(1)]);
    assert_eq!(backfills.users(&name), users);
    assert_eq!(book.pending().jobs, [PendingJob { name, users }]);
}

/// Notes how loud each line is.
#[derive(Clone, Default)]
struct Levels(Arc<Mutex<Vec<slog::Level>>>);

impl slog::Drain for Levels {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<Self::Ok, Self::Err> {
        self.0.lock().unwrap().push(record.level());
        Ok(())
    }
}

#[actix_rt::test]
async fn that_news_cannot_be_kept_is_said_once_and_that_they_can_again_too() {
    let levels = Levels::default();
    let logger = Logger::root(levels.clone(), slog::o!());
    let book: Arc<Book> = Arc::default();
    let books: Arc<dyn Books> = book.clone();
    let list = list_of(&[]).into();
    let backfills = Backfills::new("gone".into(), true, books, list, Arc::default(), logger);
    book.is_away.store(true, Ordering::Relaxed);

    for _ in 0..3 {
        assert!(backfills.list_changed(&added(&[1])).await.is_err());
    }
    book.is_away.store(false, Ordering::Relaxed);
    backfills.list_changed(&added(&[])).await.unwrap();

    let said: Vec<_> = levels.0.lock().unwrap().iter().map(slog::Level::as_str).collect();
    assert_eq!(said, ["ERROR", "DEBUG", "DEBUG", "INFO"]);
}

#[actix_rt::test]
async fn that_a_job_is_done_is_kept_as_soon_as_it_can_be_or_left_to_the_next_start() {
    tokio::time::pause();
    let levels = Levels::default();
    let logger = Logger::root(levels.clone(), slog::o!());
    let book: Arc<Book> = Arc::default();
    let books: Arc<dyn Books> = book.clone();
    let list = list_of(&[]).into();
    let backfills = Backfills::new("gone".into(), true, books, list, Arc::default(), logger);
    backfills.list_changed(&added(&[1])).await.unwrap();
    let job = backfills.next().await;
    book.is_away.store(true, Ordering::Relaxed);

    job.tell(&Report { state: JobState::Done, ..Report::default() });
    let stop = async {
        sleep(Duration::from_secs(60)).await;
        let waits = backfills.inner.lock().unwrap().running.is_some();
        backfills.stop();
        waits
    };
    let day = Duration::from_secs(86_400);
    let (ended, waits) = tokio::join!(tokio::time::timeout(day, backfills.finished()), stop);

    assert_eq!((ended, waits), (Ok(()), true));
    assert_eq!(book.pending().jobs.len(), 1);
    let said = levels.0.lock().unwrap();
    assert_eq!(said.iter().filter(|level| **level == slog::Level::Warning).count(), 1);
}

#[actix_rt::test]
async fn a_job_that_fails_comes_again_ever_later_and_lets_others_pass() {
    // Nothing else is to do: time moves on to the next job.
    tokio::time::pause();
    let (_book, backfills) = backfills();
    backfills.list_changed(&added(&[1])).await.unwrap();
    for seconds in [0, 10, 20, 40, 80, 160, 320, 320] {
        let before = Instant::now();
        let job = backfills.next().await;
        let waited = before.elapsed();
        assert!(waited >= Duration::from_secs(seconds), "{waited:?}");
        assert!(waited < Duration::from_secs(seconds + 1), "{waited:?}");
        finish(&backfills, &job, JobState::Failed).await;
    }

    tokio::time::resume();
    let order =
        Order { paths: Vec::new(), users: Some(Vec::new()), keep_ms: None, broadcast: false };
    let job = backfills.submit(order, Vec::new()).await.unwrap();

    assert_eq!(backfills.next().await.name, job.name);
}
