use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_773_532_800_000_000);

fn parser(topic: Topic, form: Form) -> LineParser {
    let horizon = Horizon::new(Duration::from_secs(7 * 86_400), None);
    LineParser::new(topic, form, Arc::new(horizon), &[])
}

fn fills() -> LineParser {
    parser(fills::TOPIC, Form::ByBlock)
}

fn user(ordinal: u64) -> String {
    format!("0x{ordinal:040x}")
}

/// A line with a fill for each of these users.
fn block(position: u64, users: &[u64]) -> String {
    let fills: Vec<_> = users
        .iter()
        .map(|who| format!(r#"["{}",{{"coin":"BTC","px":"{who}.5","dir":"[{{\"x"}}]"#, user(*who)))
        .collect();
    format!(
        r#"{{"local_time":"2026-03-15T00:00:00.196239755","block_time":"2026-03-14T23:59:59.991006841","block_number":{position},"events":[{}]}}"#,
        fills.join(",")
    )
}

fn parse(line: &[u8]) -> (ParsedLines, LineOutcome) {
    let mut parsed = ParsedLines::default();
    let outcome = fills().parse(line, 0..line.len(), NOW, &mut parsed);
    (parsed, outcome)
}

fn positions(parsed: &ParsedLines) -> Vec<u64> {
    parsed.blocks.iter().map(|block| block.position).collect()
}

/// The lost parts of a recovered line.
fn lost<'l>(line: &'l [u8], outcome: &LineOutcome) -> Vec<&'l str> {
    let LineOutcome::Recovered { lost } = outcome else { panic!("{outcome:?}") };
    lost.iter().map(|place| std::str::from_utf8(&line[place.clone()]).unwrap()).collect()
}

