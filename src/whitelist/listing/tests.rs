use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::{
    event::Timestamp,
    testing::{Records, recorded_log, until},
    whitelist::status::SourceState,
};

fn user(ordinal: u8) -> Address {
    Address([ordinal; 20])
}

fn set(ordinals: std::ops::Range<u8>) -> BTreeSet<Address> {
    ordinals.map(user).collect()
}

fn list_of(ordinals: std::ops::Range<u8>, exact: bool) -> Arc<Whitelist> {
    let config = WhitelistConfig {
        exact,
        false_positive_rate: 0.5,
        min_capacity: 1,
        ..WhitelistConfig::default()
    };
    Arc::new(Whitelist::build(vec![ordinals.map(user).collect()], &config))
}

/// A listing of the users 1 and 2 with a file.
struct Scene {
    listing: Arc<Listing>,
    current: Arc<CurrentList>,
    stats: Arc<Stats>,
    records: Records,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scene = Self::at(&folder.path().join("list"), folder);
        fs::write(scene.file(), format!("# ours\n{}\n{}\n", user(1), user(2))).unwrap();
        scene
    }

    fn at(file: &Path, folder: TempDir) -> Self {
        let config = WhitelistConfig { file: Some(file.to_owned()), ..WhitelistConfig::default() };
        let (logger, records) = recorded_log();
        let (current, stats) = (CurrentList::new(list_of(1..3, true)), Arc::<Stats>::default());
        let listing = Listing::new(current.clone(), &config, stats.clone(), logger);
        Self { listing, current, stats, records, folder }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("list")
    }

    fn written(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn add(
        &self,
        ordinals: std::ops::Range<u8>,
    ) -> impl Future<Output = Result<(), AddError>> + use<> {
        self.listing.clone().add(set(ordinals), "ann at 192.0.2.1".to_owned())
    }

    /// What the keeper does when it is asked to look.
    async fn follow(&self, ordinals: std::ops::Range<u8>) {
        self.current.is_to_look().await;
        self.current.set(list_of(ordinals, true));
    }
}

#[test]
fn who_is_listed_is_told_by_the_list_that_holds() {
    let scene = Scene::new();
    assert!(scene.listing.is_listed(&user(2)) && !scene.listing.is_listed(&user(3)));

    scene.current.set(list_of(2..4, true));
    assert!(scene.listing.is_listed(&user(3)) && !scene.listing.is_listed(&user(1)));

    scene.current.set(Arc::new(Whitelist::all()));
    assert!(scene.listing.is_listed(&user(200)));
}

#[test]
fn without_the_exact_list_who_passes_the_filter_is_listed() {
    let listing = |exact| {
        Listing::new(
            CurrentList::new(list_of(1..100, exact)),
            &WhitelistConfig::default(),
            Arc::default(),
            Logger::root(Discard, o!()),
        )
    };
    let strangers = || (100..=255).map(user);

    let listed = |exact: bool| strangers().filter(|user| listing(exact).is_listed(user)).count();

    assert_eq!(listed(true), 0);
    // As the filter does that drops events.
    let passed =
        strangers().filter(|user| list_of(1..100, false).contains(user) == Verdict::Listed);
    assert_eq!(listed(false), passed.count());
    assert!(listed(false) > 0);
}

#[actix_rt::test]
async fn an_added_user_is_in_the_file_and_acknowledged_when_the_list_that_holds_has_him() {
    let scene = Scene::new();
    let mut added = std::pin::pin!(scene.add(2..5));

    // The file is written, the keeper has not looked.
    let looks = scene.current.is_to_look();
    tokio::select! {
        biased;
        done = &mut added => panic!("{done:?} before anybody has looked"),
        () = looks => {}
    }
    assert_eq!(scene.stats.official.additions.get(), 0, "others need not wait for that");
    scene.current.set(list_of(1..4, true));
    assert!(futures_util::poll!(&mut added).is_pending(), "one of two is listed");
    scene.current.set(list_of(1..5, true));
    assert_eq!(added.await, Ok(()));

    let expected = format!("# ours\n{}\n{}\n{}\n{}\n", user(1), user(2), user(3), user(4));
    assert_eq!(scene.written(), expected);
    assert_eq!(scene.stats.official.added_users.get(), 2);
    let told = scene.records.with("users added to the whitelist by a client");
    let whom = format!("{} {}", user(3), user(4));
    assert!(told.len() == 1 && told[0].contains(&whom), "{told:?}");
    assert!(told[0].contains("client=ann at 192.0.2.1"), "{told:?}");
}

#[actix_rt::test]
async fn who_is_listed_or_in_the_file_already_is_not_added_again() {
    let scene = Scene::new();

    assert_eq!(scene.add(1..3).await, Ok(()));
    // Written by hand, and not found yet.
    let by_hand = format!("{}# by hand\n{}\n", scene.written(), user(3));
    fs::write(scene.file(), &by_hand).unwrap();
    let (added, ()) = tokio::join!(scene.add(3..4), scene.follow(1..4));

    assert_eq!(added, Ok(()));
    assert_eq!(scene.written(), by_hand);
    assert_eq!(scene.stats.official.added_users.get(), 0);
    assert!(scene.records.with("added").is_empty());
}

