//! Changes the file of a whitelist: what `nodecast whitelist add` and `remove` do, and a client that may.
//!
//! Invariants: the file is replaced in one step, so that whoever reads it sees the old list or the
//! new one; comments and the order of lines, owner and mode stay; a faulty file is not touched; of
//! two who edit at a time, one waits.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, Gid, Uid, fchown, flock};

use super::file::{FileFault, FileStamp, read_into, text_of};
use crate::event::Address;

/// How long another editor is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two tries to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Mode of a file that is made: the daemon may be another user.
const NEW_MODE: u32 = 0o644;

/// What is to be done with some addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Where there is no list, one is made.
    Add,
    /// A list that is away is not made anew.
    AddToExisting,
    Remove,
}

/// What an edit found and did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edited {
    /// The addresses that were added or removed. The others were there already, or were not.
    pub changed: BTreeSet<Address>,
    /// Addresses before it.
    pub before: usize,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EditFault {
    #[error("{}: {fault}", path.display())]
    File { path: PathBuf, fault: FileFault },
    #[error("{}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("{}: somebody else has been editing it for {LOCK_PATIENCE:?}", path.display())]
    Locked { path: PathBuf },
    #[error("{}: it was changed meanwhile by another program, try again", path.display())]
    Changed { path: PathBuf },
    /// Only root may give a file away.
    #[error("{}: its owner cannot be kept ({error}): run this as the owner or as root", path.display())]
    Owner { path: PathBuf, error: io::Error },
}

/// Adds addresses to a file or removes them from it.
///
/// # Errors
/// Nothing was changed then.
pub fn edit_file(
    path: &Path,
    edit: Edit,
    addresses: &BTreeSet<Address>,
) -> Result<Edited, EditFault> {
    // A link stays one: what it points to is replaced.
    let path = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound && edit == Edit::Add => {
            path.to_owned()
        }
        Err(error) => {
            return Err(EditFault::File { path: path.to_owned(), fault: error.into() });
        }
    };
    let fault = |error| EditFault::Write { path: path.clone(), error };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // The lock is that of the directory: the file itself is another one afterwards.
    let lock = File::open(directory).map_err(fault)?;
    if !is_locked(&lock).map_err(fault)? {
        return Err(EditFault::Locked { path });
    }
    let stamp = FileStamp::of(&path).ok();
    let old = match stamp {
        None if edit != Edit::Add => {
            let fault = io::Error::from(io::ErrorKind::NotFound).into();
            return Err(EditFault::File { path, fault });
        }
        None => None,
        Some(_) => {
            let checked = read_into(&path, |_| Ok(()));
            checked.map_err(|fault| EditFault::File { path: path.clone(), fault })?;
            Some(File::open(&path).map_err(fault)?)
        }
    };
    let mut draft = tempfile::Builder::new()
        .prefix(OsStr::new(".nodecast-"))
        .tempfile_in(directory)
        .map_err(fault)?;
    let edited = match &old {
        None => write_edited(io::empty(), &mut draft, edit, addresses),
        Some(old) => write_edited(BufReader::new(old), &mut draft, edit, addresses),
    };
    let edited = edited.map_err(fault)?;
    if edited.changed.is_empty() {
        return Ok(edited);
    }
    keep_owner(old.as_ref(), draft.as_file())
        .map_err(|error| EditFault::Owner { path: path.clone(), error })?;
    let mode = match &old {
        None => NEW_MODE,
        Some(old) => old.metadata().map_err(fault)?.mode() & 0o7777,
    };
    // After the owner: to change that takes some bits away.
    draft.as_file().set_permissions(Permissions::from_mode(mode)).map_err(fault)?;
    draft.as_file().sync_all().map_err(fault)?;
    if FileStamp::of(&path).ok() != stamp {
        return Err(EditFault::Changed { path });
    }
    draft.persist(&path).map_err(|error| fault(error.error))?;
    lock.sync_all().map_err(fault)?;
    Ok(edited)
}

