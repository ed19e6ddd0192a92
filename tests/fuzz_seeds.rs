//! Runs the bodies of the fuzz targets over their seeds, without a fuzzer: what a search has found
//! once stays mended. The bodies are compiled here; the few lines around them in `fuzz_targets/` only
//! when somebody searches, as `fuzz/README.md` says.

// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{fs, path::Path};

/// Each seed, each of its beginnings up to a length, and each with one byte changed in places.
fn run(target: fn(&[u8]), name: &str) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut seen = 0;
    for seed in fs::read_dir(&seeds).unwrap() {
        let bytes = fs::read(seed.unwrap().path()).unwrap();
        target(&bytes);
        for end in 0..bytes.len() {
            target(&bytes[..end]);
            let mut changed = bytes.clone();
            changed[end] ^= 1 << (end % 8);
            target(&changed);
        }
        seen += 1;
    }
    assert!(seen > 4, "{} holds {seen} seeds", seeds.display());
}

#[test]
fn no_line_of_the_seeds_breaks_the_parser() {
    run(targets::lines, "lines");
}

#[test]
fn no_client_of_the_seeds_breaks_a_session() {
    run(targets::client, "client");
}

#[test]
fn no_frames_of_the_seeds_break_their_parser() {
    run(targets::frames, "frames");
}
