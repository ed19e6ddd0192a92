use std::cell::Cell;

use bytes::Bytes;

use super::*;

fn kind(events: u32) -> Kind {
    Kind { encoding: 1, packs_from: usize::MAX, views: Views::default(), events }
}

fn bundle() -> Option<Bundle> {
    Some(Bundle::new(&[Bytes::from_static(b"frame")]))
}

#[test]
fn a_bundle_is_made_once_for_all_but_the_first_of_a_kind() {
    let mut bundles = Bundles::default();
    let made = Cell::new(0);
    let mut get = |events, content: fn() -> Option<Bundle>| {
        let make = || {
            made.set(made.get() + 1);
            content()
        };
        bundles.get(kind(events), make).cloned()
    };

    assert!(get(1, bundle).is_none());
    assert_eq!(made.get(), 0, "it would be for one session");
    let of_second = get(1, bundle).unwrap();
    let of_third = get(1, bundle).unwrap();
    assert!(Rc::ptr_eq(&of_second, &of_third));
    assert_eq!(made.get(), 1);

    // What cannot be one is not tried again.
    assert!((0..5).all(|_| get(2, || None).is_none()));
    assert_eq!(made.get(), 2);

    bundles.clear();
    assert!(bundles.get(kind(1), bundle).is_none(), "that was another burst");
}

#[test]
fn kinds_of_one_session_each_do_not_keep_others_out_and_are_forgotten() {
    let mut bundles = Bundles::default();
    bundles.get(kind(1), bundle);
    bundles.get(kind(1), bundle);
    for events in 2..10 * KINDS as u32 {
        assert!(bundles.get(kind(events), bundle).is_none());
        assert!(bundles.kinds.len() <= KINDS);
    }

    assert!(bundles.get(kind(1), bundle).is_some(), "what was made stays");
    assert!(bundles.get(kind(0), bundle).is_none());
    assert!(bundles.get(kind(0), bundle).is_some(), "and there is room for more");
    assert!(bundles.get(kind(2), bundle).is_none(), "that one was forgotten");
}

#[test]
fn more_kinds_than_are_known_get_their_frames_one_by_one() {
    let mut bundles = Bundles::default();
    for events in 1..=KINDS as u32 {
        bundles.get(kind(events), bundle);
        assert!(bundles.get(kind(events), bundle).is_some());
    }

    for _ in 0..3 {
        assert!(bundles.get(kind(0), bundle).is_none());
    }
    assert!((1..=KINDS as u32).all(|events| bundles.get(kind(events), bundle).is_some()));
}
