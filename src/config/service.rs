//! The credentials of the packaged service, for whoever works beside it by hand.
//!
//! systemd gives `$CREDENTIALS_DIRECTORY` to the service alone. `sudo -u nodecast nodecast db status`
//! has the same file and the same user, so it looks where that variable would point. Without this a
//! command would take the database of the defaults for that of the service.
//!
//! Place: only where the configuration is the system's file and nobody gave a directory. Invariant:
//! what the unit gives is there, or replaced by the environment or a flag, or a fault says how to
//! come by it; a command that can do without it warns of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    credentials,
    fault::{Fault, Origin},
    load::Layers,
};

/// What `nodecast.service` gives its process by these: a copy of a file, or a text.
const SETTINGS: [&str; 4] =
    ["LoadCredential=", "LoadCredentialEncrypted=", "SetCredential=", "SetCredentialEncrypted="];

/// Where the packaged service leaves its traces.
#[derive(Clone, Debug)]
pub struct Service {
    /// There while the service runs and has credentials, for its user and root.
    pub credentials: PathBuf,
    /// Drop-ins of the operator, which name the credentials; a whole unit of theirs lies beside it.
    pub drop_ins: PathBuf,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            credentials: "/run/credentials/nodecast.service".into(),
            drop_ins: "/etc/systemd/system/nodecast.service.d".into(),
        }
    }
}

impl Service {
    /// Reads the credentials of the service, when they are there for this user.
    pub(super) fn read(&self, layers: &mut Layers) {
        if fs::read_dir(&self.credentials).is_ok() {
            credentials::read(&self.credentials, layers);
        }
    }

    /// Finds what the unit gives and nothing here replaces: which key, and what to do. Called when all
    /// layers are laid.
    pub(super) fn missing(&self, layers: &Layers) -> Vec<(usize, Fault)> {
        let missing = self.named().into_iter().filter_map(|(name, place)| {
            let at = layers.keys.iter().position(|key| key.path == name)?;
            let key = &layers.keys[at];
            let is_given = matches!(
                layers.origins.get(key.path),
                Some(Origin::Credential(_) | Origin::Environment(_) | Origin::Flag(_))
            );
            if is_given {
                return None;
            }
            let why = why_missing(fs::read_dir(&self.credentials).map(drop));
            let message = format!(
                "{name} is a credential of nodecast.service, which {why}; or give {} here",
                key.variable()
            );
            Some((at, Fault { origin: Some(place), message }))
        });
        missing.collect()
    }

    /// The credentials that the operator's files of the unit name, with the place of each.
    fn named(&self) -> Vec<(String, Origin)> {
        let entries = fs::read_dir(&self.drop_ins).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
        files.sort();
        // A unit that was edited as a whole (`systemctl edit --full`).
        files.insert(0, self.drop_ins.with_extension(""));
        files.iter().flat_map(|file| named_in(file)).collect()
    }
}

/// Why the service has no such credential for us, and the remedy. `found`: its directory.
fn why_missing(found: io::Result<()>) -> &'static str {
    match found {
        Ok(()) => "got none of this name: systemctl restart nodecast",
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "shows it to its own user alone: sudo -u nodecast nodecast .."
        }
        Err(_) => "does not run: systemctl start nodecast",
    }
}

