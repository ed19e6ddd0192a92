use std::{
    fs,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use tempfile::TempDir;

use super::*;
use crate::{
    testing::{Probe, ProbeHandle, log, until},
    whitelist::{Listing, Verdict, file::FileStamp},
};

/// So long that no test waits for the timer unless it says so.
const NEVER: Duration = Duration::from_secs(86_400);

fn address(ordinal: u8) -> Address {
    Address([ordinal; 20])
}

fn text_of(ordinals: std::ops::Range<u8>) -> String {
    ordinals.map(|ordinal| format!("{}\n", address(ordinal))).collect()
}

fn config(path: &Path, refresh_interval: Duration) -> WhitelistConfig {
    WhitelistConfig { file: Some(path.to_owned()), refresh_interval, ..Default::default() }
}

/// What a listener was told.
#[derive(Message)]
#[rtype(result = "()")]
struct Told(ListChanged, Since);

/// Hands on what it is told, and cannot take the first so many changes.
struct Listener {
    told: Recipient<Told>,
    refuses: usize,
}

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<ListNews> for Listener {
    type Result = io::Result<()>;

    fn handle(&mut self, news: ListNews, _ctx: &mut Self::Context) -> io::Result<()> {
        // That there is a list is told at every start.
        if news.change.is_empty() {
            return Ok(());
        }
        self.told.do_send(Told(news.change, news.since));
        if self.refuses == 0 {
            return Ok(());
        }
        self.refuses -= 1;
        Err(io::Error::other("the disk is full"))
    }
}

struct Fixture {
    keeper: Addr<WhitelistKeeper>,
    filter: ProbeHandle<ReplaceWhitelist>,
    listener: ProbeHandle<Told>,
    status: Arc<WhitelistStatus>,
    _state: TempDir,
}

async fn open(config: &WhitelistConfig, state: &Path) -> Result<WhitelistKeeper, WhitelistError> {
    WhitelistKeeper::open(config, state, &log()).await
}

/// A daemon that writes, and so knows its list from then on.
async fn write_once(config: &WhitelistConfig, state: &Path) {
    open(config, state).await.unwrap().keep();
}

async fn start(config: &WhitelistConfig) -> Fixture {
    start_in(config, tempfile::tempdir().unwrap()).await
}

async fn start_in(config: &WhitelistConfig, state: TempDir) -> Fixture {
    start_refusing(config, state, 0).await
}

async fn start_refusing(config: &WhitelistConfig, state: TempDir, refuses: usize) -> Fixture {
    let keeper = open(config, state.path()).await.unwrap();
    let (status, filter, listener) = (keeper.status(), Probe::start(), Probe::start());
    let hears = Listener { told: listener.recipient(), refuses }.start();
    let keeper = keeper.feed(vec![filter.recipient()]).tell(hears.recipient()).start();
    Fixture { keeper, filter, listener, status, _state: state }
}

impl Fixture {
    /// The next list that the filters get.
    async fn next_list(&self) -> Arc<Whitelist> {
        self.filter.take_at_least(1).await.pop().unwrap().0
    }

    fn problem(&self) -> Option<String> {
        self.status.get().problems().next().map(str::to_owned)
    }

    async fn wait_for_problem(&self, part: &str) {
        let what = format!("a problem with {part:?}");
        until(&what, async || self.problem().is_some_and(|problem| problem.contains(part))).await;
    }
}

/// Replaces a file in one step, as editors do.
fn replace(path: &Path, content: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content).unwrap();
    fs::rename(fresh, path).unwrap();
}

#[actix_rt::test]
async fn the_first_list_is_that_of_file_and_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let addresses = vec![format!(" {} ", address(9)), address(1).to_string()];

    let config = WhitelistConfig { addresses, ..config(&path, NEVER) };
    let keeper = open(&config, directory.path()).await.unwrap();

    assert_eq!(keeper.list().size(), Some(4));
    assert_eq!(keeper.list().contains(&address(9)), Verdict::Listed);
    let state = keeper.status().get();
    assert_eq!((state.size, state.problems().next()), (Some(4), None));
    assert!(state.describe().ends_with("list and 2 configured addresses"), "{state:?}");
    let sizes: Vec<_> = state.sources.iter().map(|source| (source.kind, source.size)).collect();
    assert_eq!(sizes, [(SourceKind::File, 3), (SourceKind::Config, 2)]);
}

