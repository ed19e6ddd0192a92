//! Lays the layers over each other: defaults < file < credentials < environment < flags.
//!
//! Invariant: nothing stops at the first fault; what is wrong in any layer is reported, also when
//! a higher layer replaces it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Config, check, credentials,
    fault::{Fault, Faults, Origin},
    file::{self, did_you_mean, meant_key},
    key::{Element, Given, Key, Refused},
    service::Service,
};

/// Read when it exists and no other file is named.
const SYSTEM_FILE: &str = "/etc/nodecast/nodecast.toml";

/// What a flag says about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagValue {
    /// With its dashes, as it was written.
    pub flag: String,
    /// The key it sets, such as `http.listen`.
    pub key: &'static str,
    /// More than one only for keys that are lists.
    pub values: Vec<String>,
    /// Whether it was given as a list; a single text is split at commas by lists.
    pub is_list: bool,
}

/// Everything a configuration is made from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `--config`.
    pub config_flag: Option<PathBuf>,
    pub flags: Vec<FlagValue>,
    pub environment: Vec<(String, String)>,
    /// Read when neither flag nor environment name a file and it exists.
    pub system_file: Option<PathBuf>,
    /// The service whose file that is.
    pub service: Option<Service>,
    /// What was found wrong before, on the command line.
    pub faults: Vec<Fault>,
}

/// What a command needs besides a valid configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Credentials of the service that are not there are told as [`Loaded::missing`].
    Nothing,
    /// The credentials of the whitelist; those of others may be missing.
    Whitelist,
    /// The credentials of the database; those of others may be missing.
    Store,
    /// Every credential.
    Credentials,
    /// Every credential, a data directory and a whitelist.
    Run,
}

impl Need {
    /// Whether a command can do nothing without the credential that gives a key.
    fn needs(self, key: &Key) -> bool {
        match self {
            Self::Nothing => false,
            Self::Whitelist => key.section() == "whitelist",
            Self::Store => key.section() == "store",
            Self::Credentials | Self::Run => true,
        }
    }
}

/// What somebody who looked at the machine found wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key at fault, such as `whitelist.file`.
    pub key: &'static str,
    pub message: String,
}

/// A valid configuration, and where each value is from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// By key. A key that is not here has its default.
    pub(super) origins: BTreeMap<&'static str, Origin>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Credentials of the service that are not there and that the command can do without. Their keys
    /// have the values of a lower layer.
    pub missing: Vec<Fault>,
}

/// The layers while they are laid.
pub(super) struct Layers {
    pub keys: Vec<Key>,
    pub config: Config,
    pub faults: Vec<Fault>,
    pub origins: BTreeMap<&'static str, Origin>,
    /// Keys with a refused value: rules about them would only repeat the fault.
    pub refused: BTreeSet<&'static str>,
}

impl Layers {
    /// Gives a key a value. The caller reports the refusal: it knows how the value was written.
    pub fn give(&mut self, at: usize, given: Given, origin: Origin) -> Result<(), Vec<Refused>> {
        let key = &self.keys[at];
        self.origins.insert(key.path, origin);
        let read = key.read(given, &mut self.config);
        if read.is_err() {
            self.refused.insert(key.path);
        }
        read
    }

    /// Gives a key a text from outside the file, and reports a refusal.
    fn give_text(&mut self, at: usize, given: Given, written: &str, origin: Origin) {
        for refused in self.give(at, given, origin.clone()).err().unwrap_or_default() {
            let shown = match &refused.element {
                Some(Element::Text(part)) => part,
                _ => written,
            };
            let message = file::refusal(&self.keys[at], &format!("{shown:?}"), &refused.why);
            self.faults.push(Fault { origin: Some(origin.clone()), message });
        }
    }

    fn fault(&mut self, origin: Origin, message: String) {
        self.faults.push(Fault { origin: Some(origin), message });
    }

    fn position(&self, path: &str) -> Option<usize> {
        self.keys.iter().position(|key| key.path == path)
    }
}

impl Inputs {
    /// The environment and the system file of this process.
    pub fn of_process() -> Self {
        let mut inputs = Self {
            system_file: Some(PathBuf::from(SYSTEM_FILE)),
            service: Some(Service::default()),
            ..Self::default()
        };
        for (name, value) in env::vars_os() {
            inputs.add_variable(name, value);
        }
        inputs
    }