fn named_in(file: &Path) -> Vec<(String, Origin)> {
    // One that this user may not read says nothing: what it names may be missing unsaid.
    let text = fs::read_to_string(file).unwrap_or_default();
    let name = |line: &str| {
        let value = SETTINGS.iter().find_map(|setting| line.trim().strip_prefix(setting))?;
        // An empty one takes back what was named before; no key has its name.
        Some(value.split(':').next()?.trim().to_owned())
    };
    let named = text.lines().zip(1..).filter_map(|(line, number)| {
        let place = Origin::File { path: file.to_owned(), line: number, column: 1 };
        Some((name(line)?, place))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::config::{Inputs, Loaded, Need};

    /// An installed host: its file, the unit's drop-in, and what the running service was given.
    fn load(given: Option<&str>, environment: &[(&str, &str)]) -> Result<Loaded, String> {
        load_for(Need::Credentials, given, environment)
    }

    fn load_for(
        need: Need,
        given: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<Loaded, String> {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("nodecast.toml"), "state_dir = \"/var/lib/nodecast\"\n").unwrap();
        fs::create_dir(path("nodecast.service.d")).unwrap();
        let whole = "[Service]\nSetCredential=whitelist.redis_url:redis://cache\n";
        fs::write(path("nodecast.service"), whole).unwrap();
        let unit = "[Service]\n# LoadCredential=redis.url:/old\nLoadCredential=store.url:/etc/url\n\
                    LoadCredential=tls.key:/etc/key\n";
        fs::write(path("nodecast.service.d/override.conf"), unit).unwrap();
        // systemd reads no other names.
        let backup = path("nodecast.service.d/override.conf~");
        fs::write(backup, "LoadCredential=redis.url:/etc/other\n").unwrap();
        if let Some(given) = given {
            fs::create_dir(path("credentials")).unwrap();
            fs::write(path("credentials/store.url"), given).unwrap();
            fs::write(path("credentials/whitelist.redis_url"), "redis://cache").unwrap();
            fs::set_permissions(path("credentials"), fs::Permissions::from_mode(0o500)).unwrap();
        }
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let inputs = Inputs {
            environment: environment.iter().map(owned).collect(),
            system_file: Some(path("nodecast.toml")),
            service: Some(Service {
                credentials: path("credentials"),
                drop_ins: path("nodecast.service.d"),
            }),
            ..Inputs::default()
        };
        inputs.load(need).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_command_beside_the_running_service_has_its_credentials() {
        let loaded = load(Some("postgres://ann:secret@db/events"), &[]).unwrap();

        assert_eq!(loaded.config.store.url, "postgres://ann:secret@db/events");
        assert_eq!(loaded.origin("store.url").to_string(), "credential store.url");
    }

    #[test]
    fn a_credential_that_is_not_there_is_a_fault_unless_it_is_replaced() {
        let said = load(None, &[]).unwrap_err();
        let given = [
            ("NODECAST_STORE__URL", "sqlite:/n.db"),
            ("NODECAST_WHITELIST__REDIS_URL", "redis://other"),
        ];
        let replaced = load(None, &given).unwrap();

        assert!(said.contains("2 faults"), "{said}");
        assert!(
            said.contains("nodecast.service:2:1: whitelist.redis_url is a credential"),
            "{said}"
        );
        assert!(said.contains("override.conf:3:1: store.url is a credential of nodecast.service"));
        assert!(said.contains("does not run: systemctl start nodecast"), "{said}");
        assert!(said.contains("or give NODECAST_STORE__URL here"), "{said}");
        assert_eq!(replaced.config.store.url, "sqlite:/n.db");
    }

    #[test]
    fn a_command_is_refused_for_the_credentials_that_it_needs_alone() {
        let told = |need| load_for(need, None, &[]).map(|loaded| loaded.missing);
        let keys = |faults: &[Fault]| {
            let key = |fault: &Fault| fault.message.split(' ').next().map(str::to_owned);
            faults.iter().filter_map(key).collect::<Vec<_>>()
        };

        let missing = told(Need::Nothing).unwrap();
        assert_eq!(keys(&missing), ["whitelist.redis_url", "store.url"]);
        assert!(missing[1].to_string().contains("systemctl start nodecast"), "{}", missing[1]);
        for (need, refused_for) in
            [(Need::Store, "store.url is a"), (Need::Whitelist, "whitelist.redis_url is a")]
        {
            let said = told(need).unwrap_err();
            assert!(said.contains("1 fault") && said.contains(refused_for), "{said}");
        }
        // One that is there is needed no more.
        let url = [("NODECAST_WHITELIST__REDIS_URL", "redis://other")];
        let loaded = load_for(Need::Whitelist, None, &url).unwrap();
        assert_eq!(keys(&loaded.missing), ["store.url"]);
    }

    #[test]
    fn the_remedy_fits_what_is_seen_of_the_service() {
        let of = |kind: io::ErrorKind| why_missing(Err(kind.into()));

        assert!(why_missing(Ok(())).contains("systemctl restart nodecast"));
        assert!(of(io::ErrorKind::PermissionDenied).contains("sudo -u nodecast"));
        assert!(of(io::ErrorKind::NotFound).contains("systemctl start nodecast"));
    }

    #[test]
    fn the_service_says_nothing_of_a_file_that_is_not_its_own() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("own.toml"), "state_dir = \"/var/lib/nodecast\"\n").unwrap();
        fs::create_dir(path("credentials")).unwrap();
        fs::write(path("credentials/store.url"), "sqlite:/service.db").unwrap();
        let unit = "[Service]\nLoadCredential=whitelist.redis_url:/etc/url\n";
        fs::write(path("nodecast.service"), unit).unwrap();
        let service =
            Service { credentials: path("credentials"), drop_ins: path("nodecast.service.d") };

        let inputs = Inputs {
            config_flag: Some(path("own.toml")),
            system_file: Some(path("nodecast.toml")),
            service: Some(service),
            ..Inputs::default()
        };
        let loaded = inputs.load(Need::Nothing).unwrap();

        assert_ne!(loaded.config.store.url, "sqlite:/service.db");
    }

    #[test]
    fn a_directory_that_is_given_is_taken_instead_of_that_of_the_service() {
        let other = TempDir::new().unwrap();
        fs::write(other.path().join("store.url"), "sqlite:/other.db").unwrap();
        // What is not in it is not asked for: it is the word of who gave the directory.
        let directory = other.path().to_str().unwrap();

        let loaded = load(Some("sqlite:/service.db"), &[(credentials::DIRECTORY, directory)]);

        assert_eq!(loaded.unwrap().config.store.url, "sqlite:/other.db");
    }
}
