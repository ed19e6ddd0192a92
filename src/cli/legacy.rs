//! The flags of the older service: `-data_dir=... -port=... -redis_* -postgres_*`.
//!
//! They are taken out of the command line before the rest is read, in all the forms that the older
//! service knows: `-name=value`, `-name value` and the same with two dashes. Without a command
//! they mean `run`; `backfill`, `doctor`, `whitelist`, `config check` and `config show` take them as
//! `run` does. Flags of both kinds can be mixed.

use std::ffi::{OsStr, OsString};

use crate::config::{Fault, Inputs, Origin};

use super::{flags, older_servers::OlderServers};

/// What was taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyFlags(Vec<LegacyFlag>);

/// One flag of the older service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LegacyFlag {
    /// Without dashes.
    name: String,
    /// Nothing when the command line ends where the value should stand.
    value: Option<String>,
}

/// Commands whose arguments are not ours to read.
const OTHER_COMMANDS: [&str; 5] = ["db", "demo", "generate", "generate-docs", "help"];

/// Commands that take these flags, by the words they begin with.
const COMMANDS: [&[&str]; 6] = [
    &["run"],
    &["backfill"],
    &["doctor"],
    &["whitelist"],
    &["config", "check"],
    &["config", "show"],
];

/// Separates the older service's flags from the rest, and puts `run` in front of the rest when no
/// command is given.
pub fn take(args: impl Iterator<Item = OsString>) -> (Vec<OsString>, LegacyFlags) {
    let all: Vec<OsString> = args.collect();
    let first = all.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    if !has_command(&all) && (first == "config" || OTHER_COMMANDS.contains(&first)) {
        return (all, LegacyFlags::default());
    }
    let mut args = all.into_iter().peekable();
    let mut rest: Vec<OsString> = args.next().into_iter().collect();
    let mut taken = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "--" {
            rest.push(arg);
            rest.extend(args.by_ref());
        } else if let Some((name, value)) = read(&arg) {
            let separate =
                || args.next_if(|next| !is_flag(next)).and_then(|v| v.into_string().ok());
            taken.push(LegacyFlag { name, value: value.or_else(separate) });
        } else {
            rest.push(arg);
        }
    }
    // The command may stand behind the flags too, as in `nodecast -port=1 run`.
    if !taken.is_empty() && !has_command(&rest) {
        rest.insert(1, "run".into());
    }
    (rest, LegacyFlags(taken))
}

/// Whether a command that takes these flags stands in front.
fn has_command(args: &[OsString]) -> bool {
    let words = args.get(1..).unwrap_or_default();
    let starts = |command: &[&str]| {
        words.len() >= command.len() && words.iter().zip(command).all(|(word, part)| word == part)
    };
    COMMANDS.iter().any(|command| starts(command))
}

/// The name, and the value after `=`, of a flag of the older service.
fn read(arg: &OsStr) -> Option<(String, Option<String>)> {
    let arg = arg.to_str()?;
    let text = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'))?;
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let known = matches!(name, "data_dir" | "port") || OlderServers::knows(name);
    known.then(|| (name.to_owned(), value))
}

fn is_flag(arg: &OsStr) -> bool {
    arg.to_str().is_some_and(|text| text.starts_with('-'))
}

