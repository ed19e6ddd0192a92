//! Real lines of nodes, which are no part of the project: looked for where `NODECAST_SAMPLES` says,
//! or else in `../shared/samples` beside the project. Unit tests and tests of the daemon share this
//! file; without a sample its test says loudly that it was skipped.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The text of a sample, or `None` when it is not there.
pub fn sample(name: &str) -> Option<String> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    let directory = env::var_os("NODECAST_SAMPLES").map_or(beside, PathBuf::from);
    let path = directory.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            // Not by a macro: what those print of a test that passes is swallowed.
            let said = format!("SKIPPED: {}: {error}; set NODECAST_SAMPLES\n", path.display());
            io::stderr().write_all(said.as_bytes()).unwrap();
            None
        }
    }
}
