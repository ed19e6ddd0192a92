//! Any bytes below a WebSocket session.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodecast_fuzz::frames(bytes));
