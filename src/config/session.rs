//! `[session]`: what one client of live events may use, by WebSocket, stream or long poll.

use std::time::Duration;

use super::{
    key::Key,
    units::{GIB, KIB, MIB},
};

/// What one client of live events may use. A session is a WebSocket, a stream of Server-Sent Events or a
/// long poll that waits.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Most sessions at one time. Default 18,000: below the usual limit of 20,000 open files.
    pub max_sessions: usize,
    /// Most sessions of one client address at one time. Default 0: no limit.
    pub max_per_address: usize,
    /// Most sessions of one identity at one time, see `http.identity_header`. Default 0: no limit.
    pub max_per_identity: usize,
    /// Most messages of a session in a minute, or of all sessions of an identity; 0: no limit. Default
    /// 6,000.
    pub max_messages_per_minute: u64,
    /// Most bytes of such messages in a minute; 0: no limit. Default 64 MiB.
    pub max_bytes_per_minute: u64,
    /// Most subscriptions of one session. Default 1,000.
    pub max_subscriptions: usize,
    /// Most users that one session names, in all its subscriptions together. Default 100,000.
    pub max_users: usize,
    /// Most users that one subscription names. Default 100,000: as many as a session may.
    pub max_users_per_subscription: usize,
    /// Most bytes that wait for one client; above it the client is behind and gets the rest as it takes
    /// what waits. Default 1 MiB.
    pub outbox_bytes: usize,
    /// Most bytes that wait for all clients together; above it those for whom the most waits are closed. Those
    /// who catch up get smaller portions from a quarter of it on. Default 256 MiB.
    pub outbox_total_bytes: usize,
    /// Kernel send buffer of a session's socket (`SO_SNDBUF`), bytes. Default 256 KiB.
    pub send_buffer_bytes: u32,
    /// Most bytes of a message from a client, all its fragments together. Default 1 MiB.
    pub max_frame_bytes: usize,
    /// Whether compression is agreed to where a client offers it (permessage-deflate). Default: no. It
    /// costs some 10 us of processor for each event and protocol, however many clients want it, and
    /// saves what clients on this host or beside it do not pay for.
    pub compression: bool,
    /// Shorter frames are sent as they are: they hardly get smaller. Bytes, default 256.
    pub compress_min_bytes: usize,
    /// A session that has to catch up ends when its client takes nothing for so long. Default 10 s.
    pub stall_timeout: Duration,
    /// Most sessions that read the store at one time to catch up; others wait. Default 128.
    pub max_replays: usize,
    /// Time between two pings. Default 20 s.
    pub ping_interval: Duration,
    /// A client that answers no ping for this long is gone. Default 10 s.
    pub pong_timeout: Duration,
    /// How often a native session is told the head and the lag. Default 10 s.
    pub heartbeat_interval: Duration,
    /// Whether `/ws` of the older protocol answers mistakes with `{"error":...}`; without it they
    /// are passed over in silence, as the older service does. Default: yes.
    pub replies: bool,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_sessions: 18_000,
            max_per_address: 0,
            max_per_identity: 0,
            max_messages_per_minute: 6_000,
            max_bytes_per_minute: 64 << 20,
            max_subscriptions: 1_000,
            max_users: 100_000,
            max_users_per_subscription: 100_000,
            outbox_bytes: 1 << 20,
            outbox_total_bytes: 256 << 20,
            send_buffer_bytes: 256 << 10,
            max_frame_bytes: 1 << 20,
            compression: false,
            compress_min_bytes: 256,
            stall_timeout: Duration::from_secs(10),
            max_replays: 128,
            ping_interval: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(10),
            replies: true,
        }
    }
}

pub(super) fn keys() -> Vec<Key> {
    // Below 100 ms the timers of many sessions cost more than the events.
    let period = || Duration::from_millis(100)..=Duration::from_secs(3_600);
    vec![
        Key::count("session.max_sessions", 1..=1_000_000, |config| {
            &mut config.session.max_sessions
        }),
        Key::count("session.max_per_address", 0..=1_000_000, |config| {
            &mut config.session.max_per_address
        }),
        Key::count("session.max_per_identity", 0..=1_000_000, |config| {
            &mut config.session.max_per_identity
        }),
        Key::count("session.max_messages_per_minute", 0..=1_000_000_000, |config| {
            &mut config.session.max_messages_per_minute
        }),
        Key::size("session.max_bytes_per_minute", 0..=1 << 40, |config| {
            &mut config.session.max_bytes_per_minute
        }),
        Key::count("session.max_subscriptions", 1..=1_000_000, |config| {
            &mut config.session.max_subscriptions
        }),
        Key::count("session.max_users", 1..=10_000_000, |config| &mut config.session.max_users),
        Key::count("session.max_users_per_subscription", 1..=10_000_000, |config| {
            &mut config.session.max_users_per_subscription
        }),
        Key::size("session.outbox_bytes", 4 * KIB..=GIB, |config| &mut config.session.outbox_bytes),
        Key::size("session.outbox_total_bytes", 4 * KIB..=1 << 40, |config| {
            &mut config.session.outbox_total_bytes
        }),
        Key::size("session.send_buffer_bytes", 4 * KIB..=64 * MIB, |config| {
            &mut config.session.send_buffer_bytes
        }),
        Key::size("session.max_frame_bytes", KIB..=64 * MIB, |config| {
            &mut config.session.max_frame_bytes
        }),
        Key::switch("session.compression", |config| &mut config.session.compression),
        Key::size("session.compress_min_bytes", 0..=64 * MIB, |config| {
            &mut config.session.compress_min_bytes
        }),
        Key::duration("session.stall_timeout", period(), |config| {
            &mut config.session.stall_timeout
        }),
        Key::count("session.max_replays", 1..=100_000, |config| &mut config.session.max_replays),
        Key::duration("session.ping_interval", period(), |config| {
            &mut config.session.ping_interval
        }),
        Key::duration("session.pong_timeout", period(), |config| &mut config.session.pong_timeout),
        Key::duration("session.heartbeat_interval", period(), |config| {
            &mut config.session.heartbeat_interval
        }),
        Key::switch("session.replies", |config| &mut config.session.replies),
    ]
}
