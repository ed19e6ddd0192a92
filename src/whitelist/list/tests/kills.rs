//! Kills between the steps of keeping a list.

use std::{env, process::Command};

use super::*;

/// Set in the process that a test starts to have it killed: the directory to write to.
const VICTIM: &str = "NODECAST_TEST_LIST_DIRECTORY";

/// Two lists are kept one after the other in a process of its own, which is killed at a point of
/// its choice. This is the only test that runs itself: a kill needs a process.
#[test]
fn a_kill_at_any_step_leaves_the_old_list_or_the_new_one() {
    if let Some(directory) = env::var_os(VICTIM) {
        return keep_three_lists(Path::new(&directory));
    }
    let states = [&[1, 2, 3][..], &[1, 2, 3, 4], &[5, 6]];
    let points =
        ["list_written", "list_synced", "list_renamed", "list_changes_cut", "list_changes_written"];

    for (point, pass) in points.iter().flat_map(|point| [(point, 1), (point, 2)]) {
        let directory = tempfile::tempdir().unwrap();
        let name = concat!(
            "whitelist::list::tests::kills::",
            "a_kill_at_any_step_leaves_the_old_list_or_the_new_one",
        );
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(VICTIM, directory.path())
            .env("NODECAST_FAILPOINTS", format!("{point}=kill@{pass}"))
            .output()
            .unwrap();

        let is_killed = output.status.code().is_none();
        assert_eq!(is_killed, !(point.contains("changes") && pass == 2), "{point} {output:?}");
        let opened = AddressList::open(directory.path(), NAME).unwrap();
        let found = opened.map(|(list, stamp)| (list.iter().collect::<BTreeSet<_>>(), stamp));
        let expected = match (*point, pass) {
            ("list_written" | "list_synced", 1) => None,
            ("list_renamed", 1) | ("list_changes_cut", 1) => Some(0),
            ("list_written" | "list_synced", 2) | ("list_changes_written", 1) => Some(1),
            _ => Some(2),
        };
        let expected = expected.map(|at| (addresses(states[at]), vec![at as u8]));
        assert_eq!(found, expected, "{point} {pass}");
        assert!(files(&directory).iter().all(|name| !name.ends_with("unfinished")));
    }
}

fn keep_three_lists(directory: &Path) {
    let limits = Limits { mapped_from: 1, ..Limits::default() };
    let list = build(limits, Some(directory), &[1, 2, 3]).keep(directory, NAME, &[0]).unwrap();
    list.changed([address(4)], []).keep(directory, NAME, &[1]).unwrap();
    build(limits, Some(directory), &[5, 6]).keep(directory, NAME, &[2]).unwrap();
}
