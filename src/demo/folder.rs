//! Where a demo lives: node directory, state, whitelist and manifest side by side.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::{event::Address, generate};

pub struct Folder {
    root: PathBuf,
    /// Removed with everything in it when this is dropped.
    temporary: Option<TempDir>,
}

impl Folder {
    /// Makes the directory; without a wish a temporary one.
    ///
    /// # Errors
    /// When `keep` is not empty: what an earlier demo stored there would not match this one.
    pub fn create(keep: Option<&Path>) -> anyhow::Result<Self> {
        let (root, temporary) = match keep {
            None => {
                let made = tempfile::Builder::new().prefix("nodecast-demo-").tempdir();
                let made = made.context("cannot create a temporary directory")?;
                (made.path().to_owned(), Some(made))
            }
            Some(root) => {
                let failed = || format!("cannot use {}", root.display());
                fs::create_dir_all(root).with_context(failed)?;
                if fs::read_dir(root).with_context(failed)?.next().is_some() {
                    bail!("{} is not empty; choose a new directory", root.display());
                }
                (root.to_owned(), None)
            }
        };
        let folder = Self { root, temporary };
        generate::prepare(&folder.node())?;
        Ok(folder)
    }

    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The data directory of the simulated node.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub fn whitelist(&self) -> PathBuf {
        self.root.join("whitelist.txt")
    }

    pub fn manifest(&self) -> PathBuf {
        self.root.join(generate::MANIFEST_FILE)
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write_whitelist<'a>(
        &self,
        listed: impl Iterator<Item = &'a Address>,
    ) -> anyhow::Result<()> {
        let mut text = String::from("# Every second user of the simulated chain.\n");
        for address in listed {
            text.push_str(&address.to_string());
            text.push('\n');
        }
        fs::write(self.whitelist(), text).context("cannot write the whitelist")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_and_a_kept_one_stays() {
        let outside = tempfile::tempdir().unwrap();
        let kept_at = outside.path().join("new/demo");

        let (temporary, kept) =
            (Folder::create(None).unwrap(), Folder::create(Some(&kept_at)).unwrap());
        let temporary_at = temporary.root().to_owned();
        assert!(temporary.node().is_dir() && temporary.is_temporary());
        drop((temporary, kept));

        assert!(!temporary_at.exists());
        assert!(kept_at.join("node").is_dir());
    }

    #[test]
    fn a_folder_that_is_in_use_is_refused_and_left_alone() {
        let used = tempfile::tempdir().unwrap();
        fs::write(used.path().join("note"), "x").unwrap();

        let refused = Folder::create(Some(used.path())).err().unwrap();

        assert!(refused.to_string().contains("is not empty"), "{refused}");
        assert_eq!(fs::read_dir(used.path()).unwrap().count(), 1);
    }
}
