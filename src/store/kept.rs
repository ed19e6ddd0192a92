//! Days whose events are kept beyond the retention.
//!
//! Place: rules that both databases share; each has a small table of such days. A day is kept as a
//! whole, with everything that is stored of it: a mark on each row would cost every row, and a day is
//! what PostgreSQL drops at once. A full disk takes kept days too, the oldest first: it must not stop
//! the live stream.

use std::{ops::Range, time::Duration};

use crate::event::{Event, Timestamp};

const DAY_MICROS: i64 = 86_400_000_000;

/// A kept day, since 1970, and when that ends, on the clock of retention.
pub type KeptDay = (i64, i64);

/// The days that events fall on, once each, and until when they are kept.
pub fn kept_days(events: &[Event], keep: Duration) -> Vec<KeptDay> {
    let mut days: Vec<i64> =
        events.iter().map(|event| event.time.0.div_euclid(DAY_MICROS)).collect();
    days.sort_unstable();
    days.dedup();
    let until = |day: i64| Timestamp((day + 1).saturating_mul(DAY_MICROS)).plus(keep).0;
    days.into_iter().map(|day| (day, until(day))).collect()
}

/// The times below `edge` that no kept day covers, in order.
pub fn spans_not_kept(kept: &[KeptDay], edge: Timestamp) -> Vec<Range<i64>> {
    let mut kept: Vec<i64> = kept.iter().map(|(day, _)| *day).collect();
    kept.sort_unstable();
    let mut spans = Vec::new();
    let mut from = i64::MIN;
    for day in kept {
        let first = day.saturating_mul(DAY_MICROS);
        if first >= edge.0 {
            break;
        }
        if from < first {
            spans.push(from..first);
        }
        from = first.saturating_add(DAY_MICROS);
    }
    if from < edge.0 {
        spans.push(from..edge.0);
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_kept_day_covers_goes() {
        let day = |number: i64| number * DAY_MICROS;
        let edge = Timestamp(day(10) + 5);

        let bounds = |kept: Vec<i64>| -> Vec<(i64, i64)> {
            let kept: Vec<KeptDay> = kept.into_iter().map(|day| (day, i64::MAX)).collect();
            spans_not_kept(&kept, edge).into_iter().map(|span| (span.start, span.end)).collect()
        };
        assert_eq!(bounds(vec![]), [(i64::MIN, edge.0)]);
        let spans = bounds(vec![5, 3, 4, 8, 12]);
        assert_eq!(spans, [(i64::MIN, day(3)), (day(6), day(8)), (day(9), edge.0)]);
        // The day of the edge is kept to its end.
        assert_eq!(bounds(vec![10]), [(i64::MIN, day(10))]);
    }
}
