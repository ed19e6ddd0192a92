//! Long lists: the daemon with a file of one and of ten million addresses, and look-ups in the
//! mapped list beside a `HashSet` in memory.

use std::{
    fs::{self, File},
    hint::black_box,
    io::{self, BufWriter, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ahash::HashSet;
use nodecast::{
    event::Address,
    whitelist::{AddressList, ListBuilder, read_list_into},
};

use super::{common::Setup, process::status_kb};

const MILLION: usize = 1_000_000;

/// Looked up in each round.
const ASKED: usize = MILLION;

const ROUNDS: usize = 5;

/// A file that was written just now is read again at a restart: its times prove nothing yet.
const SETTLED: Duration = Duration::from_secs(4);

pub fn measure() -> io::Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut out = io::stdout().lock();
    for millions in [1, 10] {
        let list = scratch.path().join(format!("{millions}-million"));
        write_list(&list, millions * MILLION)?;
        let megabytes = fs::metadata(&list)?.len() / 1_000_000;
        writeln!(out, "whitelist of {millions} million addresses, a file of {megabytes} MB")?;
        thread::sleep(SETTLED);
        starts(&list, &mut out)?;
    }
    look_ups(&scratch.path().join("10-million"), scratch.path(), &mut out)
}

/// The addresses of the list, or of strangers.
fn random(count: usize, seed: u64) -> impl Iterator<Item = Address> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(move |_| Address(std::array::from_fn(|_| random.u8(..))))
}

fn write_list(path: &Path, count: usize) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for address in random(count, 1) {
        writeln!(file, "{address}")?;
    }
    file.flush()
}

/// Starts a daemon that knows nothing, and again when it has kept the list.
fn starts(list: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut setup = Setup::new();
    setup.whitelist = String::new();
    setup.config = format!("[whitelist]\nfile = \"{}\"\n", list.display());
    for what in ["first start", "restart"] {
        let begun = Instant::now();
        let daemon = setup.start();
        let ready = begun.elapsed();
        // Not a condition: this is the rest that is measured.
        thread::sleep(Duration::from_secs(5));
        let megabytes = |name| status_kb(daemon.pid(), name).map(|kb| kb as f64 / 1e3);
        writeln!(
            out,
            "  {what}: ready after {:.2} s; then {:.1} MB of its own (RssAnon), {:.1} MB mapped; \
             highest {:.1} MB together",
            ready.as_secs_f64(),
            megabytes("RssAnon")?,
            megabytes("RssFile")?,
            megabytes("VmHWM")?,
        )?;
        assert!(daemon.stop().success());
    }
    Ok(())
}

fn look_ups(file: &Path, directory: &Path, out: &mut impl Write) -> io::Result<()> {
    let begun = Instant::now();
    let mut builder = ListBuilder::new(Some(directory), "bench");
    read_list_into(file, |address| builder.push(address)).map_err(io::Error::other)?;
    let list = builder.finish().map_err(io::Error::other)?;
    let built = begun.elapsed();
    list.keep(directory, "bench", b"").map_err(io::Error::other)?;
    let kept = begun.elapsed() - built;
    drop(list);
    let begun = Instant::now();
    let opened = AddressList::open(directory, "bench").map_err(io::Error::other)?;
    let (list, _) = opened.ok_or_else(|| io::Error::other("nothing was kept"))?;
    writeln!(
        out,
        "  the list alone: read and sorted in {:.2} s, kept in {:.2} s, opened and checked in {:.2} s",
        built.as_secs_f64(),
        kept.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
    )?;
    let set: HashSet<_> = list.iter().collect();
    let mut listed: Vec<_> = random(10 * MILLION, 1).step_by(10 * MILLION / ASKED).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut listed);
    let strangers: Vec<_> = random(ASKED, 2).collect();
    for (who, asked) in [("a stranger", &strangers), ("a listed one", &listed)] {
        let mapped = best(asked, |address| list.contains(address));
        let memory = best(asked, |address| set.contains(address));
        writeln!(
            out,
            "  look-up of {who}: {mapped:.0} ns in the mapped list, {memory:.0} ns in a HashSet of \
             {:.0} MB ({:.1} : 1)",
            set.capacity() as f64 * 8.0 / 7.0 * 21.0 / 1e6,
            mapped / memory,
        )?;
    }
    Ok(())
}

/// Nanoseconds a look-up takes in the best round.
fn best(asked: &[Address], contains: impl Fn(&Address) -> bool) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        for address in asked {
            black_box(contains(black_box(address)));
        }
        begun.elapsed().as_nanos() as f64 / asked.len() as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}
