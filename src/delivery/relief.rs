//! Closes the sessions for which the most waits while too much waits for all of them together.
//!
//! Place in the pipeline: begun by the shard whose turn has found it so; asks every shard.
//! Invariants: one at a time in the process; the largest outbox of all goes first, and no more than are
//! needed; nothing of this is done while the sum is within `session.outbox_total_bytes`.

use std::{
    cmp::Reverse,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use slog::warn;
use tokio::time::sleep;

use super::{
    Casting,
    index::SessionId,
    shard::{Evict, GetWaiting, Waiting},
};

/// Until it is looked at again whether those have left who were told, or who leave anyway.
const PAUSE: Duration = Duration::from_millis(20);

/// Begins, unless somebody is at it already.
pub fn begin(casting: &Arc<Casting>) {
    if casting.sessions.relieving.swap(true, Ordering::SeqCst) {
        return;
    }
    let casting = casting.clone();
    actix::spawn(async move {
        loop {
            while relieve(&casting).await {
                sleep(PAUSE).await;
            }
            casting.sessions.relieving.store(false, Ordering::SeqCst);
            // Who found it too full until just now has left it to us.
            let is_ours = || !casting.sessions.relieving.swap(true, Ordering::SeqCst);
            if !(casting.is_too_full() && is_ours()) {
                return;
            }
        }
    });
}

/// Tells the largest to close. Gives whether it has to be looked at again.
async fn relieve(casting: &Casting) -> bool {
    let shards = casting.sessions.shards().clone();
    let answers = join_all(shards.iter().map(|shard| shard.send(GetWaiting))).await;
    let answers: Vec<Waiting> = answers.into_iter().map(Result::unwrap_or_default).collect();
    // Read behind the answers: what has left since is missing here, so that too few are told to close
    // rather than too many. Then they are looked at again.
    let waiting = casting.waiting_bytes();
    let limit = casting.config.get().session.outbox_total_bytes;
    if waiting <= limit {
        return false;
    }
    let chosen = choose(&answers, waiting, limit);
    let count = chosen.iter().map(Vec::len).sum::<usize>();
    if count > 0 {
        warn!(casting.logger, "too much waits for clients: the largest are closed";
            "sessions" => count, "waiting_bytes" => waiting, "limit_bytes" => limit);
    }
    let told = shards.iter().zip(chosen).filter(|(_, chosen)| !chosen.is_empty());
    // A shard that is gone has no sessions.
    drop(join_all(told.map(|(shard, chosen)| shard.send(Evict(chosen)))).await);
    true
}

/// Who has to go, of each shard, so that of what waits no more is left than may wait.
fn choose(shards: &[Waiting], waiting: usize, limit: usize) -> Vec<Vec<SessionId>> {
    largest(shards, waiting - limit, leaving(shards, waiting))
}

/// Of what waits, what nobody else has to be closed for: that of those who were told, and of those who
/// have left their shard and have not taken their last frames.
fn leaving(shards: &[Waiting], waiting: usize) -> usize {
    let told: usize = shards.iter().map(|shard| shard.leaving_bytes).sum();
    let stays: usize =
        shards.iter().flat_map(|shard| &shard.outboxes).map(|(bytes, _)| bytes).sum();
    told.max(waiting.saturating_sub(stays))
}

/// The sessions with the largest outboxes, for each shard, that hold together what is `over` when those
/// have gone that are `leaving`.
fn largest(shards: &[Waiting], over: usize, leaving: usize) -> Vec<Vec<SessionId>> {
    let mut over = over.saturating_sub(leaving);
    let all = shards.iter().enumerate();
    let mut all: Vec<_> = all
        .flat_map(|(shard, waiting)| {
            waiting.outboxes.iter().map(move |&(bytes, id)| (bytes, shard, id))
        })
        .collect();
    all.sort_unstable_by_key(|(bytes, ..)| Reverse(*bytes));
    let mut chosen = vec![Vec::new(); shards.len()];
    for (bytes, shard, id) in all {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(bytes);
        chosen[shard].push(id);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(outboxes: &[(usize, SessionId)], leaving_bytes: usize) -> Waiting {
        Waiting { outboxes: outboxes.to_vec(), leaving_bytes }
    }

    #[test]
    fn the_largest_of_all_shards_go_and_no_more_than_are_needed() {
        let shards = [shard(&[(10, 1), (500, 2), (90, 3)], 0), shard(&[(400, 1), (100, 2)], 0)];

        assert_eq!(largest(&shards, 1, 0), [vec![2], vec![]]);
        assert_eq!(largest(&shards, 500, 0), [vec![2], vec![]]);
        assert_eq!(largest(&shards, 501, 0), [vec![2], vec![1]]);
        assert_eq!(largest(&shards, 1_050, 0), [vec![2, 3], vec![1, 2]]);
        assert_eq!(largest(&shards, 9_999, 0), [vec![2, 3, 1], vec![1, 2]]);
    }

    #[test]
    fn what_is_about_to_leave_is_not_made_room_for_twice() {
        let shards = [shard(&[(10, 1)], 500), shard(&[(400, 1)], 0)];

        assert_eq!(largest(&shards, 500, 500), [vec![], vec![]] as [Vec<SessionId>; 2]);
        assert_eq!(largest(&shards, 501, 500), [vec![], vec![1]]);
    }

    #[test]
    fn nobody_is_closed_for_what_those_hold_who_have_left_their_shards() {
        let shards = [shard(&[(10, 1)], 500), shard(&[(400, 1)], 0)];

        assert_eq!(leaving(&shards, 910), 500);
        assert_eq!(leaving(&shards, 1_000_410), 1_000_000);
        assert_eq!(leaving(&shards, 100), 500, "what is not counted yet");
        assert_eq!(choose(&shards, 910, 410), [vec![], vec![]] as [Vec<SessionId>; 2]);
        assert_eq!(choose(&shards, 910, 409), [vec![], vec![1]]);
    }
}
