//! Any bytes as a line of an hour file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodecast_fuzz::lines(bytes));