fn is_locked(directory: &File) -> io::Result<bool> {
    let start = Instant::now();
    loop {
        match flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LOCK_PATIENCE => {
                thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

fn keep_owner(old: Option<&File>, new: &File) -> io::Result<()> {
    let Some(old) = old else { return Ok(()) };
    let (old, ours) = (old.metadata()?, new.metadata()?);
    if (old.uid(), old.gid()) == (ours.uid(), ours.gid()) {
        return Ok(());
    }
    fchown(new, Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
    Ok(())
}

/// Copies a valid list line by line, with the change.
fn write_edited(
    mut old: impl BufRead,
    new: impl Write,
    edit: Edit,
    addresses: &BTreeSet<Address>,
) -> io::Result<Edited> {
    let mut new = BufWriter::new(new);
    let (mut found, mut before) = (BTreeSet::new(), 0);
    let (mut line, mut ending) = (Vec::new(), &b"\n"[..]);
    let mut is_ended = true;
    for number in 1.. {
        line.clear();
        if old.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let address = Address::parse(text_of(&line, number)).ok();
        before += usize::from(address.is_some());
        if let Some(address) = address.filter(|address| addresses.contains(address)) {
            found.insert(address);
            if edit == Edit::Remove {
                continue;
            }
        }
        new.write_all(&line)?;
        is_ended = line.ends_with(b"\n");
        ending = if line.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
    }
    let changed = match edit {
        Edit::Remove => found,
        Edit::Add | Edit::AddToExisting => addresses.difference(&found).copied().collect(),
    };
    if edit != Edit::Remove {
        for address in &changed {
            if !is_ended {
                new.write_all(ending)?;
                is_ended = true;
            }
            write!(new, "{address}")?;
            new.write_all(ending)?;
        }
    }
    new.flush()?;
    Ok(Edited { changed, before })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0x010461c14e146ac35fe42271bdc1134ee31c703a";
    const TWO: &str = "0x727956612a8700627451204a3ae26268bd1a1525";

    fn set(texts: &[&str]) -> BTreeSet<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn edited(old: &str, edit: Edit, addresses: &[&str]) -> (String, Edited) {
        let mut new = Vec::new();
        let edited = write_edited(old.as_bytes(), &mut new, edit, &set(addresses)).unwrap();
        (String::from_utf8(new).unwrap(), edited)
    }

    #[test]
    fn an_added_address_gets_a_line_of_its_own_whatever_the_file_ends_with() {
        for (old, new) in [
            (String::new(), format!("{TWO}\n")),
            (format!("# ours\n{ONE}"), format!("# ours\n{ONE}\n{TWO}\n")),
            (format!("{ONE}\r\n\r\n"), format!("{ONE}\r\n\r\n{TWO}\r\n")),
            (format!("{TWO} # there"), format!("{TWO} # there")),
        ] {
            assert_eq!(edited(&old, Edit::Add, &[TWO]).0, new);
        }
    }

    #[test]
    fn every_line_of_a_removed_address_goes_and_no_other() {
        let upper = ONE.to_uppercase();
        let old = format!("\u{feff}{ONE}\n# {ONE}\n{upper} # twice\n\n{TWO}\n");

        let (new, edited) = edited(&old, Edit::Remove, &[ONE]);

        assert_eq!(new, format!("# {ONE}\n\n{TWO}\n"));
        assert_eq!(edited, Edited { changed: set(&[ONE]), before: 3 });
    }

    #[test]
    fn owner_mode_and_link_stay_and_what_changes_nothing_leaves_the_file_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("list"), folder.path().join("link"));
        fs::write(&path, format!("{ONE}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let before = fs::metadata(&path).unwrap();

        edit_file(&link, Edit::Add, &set(&[ONE])).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), before.ino());
        edit_file(&link, Edit::Add, &set(&[TWO])).unwrap();

        let after = fs::metadata(&path).unwrap();
        assert_ne!(after.ino(), before.ino());
        assert_eq!((after.mode(), after.uid()), (before.mode(), before.uid()));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{ONE}\n{TWO}\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "a draft is left");
    }

    #[test]
    fn two_who_edit_at_a_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let address = |ordinal: u8| Address([ordinal; 20]);

        thread::scope(|scope| {
            for editor in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for ordinal in 0..10 {
                        let added = BTreeSet::from([address(10 * editor + ordinal)]);
                        edit_file(path, Edit::Add, &added).unwrap();
                    }
                });
            }
        });

        let mut listed = BTreeSet::new();
        let collect = |address| {
            listed.insert(address);
            Ok(())
        };
        read_into(&path, collect).unwrap();
        assert_eq!(listed, (0..40).map(address).collect());
    }

    #[test]
    fn a_faulty_file_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, "nobody\n").unwrap();

        let fault = edit_file(&path, Edit::Add, &set(&[ONE])).unwrap_err();

        assert!(fault.to_string().contains("line 1: \"nobody\""), "{fault}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "nobody\n");
        let absent = folder.path().join("absent");
        for edit in [Edit::Remove, Edit::AddToExisting] {
            assert!(edit_file(&absent, edit, &set(&[ONE])).is_err());
        }
    }
}
