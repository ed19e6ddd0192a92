//! Lists and directories that change, vanish or are not what they should be.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    DAY,
    common::{
        Setup, database, eventually,
        node::{ALICE, BOB, Kind, append, fill, fills_line},
    },
    harness::{log_lines, reasons, stored},
};

// H21
#[test]
fn a_list_that_shrinks_too_much_waits_for_a_hangup() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{ALICE}\n{BOB}\n");
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    append(&mut file, &(fills_line(1, BOB, 1) + "\n"));
    eventually("his are kept", || stored(&setup) == 1);

    fs::write(setup.whitelist_file(), format!("{ALICE}\n")).unwrap();
    eventually("the shrink is refused", || {
        daemon.status()["whitelist"]["problem"].as_str().is_some_and(|p| p.contains("SIGHUP"))
    });
    let status = daemon.status();
    assert_eq!(
        (&status["state"], &status["whitelist"]["addresses"]),
        (&json!("degraded"), &json!(2))
    );
    assert!(reasons(&daemon).contains("whitelist"), "{status}");
    append(&mut file, &(fills_line(2, BOB, 1) + "\n"));
    eventually("the old list holds", || stored(&setup) == 2);

    daemon.signal(Signal::HUP);
    eventually("it is accepted", || daemon.status()["whitelist"]["addresses"] == 1);
    assert_eq!(daemon.status()["whitelist"]["problem"], Value::Null);
    append(&mut file, &(fills_line(3, BOB, 1) + "\n"));
    append(&mut file, &(fills_line(4, ALICE, 1) + "\n"));
    eventually("hers are kept", || stored(&setup) == 3);
    assert!(database::rows(&setup.database()).keys().all(|id| id.position != 3));
}