#[actix_rt::test]
async fn additions_that_come_together_are_made_one_after_the_other_and_none_is_lost() {
    let scene = Scene::new();
    let turn = scene.listing.turn.lock().await;
    // Two for each user.
    let adding =
        (0..40).map(|ordinal| actix_rt::spawn(scene.add(3 + ordinal / 2..4 + ordinal / 2)));
    let adding: Vec<_> = adding.collect();
    let stats = &scene.stats.official;
    until("all wait for their turn", async || stats.additions.get() == 40).await;
    assert!(!scene.written().contains(&user(3).to_string()));

    drop(turn);
    until("all are written", async || stats.added_users.get() == 20).await;
    scene.current.set(list_of(1..23, true));
    for added in adding {
        assert_eq!(added.await.unwrap(), Ok(()));
    }

    assert_eq!(scene.written().lines().count(), 3 + 20);
    assert_eq!((stats.additions.get(), stats.added_users.get()), (0, 20));
}

#[actix_rt::test]
async fn when_too_many_wait_the_next_one_is_refused_and_counted() {
    let scene = Scene::new();
    let turn = scene.listing.turn.lock().await;
    let waiting: Vec<_> = (0..MAX_ADDITIONS).map(|_| actix_rt::spawn(scene.add(3..4))).collect();
    let stats = &scene.stats.official;
    until("all wait", async || stats.additions.get() == MAX_ADDITIONS as i64).await;

    assert_eq!(scene.add(4..5).await, Err(AddError::Busy));
    assert_eq!(stats.refused_additions.get(), 1);
    // Who is listed needs no place.
    assert_eq!(scene.add(1..2).await, Ok(()));

    drop(turn);
    scene.follow(1..4).await;
    for added in waiting {
        assert_eq!(added.await.unwrap(), Ok(()));
    }
    let (added, ()) = tokio::join!(scene.add(4..5), scene.follow(1..5));
    assert_eq!(added, Ok(()));
}

#[actix_rt::test]
async fn a_change_that_has_begun_is_made_and_told_though_its_client_goes_away() {
    let scene = Scene::new();
    let turn = scene.listing.turn.lock().await;
    let mut added = Box::pin(scene.add(3..4));
    assert!(futures_util::poll!(&mut added).is_pending());

    drop(added);
    drop(turn);

    scene.current.is_to_look().await;
    assert!(scene.written().contains(&user(3).to_string()));
    assert_eq!(scene.records.with("users added to the whitelist by a client").len(), 1);
    until("its place is free", async || scene.stats.official.additions.get() == 0).await;
}

#[actix_rt::test]
async fn a_list_that_cannot_be_changed_gives_an_error_and_the_log_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").join("list");
    let scene = Scene::at(&missing, folder);

    assert_eq!(scene.add(3..4).await, Err(AddError::Failed));

    let told = scene.records.with("users were not added to the whitelist");
    assert!(told.len() == 1 && told[0].contains("No such file"), "{told:?}");
    assert_eq!(scene.stats.official.added_users.get(), 0);
    let nowhere = Listing::unchanging(Whitelist::build(Vec::new(), &WhitelistConfig::default()));
    assert_eq!(nowhere.add(set(3..4), String::new()).await, Err(AddError::NoPlace));
}

#[actix_rt::test]
async fn whoever_is_not_found_in_time_is_told_so_and_is_in_the_file() {
    let scene = Scene::new();
    let before = Instant::now();
    tokio::time::pause();

    assert_eq!(scene.add(3..4).await, Err(AddError::Slow));

    assert_eq!(before.elapsed().as_secs(), PATIENCE.as_secs());
    assert!(scene.written().contains(&user(3).to_string()));
    // The next try finds him, as soon as the list has him.
    scene.current.set(list_of(1..4, true));
    assert_eq!(scene.add(3..4).await, Ok(()));
}

#[actix_rt::test]
async fn a_list_that_is_away_is_not_made_anew_for_a_client() {
    let scene = Scene::new();
    fs::remove_file(scene.file()).unwrap();

    assert_eq!(scene.add(3..4).await, Err(AddError::Failed));

    assert!(!scene.file().exists());
    let warnings = scene.records.with("WARN users were not added");
    assert!(
        warnings[0].contains("No such file") || warnings[0].contains("not found"),
        "{warnings:?}"
    );
}

#[actix_rt::test]
async fn nobody_is_added_to_a_list_whose_content_is_not_used() {
    let scene = Scene::new();
    let state = |problem: Option<&str>| WhitelistState {
        size: Some(2),
        sources: vec![SourceState {
            kind: SourceKind::File,
            name: "list".to_owned(),
            size: 2,
            loaded_at: Timestamp(0),
            problem: problem.map(str::to_owned),
            is_used: problem.is_none(),
            skipped: 0,
            skipped_example: None,
        }],
        started: Timestamp(0),
    };
    scene.current.note(&state(Some("lost 90 % of its addresses")));
    let before = scene.written();

    assert_eq!(scene.add(3..4).await, Err(AddError::NotUsed));
    assert_eq!(scene.written(), before);
    // Who is listed asks for nothing.
    assert_eq!(scene.add(1..3).await, Ok(()));

    scene.current.note(&state(None));
    let (added, ()) = tokio::join!(scene.add(3..4), scene.follow(1..4));
    assert_eq!(added, Ok(()));
}
