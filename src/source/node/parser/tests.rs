use std::path::PathBuf;

use super::*;
use crate::{
    event::Topic,
    source::{Budget, Density, FileMark, Form, OpenBlock, Stream, node::FILLS},
    testing::{Probe, ProbeHandle, Records, recorded_log},
};

const NOW: Timestamp = Timestamp(1_773_532_800_000_000);

fn stream(name: &str, topic: Topic, form: Form) -> Arc<Stream> {
    Arc::new(Stream {
        name: name.into(),
        node: "node".into(),
        topic,
        form,
        density: Density::Learned,
        directory: PathBuf::from(name),
    })
}

fn line(position: u64, fills: &[&str]) -> String {
    let fills: Vec<_> =
        fills.iter().map(|coin| format!(r#"["0x{:040x}",{{"coin":"{coin}"}}]"#, 1)).collect();
    format!(
        "{{\"local_time\":\"2026-03-15T00:00:00.2\",\"block_time\":\"2026-03-15T00:00:00.1\",\"block_number\":{position},\"events\":[{}]}}\n",
        fills.join(",")
    )
}

struct Fixture {
    parser: Addr<Parser>,
    next: ProbeHandle<ParsedBatch>,
    stats: Arc<Stats>,
    budget: Arc<Budget>,
    state: tempfile::TempDir,
    said: Records,
}

fn start() -> Fixture {
    let state = tempfile::tempdir().unwrap();
    let quarantine = Arc::new(Quarantine::open(state.path(), 1 << 20).unwrap());
    let horizon = Arc::new(Horizon::new(Duration::from_secs(7 * 86_400), None));
    let (next, stats) = (Probe::start(), Arc::<Stats>::default());
    let (log, said) = recorded_log();
    let parser = Parser::new(next.recipient(), horizon, quarantine, stats.clone(), &log).start();
    let budget = Budget::new(1 << 20, Probe::start().recipient());
    Fixture { parser, next, stats, budget, state, said }
}

impl Fixture {
    async fn parse(
        &self,
        stream: &Arc<Stream>,
        lines: String,
        resume: Option<StreamState>,
    ) -> ParsedBatch {
        let batch = RawBatch {
            stream: stream.clone(),
            generation: 3,
            file: "20260315/0".into(),
            offset: 1_000,
            marks: vec![FileMark::At {
                file: "20260315/0".into(),
                offset: 1_000 + lines.len() as u64,
                digest: 5,
            }],
            resume,
            discontinuity: true,
            read_at: NOW,
            credit: self.budget.take(lines.len(), 3),
            lines: lines.into(),
        };
        self.parser.send(batch).await.unwrap();
        self.next.take().await.pop().unwrap()
    }
}

#[actix_rt::test]
async fn an_empty_batch_still_carries_its_marks() {
    let fixture = start();
    let stream = stream("fills", FILLS, Form::ByBlock);

    let passed = fixture.parse(&stream, String::new(), None).await;

    assert!(passed.blocks.is_empty());
    assert_eq!((passed.generation, passed.discontinuity, passed.read_at), (3, true, NOW));
    assert_eq!(
        passed.progress.files,
        [FileMark::At { file: "20260315/0".into(), offset: 1_000, digest: 5 }]
    );
}

// H11
#[actix_rt::test]
async fn a_malformed_line_is_counted_set_aside_and_the_next_is_delivered() {
    let fixture = start();
    let stream = stream("fills", FILLS, Form::ByBlock);
    let lines = format!("{}broken\n\n{}", line(7, &["BTC"]), line(8, &["ETH", "SOL"]));
    let offset = 1_000 + lines.find("broken").unwrap();

    let passed = fixture.parse(&stream, lines, None).await;

    let positions: Vec<_> = passed.blocks.iter().map(|block| block.position).collect();
    assert_eq!(positions, [7, 8]);
    let stats = fixture.stats.stream(&stream);
    assert_eq!(
        (stats.lines.get(), stats.malformed_lines.get(), stats.recovered_lines.get()),
        (3, 1, 0)
    );
    assert_eq!(
        (stats.elements.get(), stats.candidates.get(), stats.skipped_elements.get()),
        (3, 3, 0)
    );
    assert_eq!((stats.last_position.get(), stats.last_line_at.get()), (8, NOW.0));
    assert_eq!(stats.last_block_time.get(), NOW.0 + 100_000);
    assert_eq!(stats.last_written.get(), NOW.0 + 200_000);
    let kept = std::fs::read_to_string(fixture.state.path().join("quarantine.jsonl")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["content"], "broken");
    assert_eq!(kept["offset_bytes"], offset);
    assert_eq!(kept["origin"], "fills/hourly/20260315/0");
}

#[actix_rt::test]
async fn only_a_block_that_was_taken_makes_a_stream_fresh() {
    let fixture = start();
    let stream = stream("fills", FILLS, Form::ByBlock);
    let ahead = line(7, &["BTC"]).replace("\"2026-", "\"2099-");
    let far = line(7, &["BTC"]).replace(":7,", ":9223372036854775808,");
    assert!(far.contains("9223372036854775808"));

    for lines in [format!("broken\n{ahead}"), far] {
        assert!(fixture.parse(&stream, lines, None).await.blocks.is_empty());
    }

    let stats = fixture.stats.stream(&stream);
    assert_eq!((stats.lines.get(), stats.malformed_lines.get()), (3, 2));
    assert_eq!((stats.refused_blocks.get(), stats.last_line_at.get()), (1, 0));
    // A block without events is as good a sign of life as any.
    fixture.parse(&stream, line(8, &[]), None).await;
    assert_eq!(stats.last_line_at.get(), NOW.0);
}

#[actix_rt::test]
async fn a_recovered_line_is_counted_as_such_and_its_rest_set_aside() {
    let fixture = start();
    let stream = stream("fills", FILLS, Form::ByBlock);
    let torn = &line(7, &["BTC"])[..150];

    let passed = fixture.parse(&stream, format!("{torn}{}", line(8, &["ETH"])), None).await;

    assert_eq!(passed.blocks.len(), 1);
    let stats = fixture.stats.stream(&stream);
    assert_eq!(
        (stats.lines.get(), stats.malformed_lines.get(), stats.recovered_lines.get()),
        (1, 0, 1)
    );
    let kept = std::fs::read_to_string(fixture.state.path().join("quarantine.jsonl")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["content"], torn);
}

#[actix_rt::test]
async fn a_line_without_newline_at_the_end_of_a_file_counts() {
    let fixture = start();
    let stream = stream("fills", FILLS, Form::ByBlock);

    let passed = fixture.parse(&stream, line(7, &["BTC"]).trim_end().to_owned(), None).await;

    assert_eq!(passed.blocks.len(), 1);
}

#[actix_rt::test]
async fn streams_keep_their_states_apart_and_a_generation_takes_it_anew() {
    let fixture = start();
    let by_block = stream("fills", FILLS, Form::ByBlock);
    let streaming = stream("fills_streaming", FILLS, Form::Streaming);

    let resume = StreamState { last_position: Some(6), consecutive: 9, open: Vec::new() };
    let lines = [6, 7, 8].map(|position| line(position, &[])).concat();
    let passed = fixture.parse(&by_block, lines, Some(resume)).await;
    let expected = StreamState { last_position: Some(8), consecutive: 11, open: Vec::new() };
    assert_eq!(passed.progress.state, expected);

    let passed = fixture.parse(&streaming, line(20, &["A", "B"]) + &line(20, &["C"]), None).await;
    assert_eq!(passed.blocks[1].indexes, 2..3);
    let checkpoint = passed.progress.state;
    assert_eq!((checkpoint.last_position, checkpoint.consecutive), (Some(20), 1));
    let OpenBlock { position, next_index, .. } = checkpoint.open[0];
    assert_eq!((position, next_index), (20, 3));

    let passed = fixture.parse(&streaming, line(20, &["D"]), None).await;
    assert_eq!(passed.blocks[0].indexes, 3..4);
    let passed = fixture.parse(&streaming, line(20, &["D"]), Some(checkpoint)).await;
    assert_eq!(passed.blocks[0].indexes, 3..4);

    let passed = fixture.parse(&by_block, line(9, &[]) + &line(12, &[]), None).await;
    assert_eq!(passed.progress.state.last_position, Some(12));
    assert_eq!(passed.progress.state.consecutive, 1);
}

// H11
#[actix_rt::test]
async fn a_block_that_is_not_believed_is_logged_and_set_aside() {
    let fixture = start();
    let stream = stream("fills", FILLS, Form::ByBlock);
    let ahead = line(7, &["BTC"]).replace("\"2026-", "\"2999-");
    let far = line(9_000_000_000_000_000, &["BTC"]);
    let lines = format!("{}{ahead}{far}{}", line(6, &[]), line(7, &[]));
    let offsets = [&ahead, &far].map(|bad| 1_000 + lines.find(bad.as_str()).unwrap());

    let passed = fixture.parse(&stream, lines, None).await;

    let positions: Vec<_> = passed.blocks.iter().map(|block| block.position).collect();
    assert_eq!(positions, [6, 7]);
    assert_eq!(fixture.stats.stream(&stream).refused_blocks.get(), 2);
    let kept = std::fs::read_to_string(fixture.state.path().join("quarantine.jsonl")).unwrap();
    let kept: Vec<serde_json::Value> =
        kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = fixture.said.with("block refused");
    assert_eq!((kept.len(), said.len()), (2, 2), "{kept:?} {said:?}");
    for (ordinal, (line, reason)) in
        [(&ahead, "block_time is more than a day ahead"), (&far, "block_number does not fit")]
            .into_iter()
            .enumerate()
    {
        assert_eq!(kept[ordinal]["content"], line.trim_end());
        assert_eq!(kept[ordinal]["offset_bytes"], offsets[ordinal]);
        assert!(kept[ordinal]["reason"].as_str().unwrap().contains(reason), "{kept:?}");
        let said = &said[ordinal];
        assert!(said.contains(reason) && said.starts_with("WARN"), "{said}");
        assert!(said.contains(&format!("offset_bytes={}", offsets[ordinal])), "{said}");
        assert!(said.contains("file=20260315/0") && said.contains("stream=fills"), "{said}");
    }
}

#[actix_rt::test]
async fn blocks_that_are_too_old_are_told_as_a_number_and_fill_no_quarantine() {
    let fixture = start();
    tokio::time::pause();
    let stream = stream("fills", FILLS, Form::ByBlock);
    fixture.parse(&stream, line(500, &[]), None).await;
    let old = line(7, &["BTC"]).replace("\"2026-", "\"2025-");

    fixture.parse(&stream, old.repeat(300), None).await;
    tokio::time::sleep(2 * LOG_PERIOD).await;

    assert_eq!(fixture.stats.stream(&stream).refused_blocks.get(), 300);
    let said = fixture.said.with("");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("INFO") && said[0].contains("blocks=300"), "{said:?}");
    let kept = std::fs::read_to_string(fixture.state.path().join("quarantine.jsonl")).unwrap();
    assert_eq!(kept, "");
}

#[actix_rt::test]
async fn damaged_lines_beyond_a_number_are_told_at_the_end_of_the_period() {
    let fixture = start();
    tokio::time::pause();
    let stream = stream("fills", FILLS, Form::ByBlock);
    let summary = "more damaged lines were not logged";

    fixture.parse(&stream, "broken\n".repeat(20), None).await;
    // A new generation does not forget what was not said.
    fixture.parse(&stream, "broken\n".repeat(5), Some(StreamState::default())).await;
    assert_eq!(fixture.said.with("malformed line skipped").len(), 10);
    assert!(fixture.said.with(summary).is_empty());
    // Nothing more comes.
    tokio::time::sleep(LOG_PERIOD + Duration::from_secs(1)).await;

    let said = fixture.said.with(summary);
    assert!(said.len() == 1 && said[0].contains("lines=15"), "{said:?}");
    fixture.parse(&stream, "broken\n".into(), None).await;
    assert_eq!(fixture.said.with("malformed line skipped").len(), 11);
}
