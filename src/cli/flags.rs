//! The flags that set configuration, shared by `run` and `config`.

use std::path::PathBuf;

use crate::config::{FlagValue, Inputs};

/// Flags beat the environment, which beats the file. Values are checked with the rest of the
/// configuration, so that every fault is told at once.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// The TOML file to read [default: $NODECAST_CONFIG, else /etc/nodecast/nodecast.toml if it
    /// exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A node's data directory, such as ~/hl/data; give it again for each further node
    #[arg(long, value_name = "DIR")]
    pub data_dir: Vec<String>,
    /// IP address and port of HTTP and WebSocket [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// The database [default: sqlite:{state-dir}/nodecast.db]
    #[arg(long, value_name = "sqlite:PATH")]
    pub database_url: Option<String>,
    /// A file with one address a line, or `all` for everybody (a file of that name: ./all)
    #[arg(long, value_name = "FILE|all")]
    pub whitelist: Option<String>,
    /// Where a stream starts that was never read: now, oldest or an hour in UTC [default: now]
    #[arg(long, value_name = "now|oldest|YYYYMMDD/H")]
    pub from: Option<String>,
    /// Where database and quarantine lie [default: $STATE_DIRECTORY, else
    /// $XDG_STATE_HOME/nodecast, else ~/.local/state/nodecast]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// critical, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// auto, term or json [default: auto: term on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl Flags {
    /// Adds the flags to what the configuration is made from.
    pub fn add_to(self, inputs: &mut Inputs) {
        inputs.config_flag = self.config;
        let flags = &mut inputs.flags;
        if !self.data_dir.is_empty() {
            flags.push(list("--data-dir", "source.data_dirs", self.data_dir));
        }
        match self.whitelist.as_deref() {
            None => {}
            // The flag is the whole whitelist: what lower layers say about it is taken back.
            Some(given) => {
                let all = given == "all";
                let file = if all { "" } else { given };
                flags.push(text("--whitelist", "whitelist.all", all.to_string()));
                flags.push(text("--whitelist", "whitelist.file", file.to_owned()));
                flags.push(list("--whitelist", "whitelist.addresses", Vec::new()));
            }
        }
        let texts = [
            ("--listen", "http.listen", self.listen),
            ("--database-url", "store.url", self.database_url),
            ("--from", "source.from", self.from),
            ("--state-dir", "state_dir", self.state_dir),
            ("--log-level", "log.level", self.log_level),
            ("--log-format", "log.format", self.log_format),
        ];
        for (flag, key, value) in texts {
            flags.extend(value.map(|value| text(flag, key, value)));
        }
    }
}

/// A flag with one text.
pub(super) fn text(flag: &str, key: &'static str, value: String) -> FlagValue {
    FlagValue { flag: flag.to_owned(), key, values: vec![value], is_list: false }
}

/// A flag that is a list.
pub(super) fn list(flag: &str, key: &'static str, values: Vec<String>) -> FlagValue {
    FlagValue { flag: flag.to_owned(), key, values, is_list: true }
}
