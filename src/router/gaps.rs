//! The gaps that are open, for those who tell of them.
//!
//! Place in the pipeline: `Router` publishes what its ledgers know; status, metrics and the shards look.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ledger::Gap;
use crate::event::{Timestamp, Topic};

/// Gaps that are open, by topic and by where they end.
#[derive(Debug, Default)]
pub struct OpenGaps(Mutex<Vec<Gap>>);

impl OpenGaps {
    pub fn replace(&self, mut gaps: Vec<Gap>) {
        gaps.sort_unstable_by_key(|gap| (gap.topic, gap.last, gap.first));
        *self.lock() = gaps;
    }

    pub fn list(&self) -> Vec<Gap> {
        self.lock().clone()
    }

    /// Those of a topic that end above one position and not above another: at most so many, of which
    /// those that were noticed first are left out, in their order.
    pub fn between(&self, topic: Topic, above: u64, up_to: u64, most: usize) -> Vec<Gap> {
        let gaps = self.lock();
        let wanted = first_above(&gaps, topic, above)..first_above(&gaps, topic, up_to);
        newest(gaps.get(wanted).into_iter().flatten(), most)
    }

    /// Those of a topic that end at a position or below it, and were noticed at a time or later: at most so
    /// many, as above.
    pub fn noticed_since(
        &self,
        topic: Topic,
        since: Timestamp,
        up_to: u64,
        most: usize,
    ) -> Vec<Gap> {
        let gaps = self.lock();
        let wanted = first_above(&gaps, topic, 0)..first_above(&gaps, topic, up_to);
        newest(gaps.get(wanted).into_iter().flatten().filter(|gap| gap.opened >= since), most)
    }

    /// Where the last one of a topic ends that ends above one position and not above another.
    pub fn last_end(&self, topic: Topic, above: u64, up_to: u64) -> Option<u64> {
        let gaps = self.lock();
        let wanted = first_above(&gaps, topic, above)..first_above(&gaps, topic, up_to);
        gaps.get(wanted)?.last().map(|gap| gap.last)
    }

    /// Where the first one of a topic ends that ends above a position.
    pub fn next_end(&self, topic: Topic, position: u64) -> Option<u64> {
        let gaps = self.lock();
        let next = gaps.get(first_above(&gaps, topic, position));
        next.filter(|gap| gap.topic == topic).map(|gap| gap.last)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Gap>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of the first gap of a topic that ends above a position.
fn first_above(gaps: &[Gap], topic: Topic, position: u64) -> usize {
    gaps.partition_point(|gap| (gap.topic, gap.last) <= (topic, position))
}

fn newest<'g>(wanted: impl Iterator<Item = &'g Gap>, most: usize) -> Vec<Gap> {
    let mut newest: Vec<_> = wanted.collect();
    if newest.len() > most {
        newest.sort_by_key(|gap| gap.opened);
        newest.drain(..newest.len() - most);
        newest.sort_by_key(|gap| gap.last);
    }
    newest.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILLS: Topic = Topic::new("fills");
    const MISC: Topic = Topic::new("misc");

    fn gap(topic: Topic, last: u64, opened: i64) -> Gap {
        Gap { topic, first: last - 1, last, opened: Timestamp(opened), closed: None }
    }

    fn lasts(gaps: &[Gap]) -> Vec<u64> {
        gaps.iter().map(|gap| gap.last).collect()
    }

    #[test]
    fn gaps_are_found_by_where_they_end_in_their_topic() {
        let gaps = OpenGaps::default();
        assert_eq!((gaps.next_end(FILLS, 0), gaps.between(FILLS, 0, 9, 9)), (None, vec![]));
        gaps.replace(vec![
            gap(MISC, 40, 1),
            gap(FILLS, 30, 2),
            gap(MISC, 15, 3),
            gap(FILLS, 20, 4),
        ]);

        let next = |topic, position| gaps.next_end(topic, position);
        assert_eq!(
            (next(FILLS, 0), next(FILLS, 19), next(FILLS, 20)),
            (Some(20), Some(20), Some(30))
        );
        assert_eq!((next(FILLS, 30), next(MISC, 15), next(MISC, 40)), (None, Some(40), None));
        assert_eq!(lasts(&gaps.between(FILLS, 0, u64::MAX, 9)), [20, 30]);
        let last = |above, up_to| gaps.last_end(FILLS, above, up_to);
        assert_eq!([last(0, 99), last(0, 29), last(20, 29)], [Some(30), Some(20), None]);
        assert_eq!(lasts(&gaps.between(FILLS, 20, 30, 9)), [30]);
        assert_eq!(lasts(&gaps.between(FILLS, 19, 29, 9)), [20]);
        assert_eq!(lasts(&gaps.between(FILLS, 30, 20, 9)), [0; 0], "nothing lies between");
        assert_eq!(lasts(&gaps.between(MISC, 0, 15, 9)), [15]);
        let since = |opened, up_to| lasts(&gaps.noticed_since(FILLS, Timestamp(opened), up_to, 9));
        assert_eq!([since(2, 30), since(3, 30), since(2, 29)], [vec![20, 30], vec![20], vec![20]]);
    }

    #[test]
    fn of_many_those_are_left_out_that_were_noticed_first_among_the_wanted_ones() {
        let gaps = OpenGaps::default();
        // The later they end, the earlier they were noticed.
        gaps.replace((1..=2_000).map(|number| gap(FILLS, 10 * number, -(number as i64))).collect());

        let found = gaps.between(FILLS, 5_000, 18_000, 1_000);

        let expected: Vec<_> = (501..=1_500).map(|number| 10 * number).collect();
        assert_eq!(lasts(&found), expected);
    }
}
