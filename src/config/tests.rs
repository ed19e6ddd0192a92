//! The loader from outside: faults, precedence, and the whole table of keys.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
};

use tempfile::TempDir;

use super::*;

/// A process with a home directory, nothing else, and perhaps a file.
struct Process {
    inputs: Inputs,
    folder: TempDir,
}

impl Process {
    fn new() -> Self {
        let environment = vec![("HOME".to_owned(), "/home/node".to_owned())];
        let inputs = Inputs { environment, ..Inputs::default() };
        Self { inputs, folder: TempDir::new().unwrap() }
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.folder.path().join("n.toml");
        fs::write(&path, text).unwrap();
        self.inputs.config_flag = Some(path);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.inputs.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn flag(mut self, flag: &str, key: &'static str, values: &[&str]) -> Self {
        let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        let is_list = key == "source.data_dirs" || key == "whitelist.addresses";
        self.inputs.flags.push(FlagValue { flag: flag.to_owned(), key, values, is_list });
        self
    }

    fn load(self) -> Loaded {
        self.inputs.load(Need::Nothing).unwrap()
    }

    /// The faults, with the folder of the file cut off.
    fn faults(self, need: Need) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let faults = self.inputs.load(need).unwrap_err();
        faults.0.iter().map(|fault| fault.to_string().replace(&folder, "")).collect()
    }
}

/// A valid value for each key, as TOML, that is not its default.
fn other_value(path: &str) -> String {
    let value = match path {
        "state_dir" => "\"/tmp/state\"",
        "source.data_dirs" => "[\"/a\", \"/b\"]",
        "source.from" => "\"20260315/7\"",
        "source.create_missing" | "whitelist.all" | "store.standby" => "true",
        "source.rescan_interval" => "\"750ms\"",
        "source.grace" => "\"90s\"",
        "source.max_line_bytes" | "source.quarantine_max_bytes" => "\"32MiB\"",
        "source.read_bytes" => "\"2MiB\"",
        "source.budget_bytes" => "\"128MiB\"",
        "whitelist.file" => "\"/etc/list\"",
        "whitelist.redis_url" => "\"redis://localhost:6380/2\"",
        "whitelist.redis_key" => "\"users\"",
        "redis.url" => "\"rediss://cache:6380\"",
        "redis.positions" => "\"import\"",
        "whitelist.addresses" => "[\"0x00000000000000000000000000000000000000Aa\"]",
        "whitelist.false_positive_rate" => "0.001",
        "whitelist.min_capacity" => "5",
        "whitelist.exact" | "store.durable" | "session.replies" => "false",
        "whitelist.max_shrink" => "1",
        "whitelist.refresh_interval" => "\"1m\"",
        "router.recent_bytes" => "\"1GiB\"",
        "store.url" => "\"sqlite:/tmp/other.db\"",
        "store.batch_events" => "1_000",
        "store.batch_bytes" => "\"1MiB\"",
        "store.batch_delay" => "\"5ms\"",
        "store.retention" => "\"2w\"",
        "store.retention_interval" => "\"5m\"",
        "store.max_bytes" => "\"2TB\"",
        "store.min_free_bytes" => "0",
        "store.read_connections" => "8",
        "store.query_timeout" => "\"3s\"",
        "store.write_timeout" => "\"12s\"",
        "backfill.enabled" => "false",
        "backfill.max_bytes_per_second" => "\"1MiB\"",
        "http.listen" => "\"[::1]:0\"",
        "http.metrics_listen" => "\"127.0.0.1:9464\"",
        "http.trusted_proxies" => "[\"10.0.0.0/8\"]",
        "http.max_connections" => "70",
        "http.identity_header" => "\"x-forwarded-user\"",
        "http.max_body_bytes" => "2048",
        "http.max_page_size" => "500",
        "http.max_limit" => "0x10",
        "http.request_timeout" => "\"2s\"",
        "http.write_timeout" => "\"20s\"",
        "session.max_sessions" => "10",
        "session.max_per_address" => "3",
        "session.max_per_identity" => "2",
        "session.max_messages_per_minute" => "4",
        "session.max_bytes_per_minute" => "\"5KiB\"",
        "session.max_subscriptions" => "11",
        "session.max_users" => "12",
        "session.max_users_per_subscription" => "9",
        "session.outbox_bytes" => "\"64KiB\"",
        "session.outbox_total_bytes" => "\"8MiB\"",
        "session.send_buffer_bytes" => "\"65kB\"",
        "session.max_frame_bytes" => "\"4KiB\"",
        "session.compression" => "true",
        "session.compress_min_bytes" => "100",
        "session.stall_timeout" => "\"3s\"",
        "session.max_replays" => "7",
        "session.ping_interval" => "\"1m30s\"",
        "session.pong_timeout" => "\"20s\"",
        "session.heartbeat_interval" => "\"1s\"",
        "official.max_rows" => "10_000",
        "official.snapshot_rows" => "50",
        "official.info_upstream" => "\"https://localhost:3001/info\"",
        "official.idle_timeout" => "\"90s\"",
        "official.unlisted" => "\"accept\"",
        "official.may_add" => "[\"ann@example.org\"]",
        "health.max_lag" => "\"1h\"",
        "log.format" => "\"json\"",
        "log.level" => "\"debug\"",
        "log.levels" => "{ router = \"trace\" }",
        "log.channel_records" => "256",
        "http.workers" => {
            let cores = thread::available_parallelism().unwrap().get();
            return (cores + 1).to_string();
        }
        _ => panic!("the key {path} needs another value here"),
    };
    value.to_owned()
}

