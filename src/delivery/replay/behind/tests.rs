use super::*;
use crate::{
    config::SessionConfig,
    delivery::{
        policy::Key,
        subscription::{Users, Wanted},
    },
};

const FILLS: Topic = Topic::new("fills");

fn cursor(seq: u64) -> Cursor {
    Cursor { epoch: 1, run: 2, seq, positions: Vec::new() }
}

/// A session that is behind 100 for so many subscriptions.
fn behind(policies: &[Policy], cause: Cause) -> (Behind, Subscriptions) {
    let mut all = Subscriptions::default();
    for (number, &policy) in policies.iter().enumerate() {
        let wanted = Wanted { policy, ..Wanted::new(FILLS, Users::All) };
        all.begin(&number.to_string(), wanted, &SessionConfig::default()).unwrap();
    }
    let mut behind = Behind::new(Place::Seq(100), cursor(100), 0, cause);
    behind.learn(&all);
    (behind, all)
}

fn keep(behind: &mut Behind, seq: u64) {
    let slots = vec![(0, seq.to_string().into())];
    behind.keep(seq, Bytes::new(), cursor(seq), slots, &Arc::default());
    behind.advance_cursor(None, seq);
}

#[test]
fn what_is_kept_is_not_delivered_and_is_found_again_by_who_goes_back() {
    let (mut behind, all) = behind(&[Policy::Conflate(Key::Coin)], Cause::Slow);
    keep(&mut behind, 105);
    keep(&mut behind, 110);
    behind.advance_cursor(None, 120);

    assert_eq!(behind.delivered().seq, 104);
    behind.kept_is_sent();
    assert_eq!(behind.delivered().seq, 109);

    // One that begins between them goes back for what is kept, too.
    let (_, first) = all.iter().next().unwrap();
    let another = Change { key: 7, ..first.change(ChangeKind::Follow) };
    behind.go_back(115, [&another].into_iter(), &all);
    assert_eq!((behind.place, behind.delivered().seq), (Place::Seq(109), 109));
    assert!(behind.read_from(109) <= 109, "the store is not read behind its place");
    assert!(behind.kept.is_none() && !behind.begins_above(109));
}

#[test]
fn the_cursor_of_who_goes_back_names_no_later_block_of_what_is_to_come() {
    let (_, all) = behind(&[Policy::Disconnect], Cause::Past);
    let (_, fills) = all.iter().next().unwrap();
    let (misc, positions) = (Topic::new("misc"), vec![(FILLS, 1_000), (Topic::new("misc"), 1_000)]);
    let go_back = |begins: Vec<(Topic, Vec<(Topic, u64)>)>| {
        let now = Cursor { positions: positions.clone(), ..cursor(100) };
        let mut behind = Behind::new(Place::Seq(100), now, 0, Cause::Past);
        let changes: Vec<_> = (7..)
            .zip(begins)
            .map(|(key, (topic, positions))| {
                let begins = Some(Cursor { positions, ..cursor(50) });
                let mut change = fills.change(ChangeKind::Follow);
                change.wanted.topic = topic;
                Change { key, begins, ..change }
            })
            .collect();
        behind.go_back(50, changes.iter(), &all);
        assert_eq!(behind.delivered().seq, 50);
        let mut positions = behind.delivered().positions;
        positions.sort();
        positions
    };

    // Resumed elsewhere by the blocks of now, the fills from 501 to 1,000 would never come.
    assert_eq!(go_back(vec![(FILLS, vec![(FILLS, 500)])]), [(FILLS, 500), (misc, 1_000)]);
    assert_eq!(go_back(vec![(FILLS, vec![])]), [(misc, 1_000)]);
    let both = vec![(FILLS, vec![(FILLS, 500), (misc, 400)]), (FILLS, vec![(FILLS, 300)])];
    assert_eq!(go_back(both), [(FILLS, 300), (misc, 1_000)]);
}

