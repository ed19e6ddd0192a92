//! Dialects: what clients speak. One file each; nothing else knows a protocol.

pub mod encode;
