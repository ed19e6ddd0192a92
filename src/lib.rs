//! nodecast follows the hour files that a blockchain node writes, keeps the events of listed
//! users, stores each exactly once and casts them live to WebSocket clients.
//!
//! # The pipeline
//!
//! Actors carry the flow and the life cycle; the rules are plain types beside them, tested without
//! actors. In the direction of the data:
//!
//! ```text
//!  node directory
//!   FileWatcher -> Parser -> WhitelistFilter --+            +-> Shard -> Session -> client
//!   FileWatcher -> Parser -> WhitelistFilter --+-> Router   |   (on each HTTP worker)
//!   (one chain per node directory,             |     |      |
//!    each on its own thread)                   |     v      |
//!                                              |    log ----+-> DbWriter -> store -> HTTP history
//!          ^                                   |                   |
//!          +------ credit: bytes in flight come back with the commit
//! ```
//!
//! | stage | what it does | its rules |
//! |---|---|---|
//! | [`FileWatcher`](source::node::FileWatcher) | follows the hour files of one node directory and hands on whole lines | beside it in [`source::node`] |
//! | [`Parser`](source::node::Parser) | finds blocks, events and users in lines, damaged ones too | [`source::node::recover`], [`source::node::scan`] |
//! | [`WhitelistFilter`](whitelist::WhitelistFilter) | keeps the events of listed users | [`whitelist::Whitelist`] |
//! | [`Router`](router::Router) | drops what was delivered before, gives the order | [`router::ledger`] |
//! | [the log](router::log) | the one ring of recent events; each reader has its own position | itself a plain type |
//! | [`DbWriter`](store::DbWriter) | commits rows, ledger and checkpoints in one transaction; deletes what is old | [`store`] |
//! | [`MirrorWriter`](mirror::MirrorWriter) | writes committed positions to Redis, for the older service | [`mirror::Committed`] |
//! | [`WhitelistKeeper`](whitelist::WhitelistKeeper) | follows file and Redis, hands every new list to the filters, tells who was added | [`whitelist::Whitelist`] |
//! | [`Backfiller`](backfill::Backfiller) | reads the older events of added users from the files, or what a command names | [`backfill`] |
//! | [`ControlServer`](control::ControlServer) | answers the commands that ask the running daemon | [`control`] |
//! | `Shard`, `Session` and `Feed` | cast the log to the clients of one HTTP worker: by WebSocket, and as response bodies (streams, polls) | [`delivery`] |
//! | [info](official::info) | answers requests of the official protocol from the store, or asks an upstream | [`official`] |
//! | [routes](http) | history, status and health; [metrics](http::metrics) on a listener of their own | [`http`] |
//!
//! [`daemon`] is the wiring: the only place that knows every actor, and the order in which they
//! start and stop.
//!
//! # What always holds
//!
//! * **Nothing lost, nothing twice in the store.** The [identity](event::EventId) of an event (topic,
//!   block, index, part) is the same on every node and after every rewind, is given before any filter
//!   and is a unique key. What a batch brings and the checkpoint behind it are one transaction, so a
//!   kill at any moment only means that some bytes are read again. When a batch is lost the whole
//!   pipeline goes back to the last commit together: one generation ends, the next begins.
//! * **The files are the buffer.** A batch holds a [`Credit`](source::Credit) of its bytes until it is
//!   committed; a watcher whose [`Budget`](source::Budget) is used up reads no further. `do_send`
//!   ignores a mailbox's capacity, so this is the one limit between the stages, and a store that is
//!   away delays commits and loses nothing.
//! * **Every batch travels the whole way**, emptied ones too, in order: the checkpoint is the end of
//!   the last committed batch.
//! * **A hint wakes, the directory decides.** inotify only makes it fast; each rescan looks at every
//!   hour file, because events can be missed, files replaced under the same inode, and old hours
//!   written to again.
//! * **One client's slowness is its own.** A frame is encoded once and shared, and what several sessions of a
//!   worker get of a burst is put together once; it waits in an outbox that is bounded in bytes; who
//!   cannot keep up is [behind](delivery::replay), and closed when he takes nothing for a time;
//!   heartbeats go on meanwhile. An event is cast when it has its order, without waiting for the commit.
//! * **Any stored event can be resumed from.** A session that is behind, because it asked for what has
//!   been, was slow or lost its connection, has one place in the order of arrival and pulls what
//!   follows from the log, else from the store, as its socket drains; it joins the others in one turn.
//! * **No silent hole.** Missing blocks are recorded with their bounds, told to subscribers, and
//!   closed when another node directory brings them.
//! * **Bytes stay what they were.** A body is cut from the node's line (put together from such cuts
//!   where one event concerns several users) and never serialised again: decimals never pass through
//!   a float.
//! * **No half-dead daemon.** A panic in the pipeline ends the process, one in the handling of a
//!   client's frame ends that session: [`essential`].
//! * **A hung daemon is found.** The service manager's watchdog is fed while every stage answers a
//!   [`RollCall`](roll_call::RollCall); waiting for a node or a store is alive.
//! * **Every figure is counted by the stage that lives it**: [`stats`]; health judges the lines that
//!   arrive.
//!
//! # Arrows point one way
//!
//! [`event`] knows nobody. [`source`], [`whitelist`], [`router`] and [`store`] know `event` and the
//! batches that travel between them; [`delivery`] and [`http`] know the router's log and the store;
//! a stage knows the next one as a `Recipient`. Behind the parser nothing knows what a fill is: keys
//! that filters ask for are places in a body, and a topic is a name. Only [`official`] does, the shapes of the
//! official protocol: they know `event` alone, their [`info`](official::info) service the store and the log too,
//! and who speaks that protocol knows both.
//!
//! Beside the pipeline: [`backfill`] reads files again for users who were listed later, and its rows
//! go to `DbWriter` while that has nothing better to do. Around it: [`control`] (how commands ask the
//! daemon that runs), [`object`] (the form of all requests, and what of one is not understood),
//! [`config`] (file < credentials < environment < flags, every fault at once), [`cli`] (one file or
//! folder a command), [`logging`], [`redis_client`] (one way to reach Redis), [`generate`] (the node
//! simulator, with a manifest of what a correct reader finds), [`demo`] (all of it at work, compared
//! with that manifest) and [`failpoint`] (where tests kill, panic or fail the daemon; nothing in a
//! release).
//!
//! # Deliberately absent
//!
//! * `actix-web-actors` for sessions: its socket is polled as a response body, so a stalled client
//!   freezes its actor, timers included. A `Session` owns its upgraded socket instead.
//! * `notify`: one layer more above inotify, which is only a hint here.
//! * An inode as the identity of a file: a file that is made again gets the old one at once. A
//!   checkpoint has a digest of the bytes before it.
//! * The clock as the name of the current file: nodes that catch up write to old hours.
//! * A message per event and session: between Router and readers only wake-ups travel.
//! * `OFFSET` paging, beyond the older service's `POST /events`: pages continue behind a key.
//! * Authentication and TLS: the port belongs on a private address.

pub mod backfill;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod delivery;
pub mod demo;
pub mod essential;
pub mod event;
pub mod failpoint;
pub mod generate;
pub mod http;
pub mod logging;
pub mod mirror;
pub mod object;
pub mod official;
pub mod redis_client;
pub mod roll_call;
pub mod router;
pub mod source;
pub mod stats;
pub mod store;
#[cfg(test)]
mod testing;
pub mod whitelist;
