//! Whether one session gets what it must get: each event of its share, once, in order.
//!
//! Invariant: where everything is right, received = expected, at any moment at which nothing is under
//! way.

use crate::traffic::Share;

/// What was wrong with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This many that come before it did not come.
    Missing(u64),
    /// It, or a later one, was here before.
    Repeated,
    /// Nobody asked for it.
    Foreign,
}

/// Where a session goes on that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// From here on everything must come.
    pub event: u64,
    /// Whether nothing of before may come.
    pub exact: bool,
}

#[derive(Clone, Debug)]
pub struct Judge {
    share: Share,
    due: Due,
    /// The first event that came.
    first: Option<u64>,
    /// The one that must come next, once one has come.
    next: Option<u64>,
    received: u64,
}

impl Judge {
    pub fn new(share: Share, due: Due) -> Self {
        Self { share, due, first: None, next: None, received: 0 }
    }

    /// It is subscribed at a moment at which `events` were written, so that what follows must come.
    /// What is written at that moment may come.
    pub fn begin(&mut self, events: u64) {
        self.due = Due { event: events, exact: false };
    }

    /// Takes one event.
    ///
    /// # Errors
    /// What is wrong with it. It is counted all the same.
    pub fn take(&mut self, event: u64) -> Result<(), Fault> {
        self.received += 1;
        if !self.share.has(event) {
            return Err(Fault::Foreign);
        }
        let wanted = match self.next {
            Some(next) => next,
            None if self.due.exact => self.share.next(self.due.event),
            None => self.share.next(self.due.event).min(event),
        };
        self.first.get_or_insert(wanted.min(event));
        if event < wanted {
            self.next = Some(wanted);
            return Err(Fault::Repeated);
        }
        self.next = Some(self.share.behind(event));
        match self.share.count(wanted..event) {
            0 => Ok(()),
            missing => Err(Fault::Missing(missing)),
        }
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many had to come when `events` were written.
    pub fn expected(&self, events: u64) -> u64 {
        self.share.count(self.first.unwrap_or(self.due.event)..events)
    }

    /// From where another session goes on.
    pub fn rest(&self) -> Due {
        match self.next {
            Some(event) => Due { event, exact: true },
            None => self.due,
        }
    }

    /// The next event that must come.
    pub fn waits_for(&self) -> u64 {
        self.next.unwrap_or_else(|| self.share.next(self.due.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Traffic, Wish};

    fn share(wish: Wish) -> Share {
        Traffic { users: 10, event_bytes: 400 }.share(wish)
    }

    fn of(wish: Wish, event: u64, exact: bool) -> Judge {
        Judge::new(share(wish), Due { event, exact })
    }

    #[test]
    fn received_is_expected_where_everything_comes() {
        let mut judge = of(Wish::User(3), 0, false);
        judge.begin(20);

        for event in [23, 33, 43] {
            judge.take(event).unwrap();
        }

        assert_eq!((judge.received(), judge.expected(53)), (3, 3));
        assert_eq!(judge.expected(54), 4);
    }

    #[test]
    fn what_was_being_written_at_the_start_may_come() {
        let mut judge = of(Wish::Everything, 0, false);
        judge.begin(20);

        judge.take(18).unwrap();
        judge.take(19).unwrap();

        assert_eq!((judge.received(), judge.expected(20)), (2, 2));
    }

    #[test]
    fn a_hole_at_the_start_or_later_is_seen_and_expected() {
        let mut judge = of(Wish::Everything, 0, false);
        judge.begin(20);

        assert_eq!(judge.take(22), Err(Fault::Missing(2)));
        assert_eq!(judge.take(24), Err(Fault::Missing(1)));

        assert_eq!((judge.received(), judge.expected(25)), (2, 5));
    }

    #[test]
    fn a_repeat_is_more_than_expected() {
        let mut judge = of(Wish::Everything, 5, true);

        judge.take(5).unwrap();
        assert_eq!(judge.take(5), Err(Fault::Repeated));
        judge.take(6).unwrap();

        assert_eq!((judge.received(), judge.expected(7)), (3, 2));
    }

    #[test]
    fn a_resumed_session_may_get_nothing_of_before() {
        assert_eq!(of(Wish::Everything, 5, true).take(4), Err(Fault::Repeated));
        assert_eq!(of(Wish::Everything, 5, true).take(6), Err(Fault::Missing(1)));
        assert_eq!(of(Wish::Everything, 5, true).take(5), Ok(()));
    }

    #[test]
    fn an_event_of_somebody_else_is_foreign() {
        assert_eq!(of(Wish::User(3), 0, false).take(4), Err(Fault::Foreign));
    }

    #[test]
    fn who_goes_on_waits_for_what_the_one_before_waited_for() {
        let mut judge = of(Wish::User(3), 0, false);
        judge.begin(7);
        assert_eq!(judge.rest(), Due { event: 7, exact: false });
        assert_eq!(judge.waits_for(), 13);

        judge.take(13).unwrap();

        assert_eq!(judge.rest(), Due { event: 23, exact: true });
    }
}
