//! `nodecast doctor`: looks at everything that a run depends on, and says what to do.
//!
//! Invariant: nothing is made, changed, locked or listened on, so that it can be run beside a daemon
//! and as often as one likes. One file per group of checks; `report.rs` holds what they say.

mod clock;
mod database;
mod limits;
mod node;
mod people;
mod place;
mod ports;
mod proc;
mod report;
mod whitelist;

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
};

use report::{Report, Signs};

use crate::{
    cli::{flags::Flags, legacy::LegacyFlags, output::print},
    config::{Config, Fault, Inputs, Need, Origin},
};

const EXAMPLES: &str = "\
Examples:
  nodecast doctor --data-dir ~/hl/data --whitelist all
  sudo -u nodecast nodecast doctor
  nodecast doctor --config nodecast.toml --json

Run it as the user of the daemon: rights are looked at for whoever runs it.
Exit code 0 when a run would work, 1 when something is wrong.";

/// Looks at node directories, database, whitelist, disk, clock, limits and ports, and says what to
/// do about what is wrong. Changes nothing.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// # Errors
/// When standard output cannot be written.
pub fn run(args: Args, legacy: LegacyFlags) -> anyhow::Result<ExitCode> {
    let mut inputs = Inputs::of_process();
    args.flags.add_to(&mut inputs);
    legacy.add_to(&mut inputs);
    let report = examine(inputs);
    let text = if args.json { report.to_json() } else { report.to_text(signs()) };
    print(&text)?;
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A configuration with faults does not end the look: the rest is looked at as far as it is known.
fn examine(inputs: Inputs) -> Report {
    let mut report = Report::default();
    report.group("configuration");
    let mut config = Config::default();
    let loaded = inputs.load_and_look(Need::Run, |known| {
        config = known.clone();
        Vec::new()
    });
    match &loaded {
        Ok(loaded) => {
            let file = loaded.file.as_ref();
            report.ok(file.map_or_else(
                || "valid; no file is used".to_owned(),
                |file| format!("{} is valid", file.display()),
            ));
        }
        Err(faults) => {
            for fault in &faults.0 {
                tell(fault, &mut report);
            }
        }
    }
    let file = loaded.as_ref().ok().and_then(|loaded| loaded.file.as_deref());
    let origin = |key: &str| match &loaded {
        Ok(loaded) => loaded.origin(key).clone(),
        Err(_) => Origin::Default,
    };
    if people::is_root_beside_the_service() {
        report.warn(
            "root looks, who may do everything: what the service may is another matter",
            "sudo -u nodecast nodecast doctor",
        );
    }
    place::check_secrets(&config, file, origin, &mut report);
    let rates = node::check(&config, &mut report);
    place::check_state_dir(&config, &mut report);
    actix_rt::System::new().block_on(async {
        if config.whitelist.is_given() {
            whitelist::check(&config, &mut report).await;
        }
        whitelist::check_positions(&config, &mut report).await;
        if !config.store.url.is_empty() {
            database::check(&config, &rates, &mut report).await;
        }
    });
    let running = ports::check(&config, &mut report);
    limits::check(&config, running.as_ref(), &mut report);
    clock::check(&mut report);
    report
}

/// A fault with what to do about it, which depends on who gave the value.
fn tell(fault: &Fault, report: &mut Report) {
    let remedy = match &fault.origin {
        _ if fault.message.contains("unknown key") => "nodecast config default shows every key",
        // What is missing everywhere says behind a colon what to give.
        None | Some(Origin::Default) => match fault.message.split_once(": ") {
            Some((what, remedy)) => return report.fail(what, remedy),
            None => "nodecast config default shows every key",
        },
        Some(Origin::File { .. }) => "correct that line, then: nodecast config check",
        Some(Origin::Credential(_)) => "correct that file of the credentials",
        Some(Origin::Environment(_)) => "correct that variable",
        Some(Origin::Flag(_)) => "correct that flag",
    };
    report.fail(fault.to_string(), remedy);
}

/// Marks beyond ASCII only for a terminal that says it can show them.
fn signs() -> Signs {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_lowercase();
    let can = locale.contains("utf-8") || locale.contains("utf8");
    if can && io::stdout().is_terminal() { Signs::Unicode } else { Signs::Ascii }
}
