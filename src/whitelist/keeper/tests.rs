use std::{io::Write, time::Duration};

use super::*;
use crate::{
    testing::{Probe, ProbeHandle, log},
    whitelist::Verdict,
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

struct Fixture {
    keeper: Addr<WhitelistKeeper>,
    filter: ProbeHandle<ReplaceWhitelist>,
    status: Arc<WhitelistStatus>,
}

fn start(config: &WhitelistConfig) -> Fixture {
    let keeper = WhitelistKeeper::load(config, &log()).unwrap();
    let (status, filter) = (keeper.status(), Probe::start());
    Fixture { keeper: keeper.feed(vec![filter.recipient()]).start(), filter, status }
}

impl Fixture {
    /// The next list that the filters get.
    async fn next_list(&self) -> Arc<Whitelist> {
        self.filter.take_at_least(1).await.pop().unwrap().0
    }

    async fn wait_for_problem(&self, part: &str) {
        for _ in 0..3_000 {
            if self.status.get().problem.is_some_and(|problem| problem.contains(part)) {
                return;
            }
            actix_rt::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no problem with {part:?}: {:?}", self.status.get());
    }
}

/// Replaces a file in one step, as editors do.
fn replace(path: &Path, content: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content).unwrap();
    fs::rename(fresh, path).unwrap();
}

#[test]
fn the_first_list_is_that_of_file_and_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let addresses = vec![format!(" {} ", address(9)), address(1).to_string()];

    let keeper =
        WhitelistKeeper::load(&WhitelistConfig { addresses, ..config(&path, NEVER) }, &log())
            .unwrap();

    assert_eq!(keeper.list().size(), Some(4));
    assert_eq!(keeper.list().contains(&address(9)), Verdict::Listed);
    let state = keeper.status().get();
    assert_eq!((state.size, state.problem), (Some(4), None));
    assert!(state.source.contains("list and 2 configured"), "{}", state.source);
}

#[test]
fn a_faulty_source_at_the_start_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    let error =
        |config: &WhitelistConfig| WhitelistKeeper::load(config, &log()).err().unwrap().to_string();

    assert!(error(&config(&path, NEVER)).contains(path.to_str().unwrap()));
    fs::write(&path, "0x12\n").unwrap();
    assert!(error(&config(&path, NEVER)).contains("line 1: \"0x12\""));
    let bad = WhitelistConfig { addresses: vec!["0x12".to_owned()], ..Default::default() };
    assert!(error(&bad).contains("\"0x12\""));
}

// H20
#[actix_rt::test]
async fn an_added_address_reaches_the_filters_without_the_timer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let fixture = start(&config(&path, NEVER));
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
    let fixture = start(&config(&path, NEVER));
    fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"0x0101").unwrap();
    file.write_all(&text_of(1..5).as_bytes()[6..]).unwrap();
    drop(file);

    assert_eq!(fixture.next_list().await.size(), Some(4));
    assert_eq!(fixture.status.get().problem, None);
}

#[test]
fn the_timer_reads_a_file_only_when_it_has_come_to_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let mut keeper = WhitelistKeeper::load(&config(&path, NEVER), &log()).unwrap();
    let mut seen = |content: &str| {
        fs::write(&path, content).unwrap();
        keeper.reload_if_changed();
        keeper.list().size()
    };

    assert_eq!(seen(&text_of(1..5)), Some(3));
    assert_eq!(seen(&text_of(1..6)), Some(3));
    keeper.reload_if_changed();

    assert_eq!(keeper.list().size(), Some(5));
}

#[actix_rt::test]
async fn the_timer_finds_what_the_watch_cannot_see() {
    let (links, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, path) = (links.path().join("list"), files.path().join("list"));
    fs::write(&path, text_of(1..4)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let fixture = start(&config(&link, Duration::from_millis(20)));

    replace(&path, &text_of(1..5));

    assert_eq!(fixture.next_list().await.size(), Some(4));
}

#[actix_rt::test]
async fn a_large_shrink_waits_for_its_confirmation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..11)).unwrap();
    let fixture = start(&config(&path, NEVER));
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
    let state = fixture.status.get();
    assert_eq!((state.size, state.problem), (Some(5), None));
}

#[actix_rt::test]
async fn a_missing_or_faulty_file_leaves_the_old_list() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, text_of(1..4)).unwrap();
    let fixture = start(&config(&path, Duration::from_millis(20)));

    fs::remove_file(&path).unwrap();
    fixture.wait_for_problem("No such file").await;
    fs::write(&path, text_of(1..4) + "broken\n").unwrap();
    fixture.wait_for_problem("line 4: \"broken\"").await;
    assert!(fixture.keeper.send(ReloadWhitelist).await.unwrap().is_err());
    assert_eq!(fixture.status.get().size, Some(3));
    assert!(fixture.filter.take().await.is_empty());

    replace(&path, &text_of(1..5));

    assert_eq!(fixture.next_list().await.size(), Some(4));
    assert_eq!(fixture.status.get().problem, None);
}

#[actix_rt::test]
async fn everybody_is_listed_with_all_and_a_reload_changes_nothing() {
    let fixture = start(&WhitelistConfig { all: true, ..Default::default() });

    let change = fixture.keeper.send(ReloadWhitelist).await.unwrap().unwrap();

    assert_eq!(change, WhitelistChange { added: 0, removed: 0 });
    assert_eq!(fixture.status.get().size, None);
    assert!(fixture.filter.take().await.is_empty());
}
