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
    #[arg(long, value_name = "sqlite:PATH|postgres://..")]
    pub database_url: Option<String>,
    /// A file with one address a line, or `all` for everybody (a file of that name: ./all)
    #[arg(long, value_name = "FILE|all")]
    pub whitelist: Option<String>,
    /// Who is asked for info requests that are not answered here: a node that serves info, or the
    /// official service
    #[arg(long, value_name = "URL")]
    pub info_upstream: Option<String>,
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
        if let Some(given) = self.whitelist {
            // The flag is the whole whitelist: what lower layers say about it is taken back.
            let all = given == "all";
            let file = if all { String::new() } else { given };
            flags.push(text("--whitelist", "whitelist.all", all.to_string()));
            flags.push(text("--whitelist", "whitelist.file", file));
            flags.push(text("--whitelist", "whitelist.redis_url", String::new()));
            flags.push(list("--whitelist", "whitelist.addresses", Vec::new()));
        }
        let texts = [
            ("--listen", "http.listen", self.listen),
            ("--database-url", "store.url", self.database_url),
            ("--info-upstream", "official.info_upstream", self.info_upstream),
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

/// The flags that name a database, for commands that need nothing else.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StoreFlags {
    /// The TOML file to read [default: $NODECAST_CONFIG, else /etc/nodecast/nodecast.toml if it
    /// exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The database [default: sqlite:{state-dir}/nodecast.db]
    #[arg(long, value_name = "sqlite:PATH|postgres://..")]
    database_url: Option<String>,
    /// Where the database lies when it has no URL [default: $STATE_DIRECTORY, else
    /// $XDG_STATE_HOME/nodecast, else ~/.local/state/nodecast]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
}

impl StoreFlags {
    /// Adds the flags to what the configuration is made from.
    pub fn add_to(self, inputs: &mut Inputs) {
        let Self { config, database_url, state_dir } = self;
        Flags { config, database_url, state_dir, ..Flags::default() }.add_to(inputs);
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::config::{Config, Need};

    fn load(flags: Flags, file: &str) -> Config {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("n.toml");
        fs::write(&path, file).unwrap();
        let home = vec![("HOME".to_owned(), "/home/node".to_owned())];
        let mut inputs = Inputs { environment: home, ..Inputs::default() };
        Flags { config: Some(path), ..flags }.add_to(&mut inputs);
        inputs.load(Need::Nothing).unwrap().config
    }

    #[test]
    fn the_whitelist_flag_replaces_every_whitelist_of_the_file() {
        let file = "[whitelist]\nfile = \"/list\"\naddresses = \
                    [\"0x00000000000000000000000000000000000000aa\"]\n";
        let given =
            |whitelist: &str| Flags { whitelist: Some(whitelist.to_owned()), ..Flags::default() };

        let all = load(given("all"), file).whitelist;
        let other = load(given("./all"), file).whitelist;
        let from_all = load(given("/other"), "[whitelist]\nall = true\n").whitelist;

        assert!(all.all && all.file.is_none() && all.addresses.is_empty(), "{all:?}");
        assert_eq!(other.file, Some("./all".into()));
        assert!(!other.all && other.addresses.is_empty(), "{other:?}");
        assert!(!from_all.all && from_all.file == Some("/other".into()), "{from_all:?}");
    }

    #[test]
    fn every_flag_reaches_its_key() {
        let text = |text: &str| Some(text.to_owned());
        let flags = Flags {
            config: None,
            data_dir: vec!["/a,b".to_owned(), "/c".to_owned()],
            listen: text("[::]:1"),
            database_url: text("sqlite:/x"),
            whitelist: text("/list"),
            info_upstream: text("http://[::1]:3001"),
            from: text("oldest"),
            state_dir: text("/state"),
            log_level: text("error"),
            log_format: text("term"),
        };

        let config = load(flags, "");

        assert_eq!(config.source.data_dirs, [PathBuf::from("/a,b"), "/c".into()]);
        assert_eq!(config.http.listen.to_string(), "[::]:1");
        assert_eq!(config.store.url, "sqlite:/x");
        assert_eq!(config.whitelist.file, Some("/list".into()));
        let upstream = config.official.info_upstream.map(|url| url.to_string());
        assert_eq!(upstream.as_deref(), Some("http://[::1]:3001/info"));
        assert_eq!(config.source.from, crate::config::StartFrom::Oldest);
        assert_eq!(config.state_dir, PathBuf::from("/state"));
        assert_eq!(config.log.level, slog::Level::Error);
        assert_eq!(config.log.format, crate::config::LogFormat::Term);
    }
}
