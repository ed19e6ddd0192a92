//! The layer of credentials: single keys as files that only the service may read.
//!
//! A service manager puts each credential into a file of `$CREDENTIALS_DIRECTORY` (systemd:
//! `LoadCredential=store.url:/etc/nodecast/store.url`); a container can set the variable to the
//! directory of its secrets. A file that has the name of a key gives its value. Other files are
//! other people's, unless their name looks like a key of ours.
//!
//! Invariant: a value from here is shown nowhere, not even when it is refused.

use std::{fs, path::Path};

use super::{
    fault::{Fault, Origin},
    file::{did_you_mean, meant_key, refusal},
    key::{Given, Key},
    load::Layers,
};

/// The variable that names the directory.
pub(super) const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Longer files are no value of a key.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a directory of credentials into the layers.
pub(super) fn read(directory: &Path, layers: &mut Layers) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let origin = Origin::Environment(DIRECTORY.to_owned());
            let message = format!("cannot read {}: {error}", directory.display());
            return layers.faults.push(Fault { origin: Some(origin), message });
        }
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    for name in names {
        let origin = Origin::Credential(name.clone());
        match layers.keys.iter().position(|key| key.path == name) {
            Some(at) => {
                if let Err(message) = give(at, &directory.join(&name), &origin, layers) {
                    layers.faults.push(Fault { origin: Some(origin), message });
                }
            }
            None if is_like_a_key(&name, &layers.keys) => {
                let meant = did_you_mean(meant_key(&layers.keys, &name));
                let message = format!("unknown key {name}{meant}");
                layers.faults.push(Fault { origin: Some(origin), message });
            }
            None => {}
        }
    }
}

fn give(at: usize, path: &Path, origin: &Origin, layers: &mut Layers) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if fs::metadata(path).map_err(cannot)?.len() > MAX_BYTES {
        return Err(format!("{} is longer than {MAX_BYTES} bytes", path.display()));
    }
    let text = fs::read_to_string(path).map_err(cannot)?;
    // Editors end a file with a newline.
    let value = text.trim_end_matches(['\n', '\r']);
    let refused = layers.give(at, Given::Text(value), origin.clone()).err();
    match refused.and_then(|all| all.into_iter().next()) {
        Some(refused) => Err(refusal(&layers.keys[at], "***", &refused.why)),
        None => Ok(()),
    }
}

/// `nodecast.toml` and `tls.key` are not; `store.urls` is.
fn is_like_a_key(name: &str, keys: &[Key]) -> bool {
    let section = name.split_once('.').map(|(section, _)| section);
    section.is_some_and(|section| keys.iter().any(|key| key.section() == section))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::config::{Inputs, Loaded, Need};

    fn load(files: &[(&str, &str)], more: &[(&str, &str)]) -> Result<Loaded, String> {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let directory = folder.path().to_str().unwrap().to_owned();
        let mut environment = vec![(DIRECTORY, directory.as_str()), ("HOME", "/home/node")];
        environment.extend(more);
        let owned =
            environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config_flag = files.iter().any(|(name, _)| *name == "nodecast.toml");
        let config_flag = config_flag.then(|| folder.path().join("nodecast.toml"));
        let inputs = Inputs { environment: owned.collect(), config_flag, ..Inputs::default() };
        inputs.load(Need::Nothing).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_credential_beats_the_file_and_a_variable_beats_it() {
        let files = [
            ("store.url", "postgres://ann:secret@db/events\n"),
            ("whitelist.redis_url", "redis://:secret@redis"),
            ("nodecast.toml", "[store]\nurl = \"sqlite:/file.db\"\n"),
            ("tls.key", "not ours to read"),
        ];

        let loaded = load(&files, &[]).unwrap();
        let beaten = load(&files, &[("NODECAST_STORE__URL", "sqlite:/n.db")]).unwrap();

        assert_eq!(loaded.config.store.url, "postgres://ann:secret@db/events");
        assert_eq!(loaded.origin("store.url").to_string(), "credential store.url");
        assert_eq!(
            loaded.config.whitelist.redis_url.as_ref().unwrap().secret(),
            "redis://:secret@redis"
        );
        assert!(!loaded.to_toml(true).contains("secret"), "{}", loaded.to_toml(true));
        assert_eq!(beaten.config.store.url, "sqlite:/n.db");
    }

    #[test]
    fn a_credential_that_is_refused_is_named_and_not_shown() {
        let files = [("store.url", "s3cret"), ("store.urls", "s3cret")];

        let said = load(&files, &[]).unwrap_err();

        assert!(
            said.contains("credential store.urls: unknown key store.urls, did you mean store.url?"),
            "{said}"
        );
        assert!(said.contains("credential store.url: store.url = *** is not understood"), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}
