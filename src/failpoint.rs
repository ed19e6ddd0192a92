//! Named points at which a test kills, panics, holds up or fails the daemon.
//!
//! Compiled in only with the feature `failpoints`; without it a point is nothing. The environment
//! variable `NODECAST_FAILPOINTS` arms points of a process: `NAME=ACTION[@COUNT]`, separated by
//! commas. `ACTION` is `kill` (SIGKILL to itself), `panic`, `hang` (the thread never goes on), `delay`
//! (what other threads do in 200 ms comes first) or `fail` (the point's error is returned); `COUNT` is
//! the pass at which it acts, from 1, and it acts once. Before it kills, a point writes the number of
//! bytes in flight to the file that `NODECAST_FAILPOINT_REPORT` names.

/// Marks a point. `fail_point!("name")` can kill, panic or hang; `fail_point!("name", error)` can also
/// return `Err(error)` from the function it stands in.
#[macro_export]
macro_rules! fail_point {
    ($name:expr) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::pass($name);
    };
    ($name:expr, $error:expr) => {
        #[cfg(feature = "failpoints")]
        if $crate::failpoint::pass($name) {
            return Err($error);
        }
    };
}

#[cfg(feature = "failpoints")]
pub use armed::{clock_step, measure_with, pass};

#[cfg(feature = "failpoints")]
mod armed {
    use std::{
        collections::HashMap,
        env, fs,
        sync::{
            LazyLock, OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        thread,
        time::Duration,
    };

    /// How long a point holds its thread up.
    const DELAY: Duration = Duration::from_millis(200);

    struct Point {
        action: Action,
        at: u64,
        passes: AtomicU64,
    }

    #[derive(Clone, Copy)]
    enum Action {
        Kill,
        Panic,
        Hang,
        Delay,
        Fail,
    }

    static POINTS: LazyLock<HashMap<String, Point>> = LazyLock::new(|| {
        let armed = env::var("NODECAST_FAILPOINTS").unwrap_or_default();
        armed.split(',').filter(|point| !point.is_empty()).map(read).collect()
    });

    /// How far the clock of this process stands back: `NODECAST_CLOCK_BACK_MS`.
    pub fn clock_step() -> Duration {
        static STEP: LazyLock<Duration> = LazyLock::new(|| {
            let milliseconds = env::var("NODECAST_CLOCK_BACK_MS").ok();
            let milliseconds = milliseconds.map(|text| text.parse().expect("milliseconds"));
            Duration::from_millis(milliseconds.unwrap_or(0))
        });
        *STEP
    }

    type Measure = Box<dyn Fn() -> usize + Send + Sync>;

    static BYTES_IN_FLIGHT: OnceLock<Measure> = OnceLock::new();

    /// Says how the bytes are counted that a kill would lose from memory. The first one stays.
    pub fn measure_with(bytes_in_flight: impl Fn() -> usize + Send + Sync + 'static) {
        BYTES_IN_FLIGHT.get_or_init(|| Box::new(bytes_in_flight));
    }

    /// Writes how many bytes are in flight to where the test asked for it.
    fn report() {
        let Some(path) = env::var_os("NODECAST_FAILPOINT_REPORT") else { return };
        let bytes = BYTES_IN_FLIGHT.get().map_or(0, |measure| measure());
        fs::write(path, bytes.to_string()).expect("the report of a fail point can be written");
    }

    /// # Panics
    /// When the variable is not well-formed: a test would otherwise test nothing.
    fn read(point: &str) -> (String, Point) {
        let (name, rest) = point.split_once('=').expect("a fail point is NAME=ACTION[@COUNT]");
        let (action, at) = rest.split_once('@').unwrap_or((rest, "1"));
        let action = match action {
            "kill" => Action::Kill,
            "panic" => Action::Panic,
            "hang" => Action::Hang,
            "delay" => Action::Delay,
            "fail" => Action::Fail,
            other => panic!("{other} is not kill, panic, hang, delay or fail"),
        };
        let at = at.parse().expect("the count of a fail point is a number");
        (name.to_owned(), Point { action, at, passes: AtomicU64::new(0) })
    }

    /// Passes a point; tells whether it is to fail.
    pub fn pass(name: &str) -> bool {
        let Some(point) = POINTS.get(name) else { return false };
        if point.passes.fetch_add(1, Ordering::Relaxed) + 1 != point.at {
            return false;
        }
        match point.action {
            Action::Kill => {
                report();
                // Nothing may run between here and the end of the process.
                let killed = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                );
                panic!("could not kill this process: {killed:?}");
            }
            Action::Panic => panic!("fail point {name}"),
            Action::Hang => loop {
                thread::park();
            },
            Action::Delay => {
                thread::sleep(DELAY);
                false
            }
            Action::Fail => true,
        }
    }
}
