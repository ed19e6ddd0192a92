//! What the system allows a process: open files, inotify, connections that wait.

use rustix::process::{Resource, getrlimit};

use super::{
    proc::{self, Process},
    report::Report,
};
use crate::{config::Config, daemon::capacity::files_needed};

/// Watches of one node directory: itself, and of each of four streams the directory, `hourly`, and
/// the days that a node keeps.
const WATCHES_A_NODE: u64 = 1 + 4 * (2 + 3);

/// Fewer connections that wait to be accepted are not enough when all clients come back at once.
const LITTLE_BACKLOG: u64 = 1_024;

pub fn check(config: &Config, running: Option<&Process>, report: &mut Report) {
    report.group("limits");
    open_files(config, running, report);
    inotify(config, report);
    backlog(report);
}

/// Of the running daemon where it can be seen: its unit may allow more than this shell.
fn open_files(config: &Config, running: Option<&Process>, report: &mut Report) {
    let of_running = running.and_then(|process| proc::open_file_limit(process.id));
    let whose = if of_running.is_some() { "the running daemon" } else { "this shell" };
    // A daemon raises its own limit as far as it is let.
    let limit = of_running.or_else(|| getrlimit(Resource::Nofile).maximum).unwrap_or(u64::MAX);
    let sessions = config.session.max_sessions;
    let needed = files_needed(config);
    if limit >= needed {
        report.ok(format!("{whose} may open {limit} files, {sessions} sessions need {needed}"));
    } else {
        report.warn(
            format!("{whose} may open {limit} files, {sessions} sessions need {needed}"),
            match of_running {
                Some(_) => format!(
                    "LimitNOFILE={needed} in the unit, or lower session.max_sessions; then restart"
                ),
                None => format!(
                    "ulimit -n {needed}, or lower session.max_sessions (the packaged unit has its own \
                     LimitNOFILE=65536)"
                ),
            },
        );
    }
}

fn inotify(config: &Config, report: &mut Report) {
    let nodes = config.source.data_dirs.len() as u64;
    // One a node, and one for the file of the whitelist.
    let needed = [nodes + 1, nodes * WATCHES_A_NODE + 1];
    let (instances, watches) = proc::inotify_use();
    let limits = ["max_user_instances", "max_user_watches"];
    for ((name, used), needed) in limits.into_iter().zip([instances, watches]).zip(needed) {
        let Some(limit) = proc::setting(&format!("fs/inotify/{name}")) else { continue };
        let text = format!("fs.inotify.{name} is {limit}, {used} of this user's are in use");
        if limit.saturating_sub(used) >= needed {
            report.ok(text);
        } else {
            report.warn(
                format!(
                    "{text}, {needed} more are wanted: files are then only looked at by a timer"
                ),
                format!("sysctl -w fs.inotify.{name}={}", (limit + needed).next_power_of_two()),
            );
        }
    }
}

fn backlog(report: &mut Report) {
    let Some(limit) = proc::setting("net/core/somaxconn") else { return };
    let text = format!("net.core.somaxconn is {limit}: so many connections may wait for us");
    if limit >= LITTLE_BACKLOG {
        report.ok(text);
    } else {
        report.warn(text, "sysctl -w net.core.somaxconn=4096");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Mark;

    #[test]
    fn the_open_files_are_held_against_the_sessions() {
        let warnings = |sessions: usize| {
            let (mut config, mut report) = (Config::default(), Report::default());
            config.session.max_sessions = sessions;
            open_files(&config, None, &mut report);
            report.count(Mark::Warn)
        };

        assert_eq!(warnings(1), 0);
        // No kernel allows a process so many.
        assert_eq!(warnings(u32::MAX as usize), 1);
    }
}
