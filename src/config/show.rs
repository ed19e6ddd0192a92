//! The effective configuration as TOML.

use super::load::Loaded;
use super::{Origin, keys};

impl Loaded {
    /// Where the value of a key is from.
    pub fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }

    /// Every key with its value, as a file that gives the same configuration again. Passwords are
    /// shown as `***`. With `origins`, each line says where its value is from.
    pub fn to_toml(&self, origins: bool) -> String {
        let mut text = String::new();
        let mut section = "";
        for key in keys() {
            if key.section() != section {
                section = key.section();
                text.push_str(&format!("\n[{section}]\n"));
            }
            let line = match key.show(&self.config) {
                Some(value) => format!("{} = {value}", key.name()),
                None => format!("# {} is not set", key.name()),
            };
            text.push_str(&line);
            if origins {
                text.push_str(&format!("  # {}", self.origin(key.path)));
            }
            text.push('\n');
        }
        text
    }
}
