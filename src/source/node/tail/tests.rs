use std::{fs, fs::OpenOptions, io::Write, path::PathBuf};

use tempfile::TempDir;

use super::*;

const LIMITS: Limits = Limits { read_bytes: 1 << 20, line_bytes: 64 << 20 };

struct Fixture {
    _directory: TempDir,
    path: PathBuf,
}

fn file(content: &[u8]) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0");
    fs::write(&path, content).unwrap();
    Fixture { _directory: directory, path }
}

impl Fixture {
    fn append(&self, bytes: &[u8]) {
        OpenOptions::new().append(true).open(&self.path).unwrap().write_all(bytes).unwrap();
    }

    fn tail(&self) -> Tail {
        Tail::open(&self.path, 0, xxh3_64(&[])).unwrap()
    }
}

/// Reads until nothing more comes.
fn drain(tail: &mut Tail, limits: Limits) -> Vec<u8> {
    let mut lines = Vec::new();
    loop {
        let read = tail.read(limits).unwrap();
        lines.extend_from_slice(&read.lines);
        if !read.more {
            return lines;
        }
    }
}

#[test]
fn a_line_in_several_pieces_leaves_once_when_its_newline_arrives() {
    // H10
    let file = file(b"");
    let mut tail = file.tail();

    for piece in ["{\"a", "\":", "1}"] {
        file.append(piece.as_bytes());
        assert!(drain(&mut tail, LIMITS).is_empty());
        assert_eq!(tail.offset(), 0);
    }
    file.append(b"\n{\"b");

    assert_eq!(drain(&mut tail, LIMITS), b"{\"a\":1}\n");
    assert_eq!(tail.offset(), 8);
    assert!(drain(&mut tail, LIMITS).is_empty());
}

#[test]
fn any_size_of_reads_gives_the_same_lines() {
    let content = b"one\n\nthree is longer\nx\nfour\nunfinished";
    let file = file(content);

    for read_bytes in 1..=content.len() {
        let mut tail = file.tail();
        let lines = drain(&mut tail, Limits { read_bytes, ..LIMITS });
        assert_eq!(lines, b"one\n\nthree is longer\nx\nfour\n", "{read_bytes} bytes a read");
    }
}

#[test]
fn a_line_of_20_mb_in_pieces_is_read_once() {
    let file = file(b"");
    let mut tail = file.tail();
    let piece = vec![b'x'; 64 << 10];

    let begun = std::time::Instant::now();
    for _ in 0..320 {
        file.append(&piece);
        let position = tail.position();
        assert!(tail.read(LIMITS).unwrap().lines.is_empty());
        assert_eq!(tail.position(), position + piece.len() as u64);
    }
    file.append(b"\n");
    let lines = drain(&mut tail, LIMITS);

    assert_eq!(lines.len(), 320 * piece.len() + 1);
    // 3 GB would be moved if each piece read the line again.
    assert!(begun.elapsed().as_secs() < 20);
}

#[test]
fn an_over_long_line_is_skipped_and_reported_once_however_it_comes() {
    let limits = |read_bytes| Limits { read_bytes, line_bytes: 10 };
    let file = file(b"before\n12345678901 too long\n1234567890\nafter\n");

    for read_bytes in 1..64 {
        let mut tail = file.tail();
        let (mut lines, mut reported) = (Vec::new(), Vec::new());
        loop {
            let read = tail.read(limits(read_bytes)).unwrap();
            lines.extend_from_slice(&read.lines);
            reported.extend(read.oversized);
            assert!(tail.pending.len() <= 11, "nothing above the limit is buffered");
            if !read.more {
                break;
            }
        }

        assert_eq!(lines, b"before\n1234567890\nafter\n", "{read_bytes} bytes a read");
        assert_eq!(reported.len(), 1);
        assert_eq!(reported[0].offset, 7);
        assert_eq!(reported[0].head, b"12345678901");
        assert_eq!(
            tail.digest(),
            Tail::open(&file.path, tail.offset(), tail.digest()).unwrap().digest()
        );
    }
}

#[test]
fn an_over_long_line_leaves_the_offset_at_its_start_until_its_newline() {
    let file = file(b"ok\nmuch too long a line");
    let limits = Limits { read_bytes: 4, line_bytes: 10 };
    let mut tail = file.tail();

    assert_eq!(drain(&mut tail, limits), b"ok\n");
    assert_eq!((tail.offset(), tail.position()), (3, 23));
    file.append(b"!\nnext\n");

    assert_eq!(drain(&mut tail, limits), b"next\n");
}

#[test]
fn a_truncated_file_is_read_again_from_zero() {
    // H12
    let file = file(b"first\nsecond\n");
    let mut tail = file.tail();
    drain(&mut tail, LIMITS);

    fs::write(&file.path, "new\n").unwrap();
    let read = tail.read(LIMITS).unwrap();

    assert!(read.rewritten && read.lines.is_empty());
    assert_eq!(tail.offset(), 0);
    assert_eq!(drain(&mut tail, LIMITS), b"new\n");
    assert!(!tail.read(LIMITS).unwrap().rewritten, "said once");
}

