//! Which back-fills by list are owed, and where that is kept: in the store, so that whichever machine
//! writes next finds it.
//!
//! Invariant: what is kept is one whole: a list, and the jobs after which nothing is missing for it.

use actix::prelude::*;
use async_trait::async_trait;

use super::saved::BY_LIST;
use crate::{
    event::{Address, Timestamp},
    store::{DbWriter, GetPending, Pending, PendingJob, SavePending, StoreError},
    whitelist::{ListMark, ListNews, Since},
};

/// Where it is kept.
#[async_trait]
pub trait Books: Send + Sync {
    async fn load(&self) -> Result<Pending, StoreError>;

    /// Replaces it as a whole.
    async fn save(&self, pending: &Pending) -> Result<(), StoreError>;
}

/// In the store, under the lease of this daemon.
pub struct StoreBooks(pub Addr<DbWriter>);

#[async_trait]
impl Books for StoreBooks {
    async fn load(&self) -> Result<Pending, StoreError> {
        self.0.send(GetPending).await.map_err(gone)?
    }

    async fn save(&self, pending: &Pending) -> Result<(), StoreError> {
        self.0.send(SavePending(pending.clone())).await.map_err(gone)?
    }
}

fn gone(error: MailboxError) -> StoreError {
    StoreError::Unavailable(format!("the writer: {error}"))
}

/// For whom news of the list make a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owed {
    Nothing,
    Users(Vec<Address>),
    /// So many were added that they are not named.
    Everybody,
    /// The last writer knew another list, and nobody knows who has come since.
    Unknown,
}

/// What news owe in a store whose last writer `knew` a list. `now` is the mark of the new one.
pub fn owed(knew: Option<ListMark>, now: ListMark, news: &ListNews) -> Owed {
    let change = &news.change;
    let by_change = || match change.added_count {
        0 => Owed::Nothing,
        _ if change.is_cut() => Owed::Everybody,
        _ => Owed::Users(change.added.to_vec()),
    };
    match (news.since, knew) {
        // Nobody is new where everybody is kept.
        _ if now.size.is_none() => Owed::Nothing,
        (Since::LastTold, _) | (Since::LastRun(_), None) => by_change(),
        (Since::LastRun(_), Some(knew)) if knew == now => Owed::Nothing,
        // What we knew ourselves helps only if nobody has known another list in between.
        (Since::LastRun(own), Some(knew)) if own == Some(knew) => by_change(),
        (Since::LastRun(_), Some(_)) => Owed::Unknown,
    }
}

/// Takes out the jobs before the last one for the whole list, but the one that `runs`: whatever they
/// would read is read by that one, which has later bounds. Gives how many they were.
pub fn absorb(pending: &mut Pending, runs: Option<&str>) -> usize {
    let jobs = &mut pending.jobs;
    let does_run = |job: &PendingJob| Some(job.name.as_str()) == runs;
    let last = jobs.iter().rposition(|job| job.users.is_none() && !does_run(job)).unwrap_or(0);
    let behind = jobs.split_off(last);
    let before = jobs.len();
    jobs.retain(does_run);
    let absorbed = before - jobs.len();
    jobs.extend(behind);
    absorbed
}

/// The name of a new job. Names sort as the jobs came, whatever the clocks of the machines say.
pub fn name_behind(jobs: &[PendingJob], now: Timestamp) -> String {
    let times = jobs.iter().filter_map(|job| job.name.strip_prefix(BY_LIST)?.parse::<i64>().ok());
    let time = times.map(|time| time.saturating_add(1)).fold(now.0, i64::max);
    format!("{BY_LIST}{time:020}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whitelist::{ListChanged, Whitelist};

    #[test]
    fn a_new_job_sorts_behind_all_others_when_the_clock_of_another_machine_is_ahead() {
        let name = |time| name_behind(&[], Timestamp(time));
        let jobs = [50, 20].map(|time| PendingJob { name: name(time), users: None });

        assert_eq!(name_behind(&jobs, Timestamp(30)), name(51));
        assert_eq!(name_behind(&jobs, Timestamp(60)), name(60));
    }

    fn mark(digest: u64) -> ListMark {
        ListMark { digest, size: Some(3) }
    }

    #[test]
    fn a_change_counts_only_from_the_list_that_the_store_knows() {
        let added = Address([7; 20]);
        let news = |since| ListNews {
            list: Whitelist::all().into(),
            change: ListChanged::of([added], []),
            since,
        };
        let owed = |knew, since| super::owed(knew, mark(2), &news(since));
        let users = Owed::Users(vec![added]);

        // While it runs, and at a start behind a run of our own.
        assert_eq!(owed(Some(mark(1)), Since::LastTold), users);
        assert_eq!(owed(Some(mark(1)), Since::LastRun(Some(mark(1)))), users);
        // A store of which no writer has told a list.
        assert_eq!(owed(None, Since::LastRun(Some(mark(1)))), users);
        // The other machine knew this list, whatever we knew before.
        assert_eq!(owed(Some(mark(2)), Since::LastRun(None)), Owed::Nothing);
        assert_eq!(owed(Some(mark(2)), Since::LastRun(Some(mark(1)))), Owed::Nothing);
        // It knew another one: we never knew it, or knew one before it.
        assert_eq!(owed(Some(mark(3)), Since::LastRun(None)), Owed::Unknown);
        assert_eq!(owed(Some(mark(3)), Since::LastRun(Some(mark(1)))), Owed::Unknown);
        let everybody = ListMark { digest: 0, size: None };
        let to_all = super::owed(Some(mark(3)), everybody, &news(Since::LastTold));
        assert_eq!(to_all, Owed::Nothing);
    }
}