/// A file with one key.
fn file_with(key: &Key, value: &str) -> String {
    match key.section() {
        "" => format!("{} = {value}\n", key.name()),
        section => format!("[{section}]\n{} = {value}\n", key.name()),
    }
}

/// The names of the fields, with their sections, whose values differ; all of them without `other`.
fn fields(config: &Config, other: Option<&Config>) -> BTreeSet<String> {
    fn leaves(config: &Config) -> Vec<(String, String)> {
        let mut section = String::new();
        let mut found: Vec<(String, String)> = Vec::new();
        for line in format!("{config:#?}").lines().skip(1) {
            let depth = line.len() - line.trim_start().len();
            let field = line.trim().split_once(": ");
            match (depth, field) {
                (4, Some((name, value))) if value.ends_with("Config {") => section = name.into(),
                (4, Some((name, value))) => found.push((name.to_owned(), value.to_owned())),
                (8, Some((name, value))) => {
                    found.push((format!("{section}.{name}"), value.to_owned()));
                }
                // What is deeper belongs to the field before it.
                (12.., _) => found.last_mut().unwrap().1.push_str(line),
                _ => {}
            }
        }
        found
    }
    let (mine, others) = (leaves(config), other.map(leaves).unwrap_or_default());
    let differs = |at: usize, leaf: &(String, String)| others.get(at) != Some(leaf);
    mine.iter()
        .enumerate()
        .filter(|(at, leaf)| differs(*at, leaf))
        .map(|(_, l)| l.0.clone())
        .collect()
}

