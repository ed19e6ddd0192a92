//! Why a session ends, and what its client is told: the one table of close codes.
//!
//! `docs/protocol.md` shows this table to people; a test compares the two.

use std::time::Duration;

use slog::{Logger, debug, info};

use crate::{
    client::Client,
    stats::{Counter, Endings},
};

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The daemon stops. What is queued still goes out.
    ShuttingDown,
    /// The daemon goes on, without clients: they should find another one. What is queued still goes out.
    Draining,
    /// Binary messages: every dialect is text.
    NotText,
    /// A frame that breaks RFC 6455, and how.
    Protocol(&'static str),
    /// A text message that is not UTF-8.
    NotUtf8,
    /// A compressed message of which nothing can be made.
    NotDeflate,
    /// A message longer than `session.max_frame_bytes`.
    TooBig,
    /// Our fault: handling a message of this client panicked.
    Internal,
    /// What waits for the client is as much as may wait, and it took nothing for
    /// `session.stall_timeout`. What is queued is dropped.
    SlowConsumer,
    /// More than `session.outbox_total_bytes` waited for all clients together, and for this one the most.
    /// What is queued is dropped.
    Evicted,
    /// Events were deleted before they could be sent, and the dialect has no word for it. What is
    /// queued still goes out: the hole comes behind it.
    Missed,
    /// The client sent more than `session.max_messages_per_minute` or `session.max_bytes_per_minute`.
    TooMany,
    /// Nothing was heard for `session.pong_timeout` after a ping. What is queued is dropped.
    PingTimeout,
    /// It wanted nothing, and nothing was said to it for `official.idle_timeout`.
    Idle,
    /// The client closed first; its code is sent back.
    Client(Option<u16>),
}

impl CloseReason {
    /// The close code of the native protocol; none where the client gave none.
    pub fn code(&self) -> Option<u16> {
        Some(match self {
            Self::Idle => 1000,
            Self::ShuttingDown | Self::Draining => 1001,
            Self::Protocol(_) => 1002,
            Self::NotText => 1003,
            Self::NotUtf8 | Self::NotDeflate => 1007,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::SlowConsumer | Self::Evicted => 4008,
            Self::PingTimeout => 4009,
            Self::Missed => 4010,
            Self::TooMany => 4011,
            Self::Client(code) => return *code,
        })
    }

    /// For people; part of the close frame.
    pub fn text(&self) -> &'static str {
        match self {
            Self::ShuttingDown => "server shutting down",
            Self::Draining => "server draining",
            Self::Protocol(fault) => fault,
            Self::NotText => "messages are text",
            Self::NotUtf8 => "text is not UTF-8",
            Self::NotDeflate => "compressed data is damaged",
            Self::TooBig => "message too big",
            Self::Internal => "internal error",
            Self::SlowConsumer => "slow consumer",
            Self::Evicted => "too much waits for all clients, and for this one the most",
            Self::PingTimeout => "ping timeout",
            Self::Missed => "events were missed",
            Self::TooMany => "too many messages or bytes in a minute",
            Self::Idle => "nothing was subscribed to or asked for",
            Self::Client(_) => "",
        }
    }

    /// Says that a session ends, and whose it is. What is done to one client is what its operator will ask
    /// for; what clients do, or what is done to all, is for the search of faults.
    pub fn log(&self, client: &Client, logger: &Logger) {
        match self {
            Self::SlowConsumer | Self::Evicted | Self::PingTimeout | Self::TooMany => {
                info!(logger, "client is sent away";
                    "client" => %client, "reason" => self.text(), "code" => self.code());
            }
            _ => debug!(logger, "session closes";
                "client" => %client, "reason" => self.text(), "code" => self.code()),
        }
    }

    /// Where it is counted.
    pub fn counter<'e>(&self, endings: &'e Endings) -> &'e Counter {
        match self {
            Self::ShuttingDown => &endings.shutting_down,
            Self::Draining => &endings.draining,
            Self::Protocol(_) => &endings.protocol,
            Self::NotText => &endings.not_text,
            Self::NotUtf8 => &endings.not_utf8,
            Self::NotDeflate => &endings.not_deflate,
            Self::TooBig => &endings.too_big,
            Self::Internal => &endings.internal,
            Self::SlowConsumer => &endings.slow_consumer,
            Self::Evicted => &endings.evicted,
            Self::PingTimeout => &endings.ping_timeout,
            Self::Missed => &endings.missed,
            Self::TooMany => &endings.too_many,
            Self::Idle => &endings.idle,
            Self::Client(_) => &endings.client,
        }
    }

    /// How long a client should wait at least before it connects again; none where the same client
    /// would only fail the same way.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            // Many clients are told at once: they should not all be back at once.
            Self::ShuttingDown | Self::Draining => {
                Some(Duration::from_millis(fastrand::u64(1_000..5_000)))
            }
            Self::Internal | Self::SlowConsumer | Self::Evicted | Self::Missed => {
                Some(Duration::from_secs(1))
            }
            Self::TooMany => Some(Duration::from_secs(60)),
            Self::PingTimeout | Self::Idle => Some(Duration::ZERO),
            Self::Protocol(_)
            | Self::NotText
            | Self::NotUtf8
            | Self::NotDeflate
            | Self::TooBig
            | Self::Client(_) => None,
        }
    }

    /// Whether what is queued is given up: the client does not take it in time.
    pub fn drops_queue(&self) -> bool {
        matches!(self, Self::SlowConsumer | Self::Evicted | Self::PingTimeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_shows_every_close_code_and_whether_to_reconnect() {
        let page = include_str!("../../docs/protocol.md");
        for reason in [
            CloseReason::ShuttingDown,
            CloseReason::Draining,
            CloseReason::Protocol("the reserved bits are set"),
            CloseReason::NotText,
            CloseReason::NotUtf8,
            CloseReason::NotDeflate,
            CloseReason::TooBig,
            CloseReason::Internal,
            CloseReason::SlowConsumer,
            CloseReason::Evicted,
            CloseReason::PingTimeout,
            CloseReason::Missed,
            CloseReason::TooMany,
            CloseReason::Idle,
        ] {
            let code = reason.code().unwrap();
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| {code} |")))
                .unwrap_or_else(|| panic!("no row for {code}"));
            let advice = if reason.retry_after().is_some() { "| yes" } else { "| no" };
            assert!(row.contains(advice), "{row}");
        }
    }
}