#[actix_rt::test]
async fn a_faulty_source_at_the_start_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    let state = directory.path().join("state");
    let error =
        async |config: WhitelistConfig| open(&config, &state).await.err().unwrap().to_string();

    assert!(error(config(&path, NEVER)).await.contains(path.to_str().unwrap()));
    fs::write(&path, "0x12\n").unwrap();
    assert!(error(config(&path, NEVER)).await.contains("line 1: \"0x12\""));
    let bad = WhitelistConfig { addresses: vec!["0x12".to_owned()], ..Default::default() };
    assert!(error(bad).await.contains("\"0x12\""));
    // What an earlier run knew of the file does not help.
    fs::write(&path, text_of(1..4)).unwrap();
    write_once(&config(&path, NEVER), &state).await;
    fs::write(&path, "0x12\n").unwrap();
    assert!(error(config(&path, NEVER)).await.contains("line 1: \"0x12\""));
}

// H20
#[actix_rt::test]
async fn an_added_address_reaches_the_filters_without_the_timer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let fixture = start(&config(&path, NEVER)).await;
    // Its answer proves that the actor has begun to watch.
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(text_of(4..5).as_bytes()).unwrap();
    drop(file);

    assert_eq!(fixture.next_list().await.contains(&address(4)), Verdict::Listed);

    replace(&path, &text_of(1..6));

    assert_eq!(fixture.next_list().await.contains(&address(5)), Verdict::Listed);
    assert_eq!(fixture.status.get().size, Some(5));
}

#[actix_rt::test]
async fn a_file_is_not_read_while_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let fixture = start(&config(&path, NEVER)).await;
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"0x0101").unwrap();
    file.write_all(&text_of(1..5).as_bytes()[6..]).unwrap();
    drop(file);

    assert_eq!(fixture.next_list().await.size(), Some(4));
    assert_eq!(fixture.problem(), None);
}

#[actix_rt::test]
async fn the_timer_reads_a_file_only_when_it_has_come_to_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let mut keeper = open(&config(&path, NEVER), directory.path()).await.unwrap();
    let mut seen = |content: &str| {
        fs::write(&path, content).unwrap();
        keeper.look_at_file();
        keeper.list().size()
    };

    assert_eq!(seen(&text_of(1..5)), Some(3));
    assert_eq!(seen(&text_of(1..6)), Some(3));
    keeper.look_at_file();

    assert_eq!(keeper.list().size(), Some(5));
}

#[actix_rt::test]
async fn the_timer_finds_what_the_watch_cannot_see() {
    let (links, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, path) = (links.path().join("list"), files.path().join("list"));
    fs::write(&path, text_of(1..4)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let fixture = start(&config(&link, Duration::from_millis(20))).await;

    replace(&path, &text_of(1..5));

    assert_eq!(fixture.next_list().await.size(), Some(4));
}

#[actix_rt::test]
async fn a_user_who_is_added_for_a_client_is_listed_at_once_whatever_the_watch_and_the_timer_see() {
    let (links, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, path) = (links.path().join("list"), files.path().join("list"));
    fs::write(&path, text_of(1..4)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let config = config(&link, NEVER);
    let keeper = open(&config, links.path()).await.unwrap();
    let listing = Listing::new(keeper.current(), &config, Arc::default(), log());
    let (filter, status) = (Probe::start(), keeper.status());
    keeper.feed(vec![filter.recipient()]).start();

    let added = listing.clone().add([address(4)].into(), "ann".to_owned()).await;

    assert_eq!(added, Ok(()));
    assert_eq!((status.get().size, listing.is_listed(&address(4))), (Some(4), true));
    // The filters were given it before anybody was told.
    let given = filter.take().await;
    assert_eq!(given[0].0.contains(&address(4)), Verdict::Listed);
}

#[actix_rt::test]
async fn a_large_shrink_waits_for_its_confirmation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..11)).unwrap();
    let fixture = start(&config(&path, NEVER)).await;
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    // A fifth is allowed, more is not.
    replace(&path, &text_of(1..9));
    assert_eq!(fixture.next_list().await.size(), Some(8));
    replace(&path, &text_of(1..6));
    fixture.wait_for_problem("lost 3 of 8").await;
    assert_eq!(fixture.status.get().size, Some(8));
    assert!(fixture.filter.take().await.is_empty());

    let change = fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    assert_eq!(change, WhitelistChange { added: 0, removed: 3 });
    assert_eq!(fixture.next_list().await.size(), Some(5));
    assert_eq!((fixture.status.get().size, fixture.problem()), (Some(5), None));
}