#[test]
fn a_bad_line_in_a_changed_list_changes_nothing_and_is_named_in_log_and_status() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{ALICE}\n");
    let daemon = setup.start();

    fs::write(setup.whitelist_file(), format!("{ALICE}\n{BOB}\nnobody\n")).unwrap();

    let said = r#"1 bad line, an address is 0x and 40 hexadecimal digits: line 3: "nobody""#;
    eventually("status names the line", || {
        daemon.status()["whitelist"]["problem"].as_str().is_some_and(|p| p.contains(said))
    });
    assert_eq!(daemon.status()["whitelist"]["addresses"], 1);
    eventually("the log names the line", || {
        log_lines(&daemon.log(), "whitelist not replaced, the old one stays")
            .iter()
            .any(|line| line.contains("1 bad line, ") && line.contains(r#"line 3: \"nobody\""#))
    });
    fs::write(setup.whitelist_file(), format!("{ALICE}\n{BOB}\n")).unwrap();
    eventually("a mended list is taken", || daemon.status()["whitelist"]["addresses"] == 2);
    assert_eq!(daemon.status()["whitelist"]["problem"], Value::Null);
}

#[test]
fn a_plain_directory_is_refused_with_the_flag_that_the_node_needs() {
    let setup = Setup::new();
    for kind in ["node_fills", "misc_events"] {
        let mut file = Kind::named(setup.node(), kind).open(DAY, 9);
        append(&mut file, &(fill(ALICE, "BTC", 1).to_string() + "\n"));
    }

    let daemon = setup.start();

    eventually("status says it", || {
        let status = daemon.status();
        let streams = status["nodes"][0]["streams"].as_array().unwrap();
        let says = |stream: &Value| stream["problem"].to_string().contains("--batch-by-block");
        streams.len() == 2 && streams.iter().all(says)
    });
    assert!(reasons(&daemon).contains("--batch-by-block"));
    assert_eq!(daemon.get("/readyz").0, 503);
    eventually("the log says it", || daemon.log().contains("directory refused"));
    let log = daemon.log();
    let said = log_lines(&log, "--batch-by-block");
    assert_eq!(said.len(), 2, "once for each: {log}");

    // The operator follows the advice and need not restart us.
    append(&mut Kind::fills(setup.node()).open(DAY, 10), &(fills_line(1, ALICE, 1) + "\n"));
    eventually("the new form is followed", || stored(&setup) == 1);
}

#[test]
fn a_data_directory_that_vanishes_and_comes_back_is_followed_again() {
    let setup = Setup::new();
    append(&mut Kind::fills(setup.node()).open(DAY, 9), &(fills_line(1, ALICE, 1) + "\n"));
    let daemon = setup.start();
    eventually("the first is stored", || stored(&setup) == 1);

    let away = setup.root.path().join("away");
    fs::rename(setup.node(), &away).unwrap();
    eventually("status says it", || reasons(&daemon).contains("not followed"));
    assert_eq!(daemon.get("/readyz").0, 503);
    assert_eq!(daemon.get("/livez").0, 200);
    // What is written meanwhile, as on a disk that was unmounted.
    append(&mut Kind::fills(&away).open(DAY, 9), &(fills_line(2, ALICE, 1) + "\n"));
    append(&mut Kind::fills(&away).open(DAY, 10), &(fills_line(3, ALICE, 1) + "\n"));
    fs::rename(&away, setup.node()).unwrap();

    eventually("what came meanwhile is stored", || stored(&setup) == 3);
    eventually("all is well again", || daemon.get("/readyz").0 == 200);
    append(&mut Kind::fills(setup.node()).open(DAY, 10), &(fills_line(4, ALICE, 1) + "\n"));
    eventually("it is followed", || stored(&setup) == 4);
    assert_eq!(daemon.status()["router"]["gaps_opened"], 0);
}

#[test]
fn a_directory_in_the_place_of_an_hour_file_is_reported_and_stops_nothing() {
    let setup = Setup::new();
    let kind = Kind::fills(setup.node());
    append(&mut kind.open(DAY, 9), &(fills_line(1, ALICE, 1) + "\n"));
    fs::create_dir(kind.path(DAY, 10)).unwrap();

    let daemon = setup.start();
    append(&mut kind.open(DAY, 11), &(fills_line(2, ALICE, 1) + "\n"));

    eventually("both sides of it are stored", || stored(&setup) == 2);
    eventually("it is counted", || {
        daemon.status()["nodes"][0]["streams"][0]["read_errors"].as_u64() >= Some(1)
    });
    eventually("it is said", || daemon.log().contains("20260315/10"));
    // Repaired while we run.
    fs::remove_dir(kind.path(DAY, 10)).unwrap();
    append(&mut kind.open(DAY, 10), &(fills_line(3, ALICE, 1) + "\n"));
    eventually("the file is read", || stored(&setup) == 3);
}

// H12
#[test]
fn what_happens_to_a_followed_file_is_told_in_the_log_and_status_follows() {
    let setup = Setup::new();
    let kind = Kind::fills(setup.node());
    append(&mut kind.open(DAY, 9), &(fills_line(1, ALICE, 1) + "\n"));
    let daemon = setup.start();
    eventually("it is stored", || stored(&setup) == 1);
    let stream = |member: &str| daemon.status()["nodes"][0]["streams"][0][member].clone();
    assert_eq!(stream("file"), "20260315/9");

    fs::write(kind.path(DAY, 9), "").unwrap();
    eventually("status follows", || stream("offset_bytes") == 0);
    eventually("the log says it", || daemon.log().contains("file truncated"));
    append(&mut kind.open(DAY, 9), &(fills_line(2, ALICE, 1) + "\n"));
    eventually("it is read again", || stored(&setup) == 2);

    fs::remove_file(kind.path(DAY, 9)).unwrap();
    eventually("no file is read any more", || stream("file") == Value::Null);
    eventually("the log says it", || daemon.log().contains("file removed, it was read"));
    assert_eq!(log_lines(&daemon.log(), "file truncated").len(), 1, "{}", daemon.log());
}

#[test]
fn one_directory_under_two_names_is_refused_at_the_start() {
    for linked in [false, true] {
        let mut setup = Setup::new();
        let again = match linked {
            true => setup.root.path().join("link"),
            false => setup.node().to_owned(),
        };
        if linked {
            std::os::unix::fs::symlink(setup.node(), &again).unwrap();
        }
        setup.data_dirs.push(again);

        let mut daemon = setup.spawn();

        assert_eq!(daemon.wait_exit().and_then(|status| status.code()), Some(78));
        assert!(daemon.log().contains("are the same directory"), "{}", daemon.log());
    }
}
