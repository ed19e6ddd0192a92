//! Parse and filter on one core: the real actors `Parser` and `WhitelistFilter` on one thread, fed
//! with reads of 1 MiB of generated fills, up to the built events that the Router would get.
//!
//! `cargo bench --bench parse`. Beside each figure stands what the same bytes cost to read from
//! memory and to split at newlines, in the same run: on a shared machine trust the ratio.

use std::{
    collections::HashSet,
    hint::black_box,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;
use bytes::Bytes;
use nodecast::{
    config::WhitelistConfig,
    event::{Address, Timestamp},
    generate,
    source::{
        BatchLost, Budget, Density, EventBatch, Form, Horizon, RawBatch, Stream, StreamState,
        node::{FILLS, Parser},
        quarantine::Quarantine,
    },
    stats::Stats,
    whitelist::{Whitelist, WhitelistFilter},
};
use slog::{Discard, Logger, o};

const BYTES: usize = 128 << 20;
const READ_BYTES: usize = 1 << 20;
const USERS: usize = 10_000;
const ROUNDS: usize = 11;

/// Stands where the Router stands: gives the credits back, counts, and drops the events.
#[derive(Default)]
struct Sink {
    events: u64,
    blocks: u64,
}

/// Asks for what has come, and starts anew.
#[derive(Message)]
#[rtype(result = "(u64, u64)")]
struct Take;

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<EventBatch> for Sink {
    type Result = ();

    fn handle(&mut self, batch: EventBatch, _: &mut Self::Context) {
        self.blocks += batch.blocks.len() as u64;
        self.events += batch.blocks.iter().map(|block| block.events.len() as u64).sum::<u64>();
        black_box(&batch.blocks);
        batch.credit.done();
    }
}

impl Handler<Take> for Sink {
    type Result = MessageResult<Take>;

    fn handle(&mut self, _: Take, _: &mut Self::Context) -> Self::Result {
        let Self { events, blocks } = std::mem::take(self);
        MessageResult((events, blocks))
    }
}

impl Handler<BatchLost> for Sink {
    type Result = ();

    fn handle(&mut self, _: BatchLost, _: &mut Self::Context) {
        panic!("no batch is dropped on its way");
    }
}

/// One chain without its watcher.
struct Chain {
    parser: Addr<Parser>,
    sink: Addr<Sink>,
    budget: Arc<Budget>,
    stream: Arc<Stream>,
    _state: tempfile::TempDir,
}

impl Chain {
    fn start(list: Whitelist) -> Self {
        let state = tempfile::tempdir().expect("a temporary directory");
        let quarantine = Arc::new(Quarantine::open(state.path(), 1 << 20).expect("a quarantine"));
        let horizon = Arc::new(Horizon::new(Duration::from_secs(7 * 86_400), None));
        let (stats, log) = (Arc::<Stats>::default(), Logger::root(Discard, o!()));
        let sink = Sink::default().start();
        let next = sink.clone().recipient();
        let filter =
            WhitelistFilter::new(Arc::new(list), next, quarantine.clone(), stats.clone(), &log);
        let filter = filter.start().recipient();
        let parser = Parser::new(filter, horizon, quarantine, stats, &log).start();
        let budget = Budget::new(usize::MAX, sink.clone().recipient());
        let stream = Arc::new(Stream {
            name: "bench".into(),
            node: "bench".into(),
            topic: FILLS,
            form: Form::ByBlock,
            density: Density::Learned,
            directory: PathBuf::from("bench"),
        });
        Self { parser, sink, budget, stream, _state: state }
    }

    /// Sends all reads through the chain. Gives the events and blocks that came out.
    async fn pass(&self, reads: &[Bytes]) -> (u64, u64) {
        let mut offset = 0;
        for (number, lines) in reads.iter().enumerate() {
            let batch = RawBatch {
                stream: self.stream.clone(),
                generation: 1,
                file: "20260314/12".into(),
                offset,
                marks: Vec::new(),
                resume: (number == 0).then(StreamState::default),
                discontinuity: false,
                read_at: Timestamp::now(),
                credit: self.budget.take(lines.len(), 1),
                lines: lines.clone(),
            };
            offset += lines.len() as u64;
            // As in the daemon, where the watcher yields after each read: one is under way.
            self.parser.send(batch).await.expect("the parser lives");
        }
        // Behind the last batch in both mailboxes.
        while self.budget.in_flight_batches() > 0 {
            tokio::task::yield_now().await;
        }
        self.sink.send(Take).await.expect("the sink lives")
    }
}

/// Cuts the lines as the watcher reads them: whole lines, about a mebibyte.
fn cut(lines: &Bytes) -> Vec<Bytes> {
    let (mut reads, mut start) = (Vec::new(), 0);
    while start < lines.len() {
        let end = (start + READ_BYTES).min(lines.len());
        let end = memchr::memrchr(b'\n', &lines[start..end]).expect("lines are short") + start + 1;
        reads.push(lines.slice(start..end));
        start = end;
    }
    reads
}

fn users_of(lines: &[u8]) -> Vec<Address> {
    let mut users: Vec<_> = memchr::memmem::find_iter(lines, b"[\"0x")
        .filter_map(|at| std::str::from_utf8(&lines[at + 2..at + 44]).ok()?.parse().ok())
        .collect::<HashSet<Address>>()
        .into_iter()
        .collect();
    users.sort_unstable();
    users
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn sum_words(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0.iter();
    words.fold(0, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)))
}