#[test]
fn a_file_rewritten_longer_never_gives_a_torn_line() {
    let file = file(b"first\nsecond\n");
    let mut tail = file.tail();
    drain(&mut tail, LIMITS);

    fs::write(&file.path, "another first line\nanother second line\n").unwrap();

    assert!(tail.read(LIMITS).unwrap().rewritten);
    assert_eq!(drain(&mut tail, LIMITS), b"another first line\nanother second line\n");
}

#[test]
fn a_file_rewritten_at_the_same_size_is_noticed_by_the_check() {
    let file = file(b"first\nsecond\n");
    let mut tail = file.tail();
    drain(&mut tail, LIMITS);
    assert!(tail.check().unwrap());

    fs::write(&file.path, "FIRST\nSECOND\n").unwrap();

    assert!(!tail.check().unwrap());
    assert_eq!(drain(&mut tail, LIMITS), b"FIRST\nSECOND\n");
}

#[test]
fn an_unfinished_line_that_is_cut_off_does_not_repeat_what_came_before() {
    let file = file(b"first\nsecond is torn");
    let mut tail = file.tail();
    drain(&mut tail, LIMITS);

    fs::write(&file.path, "first\nsec").unwrap();
    assert!(tail.read(LIMITS).unwrap().rewritten);
    file.append(b"ond\n");

    assert_eq!(drain(&mut tail, LIMITS), b"second\n");
}

#[test]
fn an_unfinished_line_that_is_rewritten_is_read_anew() {
    let file = file(b"first\ntorn lin");
    let mut tail = file.tail();
    drain(&mut tail, LIMITS);

    fs::write(&file.path, "first\nanother line\n").unwrap();

    assert_eq!(drain(&mut tail, LIMITS), b"another line\n");
}

#[test]
fn a_checkpoint_with_another_digest_starts_at_zero() {
    // H12: also when the new file got the old inode.
    let file = file(b"first\nsecond\n");
    let digest = xxh3_64(b"first\n");

    assert_eq!(Tail::open(&file.path, 6, digest).unwrap().offset(), 6);
    fs::write(&file.path, "fir$t\nsecond\n").unwrap();
    assert_eq!(Tail::open(&file.path, 6, digest).unwrap().offset(), 0);
    assert_eq!(Tail::open(&file.path, 99, digest).unwrap().offset(), 0);
}

#[test]
fn the_digest_covers_the_last_4096_bytes_before_the_offset() {
    let content: Vec<u8> =
        (0..2_000).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
    let file = file(&content);
    let mut tail = file.tail();

    drain(&mut tail, Limits { read_bytes: 777, ..LIMITS });

    assert_eq!(tail.offset(), content.len() as u64);
    assert_eq!(tail.digest(), xxh3_64(&content[content.len() - 4_096..]));
}

#[test]
fn a_whole_object_without_its_newline_can_be_handed_on_and_its_newline_is_no_line() {
    let file = file(b"{\"a\":1}\n{\"b\":2}");
    let mut tail = file.tail();
    drain(&mut tail, LIMITS);

    assert_eq!(tail.take_unterminated().unwrap().lines, b"{\"b\":2}"[..]);
    assert!(tail.take_unterminated().is_none());
    file.append(b"\n");
    assert!(drain(&mut tail, LIMITS).is_empty());
    assert_eq!(tail.offset(), 16);
    file.append(b"\n{\"c\":3}\n");

    assert_eq!(drain(&mut tail, LIMITS), b"\n{\"c\":3}\n");
}

#[test]
fn a_half_object_and_a_bare_number_are_not_handed_on() {
    for half in ["{\"a\":", "12", "", "{\"a\":1}x"] {
        let file = file(half.as_bytes());
        let mut tail = file.tail();
        drain(&mut tail, LIMITS);
        assert!(tail.take_unterminated().is_none(), "{half}");
    }
}

#[test]
fn offsets_above_four_gigabytes_are_exact() {
    let file = file(b"");
    let far = (5_u64 << 30) + 7;
    let sparse = OpenOptions::new().write(true).open(&file.path).unwrap();
    sparse.write_all_at(b"far\nline\n", far).unwrap();
    let digest = xxh3_64(&[vec![0; 4_092], b"far\n".to_vec()].concat());

    let mut tail = Tail::open(&file.path, far + 4, digest).unwrap();

    assert_eq!(tail.offset(), far + 4);
    assert_eq!(drain(&mut tail, LIMITS), b"line\n");
    assert_eq!(tail.offset(), far + 9);
}

#[test]
fn an_unlinked_file_is_drained_to_its_end() {
    let file = file(b"first\n");
    let mut tail = file.tail();
    drain(&mut tail, LIMITS);
    file.append(b"second\n");

    fs::remove_file(&file.path).unwrap();

    assert_eq!(drain(&mut tail, LIMITS), b"second\n");
}

#[test]
fn a_directory_in_place_of_the_file_is_an_error() {
    let file = file(b"");
    fs::remove_file(&file.path).unwrap();
    fs::create_dir(&file.path).unwrap();

    let read = Tail::open(&file.path, 0, xxh3_64(&[])).and_then(|mut tail| tail.read(LIMITS));

    assert!(read.is_err());
}