#[test]
fn every_key_reaches_its_field_and_every_field_has_a_key() {
    let default = Process::new().load();
    let mut reached = BTreeSet::new();

    for key in keys() {
        let loaded = Process::new().file(&file_with(&key, &other_value(key.path))).load();

        assert_ne!(key.show(&loaded.config), key.show(&default.config), "{key:?} has no effect");
        assert!(matches!(loaded.origin(key.path), Origin::File { .. }), "{key:?}");
        let mut changed = fields(&loaded.config, Some(&default.config));
        // The address of the database follows the state directory.
        if key.path == "state_dir" {
            assert!(changed.remove("store.url"));
        }
        assert_eq!(changed, BTreeSet::from([key.path.to_owned()]));
        reached.extend(changed);
    }

    assert_eq!(reached, fields(&default.config, None), "each field needs a key");
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let default = Process::new().load();

    for key in keys() {
        // A variable has no TOML types: quotes and brackets fall away.
        let value = other_value(key.path).replace(['"', '[', '{', '}', ' ', '_'], "");
        let value = match key.path {
            "http.listen" => "[::1]:0".to_owned(),
            "http.max_limit" => "16".to_owned(),
            _ => value.replace(']', ""),
        };
        let loaded = Process::new().variable(&key.variable(), &value).load();

        assert_ne!(key.show(&loaded.config), key.show(&default.config), "{key:?}");
        assert_eq!(loaded.origin(key.path), &Origin::Environment(key.variable()));
    }
}

#[test]
fn the_default_file_says_what_is_built_in() {
    let default = Process::new().load();

    let loaded = Process::new().file(DEFAULT_FILE).load();

    for key in keys() {
        assert_eq!(key.show(&loaded.config), key.show(&default.config), "{key:?}");
    }
}

/// One key of the default file: its section and name, whether it is commented out, its comment.
fn documented() -> Vec<(String, bool, String)> {
    let (mut section, mut comment, mut found) = (String::new(), String::new(), Vec::new());
    for line in DEFAULT_FILE.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let name = bare
            .split_once(" = ")
            .map(|(name, _)| name)
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        if let Some(header) = line.strip_prefix('[') {
            section = format!("{}.", header.trim_end_matches(']'));
        } else if let Some(name) = name {
            found.push((format!("{section}{name}"), bare != line, std::mem::take(&mut comment)));
        } else if line.is_empty() {
            comment.clear();
        } else {
            comment.push_str(bare);
            comment.push('\n');
        }
    }
    found
}

#[test]
fn the_default_file_explains_every_key_in_order() {
    let documented = documented();

    let paths: Vec<_> = documented.iter().map(|(path, ..)| path.as_str()).collect();
    let expected: Vec<_> = keys().iter().map(|key| key.path).collect();
    assert_eq!(paths, expected);
    for (path, _, comment) in &documented {
        assert!(comment.contains("Default: "), "{path} has no default");
        assert!(comment.len() > 40, "{path} has no meaning");
        let unit =
            ["uration", "ize", "umber", "path", "list", "table", "true", "false", "\"", "sqlite:"];
        assert!(unit.iter().any(|unit| comment.contains(unit)), "{path} has no unit");
    }
}

#[test]
fn what_is_commented_out_in_the_default_file_is_valid_too() {
    let mut text = DEFAULT_FILE.to_owned();
    for (path, commented, _) in documented() {
        let name = path.rsplit('.').next().unwrap();
        if commented {
            text = text.replace(&format!("\n# {name} = "), &format!("\n{name} = "));
        }
    }

    let loaded = Process::new().file(&text).load();

    for key in keys() {
        assert!(matches!(loaded.origin(key.path), Origin::File { .. }), "{key:?}");
    }
}

#[test]
fn every_file_of_the_config_folder_is_valid() {
    fn check(folder: &Path, count: &mut usize) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                check(&path, count);
            } else {
                let mut process = Process::new();
                process.inputs.config_flag = Some(path);
                process.load();
                *count += 1;
            }
        }
    }
    let mut count = 0;

    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"), &mut count);

    assert!(count >= 3, "only {count} files");
}

