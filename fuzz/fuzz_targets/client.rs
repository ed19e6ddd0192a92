//! Any bytes from a WebSocket client.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodecast_fuzz::client(bytes));
