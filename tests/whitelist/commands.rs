//! `nodecast whitelist list`, `check`, `add` and `remove`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    Sources,
    common::redis::{shared, user, users},
};

fn redis(url: &str, key: &str) -> String {
    format!("redis_url = {url:?}\nredis_key = {key:?}\n")
}

#[test]
fn an_address_is_listed_once_with_every_source_that_has_it() {
    let (url, mut server) = shared();
    server.ask(&["DEL", "origins"]);
    server.list("origins", &users(2..4, 1_773_532_800));
    server.list("origins", &[("1".to_owned(), "nobody".to_owned())]);
    let addresses = format!("addresses = [{:?}, {:?}]\n", user(3), user(9));
    let sources = Sources::new(&[user(1), user(3)], &(redis(&url, "origins") + &addresses));

    let plain = sources.command(&["list"]);
    let with_origin = sources.command(&["list", "--origin"]);
    let checked =
        sources.command(&["check", &user(3), &user(1).to_uppercase().replace("0X", "0x")]);
    let missing = sources.command(&["check", &user(1), &user(4)]);

    assert_eq!(plain.lines(), [user(1), user(2), user(3), user(9)]);
    let origins = [
        format!("{} file", user(1)),
        format!("{} redis", user(2)),
        format!("{} file,redis,config", user(3)),
        format!("{} config", user(9)),
    ];
    assert_eq!(with_origin.lines(), origins);
    // In the order in which they were asked for.
    let listed =
        [format!("{} listed by file,redis,config", user(3)), format!("{} listed by file", user(1))];
    assert_eq!((checked.code, checked.lines()), (0, listed.iter().map(String::as_str).collect()));
    assert_eq!(missing.code, 1);
    assert_eq!(missing.lines()[1], format!("{} not listed", user(4)));
}

