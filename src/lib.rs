//! nodecast follows the hour files that a blockchain node writes, keeps the events of listed
//! users, stores each exactly once and casts them live to clients that can resume.
//!
//! # The pipeline
//!
//! Actors carry the flow; the rules are plain types beside them, which tests reach without actors.
//!
//! ```text
//!   one thread per node directory                         several HTTP workers
//!   FileWatcher -> Parser -> WhitelistFilter --+          +-> Shard -> Session, Session, ..
//!   FileWatcher -> Parser -> WhitelistFilter --+> Router -+
//!     ^                                           ledger  +-> DbWriter -> SQLite
//!     |                                           the log        |
//!     +------ credit: its bytes come back when they are committed
//! ```
//!
//! * [`source`] reads files and takes lines apart. It hands on batches: one message for each read,
//!   in the order of the file, emptied ones too, since a batch carries the position to commit.
//! * [`whitelist`] drops what concerns nobody who is listed.
//! * [`router`] drops what was delivered before (by another node, or before a rewind), finds gaps,
//!   gives each event its `seq` and appends it to the log: one ring in memory that all readers
//!   share, each at its own position.
//! * [`store`] writes events, ledger and checkpoints in one transaction. That is the whole of
//!   "exactly once": after a kill or a lost batch every source goes back to its checkpoint and the
//!   ledger is loaded from the store, as a new *generation* of the pipeline.
//! * [`delivery`] casts to WebSocket clients, each of which is slow at its own cost only.
//! * [`http`] answers history and status, and says whether the service is healthy.
//! * [`daemon`] is the wiring, and the order of living and dying.
//!
//! # What holds everywhere
//!
//! * Imports point one way. [`event`] knows nobody; sources, whitelist, router and store know it;
//!   delivery and HTTP know router and store; only [`daemon`] knows every actor. A stage knows the
//!   next as a recipient of messages.
//! * Memory is bounded. Mailboxes are not, so the limit stands at the source: a batch carries a
//!   [`Credit`](source::Credit) of its bytes, and a watcher without credit reads no further.
//! * A body is the bytes that the node wrote; decimals never pass through a float.
//! * A panic in the pipeline ends the process ([`essential`]): a daemon that is half dead is worse
//!   than one that starts again. A panic over a client's message ends that session.
//!
//! # What is absent on purpose
//!
//! * No queue between the Router and its readers: the log is the queue, and only wake-ups travel.
//! * No WebSocket actor of the framework: it is polled as a response body and freezes, timers
//!   included, when its client stalls. A session owns its socket.
//! * No layer above inotify: a notification is a hint, and a timer decides.
//! * No trust in inodes: a checkpoint is believed when the bytes before it are still the same.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod delivery;
pub mod essential;
pub mod event;
pub mod failpoint;
pub mod generate;
pub mod http;
pub mod logging;
pub mod router;
pub mod source;
pub mod stats;
pub mod store;
#[cfg(test)]
mod testing;
pub mod whitelist;