#[test]
fn the_cursor_of_who_goes_back_names_no_block_of_what_was_kept_and_those_of_who_begins_now() {
    let (mut behind, all) = behind(&[Policy::Conflate(Key::Coin)], Cause::Slow);
    let at_block = |seq, block| Cursor { positions: vec![(FILLS, block)], ..cursor(seq) };
    behind.keep(105, Bytes::new(), at_block(105, 500), vec![(0, "BTC".into())], &Arc::default());
    behind.cursor = at_block(120, 900);
    let (_, fills) = all.iter().next().unwrap();
    let mut misc = Change { key: 7, begins: Some(cursor(10)), ..fills.change(ChangeKind::Follow) };
    misc.wanted.topic = Topic::new("misc");
    let now = Change { key: 8, ..fills.change(ChangeKind::Follow) };

    behind.go_back(10, [&misc, &now].into_iter(), &all);

    assert_eq!(behind.delivered(), at_block(10, 500));
}

#[test]
fn only_who_skips_and_is_slow_and_has_not_asked_for_it_passes_over_what_it_missed() {
    let policies = [Policy::Skip, Policy::Disconnect, Policy::Skip];
    let (mut fast, _) = behind(&policies, Cause::Past);
    assert!(fast.skip_to(200).is_empty() && fast.needs_everything());

    let (mut slow, all) = behind(&policies, Cause::Slow);
    let (_, third) = all.iter().nth(2).unwrap();
    slow.begins.remove(&third.key);
    let from = Change { begins: Some(cursor(50)), ..third.change(ChangeKind::Follow) };
    slow.begin(&from, 50, &all);

    let ids = |skipped: Vec<(Box<str>, Topic)>| {
        skipped.into_iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(slow.skip_to(200)), ["0"]);
    assert!(!slow.wants_nothing_up_to(200), "the others do");
    // Until it has come there it misses nothing more; then it may again.
    assert!(slow.skip_to(250).is_empty());
    slow.advance_cursor(None, 220);
    assert_eq!(ids(slow.skip_to(250)), ["0"]);
}

#[test]
fn nobody_is_told_that_he_has_passed_over_nothing() {
    let (mut slow, _) = behind(&[Policy::Skip], Cause::Slow);

    assert!(slow.skip_to(100).is_empty() && slow.skip_to(99).is_empty());
    assert_eq!(slow.skip_to(101).len(), 1);
}

#[test]
fn what_begins_later_still_does_when_another_one_goes_back() {
    let (mut behind, all) = behind(&[Policy::Disconnect], Cause::Past);
    let (_, first) = all.iter().next().unwrap();
    behind.begin(&first.change(ChangeKind::Follow), 500, &all);
    behind.begins.get_mut(&first.key).unwrap().begins = 500;

    let another = Change { key: 7, ..first.change(ChangeKind::Follow) };
    behind.go_back(50, [&another].into_iter(), &all);

    assert!(behind.begins_above(499) && !behind.begins_above(500));
}

#[test]
fn what_was_kept_goes_with_its_subscription_and_is_wanted_until_then() {
    let (mut slow, mut all) = behind(&[Policy::Conflate(Key::Coin), Policy::Skip], Cause::Slow);
    keep(&mut slow, 105);
    slow.begins.values_mut().for_each(|want| want.begins = 200);
    assert!(!slow.wants_nothing_up_to(200));

    let gone = all.unsubscribe("0").unwrap();
    slow.apply(&gone, &all);

    assert!(slow.kept.is_none() && slow.wants_nothing_up_to(200));
}

#[test]
fn who_has_asked_for_the_past_needs_all_of_it_whatever_the_policy() {
    let (mut slow, all) = behind(&[Policy::Skip], Cause::Slow);
    assert!(!slow.needs_everything());

    let (_, first) = all.iter().next().unwrap();
    slow.begins.clear();
    slow.begin(&Change { begins: Some(cursor(50)), ..first.change(ChangeKind::Follow) }, 50, &all);

    assert!(slow.needs_everything());
}

#[test]
fn a_session_that_only_skips_and_conflates_needs_nothing_it_has_missed() {
    let (mut slow, mut all) = behind(&[Policy::Skip, Policy::Disconnect], Cause::Slow);
    assert!(slow.needs_everything());

    let gone = all.unsubscribe("1").unwrap();
    slow.apply(&gone, &all);

    assert!(!slow.needs_everything());
    assert_eq!(slow.skip_to(200).len(), 1);
    assert!(slow.wants_nothing_up_to(200));
}