#[test]
fn every_fault_says_where_it_is_and_what_is_accepted() {
    // (file, the whole beginning of the fault, what it must also say)
    let table = [
        (
            "[store]\nretention = \"7 dayz\"",
            "n.toml:2:13: store.retention = \"7 dayz\" is not understood",
            "a duration from 1m to 3650d: a number with one of us, ms, s, m, h, d, w",
        ),
        (
            "[store]\nretention = 7",
            "n.toml:2:13: store.retention = 7 has no unit",
            "accepted: a duration",
        ),
        (
            "[store]\nretention = \"1s\"",
            "n.toml:2:13: store.retention = \"1s\" is out of range",
            "from 1m",
        ),
        (
            "\n\n[store]\n  batch_events = 0",
            "n.toml:4:18: store.batch_events = 0 is out of range",
            "a whole number from 1 to 1000000",
        ),
        (
            "[store]\nbatch_events = -5",
            "n.toml:2:16: store.batch_events = -5 is out of range",
            "from 1",
        ),
        (
            "[store]\nbatch_events = \"5\"",
            "n.toml:2:16: store.batch_events = \"5\" is of the wrong type (string)",
            "a whole number",
        ),
        (
            "[store]\nbatch_bytes = \"4 Mb\"",
            "n.toml:2:15: store.batch_bytes = \"4 Mb\" is not understood",
            "kB, MB, GB, TB, KiB, MiB, GiB, TiB",
        ),
        (
            "[store]\ndurable = \"yes\"",
            "n.toml:2:11: store.durable = \"yes\" is of the wrong type (string)",
            "true or false",
        ),
        (
            "[store]\nurl = \"mysql://u:secret@h/db\"",
            "n.toml:2:7: store.url = \"mysql://u:***@h/db\" is not understood",
            "sqlite:PATH",
        ),
        (
            "[store]\nretenton = \"7d\"",
            "n.toml:2:1: unknown key store.retenton, did you mean store.retention?",
            "",
        ),
        (
            "[http]\nretention = \"7d\"",
            "n.toml:2:1: unknown key http.retention, did you mean store.retention?",
            "",
        ),
        ("listen = \"1.2.3.4:5\"", "n.toml:1:1: unknown key listen, did you mean http.listen?", ""),
        (
            "[stroe]\nretention = \"7d\"",
            "n.toml:1:2: unknown section [stroe], did you mean [store]?",
            "source, whitelist",
        ),
        ("[zebra]\na = 1", "n.toml:1:2: unknown section [zebra]; accepted: source", ""),
        (
            "store = 3",
            "n.toml:1:9: store = 3 is of the wrong type (integer); accepted: a section [store]",
            "",
        ),
        (
            "store = \"postgres://u:secret@h/db\"",
            "n.toml:1:9: store = \"postgres://u:***@h/db\" is of the wrong type (string)",
            "a section [store]",
        ),
        (
            "[http]\nlisten = \":8080\"",
            "n.toml:2:10: http.listen = \":8080\" is not understood",
            "127.0.0.1:8080",
        ),
        (
            "[source]\ndata_dirs = [\"/a\", 5]",
            "n.toml:2:20: source.data_dirs = 5 is of the wrong type (integer)",
            "a list of paths",
        ),
        (
            "[source]\ndata_dirs = \"/a\"",
            "n.toml:2:13: source.data_dirs = \"/a\" is of the wrong type (string)",
            "a list of paths",
        ),
        (
            "[source]\nfrom = \"20260230/1\"",
            "n.toml:2:8: source.from = \"20260230/1\" is not understood",
            "\"now\", \"oldest\"",
        ),
        (
            "[whitelist]\naddresses = [\n  \"0x12\",\n]",
            "n.toml:3:3: whitelist.addresses = \"0x12\" is not understood",
            "40 hexadecimal digits",
        ),
        (
            "[whitelist]\nmax_shrink = 1.5",
            "n.toml:2:14: whitelist.max_shrink = 1.5 is out of range",
            "from 0 to 1",
        ),
        (
            "[whitelist]\nmax_shrink = nan",
            "n.toml:2:14: whitelist.max_shrink = nan is out of range",
            "from 0 to 1",
        ),
        (
            "[log.levels]\nrouter = \"loud\"",
            "n.toml:2:10: log.levels = \"loud\" is not understood",
            "critical, error",
        ),
        (
            "[whitelist]\nall = true\nfile = \"/l\"",
            "n.toml:2:7: whitelist.all = true contradicts whitelist.file = \"/l\" (n.toml:3)",
            "remove one",
        ),
        (
            "[whitelist]\nall = true\nredis_url = \"redis://:secret@h\"",
            "n.toml:2:7: whitelist.all = true contradicts whitelist.redis_url = \"redis://:***@h\"",
            "remove one",
        ),
        (
            "[whitelist]\nredis_url = \"redis://:secret@h?sslrootcert=/ca.pem\"",
            "n.toml:2:13: whitelist.redis_url",
            "rediss://",
        ),
        (
            "[store]\nretention = \"30m\"",
            "n.toml:2:13: store.retention = \"30m\" contradicts store.retention_interval = \"1h\" (default)",
            "retention_interval <= retention",
        ),
        (
            "[http]\ntrusted_proxies = [\"::1\"]\n[official]\nunlisted = \"add\"\nmay_add = [\"ann\"]",
            "n.toml:4:12: official.unlisted = \"add\" contradicts http.identity_header = \"off\" (default)",
            "name the header",
        ),
        (
            "[http]\nidentity_header = \"x-user\"\ntrusted_proxies = []\n\
             [official]\nunlisted = \"add\"\nmay_add = [\"ann\"]",
            "n.toml:5:12: official.unlisted = \"add\" contradicts http.trusted_proxies = []",
            "name the proxies",
        ),
        (
            "[http]\nidentity_header = \"x-user\"\ntrusted_proxies = [\"::1\"]\n[official]\nunlisted = \"add\"",
            "n.toml:5:12: official.unlisted = \"add\" contradicts official.may_add = [] (default)",
            "name who may",
        ),
        (
            "[http]\nidentity_header = \"x-user\"\ntrusted_proxies = [\"::1\"]\n\
             [official]\nunlisted = \"add\"\nmay_add = [\"ann\"]\n\
             [whitelist]\naddresses = [\"0x025a744111554e57c66ba2069a8081249fbe5e11\"]",
            "n.toml:5:12: official.unlisted = \"add\" contradicts whitelist.addresses",
            "its key in Redis",
        ),
        (
            "[official]\nmay_add = [\"ann\", \" bob\"]",
            "n.toml:2:19: official.may_add",
            "a list of identities",
        ),
        ("[store]\nretention = \"7d", "n.toml:2:16: not valid TOML", ""),
        ("state_dir = \"\"", "n.toml:1:13: state_dir = \"\" is not understood", "a directory"),
    ];

    for (file, starts, contains) in table {
        let faults = Process::new().file(file).faults(Need::Nothing);

        assert_eq!(faults.len(), 1, "{file}: {faults:#?}");
        assert!(faults[0].starts_with(starts), "{file}: {faults:#?}");
        assert!(faults[0].contains(contains), "{file}: {faults:#?}");
        assert!(!faults[0].contains("secret"), "{faults:#?}");
    }
}