    fn add_variable(&mut self, name: OsString, value: OsString) {
        let Ok(name) = name.into_string() else { return };
        match value.into_string() {
            Ok(value) => self.environment.push((name, value)),
            Err(_) if name.starts_with("NODECAST_") => self.faults.push(Fault {
                origin: Some(Origin::Environment(name)),
                message: "the value is not UTF-8".to_owned(),
            }),
            Err(_) => {}
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Makes the configuration.
    ///
    /// # Errors
    /// With every fault of every layer.
    pub fn load(self, need: Need) -> Result<Loaded, Faults> {
        self.load_and_look(need, |_| Vec::new())
    }

    /// Makes the configuration and has somebody look at what it names. `look` is given a
    /// configuration that may have faults; what it finds about a refused value is not repeated.
    ///
    /// # Errors
    /// With every fault of every layer, then with every finding.
    pub fn load_and_look(
        mut self,
        need: Need,
        look: impl FnOnce(&Config) -> Vec<Finding>,
    ) -> Result<Loaded, Faults> {
        let mut layers = Layers {
            keys: super::keys(),
            config: Config::default(),
            faults: std::mem::take(&mut self.faults),
            origins: BTreeMap::new(),
            refused: BTreeSet::new(),
        };
        let file = self.read_file(&mut layers);
        let is_system_file = file.is_some() && file == self.system_file;
        let service = self.service.as_ref().filter(|_| is_system_file);
        let service = match self.variable(credentials::DIRECTORY) {
            Some(directory) => {
                credentials::read(Path::new(directory), &mut layers);
                None
            }
            None => service.inspect(|service| service.read(&mut layers)),
        };
        self.read_environment(&mut layers);
        self.read_flags(&mut layers);
        let mut missing = Vec::new();
        for (at, fault) in service.map(|service| service.missing(&layers)).unwrap_or_default() {
            let key = &layers.keys[at];
            // What stands in its place is nobody's word.
            layers.refused.insert(key.path);
            if need.needs(key) { &mut layers.faults } else { &mut missing }.push(fault);
        }
        self.fill_in(&mut layers);
        check::no_conflicts(&mut layers);
        if need == Need::Run {
            check::distinct_directories(&mut layers);
            check::can_run(&mut layers);
        }
        for Finding { key, message } in look(&layers.config) {
            if !layers.refused.contains(key) {
                let origin = layers.origins.get(key).cloned();
                layers.faults.push(Fault { origin, message });
            }
        }
        if layers.faults.is_empty() {
            Ok(Loaded { config: layers.config, origins: layers.origins, file, missing })
        } else {
            Err(Faults(layers.faults))
        }
    }

    fn read_file(&self, layers: &mut Layers) -> Option<PathBuf> {
        let (path, origin) = if let Some(path) = &self.config_flag {
            (path.clone(), Origin::Flag("--config".to_owned()))
        } else if let Some(path) = self.variable("NODECAST_CONFIG") {
            (PathBuf::from(path), Origin::Environment("NODECAST_CONFIG".to_owned()))
        } else {
            let path = self.system_file.clone()?;
            let origin = Origin::File { path: path.clone(), line: 1, column: 1 };
            // What cannot be looked at is not taken for absent: reading it will say why.
            if matches!(path.try_exists(), Ok(false)) {
                return None;
            }
            (path, origin)
        };
        match fs::read(&path).map(String::from_utf8) {
            Ok(Ok(text)) => file::read(&path, &text, layers),
            Ok(Err(error)) => {
                let at = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
                let origin = Origin::File { path: path.clone(), line, column: 1 };
                layers.fault(origin, "the line is not UTF-8".to_owned());
            }
            Err(error) => {
                let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
                let remedy = match is_denied && self.system_file.as_ref() == Some(&path) {
                    true => "; it is the service's: sudo -u nodecast nodecast ..",
                    false => "",
                };
                layers.fault(origin, format!("cannot read {}: {error}{remedy}", path.display()));
            }
        }
        Some(path)
    }

    fn read_environment(&self, layers: &mut Layers) {
        let variables: Vec<_> = layers.keys.iter().map(Key::variable).collect();
        for (name, value) in &self.environment {
            let Some(rest) = name.strip_prefix("NODECAST_") else { continue };
            let origin = Origin::Environment(name.clone());
            if let Some(at) = variables.iter().position(|variable| variable == name) {
                layers.give_text(at, Given::Text(value), value, origin);
                continue;
            }
            // Without `__` it need not be ours: a cluster sets NODECAST_PORT and
            // NODECAST_SERVICE_HOST for a service of our name. Unless only underscores are wrong.
            let plain = |name: &str| name.replace('_', "");
            let same = variables.iter().find(|variable| plain(variable) == plain(name));
            if same.is_some() || name.contains("__") {
                let path = rest.to_lowercase().replace("__", ".");
                let near = || variable_like(&path, &layers.keys);
                let meant = did_you_mean(same.cloned().or_else(near));
                layers.fault(origin, format!("unknown variable{meant}"));
            }
        }
    }

    fn read_flags(&self, layers: &mut Layers) {
        for flag in &self.flags {
            let at = layers.position(flag.key).expect("every flag names a key of the table");
            let written = flag.values.join(",");
            let given =
                if flag.is_list { Given::List(&flag.values) } else { Given::Text(&written) };
            layers.give_text(at, given, &written, Origin::Flag(flag.flag.clone()));
        }
    }

    /// What depends on the machine: the state directory, the database in it, and home directories.
    fn fill_in(&self, layers: &mut Layers) {
        let home = self.variable("HOME").map(Path::new).filter(|home| home.is_absolute());
        let config = &mut layers.config;
        if let Some(home) = home {
            config.source.data_dirs.iter_mut().for_each(|path| expand(path, home));
            config.whitelist.file.iter_mut().for_each(|path| expand(path, home));
            expand(&mut config.state_dir, home);
            if let Some(path) = config.store.url.strip_prefix("sqlite:~/") {
                config.store.url = format!("sqlite:{}", home.join(path).display());
            }
        }
        if config.state_dir.as_os_str().is_empty() {
            match self.state_dir(home) {
                Some((path, origin)) => {
                    config.state_dir = path;
                    layers.origins.insert("state_dir", origin);
                }
                None if layers.refused.contains("state_dir") => {}
                None => layers.faults.push(Fault {
                    origin: None,
                    message: "no state directory: give --state-dir DIR or set state_dir; neither \
                              STATE_DIRECTORY, XDG_STATE_HOME nor HOME says where it may be"
                        .to_owned(),
                }),
            }
        }
        let config = &mut layers.config;
        if config.store.url.is_empty() {
            let path = config.state_dir.join("nodecast.db");
            config.store.url = format!("sqlite:{}", path.display());
        }
    }

    fn state_dir(&self, home: Option<&Path>) -> Option<(PathBuf, Origin)> {
        // The service manager gives several separated by colons, the first is ours.
        let given = self.variable("STATE_DIRECTORY").and_then(|all| all.split(':').next());
        if let Some(path) = given.filter(|path| !path.is_empty()) {
            return Some((path.into(), Origin::Environment("STATE_DIRECTORY".to_owned())));
        }
        // A relative XDG path is to be ignored, says its specification.
        let xdg = self.variable("XDG_STATE_HOME").map(Path::new);
        if let Some(path) = xdg.filter(|path| path.is_absolute()) {
            let origin = Origin::Environment("XDG_STATE_HOME".to_owned());
            return Some((path.join("nodecast"), origin));
        }
        Some((home?.join(".local/state/nodecast"), Origin::Default))
    }
}

/// The variable of the key that an unknown path is most likely to mean.
fn variable_like(path: &str, keys: &[Key]) -> Option<String> {
    let meant = meant_key(keys, path)?;
    keys.iter().find(|key| key.path == meant).map(Key::variable)
}

/// A shell expands `~/` in most places, but not in a file and not in `--flag=~/path`.
fn expand(path: &mut PathBuf, home: &Path) {
    if let Ok(rest) = path.strip_prefix("~") {
        *path = home.join(rest);
    }
}
