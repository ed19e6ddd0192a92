//! Delivery: WebSocket sessions, and the shards that feed them from the log.

pub mod dialect;
