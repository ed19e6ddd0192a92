//! Back-fill: events of users who were listed later, or that lie in files which nobody has read.
//!
//! Place: beside the pipeline, on a thread of its own with the lowest priority. It reads hour files
//! as the source does, parses and filters by the same rules, and gives rows to `DbWriter` in small
//! portions. Started by [`ListNews`](crate::whitelist::ListNews), or by hand over the
//! [control socket](crate::control); the command opens the store itself where no daemon runs.
//!
//! # The rules
//!
//! **Identity.** The parser numbers the elements of a block before anybody asks who is listed, so a
//! back-filled event has the identity that it would have had live, and the unique key makes every
//! repetition harmless: a job may read too much, and never too little.
//!
//! **Order.** Back-filled rows are late and outside the order of arrival: the store gives them
//! numbers of their own below all others (see [`store`](crate::store)), so that no resume meets
//! them. With `--broadcast` they pass through the Router instead, are cast and get a place in the
//! order like every late event; what is stored already is not cast again.
//!
//! **Live wins.** A row that is cast live has to be one that can be resumed, whoever was first. So a
//! live event takes the place of a back-filled row of its identity, in the transaction of its commit.
//!
//! **No gap to the live stream.** What the chain read with the old list is the job's, what it reads
//! with the new one is not. When a list has changed, a question passes through every filter, which
//! has the new list by then, and the Router; everything that was filtered by the old list is in the
//! log before the answer. When that is committed, the checkpoints in the store are the bounds: what
//! lies below them was read, by either list, and what lies above is read with the new list, also
//! after a restart, which goes back to a checkpoint and never before it. A file without a checkpoint
//! is read live from its start. If the pipeline starts anew meanwhile, it goes back to the checkpoints
//! as well, and they are bounds as good.
//!
//! **One pass for many.** A job reads the files once for all of its users. Additions that come while
//! one runs wait for one next job. `whitelist.all` needs none.
//!
//! **Two machines.** What is to be done for whom is in the store, with the mark (digest and size) of the
//! list for which nothing else is missing, both written at once and under the lease, before the list
//! counts as known. So no crash forgets a job, and whoever writes next, on this machine or another one,
//! takes it up for the files of its own node. At its start a daemon compares its list with that mark:
//! the same list owes nothing; a change since its own last run counts if that ended with the list of the
//! mark; otherwise another machine has known a list that this one has not seen, and one job reads for
//! the whole list. A standby that never takes over leaves no trace.
//!
//! **Progress.** How far a job is (finished files, and a place in the current one with the digest of the
//! bytes before it) is in the state directory of the machine whose files it reads, and follows the
//! commits. After a crash some seconds of it are read again; another machine begins anew. A job by hand
//! that was cancelled goes on where it stopped when it is ordered again. The live stream's checkpoints
//! are never touched.
//!
//! **Second to the live stream.** [`PORTION`] rows at a time, only while no more than a few live
//! events wait, and at most `backfill.max_bytes_per_second`; one chunk of a file is in memory.
//!
//! **Age.** What is older than the retention is refused and counted, because the next cleanup would
//! delete it, unless a time of its own is given (`--keep`): the days on which such events fall are
//! kept for that long, as a whole, on both databases.
//!
//! **The ledger stays alone.** A recorded gap says that blocks did not come for everybody listed; a
//! job reads for some, may pass over damaged lines, and is told files of which it cannot know whether
//! they are whole. So it closes no gap: the rows come, the gap stays on record until a node directory
//! brings the blocks.
//!
//! **Streaming files** number a block over several lines. A job that begins in the middle of the
//! files cannot know whether a block began in a file that is gone, so it passes over the first block
//! of each such beginning: a wrong number would be a second identity.

mod actor;
mod books;
mod command;
mod input;
mod job;
mod parse;
mod pass;
mod queue;
mod read;
mod report;
mod run;
mod saved;
mod scope;
mod sink;

pub use self::queue::MAX_WAITING as MAX_WAITING_JOBS;
pub use self::{
    actor::{Backfiller, Parts},
    books::{Books, StoreBooks},
    command::{BackfillCommand, NAME},
    input::{Input, InputError, find},
    job::Order,
    pass::Pass,
    queue::Backfills,
    report::{JobState, PendingState, Report},
    run::{Keeping, Pace, run},
    saved::Saved,
    scope::{Scope, Users, edge},
    sink::{OwnStore, Sink, SinkError, Tally},
};

/// Rows that are stored at one time: a few milliseconds of the store.
const PORTION: usize = 500;