impl LegacyFlags {
    /// Adds the flags to what the configuration is made from; those that cannot be followed become
    /// faults.
    pub fn add_to(self, inputs: &mut Inputs) {
        let mut data_dirs = Vec::new();
        let mut servers = OlderServers::default();
        for LegacyFlag { name, value } in self.0 {
            let flag = format!("-{name}");
            let fault =
                |message: String| Fault { origin: Some(Origin::Flag(flag.clone())), message };
            if OlderServers::knows(&name) {
                servers.take(&name, value, &mut inputs.faults);
                continue;
            }
            match (name.as_str(), value.filter(|value| !value.is_empty())) {
                ("data_dir", Some(value)) => data_dirs.push(value),
                ("port", Some(value)) => match value.parse::<u16>() {
                    Ok(port) if port > 0 => {
                        // The older service listens on all interfaces.
                        let listen = format!("0.0.0.0:{port}");
                        inputs.flags.push(flags::text(&flag, "http.listen", listen));
                    }
                    _ => inputs.faults.push(fault(format!(
                        "{value:?} is not a port; accepted: a whole number from 1 to 65535"
                    ))),
                },
                ("data_dir", None) => {
                    inputs.faults.push(fault("has no value; accepted: a path".to_owned()));
                }
                _ => inputs.faults.push(fault(
                    "has no value; accepted: a whole number from 1 to 65535".to_owned(),
                )),
            }
        }
        servers.add_to(inputs);
        if !data_dirs.is_empty() {
            inputs.flags.push(flags::list("-data_dir", "source.data_dirs", data_dirs));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, Need};

    fn split(line: &str) -> (Vec<String>, LegacyFlags) {
        let (rest, legacy) = take(line.split(' ').map(OsString::from));
        (rest.into_iter().map(|arg| arg.into_string().unwrap()).collect(), legacy)
    }

    fn load(line: &str) -> Result<Loaded, Vec<String>> {
        let home = vec![("HOME".to_owned(), "/home/node".to_owned())];
        let mut inputs = Inputs { environment: home, ..Inputs::default() };
        split(line).1.add_to(&mut inputs);
        let told = |fault: &Fault| fault.to_string();
        inputs.load(Need::Nothing).map_err(|faults| faults.0.iter().map(told).collect())
    }

    // H44
    #[test]
    fn every_form_of_a_flag_is_read() {
        for line in [
            "nodecast -data_dir=/data -port=9000",
            "nodecast -data_dir /data -port 9000",
            "nodecast --data_dir=/data --port=9000",
            "nodecast run -data_dir /data -port=9000",
        ] {
            let (rest, _) = split(line);
            let loaded = load(line).unwrap();

            assert_eq!(rest, ["nodecast", "run"], "{line}");
            assert_eq!(loaded.config.source.data_dirs, ["/data".into()] as [std::path::PathBuf; 1]);
            assert_eq!(loaded.config.http.listen.to_string(), "0.0.0.0:9000");
            assert_eq!(loaded.origin("http.listen").to_string(), "flag -port");
        }
    }

    // H44
    #[test]
    fn redis_and_postgres_flags_reach_whitelist_positions_and_store_and_show_no_secret() {
        let line = "nodecast -data_dir=/data -redis_host=h -redis_pasword=hunter2 \
                    -redis_password=hunter2 -postgres_user u -postgres_password hunter2 \
                    --postgres_db=events";

        let loaded = load(line).unwrap();

        let config = &loaded.config;
        let redis = config.whitelist.redis_url.as_ref().unwrap();
        assert_eq!(redis.secret(), "redis://:hunter2@h:6379/0");
        assert!(config.redis.positions.imports() && config.redis.positions.mirrors());
        assert_eq!(config.positions_url(), Some(redis));
        assert_eq!(config.store.url, "postgres://u:hunter2@127.0.0.1:5432/events");
        assert_eq!(loaded.origin("store.url").to_string(), "flag -postgres_user");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_missing_or_impossible_value_is_a_fault() {
        let faults = load("nodecast -port=0 -port=x -port -data_dir").unwrap_err();

        assert_eq!(faults.len(), 4, "{faults:#?}");
        assert!(faults[1].contains("\"x\" is not a port"), "{faults:#?}");
    }

    #[test]
    fn new_flags_stay_in_their_order_and_other_commands_are_left_alone() {
        let (rest, legacy) = split("nodecast -data_dir=/d --whitelist all -port 1 --from now");
        assert_eq!(rest, ["nodecast", "run", "--whitelist", "all", "--from", "now"]);
        assert_eq!(legacy.0.len(), 2);

        for command in ["check", "show"] {
            let (rest, legacy) = split(&format!("nodecast config {command} --from now -port=1"));
            assert_eq!(rest, ["nodecast", "config", command, "--from", "now"]);
            assert_eq!(legacy.0.len(), 1);
        }

        for command in ["backfill", "doctor", "whitelist"] {
            for line in ["{} list -redis_host=h", "-redis_host=h {} list"] {
                let (rest, legacy) = split(&format!("nodecast {}", line.replace("{}", command)));
                assert_eq!(rest, ["nodecast", command, "list"]);
                assert_eq!(legacy.0.len(), 1);
            }
        }

        for line in [
            "nodecast db status -port=1",
            "nodecast config default -port=1",
            "nodecast help run -port=1",
        ] {
            assert_eq!(split(line).1, LegacyFlags::default(), "{line}");
        }

        let (rest, legacy) = split("nodecast generate -port=1");
        assert_eq!(rest, ["nodecast", "generate", "-port=1"]);
        assert_eq!(legacy, LegacyFlags::default());
    }
}
