//! Several sources of the whitelist at once, in the daemon and by `nodecast whitelist`: files, a real
//! Redis, the configuration. Run by `scripts/test.sh`.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

#[path = "whitelist/clients.rs"]
mod clients;
#[path = "whitelist/commands.rs"]
mod commands;
#[path = "whitelist/sources.rs"]
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{Setup, run_to_end};

/// A setup with a file, a key of a Redis and one configured address.
struct Sources {
    setup: Setup,
}

impl Sources {
    /// The file has these users; `more` is more of the section.
    fn new(file: &[String], more: &str) -> Self {
        let mut setup = Setup::new();
        setup.whitelist = String::new();
        let path = setup.root.path().join("list.txt");
        fs::write(&path, file.join("\n") + "\n").unwrap();
        setup.config = format!("[whitelist]\nfile = {:?}\n{more}", path.display().to_string());
        fs::write(setup.root.path().join("nodecast.toml"), &setup.config).unwrap();
        Self { setup }
    }

    fn file(&self) -> PathBuf {
        self.setup.root.path().join("list.txt")
    }

    /// Runs `nodecast whitelist` with the configuration of the daemon.
    fn command(&self, words: &[&str]) -> Said {
        whitelist(&self.setup.root.path().join("nodecast.toml"), words)
    }
}

/// What a command said, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }
}

fn whitelist(config: &Path, words: &[&str]) -> Said {
    let Output { status, stdout, stderr } = run_to_end(
        Command::new(env!("CARGO_BIN_EXE_nodecast"))
            .arg("whitelist")
            .args(words)
            .args(["--config".as_ref(), config.as_os_str()]),
    );
    Said {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}