#[test]
fn the_file_is_edited_in_place_with_its_comments_and_its_mode() {
    let sources = Sources::new(&[], "");
    fs::write(sources.file(), format!("# ours\n{}  # first\n\n{}\n", user(1), user(2))).unwrap();
    fs::set_permissions(sources.file(), fs::Permissions::from_mode(0o600)).unwrap();

    let added = sources.command(&["add", &user(3), &user(2).to_uppercase().replace("0X", "0x")]);
    let removed = sources.command(&["remove", &user(2), &user(7)]);

    assert_eq!((added.code, removed.code), (0, 0), "{added:?} {removed:?}");
    let place = sources.file().display().to_string();
    let said =
        [format!("{} was already in {place}", user(2)), format!("{} added to {place}", user(3))];
    assert_eq!(added.lines(), said);
    assert!(added.err.contains("running daemon follows by itself within 5 s"), "{}", added.err);
    let said =
        [format!("{} removed from {place}", user(2)), format!("{} was not in {place}", user(7))];
    assert_eq!(removed.lines(), said);
    let content = fs::read_to_string(sources.file()).unwrap();
    assert_eq!(content, format!("# ours\n{}  # first\n\n{}\n", user(1), user(3)));
    assert_eq!(fs::metadata(sources.file()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn every_bad_address_is_named_and_nothing_is_written() {
    let sources = Sources::new(&[user(1)], "");
    let before = fs::read_to_string(sources.file()).unwrap();

    for command in ["add", "remove", "check"] {
        let said = sources.command(&[command, &user(2), "0x12", "nobody", &user(1)]);

        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains("\"0x12\"") && said.err.contains("\"nobody\""), "{}", said.err);
        assert!(!said.err.contains(&user(2)) && said.out.is_empty(), "{said:?}");
    }
    assert_eq!(fs::read_to_string(sources.file()).unwrap(), before);
}

#[test]
fn who_stays_listed_by_another_source_and_a_large_shrink_are_told() {
    let (url, mut server) = shared();
    server.ask(&["DEL", "stays"]);
    server.list("stays", &users(1..3, 1_773_532_800));
    let addresses = format!("addresses = [{:?}]\n", user(2));
    let list: Vec<_> = (1..6).map(user).collect();
    let sources = Sources::new(&list, &(redis(&url, "stays") + &addresses));

    let said = sources.command(&["remove", &user(2), &user(3)]);

    assert!(said.err.contains(&format!("{} stays listed by redis.", user(2))), "{}", said.err);
    assert!(said.err.contains(&format!("{} stays listed by config.", user(2))), "{}", said.err);
    assert!(!said.err.contains(&format!("{} stays", user(3))), "{}", said.err);
    assert!(said.err.contains("2 of 5 addresses, more than may go at once"), "{}", said.err);
    assert!(said.err.contains("until SIGHUP"), "{}", said.err);
    assert!(!said.err.contains("follows by itself"), "{}", said.err);

    // The key goes with its last member.
    let said = sources.command(&["remove", "--redis", &user(1), &user(2)]);
    assert!(said.err.contains("until SIGHUP") && said.err.contains("2 of 2"), "{}", said.err);
    // It went before: nothing is to be confirmed now.
    let said = sources.command(&["remove", "--redis", &user(1)]);
    assert!(!said.err.contains("SIGHUP"), "{}", said.err);
}

#[test]
fn that_a_key_goes_with_its_last_member_is_told_whatever_may_be_lost() {
    let (url, mut server) = shared();
    server.ask(&["DEL", "last"]);
    server.list("last", &users(1..3, 1_773_532_800));
    let sources = Sources::new(&[], &(redis(&url, "last") + "max_shrink = 1.0\n"));

    let one = sources.command(&["remove", "--redis", &user(1)]);
    let last = sources.command(&["remove", "--redis", &user(2)]);

    assert!(!one.err.contains("SIGHUP"), "{}", one.err);
    assert!(last.err.contains("until SIGHUP") && last.err.contains("1 of 1"), "{}", last.err);
}

#[test]
fn what_a_source_that_is_away_may_list_is_not_known_and_the_others_answer() {
    // Nobody listens there.
    let sources = Sources::new(&[user(1)], &redis("redis://127.0.0.1:1", "users"));

    let listed = sources.command(&["list", "--origin"]);
    let checked = sources.command(&["check", &user(1), &user(2)]);
    let sure = sources.command(&["check", &user(1)]);

    assert_eq!((listed.code, listed.lines()), (69, vec![&*format!("{} file", user(1))]));
    assert!(listed.err.contains("127.0.0.1:1") && listed.err.contains("refused"), "{listed:?}");
    assert!(listed.err.contains("the list is not whole: redis could not be read"), "{listed:?}");
    let expected = [
        format!("{} listed by file", user(1)),
        format!("{} not known: redis cannot be read", user(2)),
    ];
    assert_eq!((checked.code, checked.lines().join("\n")), (69, expected.join("\n")));
    assert!(checked.err.contains("refused"), "{checked:?}");
    assert_eq!(sure.code, 0, "{sure:?}");
}

#[test]
fn a_file_is_made_where_the_configuration_names_it_and_not_where_a_flag_does() {
    let sources = Sources::new(&[], "");
    fs::remove_file(sources.file()).unwrap();
    let typed = sources.setup.root.path().join("lsit.txt");

    let refused = sources.command(&["add", &user(1), "--whitelist", typed.to_str().unwrap()]);
    let made = sources.command(&["add", &user(1)]);

    assert_eq!((refused.code, typed.exists()), (1, false), "{refused:?}");
    assert!(refused.err.contains("lsit.txt does not exist"), "{refused:?}");
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.err.contains("list.txt did not exist and was made"), "{made:?}");
    assert_eq!(fs::read_to_string(sources.file()).unwrap(), user(1) + "\n");
}

#[test]
fn a_key_in_redis_is_edited_in_its_own_type_and_unit() {
    let (url, mut server) = shared();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (key, score, unit) in [
        ("edit-secs", Some(1_700_000_000_u64), 1),
        ("edit-millis", Some(1_700_000_000_000), 1_000),
        ("edit-none", None, 1),
    ] {
        server.ask(&["DEL", key]);
        if let Some(score) = score {
            server.list(key, &users(1..3, score));
        }
        let sources = Sources::new(&[user(9)], &redis(&url, key));

        let said = sources.command(&["add", "--redis", &user(1), &user(5)]);

        assert_eq!(said.code, 0, "{said:?}");
        let written: f64 = server.text(&["ZSCORE", key, &user(5)]).unwrap().parse().unwrap();
        let written = written as u64 / unit;
        assert!((now..now + 600).contains(&written), "{key}: {written} is not {now}");
        if let Some(score) = score {
            // Who is listed keeps its time of listing.
            let kept: f64 = server.text(&["ZSCORE", key, &user(1)]).unwrap().parse().unwrap();
            assert_eq!(kept as u64, score);
        }
        let said = sources.command(&["remove", "--redis", &user(5)]);
        assert_eq!((said.code, server.text(&["ZSCORE", key, &user(5)])), (0, None), "{said:?}");
        assert!(fs::read_to_string(sources.file()).unwrap().contains(&user(9)));
    }
}

#[test]
fn a_plain_set_is_edited_and_every_spelling_of_an_address_is_removed() {
    let (url, mut server) = shared();
    server.ask(&["DEL", "edit-plain"]);
    let mixed = "0x00000000000000000000000000000000000000Ab";
    server.run(&["SADD", "edit-plain", mixed, &mixed.to_lowercase(), &user(1)]);
    let sources = Sources::new(&[user(9)], &redis(&url, "edit-plain"));

    let added = sources.command(&["add", "--redis", &user(2), mixed]);
    let removed = sources.command(&["remove", "--redis", mixed]);

    assert!(added.out.contains(&format!("{} was already in", mixed.to_lowercase())), "{added:?}");
    assert_eq!((added.code, removed.code), (0, 0), "{added:?} {removed:?}");
    assert_eq!(server.ask(&["SCARD", "edit-plain"]), ":2");
    assert_eq!(server.ask(&["SISMEMBER", "edit-plain", &user(2)]), ":1");
}

#[test]
fn what_cannot_be_edited_is_said_and_left_alone() {
    let (url, mut server) = shared();
    server.run(&["SET", "edit-string", "x"]);
    let sources = Sources::new(&[user(1)], &redis(&url, "edit-string"));
    let without_redis = Sources::new(&[user(1)], "");
    let faulty = Sources::new(&[user(1), "nobody".to_owned()], "");

    for (sources, words, said) in [
        (&sources, &["add", "--redis"][..], "the key is a string"),
        (&sources, &["remove", "--redis"], "the key is a string"),
        (&sources, &["check"], "the key is a string"),
        (&sources, &["list"], "the key is a string"),
        (&without_redis, &["add", "--redis"], "whitelist.redis_url is not configured"),
        (&faulty, &["add"], "line 2: \"nobody\""),
        (&faulty, &["remove"], "line 2: \"nobody\""),
    ] {
        let of_address = (words[0] != "list").then(|| user(2));
        let words: Vec<_> = words.iter().copied().chain(of_address.as_deref()).collect();

        let result = sources.command(&words);

        let code = if matches!(words[0], "check" | "list") { 69 } else { 1 };
        assert_eq!(result.code, code, "{words:?}: {result:?}");
        assert!(result.err.contains(said), "{words:?}: {}", result.err);
    }
    // The other sources answer all the same.
    let checked = sources.command(&["check", &user(1)]);
    assert_eq!((checked.code, checked.lines()[0]), (0, &*format!("{} listed by file", user(1))));
    assert_eq!(server.text(&["GET", "edit-string"]).unwrap(), "x");
    assert!(!fs::read_to_string(faulty.file()).unwrap().contains(&user(2)));
}
