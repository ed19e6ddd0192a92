//! Sessions that are behind: what they must neither lose nor get twice, and what they may cost.

use super::*;

#[actix_rt::test]
async fn who_is_before_his_shard_gets_nothing_twice_that_it_has_yet_to_cast() {
    let mut scene = Scene::new().await;
    scene.join(false, None);
    // More than one turn casts.
    (0..600).for_each(|_| scene.append());
    scene.join(false, Some(scene.seq));
    scene.append();

    let mut frames = 0;
    while {
        let (more, flushed) = scene.turn();
        frames +=
            flushed.iter().filter(|(number, _)| *number == 1).map(|(_, one)| one).sum::<usize>();
        more
    } {}

    assert_eq!(frames, 2, "`live`, and the last event");
}

#[actix_rt::test]
async fn who_has_no_room_loses_nothing_not_even_before_he_knows_that_he_is_behind() {
    let mut scene = Scene::new().await;
    scene.join(false, None);
    scene.pipes[0].full.set(true);
    scene.append_with(vec![Notice::GapOpened(gap_at(FIRST_BLOCK + 5))]);
    while scene.turn().0 {}
    assert_eq!(scene.members.casting.stats.sessions.behind.get(), 1);

    // Its socket takes all at once.
    scene.pipes[0].full.set(false);
    assert!(scene.members.writable(0));
    scene.members.room(0);
    while scene.turn().0 {}
    assert_eq!(scene.members.casting.stats.sessions.behind.get(), 1, "what he wants is not known");

    let mut all = Subscriptions::default();
    all.subscribe("a", FILLS, Users::All, None, &SessionConfig::default()).unwrap();
    scene.members.learn(0, &all);
    scene.members.room(0);
    assert_eq!(scene.turn().1, [(0, 2)], "the gap, and the event");
    assert_eq!(scene.members.casting.stats.sessions.behind.get(), 0);
}

#[actix_rt::test]
async fn a_turn_moves_only_so_many_on_who_are_behind() {
    let mut scene = Scene::new().await;
    scene.join(false, None);
    (0..512).for_each(|_| scene.append());
    while scene.turn().0 {}

    (0..40).for_each(|_| scene.join(false, Some(FIRST_SEQ)));
    let (more, flushed) = scene.turn();

    assert!(more);
    assert_eq!(flushed.len(), 16, "of 512 events each");
}

#[actix_rt::test]
async fn who_begins_in_the_middle_of_a_batch_is_told_of_the_gaps_that_lie_ahead_in_it() {
    const MEMBERS: usize = 512;
    const EVENTS: usize = 1_000;
    let mut scene = Scene::new().await;
    (0..MEMBERS).for_each(|_| scene.join(false, None));
    scene.append_block(EVENTS, vec![Notice::GapOpened(gap_at(FIRST_BLOCK + 990))]);
    // A turn queues only so many frames: the notice, and events.
    scene.turn();
    let done = Work::TURN.frames / MEMBERS - 1;
    assert_eq!(scene.members.done, done);

    // The next turn brings him to where it ends, in front of the gap, and he is live.
    scene.join(false, None);

    let mut sent = 0;
    while {
        let (more, flushed) = scene.turn();
        let his = flushed.iter().filter(|(number, _)| *number == MEMBERS);
        sent += his.map(|(_, frames)| frames).sum::<usize>();
        more
    } {}
    assert_eq!(sent, 1 + EVENTS - done, "the gap, and the rest of the events");
}

#[actix_rt::test]
async fn more_notices_than_find_room_come_as_there_is_some() {
    const CLOSED: usize = 40;
    let mut scene = Scene::new().await;
    scene.max_queued = 10;
    let closed = |number| Notice::GapClosed(gap_at(FIRST_BLOCK - number as u64));
    scene.append_with((1..=CLOSED).map(closed).collect());
    scene.join(false, Some(FIRST_SEQ));

    let (mut more, mut frames) = (true, Vec::new());
    while more {
        let (again, flushed) = scene.turn();
        frames.extend(flushed.iter().map(|(_, frames)| *frames));
        more = again;
    }

    assert_eq!(frames, [10, 10, 10, 11, 1], "what finds room, the event behind the last, `live`");
}

#[actix_rt::test]
async fn the_cursor_of_who_begins_in_the_past_names_no_block_behind_a_gap_that_he_will_be_told() {
    let mut scene = Scene::new().await;
    scene.join(false, None);
    // The block behind the gap has nothing for anybody.
    scene.append_block(0, vec![Notice::GapOpened(gap_at(FIRST_BLOCK + 1))]);
    while scene.turn().0 {}
    assert_eq!(scene.members.cursor_of(0).position(FILLS), Some(FIRST_BLOCK + 2));

    scene.join_at(false, FIRST_SEQ, FIRST_BLOCK);

    assert_eq!(scene.members.cursor_of(1).position(FILLS), Some(FIRST_BLOCK));
    assert_eq!(scene.turn().1, [(1, 2)], "the gap, and `live`");
    assert_eq!(scene.members.cursor_of(1).position(FILLS), Some(FIRST_BLOCK + 2));
}

#[actix_rt::test]
async fn a_gap_behind_the_last_event_of_a_batch_is_told_before_a_cursor_names_the_end_of_the_batch()
{
    // As many as one slice looks at.
    const EVENTS: u64 = 512;
    let mut scene = Scene::new().await;
    scene.join(false, None);
    let gap = gap_at(FIRST_BLOCK + EVENTS + 1);
    scene.append_block(EVENTS as usize, vec![Notice::GapOpened(gap.clone())]);
    while scene.turn().0 {}

    scene.join_at(false, FIRST_SEQ, FIRST_BLOCK);
    let (_, flushed) = scene.turn();

    assert_eq!(scene.members.cursor_of(1).position(FILLS), Some(gap.last + 1));
    assert_eq!(flushed, [(1, EVENTS as usize + 1)], "the events, and the gap");
}

#[actix_rt::test]
async fn a_cursor_stands_behind_a_gap_that_was_told_though_there_is_no_room_for_what_follows() {
    let mut scene = Scene::new().await;
    scene.join(false, None);
    scene.append_with(vec![Notice::GapOpened(gap_at(FIRST_BLOCK + 1))]);
    while scene.turn().0 {}
    scene.join_at(false, FIRST_SEQ, FIRST_BLOCK);
    scene.pipes[1].full.set(true);

    assert_eq!(scene.turn().1, [(1, 1)], "the gap");
    let cursor = scene.members.cursor_of(1);
    assert_eq!((cursor.seq, cursor.position(FILLS)), (FIRST_SEQ, Some(FIRST_BLOCK + 1)));
}

#[actix_rt::test]
async fn who_stands_within_what_came_together_reads_the_store_from_where_that_begins() {
    // More than one slice looks at.
    const TOGETHER: u32 = 700;
    let mut scene = Scene::new().await;
    scene.join(false, None);
    scene.append_blocks(2, TOGETHER, vec![]);
    while scene.turn().0 {}
    scene.join(false, Some(FIRST_SEQ));

    let mut behind = scene.members.members.get_mut(&1).unwrap().behind.take().unwrap();
    let mut stand = || {
        scene.members.slice(1, &mut behind);
        let here = behind.cursor.seq;
        (here - FIRST_SEQ, behind.read_from(here) - FIRST_SEQ)
    };

    let stands = [(); 3].map(|()| stand());
    assert_eq!(stands, [(512, 0), (1_024, 700), (1_400, 1_400)]);
}
