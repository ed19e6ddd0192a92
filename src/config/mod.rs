//! Configuration: TOML file < environment < flags, complete and valid before anything starts.
//!
//! A section is a struct; each field says its unit, default and effect.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Everything the daemon was told. Made by the loader only, so it is always valid.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub source: SourceConfig,
    pub whitelist: WhitelistConfig,
    pub router: RouterConfig,
    pub store: StoreConfig,
    pub http: HttpConfig,
    pub session: SessionConfig,
    pub health: HealthConfig,
    pub log: LogConfig,
    /// Where the daemon keeps what it must find again: database, quarantine. Default:
    /// `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/nodecast`, else `~/.local/state/nodecast`.
    pub state_dir: PathBuf,
}

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Node directories, such as `~/hl/data`; one chain of actors each.
    pub data_dirs: Vec<PathBuf>,
    /// Where a stream without a checkpoint starts.
    pub from: StartFrom,
    /// Whether missing kind directories are created at the start (`node_fills_by_block/hourly`
    /// and `misc_events_by_block/hourly`), as the older service does.
    pub create_missing: bool,
    /// Time between two looks at the directories when no event wakes the watcher. 250 ms to 1 s.
    pub rescan_interval: Duration,
    /// How long an hour file must be unchanged, beside a newer one, to be complete. At least 60 s
    /// on a real node.
    pub grace: Duration,
    /// Longer lines go to quarantine.
    pub max_line_bytes: usize,
    /// Most bytes of one read.
    pub read_bytes: usize,
    /// Most bytes in flight between reading and commit, shared by all node directories.
    pub budget_bytes: usize,
    /// Most bytes of the quarantine file.
    pub quarantine_max_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// The end of the newest file, at the start of a line.
    Now,
    /// The beginning of the oldest file.
    Oldest,
    /// The beginning of the first file at or after this hour, UTC.
    Hour {
        /// As in directory names: 20260315.
        day: u32,
        hour: u8,
    },
}

/// Whose events are kept.
#[derive(Clone, Debug)]
pub struct WhitelistConfig {
    /// Keep everything, for everybody. Excludes `file` and `addresses`.
    pub all: bool,
    /// One address a line, `#` starts a comment.
    pub file: Option<PathBuf>,
    pub addresses: Vec<String>,
    /// Share of unlisted addresses that may pass the Bloom filter, 0.000001 to 0.5.
    pub false_positive_rate: f64,
    /// The Bloom filter is sized for at least this many addresses.
    pub min_capacity: usize,
    /// Whether what passes the Bloom filter is confirmed by the exact list. Without it unlisted
    /// users slip through at `false_positive_rate`.
    pub exact: bool,
    /// A reloaded list that lost more than this share of its addresses is refused, 0 to 1.
    pub max_shrink: f64,
    /// How often the file is looked at, besides its change events.
    pub refresh_interval: Duration,
}

#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Most bytes of committed events that stay in memory for readers.
    pub recent_bytes: usize,
}

#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `sqlite:PATH`; default: `sqlite:{state_dir}/nodecast.db`.
    pub url: String,
    /// A commit happens when this many events wait,
    pub batch_events: usize,
    /// or this many bytes of bodies,
    pub batch_bytes: usize,
    /// or when the oldest has waited this long.
    pub batch_delay: Duration,
    /// Whether each commit is on the disk before it counts (`synchronous = FULL`). Without it a
    /// power loss may take the last commits; the files are read again from the checkpoint.
    pub durable: bool,
    /// How long events are kept, by event time.
    pub retention: Duration,
    /// How often retention looks for what is due.
    pub retention_interval: Duration,
    /// Size of the database above which the oldest events go early; 0: no limit.
    pub max_bytes: u64,
    /// Free bytes on the file system below which the oldest events go early.
    pub min_free_bytes: u64,
    /// Connections for history queries.
    pub read_connections: u32,
}

#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// Worker threads, each with its shard of the sessions.
    pub workers: usize,
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// Most rows of one answer of `POST /events`.
    pub max_page_size: usize,
    /// Most rows of one answer of `GET /v1/events`.
    pub max_limit: usize,
    /// Most time a client may take to send its request head.
    pub request_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Most sessions at one time.
    pub max_sessions: usize,
    /// Most subscriptions of one session.
    pub max_subscriptions: usize,
    /// Most users in one subscription.
    pub max_users: usize,
    /// Most bytes that wait for one client; above it the client is slow and its session closes.
    pub outbox_bytes: usize,
    /// Kernel send buffer of a session's socket (`SO_SNDBUF`).
    pub send_buffer_bytes: u32,
    /// Most bytes of a frame from a client.
    pub max_frame_bytes: usize,
    pub ping_interval: Duration,
    /// A client that answers no ping for this long is gone.
    pub pong_timeout: Duration,
    /// How often a native session is told the head and the lag.
    pub heartbeat_interval: Duration,
    /// Whether `/ws` of the older protocol answers mistakes with `{"error":...}`; without it they
    /// are passed over in silence, as the older service does.
    pub replies: bool,
}

#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// `/readyz` holds while the last raw line is younger than this.
    pub max_lag: Duration,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: slog::Level,
    /// Levels of single components, by their `actor` or `component` key.
    pub levels: Vec<(String, slog::Level)>,
    /// Records that may wait for the writing thread; what is beyond is counted and dropped.
    pub channel_records: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, else JSON.
    Auto,
    Term,
    Json,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            data_dirs: Vec::new(),
            from: StartFrom::Now,
            create_missing: false,
            rescan_interval: Duration::from_millis(500),
            grace: Duration::from_secs(60),
            max_line_bytes: 64 << 20,
            read_bytes: 1 << 20,
            budget_bytes: 256 << 20,
            quarantine_max_bytes: 64 << 20,
        }
    }
}

impl Default for WhitelistConfig {
    fn default() -> Self {
        Self {
            all: false,
            file: None,
            addresses: Vec::new(),
            false_positive_rate: 0.01,
            min_capacity: 10_000,
            exact: true,
            max_shrink: 0.2,
            refresh_interval: Duration::from_secs(5),
        }
    }
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self { recent_bytes: 64 << 20 }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            batch_events: 5_000,
            batch_bytes: 4 << 20,
            batch_delay: Duration::from_millis(50),
            durable: true,
            retention: Duration::from_secs(7 * 86_400),
            retention_interval: Duration::from_secs(3_600),
            max_bytes: 0,
            min_free_bytes: 1 << 30,
            read_connections: 4,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: 2,
            max_body_bytes: 1 << 20,
            max_page_size: 1_000,
            max_limit: 10_000,
            request_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_sessions: 18_000,
            max_subscriptions: 1_000,
            max_users: 100_000,
            outbox_bytes: 1 << 20,
            send_buffer_bytes: 256 << 10,
            max_frame_bytes: 1 << 20,
            ping_interval: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(10),
            replies: true,
        }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { max_lag: Duration::from_secs(30) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            level: slog::Level::Info,
            levels: Vec::new(),
            channel_records: 8_192,
        }
    }
}
