//! Memory of a daemon that has read one small hour file and has nothing to do.

use std::{
    io::{self, Write},
    thread,
    time::Duration,
};

use super::{
    common::{
        Setup, eventually,
        node::{ALICE, Kind, append, fills_line},
    },
    process::status_kb,
};

const BLOCKS: u64 = 100;

pub fn measure() -> io::Result<()> {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(20_260_315, 9);
    for block in 1..=BLOCKS {
        append(&mut file, &(fills_line(block, ALICE, 3) + "\n"));
    }
    let daemon = setup.start();
    eventually("all is stored", || daemon.status()["store"]["inserted"] == 3 * BLOCKS);
    // Not a condition: this is the rest that is measured.
    thread::sleep(Duration::from_secs(5));
    let kb = |name| status_kb(daemon.pid(), name);
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "idle, one hour file of {BLOCKS} blocks read, no clients\n  \
         {:.1} MB resident, of which {:.1} MB of its own and {:.1} MB mapped files (the program); \
         highest {:.1} MB; {} threads",
        kb("VmRSS")? as f64 / 1e3,
        kb("RssAnon")? as f64 / 1e3,
        kb("RssFile")? as f64 / 1e3,
        kb("VmHWM")? as f64 / 1e3,
        kb("Threads")?,
    )
}