// H01, H03
#[test]
fn a_line_becomes_a_block_and_a_candidate_for_each_pair() {
    let line = block(7, &[1, 2]).replace("]}", ",[\"short\"],[\"0x\",{}]]}");

    let (parsed, outcome) = parse(line.as_bytes());

    assert!(matches!(outcome, LineOutcome::Whole));
    assert_eq!(parsed.blocks[0].indexes, 0..4);
    assert_eq!(parsed.blocks[0].candidates, 0..2);
    assert!(parsed.blocks[0].complete);
    assert_eq!((parsed.elements, parsed.skipped), (4, 2));
    let body = parsed.candidates[1].body.copy_from(line.as_bytes());
    assert_eq!(body, r#"{"coin":"BTC","px":"2.5","dir":"[{\"x"}"#);
}

#[test]
fn skipped_elements_keep_their_ordinal() {
    let line = block(7, &[1, 2]).replacen("[[", "[7,[\"x\"],[", 1);

    let (parsed, _) = parse(line.as_bytes());

    let indexes: Vec<_> = parsed.candidates.iter().map(|candidate| candidate.index).collect();
    assert_eq!(indexes, [2, 3]);
}

#[test]
fn the_digest_is_that_of_the_content_alone() {
    let line = block(7, &[1, 2]);
    let digest = |line: &str| parse(line.as_bytes()).0.blocks[0].digest;

    assert_eq!(digest(&line), digest(&line.replace("00:00.19", "00:09.99")));
    assert_ne!(digest(&line), digest(&line.replace("2.5", "2.6")));
}

#[test]
fn a_glued_block_is_recovered() {
    let (torn, good) = (block(7, &[1, 2]), block(9, &[3]));
    for cut in 1..torn.len() {
        let line = format!("{}{good}", &torn[..cut]);

        let (parsed, outcome) = parse(line.as_bytes());

        assert_eq!(positions(&parsed), [9], "{line}");
        assert_eq!(parsed.candidates.len(), 1);
        assert_eq!(parsed.candidates[0].user, Some(user(3).parse().unwrap()));
        assert_eq!(lost(line.as_bytes(), &outcome), [&torn[..cut]]);
    }
}

#[test]
fn every_whole_block_of_a_damaged_line_is_recovered() {
    let (one, two) = (block(1, &[1]), block(2, &[2, 3]));
    for (line, expected, rest) in [
        (format!("{one}{two}"), vec![1, 2], vec![]),
        (format!("{one}garbage"), vec![1], vec!["garbage"]),
        (format!("{one}, {two} }}"), vec![1, 2], vec![",", "}"]),
        (format!("x{one}{{\"local_time\":{two}"), vec![1, 2], vec!["x", "{\"local_time\":"]),
        (format!("\0\0\0{one}\0\0{two}\0"), vec![1, 2], vec![]),
    ] {
        let (parsed, outcome) = parse(line.as_bytes());

        assert_eq!(positions(&parsed), expected, "{line}");
        assert_eq!(lost(line.as_bytes(), &outcome), rest, "{line}");
    }
}

#[test]
fn blank_lines_are_nothing_and_nul_bytes_are_damage_without_content() {
    for line in ["", " \t", "\r"] {
        assert!(matches!(parse(line.as_bytes()).1, LineOutcome::Blank));
    }
    assert!(matches!(parse(&[0; 4_096]).1, LineOutcome::Malformed { fault: None }));
    assert!(matches!(parse(b"\0x\0").1, LineOutcome::Malformed { fault: Some(_) }));
}

#[test]
fn a_block_time_that_is_not_believed_is_refused_and_counted() {
    let mut parser = fills();
    let mut parsed = ParsedLines::default();
    for line in
        [block(7, &[1]), block(8, &[1, 2]).replace("2026-03-14", "2027-03-14"), block(9, &[1])]
    {
        parser.parse(line.as_bytes(), 0..line.len(), NOW, &mut parsed);
    }

    assert_eq!(positions(&parsed), [7, 9]);
    assert_eq!(parsed.refused_blocks(), 1);
    assert_eq!((parsed.elements, parsed.candidates.len()), (2, 2));
    assert_eq!(parsed.blocks[1].candidates, 1..2);
}

#[test]
fn a_streaming_block_counts_over_its_lines() {
    let mut parser = parser(fills::TOPIC, Form::Streaming);
    let mut parsed = ParsedLines::default();
    let lines = [
        block(7, &[1, 2]),
        block(7, &[3]),
        block(8, &[4]),
        block(7, &[5]),
        // A rewind.
        block(7, &[1, 2]),
        block(7, &[3, 5]),
        block(8, &[4]),
        block(8, &[6]),
    ];
    for line in lines {
        parser.parse(line.as_bytes(), 0..line.len(), NOW, &mut parsed);
    }

    let starts: Vec<_> = parsed.blocks.iter().map(|block| block.indexes.start).collect();
    assert_eq!(starts, [0, 2, 0, 3, 0, 2, 0, 1]);
    let indexes: Vec<_> = parsed.candidates.iter().map(|candidate| candidate.index).collect();
    assert_eq!(indexes, [0, 1, 2, 0, 3, 0, 1, 2, 3, 0, 1]);
    assert!(parsed.blocks.iter().all(|block| !block.complete));
}

#[test]
fn a_line_of_many_broken_blocks_takes_bounded_time() {
    let broken = block(7, &[]).replace("]}", "");
    let line = format!("{}{}", broken.repeat(20_000), block(9, &[1]));

    let started = Instant::now();
    let (parsed, _) = parse(line.as_bytes());

    // Without the bound this takes minutes.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(positions(&parsed), [9]);
}

/// What may happen to the bytes of a line.
#[derive(Clone, Debug)]
enum Damage {
    Cut(usize),
    Replace(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = 0..2_000_usize;
    let byte = prop_oneof![prop::sample::select(b"[]{}\",:\\0 \0".to_vec()), any::<u8>()];
    prop_oneof![
        at.clone().prop_map(Damage::Cut),
        (at.clone(), byte.clone()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (at.clone(), prop::collection::vec(byte, 1..20))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at.clone(), 1..100_usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        (at, 1..400_usize).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ]
}

fn apply(damage: Damage, line: &mut Vec<u8>) {
    let length = line.len();
    let within = |at: usize| at % (length + 1);
    match damage {
        Damage::Cut(at) => line.truncate(within(at)),
        Damage::Replace(at, byte) => {
            if let Some(old) = line.get_mut(within(at)) {
                *old = byte;
            }
        }
        Damage::Insert(at, bytes) => drop(line.splice(within(at)..within(at), bytes)),
        Damage::Remove(at, count) => drop(line.drain(within(at)..(within(at) + count).min(length))),
        Damage::Repeat(at, count) => {
            let copy = line[within(at)..(within(at) + count).min(length)].to_vec();
            drop(line.splice(within(at)..within(at), copy));
        }
    }
    // A newline would make two lines of it.
    line.retain(|byte| *byte != b'\n');
}

fn misc_block() -> String {
    let (one, two) = (user(1), user(2));
    block(5, &[]).replace(
        "[]",
        &format!(
            r#"[{{"time":"t","hash":"h","inner":{{"LedgerUpdate":{{"users":["{one}","{two}"],"delta":{{"type":"send"}}}}}}}},{{"inner":{{"Funding":{{"deltas":[{{"user":"{one}"}},{{"user":"{two}"}}]}}}}}},{{"inner":{{"New":["{two}",1.5]}}}}]"#
        ),
    )
}

proptest! {
    // H11
    #[test]
    fn no_damage_panics_or_reaches_the_next_line(
        damages in prop::collection::vec(damage(), 1..6),
        misc: bool,
        streaming: bool,
    ) {
        let (topic, mut line) = match misc {
            true => (misc::TOPIC, misc_block().into_bytes()),
            false => (fills::TOPIC, block(5, &[1, 2, 3]).into_bytes()),
        };
        let next = if misc { misc_block() } else { block(5, &[1, 2, 3]) };
        let next = next.replace("\"block_number\":5", "\"block_number\":6");
        for damage in damages {
            apply(damage, &mut line);
        }
        let mut parser = parser(topic, if streaming { Form::Streaming } else { Form::ByBlock });
        let mut parsed = ParsedLines::default();
        let mut alone = ParsedLines::default();

        let buffer = [&line, b"\n".as_slice(), next.as_bytes()].concat();
        parser.parse(&buffer, 0..line.len(), NOW, &mut parsed);
        let (blocks, candidates) = (parsed.blocks.len(), parsed.candidates.len());
        let outcome = parser.parse(&buffer, line.len() + 1..buffer.len(), NOW, &mut parsed);
        self::parser(topic, Form::ByBlock).parse(next.as_bytes(), 0..next.len(), NOW, &mut alone);

        // The next line is delivered, and as if nothing stood before it.
        prop_assert!(matches!(outcome, LineOutcome::Whole));
        prop_assert_eq!(parsed.blocks.len(), blocks + 1);
        prop_assert_eq!(&parsed.blocks[blocks].digest, &alone.blocks[0].digest);
        let bodies = |parsed: &ParsedLines, from: usize, buffer: &[u8]| {
            let body = |candidate: &Candidate| (candidate.user, candidate.body.copy_from(buffer));
            parsed.candidates[from..].iter().map(body).collect::<Vec<_>>()
        };
        prop_assert_eq!(bodies(&parsed, candidates, &buffer), bodies(&alone, 0, next.as_bytes()));
        // Every element is a candidate's or skipped, every candidate belongs to one block.
        let elements: u64 = parsed.blocks.iter().map(|block| block.indexes.len() as u64).sum();
        prop_assert_eq!(elements, parsed.elements);
        let mut end = 0;
        let mut seen = 0;
        for block in &parsed.blocks {
            prop_assert_eq!(block.candidates.start, end);
            end = block.candidates.end;
            let own = &parsed.candidates[block.candidates.clone()];
            prop_assert!(own.iter().all(|candidate| block.indexes.contains(&candidate.index)));
            let mut indexes: Vec<_> = own.iter().map(|candidate| candidate.index).collect();
            indexes.dedup();
            seen += indexes.len() as u64;
        }
        prop_assert_eq!(end, parsed.candidates.len());
        prop_assert_eq!(seen + parsed.skipped, elements);
        // And what they point to lies in the buffer.
        bodies(&parsed, 0, &buffer);
    }
}

mod samples;
