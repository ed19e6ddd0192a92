//! Who is told to go, and when.

use std::time::Duration;

use super::*;
use crate::delivery::dialect::{plain::Plain, sse::Sse};

const HOUR: Duration = Duration::from_secs(3_600);

impl Scene {
    /// So many members of one kind.
    fn join_all(&mut self, count: usize, dialect: &'static dyn Dialect) -> Vec<SessionId> {
        let first = self.pipes.len();
        (0..count).for_each(|_| self.join(false, None));
        let ids: Vec<_> = (first..first + count).map(|id| id as SessionId).collect();
        ids.iter().for_each(|id| self.members.speaks(*id, dialect));
        ids
    }

    fn told(&self, ids: &[SessionId]) -> usize {
        ids.iter().filter(|id| self.members.members[*id].closing).count()
    }
}

#[actix_rt::test]
async fn all_who_wait_for_an_answer_have_it_at_once_however_long_the_others_may_stay() {
    for (others, first, next) in [(0, 0, None), (4, 1, Some(HOUR / 4))] {
        let mut scene = Scene::new().await;
        let sessions = scene.join_all(others, Door::Native.dialect());
        let polls = scene.join_all(600, &Plain);
        let now = Instant::now();

        scene.members.send_away(CloseReason::Draining, HOUR, now);

        // A portion in each turn, and the next one as soon as it can be.
        for told in [256, 512] {
            assert_eq!(scene.members.part(now), Some(Duration::from_millis(1)));
            assert_eq!(scene.told(&polls), told);
        }
        assert_eq!(scene.members.part(now), next);
        assert_eq!((scene.told(&polls), scene.told(&sessions)), (600, first));
    }
}

#[actix_rt::test]
async fn streams_are_told_first_where_they_end_with_the_server() {
    let mut scene = Scene::new().await;
    let sessions = scene.join_all(50, Door::Native.dialect());
    let streams = scene.join_all(50, &Sse);
    let now = Instant::now();

    scene.members.send_away(CloseReason::ShuttingDown, HOUR, now);
    scene.members.part(now + HOUR / 2 - HOUR / 200);

    assert_eq!((scene.told(&streams), scene.told(&sessions)), (50, 0));
    assert_eq!(scene.members.part(now + HOUR), None);
    assert_eq!(scene.told(&sessions), 50);
}

#[actix_rt::test]
async fn who_comes_while_all_are_sent_away_is_told_at_once_and_later_nobody_is() {
    let mut scene = Scene::new().await;
    scene.members.send_away(CloseReason::Draining, HOUR, Instant::now());

    scene.join(false, None);
    let told = scene.told.take().await;
    assert!(matches!(told[..], [Told::Close(CloseReason::Draining)]), "{told:?}");

    scene.members.let_stay();
    scene.join(false, None);
    assert_eq!(scene.members.part(Instant::now()), None);
    assert!(scene.told.take().await.is_empty());
}