#[test]
fn faults_of_all_layers_are_told_at_once() {
    let faults = Process::new()
        .file("[store]\nretention = 7\nbogus = 1\n[http\n[health]\nmax_lag = \"x\"\n")
        .variable("NODECAST_HTTP__WORKERS", "many")
        .variable("NODECAST_STORE__RETENTON", "7d")
        .flag("--listen", "http.listen", &["nowhere"])
        .faults(Need::Run);

    let starts = [
        "n.toml:2:13: store.retention = 7",
        "n.toml:3:1: unknown key store.bogus",
        "n.toml:4:6: not valid TOML",
        "n.toml:6:11: health.max_lag",
        "environment NODECAST_HTTP__WORKERS: http.workers = \"many\" is not understood",
        "environment NODECAST_STORE__RETENTON: unknown variable, did you mean NODECAST_STORE__RETENTION?",
        "flag --listen: http.listen = \"nowhere\" is not understood",
        "no data directory: give --data-dir",
        "no whitelist: give --whitelist",
    ];
    assert_eq!(faults.len(), starts.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start), "{start}: {faults:#?}");
    }
}

#[test]
fn every_wrong_element_of_a_list_is_told() {
    let file = "[whitelist]\naddresses = [\n  \"a\",\n  5,\n]\n[log.levels]\nx = \"loud\"\ny = 1\n";
    let faults = Process::new()
        .file(file)
        .variable("NODECAST_WHITELIST__ADDRESSES", "b, c")
        .variable("NODECAST_LOG__LEVELS", "router=loud,store")
        .faults(Need::Nothing);

    let starts = [
        "n.toml:3:3: whitelist.addresses = \"a\" is not understood",
        "n.toml:4:3: whitelist.addresses = 5 is of the wrong type",
        "n.toml:7:5: log.levels = \"loud\" is not understood",
        "n.toml:8:5: log.levels = 1 is of the wrong type",
        "environment NODECAST_WHITELIST__ADDRESSES: whitelist.addresses = \"b\"",
        "environment NODECAST_WHITELIST__ADDRESSES: whitelist.addresses = \"c\"",
        "environment NODECAST_LOG__LEVELS: log.levels = \"router=loud\"",
        "environment NODECAST_LOG__LEVELS: log.levels = \"store\"",
    ];
    assert_eq!(faults.len(), starts.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start), "{start}: {faults:#?}");
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let process = || Process::new().file("[log]\nlevel = \"warn\"\n");
    let with_variable = || process().variable("NODECAST_LOG__LEVEL", "error");
    let with_flag = || with_variable().flag("--log-level", "log.level", &["debug"]);

    let origins = [
        (Process::new().load(), slog::Level::Info, "default"),
        (process().load(), slog::Level::Warning, "n.toml:2"),
        (with_variable().load(), slog::Level::Error, "environment NODECAST_LOG__LEVEL"),
        (with_flag().load(), slog::Level::Debug, "flag --log-level"),
    ];

    for (loaded, level, origin) in origins {
        assert_eq!(loaded.config.log.level, level, "{origin}");
        assert!(loaded.origin("log.level").to_string().ends_with(origin), "{origin}");
    }
}

