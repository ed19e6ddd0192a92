//! The writer's lock: one daemon per database, known to the operating system.
//!
//! The lock is on a file beside the database, so it ends with its process however that dies. The
//! lease row in the database catches what a lock on a network file system may let through.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::{
    event::Timestamp,
    store::{StoreError, holder::Holder},
};

/// The lock, held until it is dropped. The file stays: deleting it would let two processes lock
/// two files of one name.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "is only held")] File);

impl Lock {
    /// Takes the lock of a database, without waiting.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] that names the process which has it.
    pub fn take(database: &Path) -> Result<Self, StoreError> {
        let path = lock_path(database);
        let away = |error: std::io::Error| {
            StoreError::Unavailable(format!("lock file {}: {error}", path.display()))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(away)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Whether or not the name can be read, the lock is taken.
                let read = file.read_to_string(&mut holder);
                let holder = match (read, holder.trim()) {
                    (Err(_), _) | (_, "") => "another process",
                    (_, holder) => holder,
                };
                return Err(StoreError::LeaseLost(format!("{holder} holds {}", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(away(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(away)?;
        writeln!(file, "{} (since {})", Holder::own(), Timestamp::now()).map_err(away)?;
        Ok(Self(file))
    }
}

pub fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}