#[actix_rt::test]
async fn a_list_of_as_many_others_is_a_large_shrink_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..11)).unwrap();
    let fixture = start(&config(&path, NEVER)).await;
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    replace(&path, &text_of(6..16));

    fixture.wait_for_problem("lost 5 of 10").await;
    assert!(fixture.filter.take().await.is_empty());
}

#[actix_rt::test]
async fn a_missing_or_faulty_file_leaves_the_old_list() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let fixture = start(&config(&path, Duration::from_millis(20))).await;

    fs::remove_file(&path).unwrap();
    fixture.wait_for_problem("No such file").await;
    fs::write(&path, text_of(1..4) + "broken\n").unwrap();
    fixture.wait_for_problem("line 4: \"broken\"").await;
    assert!(fixture.keeper.send(ReloadWhitelist).await.unwrap().is_err());
    assert_eq!(fixture.status.get().size, Some(3));
    assert!(fixture.filter.take().await.is_empty());

    replace(&path, &text_of(1..5));

    assert_eq!(fixture.next_list().await.size(), Some(4));
    assert_eq!(fixture.problem(), None);
}

#[actix_rt::test]
async fn everybody_is_listed_with_all_and_a_reload_changes_nothing() {
    let fixture = start(&WhitelistConfig { all: true, ..Default::default() }).await;

    let change = fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    assert_eq!(change, WhitelistChange { added: 0, removed: 0 });
    assert_eq!(fixture.status.get().size, None);
    assert!(fixture.filter.take().await.is_empty());
}

/// Waits until the state directory has so many addresses of a source.
async fn wait_until_kept(state: &Path, kind: SourceKind, size: usize) {
    let kept = || Folder::of_state(state).last(kind, &log()).map_or(0, |kept| kept.list.len());
    until("it is kept", async || kept() == size).await;
}

#[actix_rt::test]
async fn a_change_is_told_with_its_names_after_the_filters_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..11)).unwrap();
    let config = WhitelistConfig {
        addresses: vec![address(1).to_string(), address(20).to_string()],
        ..config(&path, NEVER)
    };
    let fixture = start(&config).await;
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();
    assert!(fixture.listener.take().await.is_empty());

    // The configuration still lists the first one, and has listed the last one all the time.
    replace(&path, &(text_of(3..12) + &text_of(20..21)));

    let list = fixture.next_list().await;
    assert_eq!((list.size(), list.contains(&address(1))), (Some(11), Verdict::Listed));
    let changes = fixture.listener.take_at_least(1).await;
    assert_eq!(changes.len(), 1);
    assert_eq!((&*changes[0].0.added, changes[0].0.removed), (&[address(11)][..], 1));
}

#[actix_rt::test]
async fn who_was_added_while_the_daemon_was_away_is_told_at_the_start_until_somebody_hears_it() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("list");
    let config = config(&path, NEVER);
    fs::write(&path, text_of(1..4)).unwrap();
    // The first run of all has nothing to tell.
    let fixture = start_in(&config, state).await;
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();
    assert!(fixture.listener.take().await.is_empty());
    let Fixture { keeper, _state: state, .. } = fixture;
    drop(keeper);
    fs::write(&path, text_of(1..6)).unwrap();

    for _ in 0..2 {
        // These end before they have told anybody.
        let keeper = open(&config, state.path()).await.unwrap();
        assert_eq!(keeper.list().size(), Some(5));
    }
    let fixture = start_in(&config, state).await;

    let told = fixture.listener.take_at_least(1).await;
    assert_eq!((told.len(), &*told[0].0.added), (1, &[address(4), address(5)][..]));
    let Fixture { _state: state, .. } = fixture;
    wait_until_kept(state.path(), SourceKind::File, 5).await;
    let fixture = start_in(&config, state).await;
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();
    assert!(fixture.listener.take().await.is_empty());
}

#[actix_rt::test]
async fn a_list_that_nobody_has_written_by_is_not_the_last_known_one() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();

    // As a standby does that never takes over, and a command.
    open(&config(&path, NEVER), state.path()).await.unwrap();

    assert!(Folder::of_state(state.path()).last(SourceKind::File, &log()).is_none());
    let fixture = start_in(&config(&path, NEVER), state).await;
    wait_until_kept(fixture._state.path(), SourceKind::File, 3).await;
}

/// Hears of the start, and of every change when it is let go on.
struct Held {
    told: Recipient<Told>,
    go_on: std::rc::Rc<tokio::sync::Notify>,
}

