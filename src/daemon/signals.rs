//! What the operator tells the process: SIGTERM and SIGINT stop it, SIGHUP reloads configuration and
//! whitelist.
//!
//! SIGXFSZ is taken too, so that a limit on the size of files (`LimitFSIZE=`) is the same as a full
//! disk: the write fails and is tried again. Without a handler it would kill the process.

use std::{
    io, process,
    time::{Duration, Instant},
};

use slog::{Logger, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code after a second signal: the conventional 128 + SIGINT.
const STOPPED_AT_ONCE: i32 = 130;

/// A stop signal that follows the first within this time is the same one: `timeout` and some
/// supervisors tell the process and then its group. Nobody presses a key twice so fast.
const SAME_SIGNAL: Duration = Duration::from_millis(250);

/// Heard from here on, instead of ending the process.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Is only held: the failed write tells its caller.
    _file_size: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Stop,
    Reload,
}

impl Signals {
    /// # Errors
    /// When the process cannot listen for signals.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// # Cancel safety
    /// A signal that arrives while nobody waits is given to the next call.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// From the first stop signal on, another one ends the process without waiting for anything: what was not
    /// committed is read again at the next start.
    #[expect(clippy::disallowed_methods, reason = "ending without the drain is what was asked")]
    pub fn stop_at_once_on_the_next(mut self, logger: Logger) {
        let first = Instant::now();
        actix_rt::spawn(async move {
            while self.next().await != Wish::Stop || first.elapsed() < SAME_SIGNAL {}
            warn!(logger, "second signal, stopping at once");
            process::exit(STOPPED_AT_ONCE);
        });
    }
}
