//! The control socket: how commands of this program ask the daemon that runs.
//!
//! Place: beside the pipeline, on a thread of its own. A command finds `control.sock` in the state
//! directory (a Unix stream socket of mode 0600, so the daemon's user and root can use it), sends
//! one line and reads lines until the last:
//!
//! ```text
//! > {"version":1,"request":"ping"}
//! < {"version":1,"type":"done","result":{"pid":4711,"program":"0.1.0"}}
//! ```
//!
//! | line of an answer | meaning |
//! |---|---|
//! | `{"type":"progress","progress":{..}}` | any number of them, while the request is worked on |
//! | `{"type":"done","result":{..}}` | the last line: it is done |
//! | `{"type":"error","code":"..","message":".."}` | the last line: it is not; the code is for programs |
//!
//! Codes of the socket itself: `version`, `unknown_request`, `bad_request`, `too_big`, `busy`.
//!
//! Invariants: one request a connection; who hangs up ends what he asked for (but a `drain`, which is a
//! state of the daemon); the number of
//! connections and the size of a request are bounded; what is not known is refused, never guessed.
//! Whoever adds a request writes a [`Command`] and gives it to [`ControlServer`].

mod client;
mod server;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

pub use self::{
    client::{Answers, Client, ClientError},
    server::{ControlServer, MAX_CLIENTS, Socket, SocketFile},
};

/// Name of the socket in the state directory.
pub const SOCKET: &str = "control.sock";

/// Version of what is said over it. Another one is refused, in both directions.
pub const VERSION: u32 = 1;

/// Most bytes of a request: some hundred thousand addresses.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;

/// Where the daemon of a state directory listens.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET)
}

/// The line that a client sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub request: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Answer {
    Progress { progress: Value },
    Done { result: Value },
    Error { code: String, message: String },
}

/// An [`Answer`] as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    version: u32,
    #[serde(flatten)]
    answer: Answer,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs; a promise.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The parameters are not what the request takes.
    pub fn bad_request(message: impl ToString) -> Self {
        Self::new("bad_request", message.to_string())
    }
}

/// A request that the daemon can be asked for.
///
/// # Cancel safety
/// [`Command::run`] is dropped when its client hangs up: what it has begun elsewhere has to be ended
/// by a guard.
#[async_trait(?Send)]
pub trait Command: Send {
    /// [`Request::request`].
    fn name(&self) -> &'static str;

    /// Does what is asked for, and tells of it meanwhile.
    async fn run(&self, parameters: Value, told: &Told) -> Result<Value, Refusal>;
}

/// Takes what a command tells while it works.
pub struct Told(pub mpsc::Sender<Value>);

impl Told {
    /// Tells one line of progress. It waits while the client does not read.
    pub async fn tell(&self, progress: &impl Serialize) {
        // A client that is gone ends the command itself.
        if let Ok(progress) = serde_json::to_value(progress) {
            self.0.send(progress).await.ok();
        }
    }
}