impl Actor for Held {
    type Context = Context<Self>;
}

impl Handler<ListNews> for Held {
    type Result = ResponseFuture<io::Result<()>>;

    fn handle(&mut self, news: ListNews, _ctx: &mut Self::Context) -> Self::Result {
        self.told.do_send(Told(news.change, news.since));
        let go_on = self.go_on.clone();
        Box::pin(async move {
            go_on.notified().await;
            Err(io::Error::other("the store is away"))
        })
    }
}

#[actix_rt::test]
async fn changes_that_cannot_be_taken_are_told_again_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let keeper = open(&config(&path, NEVER), directory.path()).await.unwrap();
    let (filter, listener) = (Probe::<ReplaceWhitelist>::start(), Probe::<Told>::start());
    let go_on = std::rc::Rc::new(tokio::sync::Notify::new());
    let held = Held { told: listener.recipient(), go_on: go_on.clone() }.start();
    let keeper = keeper.feed(vec![filter.recipient()]).tell(held.recipient()).start();

    let told = listener.take_at_least(1).await;
    assert!(told.len() == 1 && told[0].0.is_empty());
    // While he is busy with the start, four changes come.
    for last in 5..9 {
        fs::write(&path, text_of(1..last)).unwrap();
        keeper.send(ReloadWhitelist).await.unwrap().unwrap();
    }
    assert!(listener.take().await.is_empty());
    go_on.notify_one();
    // What asks for another look tells it again.
    let mut told = Vec::new();
    while told.is_empty() {
        keeper.send(ReloadWhitelist).await.unwrap().unwrap();
        told = listener.take().await;
    }

    assert_eq!(told.len(), 1);
    assert_eq!(*told[0].0.added, [4, 5, 6, 7].map(address));
    // With the start in it, it counts from where the start does: it would hide who is new there.
    assert_eq!(told[0].1, Since::LastRun(None));
}

#[actix_rt::test]
async fn what_a_start_tells_counts_from_the_list_that_was_kept_and_later_changes_from_the_last() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("list");
    let config = config(&path, NEVER);
    fs::write(&path, text_of(1..4)).unwrap();
    write_once(&config, state.path()).await;
    let kept = open(&config, state.path()).await.unwrap().list().mark();
    fs::write(&path, text_of(1..6)).unwrap();

    let fixture = start_in(&config, state).await;
    let at_start = fixture.listener.take_at_least(1).await;
    fs::write(&path, text_of(1..7)).unwrap();
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();
    let later = fixture.listener.take_at_least(1).await;

    assert_eq!(kept.size, Some(3));
    assert_eq!(at_start[0].1, Since::LastRun(Some(kept)));
    assert_eq!(later[0].1, Since::LastTold);
}

#[actix_rt::test]
async fn what_was_refused_is_told_again_where_nothing_else_asks() {
    // Without a file no timer looks.
    let with = |ordinals: std::ops::Range<u8>| WhitelistConfig {
        addresses: ordinals.map(|ordinal| address(ordinal).to_string()).collect(),
        refresh_interval: Duration::from_millis(20),
        ..Default::default()
    };
    let state = tempfile::tempdir().unwrap();
    write_once(&with(1..4), state.path()).await;

    let fixture = start_refusing(&with(1..5), state, 1).await;

    let told = fixture.listener.take_at_least(2).await;
    assert!(told.iter().all(|told| *told.0.added == [address(4)]));
    wait_until_kept(fixture._state.path(), SourceKind::Config, 4).await;
}

/// Hears of a change and is never done with it.
struct Endless;

impl Actor for Endless {
    type Context = Context<Self>;
}

impl Handler<ListNews> for Endless {
    type Result = ResponseFuture<io::Result<()>>;

    fn handle(&mut self, _: ListNews, _ctx: &mut Self::Context) -> Self::Result {
        Box::pin(std::future::pending())
    }
}

#[actix_rt::test]
async fn a_list_is_not_the_last_known_one_before_its_change_was_handled() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("list");
    let config = config(&path, NEVER);
    fs::write(&path, text_of(1..4)).unwrap();
    write_once(&config, state.path()).await;
    let keeper = open(&config, state.path()).await.unwrap();
    let (filter, listener) = (Probe::start(), Endless.start());
    let keeper = keeper.feed(vec![filter.recipient()]).tell(listener.recipient()).start();
    fs::write(&path, text_of(1..6)).unwrap();

    keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    assert_eq!(filter.take_at_least(1).await[0].0.size(), Some(5));
    let kept = Folder::of_state(state.path()).last(SourceKind::File, &log()).unwrap();
    assert_eq!(kept.list.len(), 3);
}

