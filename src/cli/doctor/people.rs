//! Users, groups and rights of the file system, and the words to say what is missing.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

/// The user who looks.
pub fn user() -> String {
    let id = rustix::process::geteuid().as_raw();
    name_of("/etc/passwd", id).unwrap_or_else(|| format!("#{id}"))
}

/// Whose file or directory something is, if that is somebody else.
pub fn owner(path: &Path) -> Option<String> {
    let owner = fs::metadata(path).ok()?.uid();
    let is_other = owner != rustix::process::geteuid().as_raw();
    is_other.then(|| name_of("/etc/passwd", owner).unwrap_or_else(|| format!("#{owner}")))
}

/// Whether this is root, on a machine where the packaged service has a user of its own.
pub fn is_root_beside_the_service() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    is_root && users.lines().any(|line| line.starts_with("nodecast:"))
}

/// The name of a number in `/etc/passwd` or `/etc/group`, which have the same first columns.
fn name_of(table: &str, id: u32) -> Option<String> {
    let text = fs::read_to_string(table).ok()?;
    text.lines().find_map(|line| {
        let mut columns = line.split(':');
        let (name, found) = (columns.next()?, columns.nth(1)?);
        (found.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// What this user lacks to read a directory or a file, and the command that gives it. `None` when
/// nothing is lacking.
pub fn hindrance(path: &Path) -> Option<(String, String)> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut above: Vec<PathBuf> = absolute.ancestors().skip(1).map(Path::to_path_buf).collect();
    above.reverse();
    let user = user();
    for directory in above {
        if access(&directory, Access::EXEC_OK).is_err() && directory.is_dir() {
            let what = format!("{user} may not enter {}", described(&directory));
            return Some((what, remedy(&user, &directory, "x")));
        }
    }
    let is_dir = absolute.is_dir();
    let wanted = if is_dir { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
    if access(&absolute, wanted).is_ok() {
        return None;
    }
    // What cannot be read may also be missing: then another check says so.
    fs::symlink_metadata(&absolute).ok()?;
    let what = format!("{user} may not read {}", described(&absolute));
    Some((what, remedy(&user, &absolute, if is_dir { "rX" } else { "r" })))
}

/// A path with its mode and owner.
fn described(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(found) => {
            let owner = name_of("/etc/passwd", found.uid()).unwrap_or(found.uid().to_string());
            let group = name_of("/etc/group", found.gid()).unwrap_or(found.gid().to_string());
            format!("{} (mode {:04o}, {owner}:{group})", path.display(), found.mode() & 0o7777)
        }
        Err(_) => path.display().to_string(),
    }
}

/// By its group where the group may do it already, else by an access list.
fn remedy(user: &str, path: &Path, rights: &str) -> String {
    let path_text = path.display();
    let acl = match rights {
        "x" => format!("setfacl -m u:{user}:x {path_text}"),
        "r" => format!("setfacl -m u:{user}:r {path_text}"),
        // The default holds for what the node makes from now on.
        _ => format!(
            "setfacl -R -m u:{user}:rX {path_text} && setfacl -R -d -m u:{user}:rX {path_text}"
        ),
    };
    let bits = if rights == "r" {
        0o040
    } else if rights == "x" {
        0o010
    } else {
        0o050
    };
    let group = fs::metadata(path)
        .ok()
        .filter(|found| found.mode() & bits == bits)
        .and_then(|found| name_of("/etc/group", found.gid()));
    match group {
        Some(group) => format!(
            "usermod -aG {group} {user} (in the unit: SupplementaryGroups={group}), or: {acl}"
        ),
        None => format!("{acl} (or, in the unit: BindReadOnlyPaths, see nodecast.service)"),
    }
}

/// Whether others than owner and group may read a file.
pub fn is_open_to_all(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.mode() & 0o004 != 0)
}