fn main() -> io::Result<()> {
    let lines = Bytes::from(generate::fills_lines(1, USERS, BYTES));
    let reads = cut(&lines);
    let fills = memchr::memmem::find_iter(&lines, b"\"tid\":").count() as u64;
    let users = users_of(&lines);
    let list = |share: usize| {
        let listed = users.iter().step_by(share).copied().collect();
        Whitelist::build(vec![listed], &WhitelistConfig::default())
    };
    let cases = [("1 % of the users listed", list(100)), ("everything", Whitelist::all())];
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "parse and filter, one core: {} MB of fills, {fills} events, {} users, {ROUNDS} rounds",
        lines.len() / 1_000_000,
        users.len()
    )?;
    let gigabytes = |time: Duration| lines.len() as f64 / time.as_secs_f64() / 1e9;

    actix_rt::System::new().block_on(async {
        for (name, list) in cases {
            let chain = Chain::start(list);
            let (mut chain_times, mut read_times, mut split_times) = (vec![], vec![], vec![]);
            let mut kept = 0;
            for round in 0..=ROUNDS {
                let begun = Instant::now();
                black_box(sum_words(black_box(&lines)));
                let read = begun.elapsed();
                let begun = Instant::now();
                let blocks = memchr::memchr_iter(b'\n', black_box(&lines)).count() as u64;
                let split = begun.elapsed();
                let begun = Instant::now();
                let (events, passed) = chain.pass(&reads).await;
                let parsed = begun.elapsed();
                assert_eq!(passed, blocks, "every block comes through");
                kept = events;
                // The first round warms up.
                if round > 0 {
                    chain_times.push(parsed);
                    read_times.push(read);
                    split_times.push(split);
                }
            }
            let best = *chain_times.iter().min().expect("rounds");
            let (chain, read, split) =
                (median(chain_times), median(read_times), median(split_times));
            writeln!(
                out,
                "  {name:<24} {:.2} GB/s (best {:.2}), {:.1} million events/s, {kept} kept; \
                 memory read {:.1} GB/s (1 : {:.1}), newlines {:.1} GB/s",
                gigabytes(chain),
                gigabytes(best),
                fills as f64 / chain.as_secs_f64() / 1e6,
                gigabytes(read),
                chain.as_secs_f64() / read.as_secs_f64(),
                gigabytes(split),
            )?;
        }
        Ok(())
    })
}