#[actix_rt::test]
async fn a_change_that_could_not_be_taken_is_told_again_and_only_then_known() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    write_once(&config(&path, NEVER), state.path()).await;
    fs::write(&path, text_of(1..5)).unwrap();
    // Nothing but the refusal has it told again.
    let fixture = start_refusing(&config(&path, NEVER), state, 1).await;
    assert_eq!(fixture.listener.take_at_least(1).await.len(), 1);
    assert!(fixture.listener.take().await.is_empty());
    let Fixture { _state: state, .. } = fixture;
    let kept = Folder::of_state(state.path()).last(SourceKind::File, &log()).unwrap();
    assert_eq!(kept.list.len(), 3);

    let often = config(&path, Duration::from_millis(20));
    let fixture = start_refusing(&often, state, 2).await;

    let told = fixture.listener.take_at_least(3).await;
    assert!(told.iter().all(|told| *told.0.added == [address(4)]));
    wait_until_kept(fixture._state.path(), SourceKind::File, 4).await;
}

#[actix_rt::test]
async fn an_address_that_moves_from_one_source_to_another_was_not_added() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    write_once(&config(&path, NEVER), state.path()).await;
    let addresses = (1..4).map(|ordinal| address(ordinal).to_string()).collect();
    let moved = WhitelistConfig { addresses, ..Default::default() };

    let fixture = start_in(&moved, state).await;
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    assert!(fixture.listener.take().await.is_empty());
    // The file is forgotten: who comes back with it is new again.
    let Fixture { _state: state, .. } = fixture;
    wait_until_kept(state.path(), SourceKind::File, 0).await;
    fs::write(&path, text_of(1..5)).unwrap();
    let fixture = start_in(&config(&path, NEVER), state).await;
    let told = fixture.listener.take_at_least(1).await;
    assert_eq!((&*told[0].0.added, told[0].0.removed), (&[address(4)][..], 0));
}

#[actix_rt::test]
async fn a_file_that_shrank_while_the_daemon_was_away_waits_for_its_confirmation() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("list");
    fs::write(&path, text_of(1..11)).unwrap();
    write_once(&config(&path, NEVER), state.path()).await;
    fs::write(&path, text_of(1..6)).unwrap();

    let fixture = start_in(&config(&path, NEVER), state).await;

    assert_eq!(fixture.status.get().size, Some(10));
    fixture.wait_for_problem("lost 5 of 10").await;
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();
    assert_eq!((fixture.status.get().size, fixture.problem()), (Some(5), None));
}

#[actix_rt::test]
async fn a_list_of_another_file_is_not_the_last_known_one() {
    let state = tempfile::tempdir().unwrap();
    let (path, other) = (state.path().join("list"), state.path().join("other"));
    fs::write(&path, text_of(1..11)).unwrap();
    fs::write(&other, text_of(1..3)).unwrap();
    write_once(&config(&path, NEVER), state.path()).await;

    let keeper = open(&config(&other, NEVER), state.path()).await.unwrap();

    assert_eq!(keeper.list().size(), Some(2));
    assert_eq!(keeper.status().get().problems().count(), 0);
}

#[actix_rt::test]
async fn an_unchanged_file_is_not_read_again_at_the_start() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let config = config(&path, Duration::from_millis(20));
    let fixture = start_in(&config, state).await;
    let folder = fixture._state.path().join("whitelist");
    // It was changed so shortly before it was read that only a second look proves anything.
    let stamp = FileStamp::of(&path).unwrap().to_bytes();
    let found = || AddressList::open(&folder, "file").unwrap();
    let is_recognised = || found().is_some_and(|(_, content)| content.ends_with(&stamp));
    until("the file is recognised", async || is_recognised()).await;
    let Fixture { keeper, _state: state, .. } = fixture;
    drop(keeper);

    // What the file does not hold tells whether it was read.
    let other: AddressList = [address(9)].into_iter().collect();
    other.keep(&folder, "file", &found().unwrap().1).unwrap();
    let unchanged = open(&config, state.path()).await.unwrap();
    fs::write(&path, text_of(1..4)).unwrap();
    let changed = open(&config, state.path()).await.unwrap();

    assert_eq!(unchanged.list().contains(&address(9)), Verdict::Listed);
    assert_eq!(changed.status().get().problems().count(), 1);
}