#[test]
fn what_is_shown_is_a_file_that_gives_the_same_configuration() {
    let mut process = Process::new().file("[log.levels]\n\"a b\" = \"warn\"\n");
    process = process.variable("NODECAST_SOURCE__DATA_DIRS", "/a, /b");
    let loaded = process.flag("--from", "source.from", &["oldest"]).load();

    let shown = loaded.to_toml(true);

    let again = Process::new().file(&shown).load();
    for key in keys() {
        assert_eq!(key.show(&again.config), key.show(&loaded.config), "{key:?}");
    }
    for line in [
        "data_dirs = [\"/a\", \"/b\"]  # environment NODECAST_SOURCE__DATA_DIRS",
        "from = \"oldest\"  # flag --from",
        "retention = \"7d\"  # default",
        "levels = { \"a b\" = \"warn\" }",
        "n.toml:1\n",
        "# file is not set  # default",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}

#[test]
fn the_state_directory_is_the_first_that_is_given() {
    type Variables = &'static [(&'static str, &'static str)];
    let cases: [(Variables, &str, &str); 5] = [
        (
            &[("STATE_DIRECTORY", "/s/a:/s/b"), ("XDG_STATE_HOME", "/x")],
            "/s/a",
            "environment STATE_DIRECTORY",
        ),
        (&[("XDG_STATE_HOME", "/x")], "/x/nodecast", "environment XDG_STATE_HOME"),
        (&[("XDG_STATE_HOME", "relative")], "/home/node/.local/state/nodecast", "default"),
        (&[], "/home/node/.local/state/nodecast", "default"),
        (
            &[("NODECAST_STATE_DIR", "~/here"), ("STATE_DIRECTORY", "/s")],
            "/home/node/here",
            "environment NODECAST_STATE_DIR",
        ),
    ];

    for (variables, path, origin) in cases {
        let mut process = Process::new();
        for (name, value) in variables {
            process = process.variable(name, value);
        }
        let loaded = process.load();

        assert_eq!(loaded.config.state_dir, PathBuf::from(path));
        assert_eq!(loaded.config.store.url, format!("sqlite:{path}/nodecast.db"));
        assert_eq!(loaded.origin("state_dir").to_string(), origin);
    }

    let mut homeless = Process::new();
    homeless.inputs.environment.clear();
    assert!(homeless.faults(Need::Nothing)[0].starts_with("no state directory: give --state-dir"));
}

#[test]
fn a_home_directory_is_expanded_where_no_shell_does() {
    let text = "[source]\ndata_dirs = [\"~/hl/data\", \"/~\"]\n[store]\nurl = \"sqlite:~/n.db\"\n\
                [whitelist]\nfile = \"~/list\"\n";

    let config = Process::new().file(text).load().config;

    assert_eq!(config.source.data_dirs, [PathBuf::from("/home/node/hl/data"), "/~".into()]);
    assert_eq!(config.store.url, "sqlite:/home/node/n.db");
    assert_eq!(config.whitelist.file, Some("/home/node/list".into()));
}

#[test]
fn variables_that_are_not_ours_are_left_alone() {
    Process::new()
        .variable("NODECAST_PORT", "tcp://10.0.0.1:80")
        .variable("NODECAST_SERVICE_HOST", "10.0.0.1")
        .variable("NODECAST_FAILPOINTS", "a=kill")
        .load();

    let faults = Process::new().variable("NODECAST_STORE_RETENTION", "7d").faults(Need::Nothing);

    let told = "environment NODECAST_STORE_RETENTION: unknown variable, did you mean \
                NODECAST_STORE__RETENTION?";
    assert_eq!(faults, [told]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_of_who_named_it() {
    let mut by_flag = Process::new();
    by_flag.inputs.config_flag = Some("/nowhere/n.toml".into());
    let by_variable = Process::new().variable("NODECAST_CONFIG", "/nowhere/n.toml");
    let mut absent_system_file = Process::new();
    absent_system_file.inputs.system_file = Some("/nowhere/n.toml".into());

    let starts = "cannot read /nowhere/n.toml: ";
    assert!(by_flag.faults(Need::Nothing)[0].starts_with(&format!("flag --config: {starts}")));
    let fault = &by_variable.faults(Need::Nothing)[0];
    assert!(fault.starts_with(&format!("environment NODECAST_CONFIG: {starts}")), "{fault}");
    assert_eq!(absent_system_file.load().file, None);
}

#[test]
fn a_file_that_is_not_utf8_names_the_line() {
    let mut process = Process::new();
    let path = process.folder.path().join("n.toml");
    fs::write(&path, b"[store]\n# \xff\n").unwrap();
    process.inputs.config_flag = Some(path);

    assert_eq!(process.faults(Need::Nothing), ["n.toml:2:1: the line is not UTF-8"]);
}

#[test]
fn run_needs_a_data_directory_and_a_whitelist() {
    let complete = "[source]\ndata_dirs = [\"/a\"]\n[whitelist]\nall = true\n";
    assert!(Process::new().file(complete).inputs.load(Need::Run).is_ok());

    let faults = Process::new().faults(Need::Run);
    assert_eq!(faults.len(), 2, "{faults:#?}");

    // What was given, but wrong, is not called missing besides.
    let wrong = "[source]\ndata_dirs = 1\n[whitelist]\naddresses = [\"x\"]\n";
    let faults = Process::new().file(wrong).faults(Need::Run);
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(faults.iter().all(|fault| !fault.starts_with("no ")), "{faults:#?}");
}
