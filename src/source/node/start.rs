//! Where a stream begins that has no offsets in its checkpoint.
//!
//! Place in the pipeline: asked once by the follower, before its first read.
//! Invariants: every place is the start of a line; the clock is never asked; for streaming files
//! it is the first line of a block, because the elements of a block are counted from there.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use memchr::{memchr, memmem, memrchr};
use xxhash_rust::xxh3::xxh3_64;

use super::{layout::HourFile, tail::read_before};
use crate::{
    config::StartFrom,
    source::{Form, MAX_POSITION},
};

/// Bytes of one step when newlines are looked for.
const STEP_BYTES: u64 = 64 << 10;

/// The block number of a line stands within its first bytes.
const HEAD_BYTES: u64 = 64 << 10;

/// Where a stream without offsets begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first byte of every file: the directory came while we were watching.
    Beginning,
    /// As configured for a stream that was never seen.
    Configured(StartFrom),
    /// At this block: its events are in the store, its offsets are not.
    Block(u64),
    /// At the line that this byte belongs to; all files before it are behind us.
    At { file: HourFile, offset: u64 },
}

/// Chooses the offset of every file that does not begin at 0.
pub fn choose(
    start: Start,
    form: Form,
    directory: &Path,
    files: &[HourFile],
) -> io::Result<Vec<(HourFile, u64)>> {
    let first = match start {
        Start::Beginning | Start::Configured(StartFrom::Oldest) => return Ok(Vec::new()),
        Start::Configured(StartFrom::Now) => newest(form, directory, files)?,
        Start::Configured(StartFrom::Hour { day, hour }) => Some((HourFile { day, hour }, 0)),
        Start::Block(block) => seek(block, directory, files)?,
        // One that was removed meanwhile was older than all that is there, or there is none.
        Start::At { file, offset } if files.contains(&file) => {
            Some((file, align(form, directory, files, file, offset)?))
        }
        Start::At { file, .. } => Some((file, 0)),
    };
    let Some((file, offset)) = first else { return Ok(Vec::new()) };
    let mut places = Vec::new();
    for &earlier in files.iter().take_while(|&&earlier| earlier < file) {
        // Not its size: a line that is unfinished now may be finished later.
        places.push((earlier, last_line_end(&File::open(earlier.path(directory))?)?));
    }
    places.push((file, offset));
    places.retain(|&(_, offset)| offset > 0);
    Ok(places)
}

/// The end of what is there; for streaming files the first line of the last block.
fn newest(form: Form, directory: &Path, files: &[HourFile]) -> io::Result<Option<(HourFile, u64)>> {
    let mut place = None;
    let mut last_block = None;
    for &hour_file in files.iter().rev() {
        let file = File::open(hour_file.path(directory))?;
        let mut offset = last_line_end(&file)?;
        if form == Form::ByBlock {
            return Ok(Some((hour_file, offset)));
        }
        while offset > 0 {
            let start = line_start(&file, offset - 1)?;
            match (block_number(&file, start, offset)?, last_block) {
                // Nothing but garbage so far.
                (None, None) => {}
                (Some(block), None) => last_block = Some(block),
                (Some(block), Some(last)) if block == last => {}
                _ => return Ok(Some((hour_file, offset))),
            }
            offset = start;
        }
        // The block may have begun in the file before.
        place = Some((hour_file, 0));
    }
    Ok(place)
}

/// The first line whose block is not below `block`.
fn seek(block: u64, directory: &Path, files: &[HourFile]) -> io::Result<Option<(HourFile, u64)>> {
    for &hour_file in files.iter().rev() {
        let file = File::open(hour_file.path(directory))?;
        let end = last_line_end(&file)?;
        let Some((first, _)) = next_block(&file, 0, end)? else { continue };
        if first < block {
            return Ok(Some((hour_file, bisect(&file, block, end)?)));
        }
    }
    Ok(None)
}

/// Finds a line at which the blocks of a file reach `block`. After a rewind there may be several
/// such lines; the blocks above `block` stand behind each of them.
fn bisect(file: &File, block: u64, end: u64) -> io::Result<u64> {
    // Both are always starts of lines.
    let (mut low, mut high) = (0, end);
    while low < high {
        let start = line_start(file, low + (high - low) / 2)?;
        match next_block(file, start, high)? {
            Some((number, line_end)) if number < block => low = line_end,
            _ => high = start,
        }
    }
    Ok(low)
}

/// The block of the first line from `start` on that has one, and where that line ends.
fn next_block(file: &File, mut start: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    while start < end {
        let line_end = line_end(file, start, end)?;
        if let Some(number) = block_number(file, start, line_end)? {
            return Ok(Some((number, line_end)));
        }
        start = line_end;
    }
    Ok(None)
}

/// Moves a position that another program stored back to the start of a line; in streaming files to
/// the first line of its block within the file.
fn align(
    form: Form,
    directory: &Path,
    files: &[HourFile],
    hour_file: HourFile,
    offset: u64,
) -> io::Result<u64> {
    let file = File::open(hour_file.path(directory))?;
    let size = file.metadata()?.len();
    let place = line_start(&file, offset.min(size))?;
    if form == Form::ByBlock || place == 0 {
        return Ok(place);
    }
    let before = block_number(&file, line_start(&file, place - 1)?, place)?;
    let Some(block) = before else { return Ok(place) };
    let known = files.iter().copied().filter(|known| *known == hour_file).collect::<Vec<_>>();
    let first = seek(block, directory, &known)?;
    Ok(first.map_or(0, |(_, offset)| offset))
}

/// The digest of a place that is known to be the start of a line.
pub fn digest_at(path: &PathBuf, offset: u64) -> io::Result<u64> {
    Ok(xxh3_64(&read_before(&File::open(path)?, offset)?))
}

/// Where the last whole line ends.
fn last_line_end(file: &File) -> io::Result<u64> {
    line_start(file, file.metadata()?.len())
}

/// The start of the line that the byte at `offset` belongs to.
fn line_start(file: &File, offset: u64) -> io::Result<u64> {
    let mut end = offset;
    while end > 0 {
        let start = end.saturating_sub(STEP_BYTES);
        let step = read(file, start, end)?;
        if let Some(newline) = memrchr(b'\n', &step) {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The end of the line that begins at `start`, its newline included.
fn line_end(file: &File, start: u64, end: u64) -> io::Result<u64> {
    let mut at = start;
    while at < end {
        let step = read(file, at, end.min(at + STEP_BYTES))?;
        if let Some(newline) = memchr(b'\n', &step) {
            return Ok(at + newline as u64 + 1);
        }
        at += step.len() as u64;
    }
    Ok(end)
}

/// The block number of a line; of its last envelope when a crash glued two.
fn block_number(file: &File, start: u64, end: u64) -> io::Result<Option<u64>> {
    const KEY: &[u8] = br#""block_number":"#;
    let head = read(file, start, end.min(start + HEAD_BYTES))?;
    let envelope = memmem::rfind(&head, br#"{"local_time""#).unwrap_or(0);
    let envelope = &head[envelope..];
    let Some(key) = memmem::find(envelope, KEY) else { return Ok(None) };
    let digits = envelope[key + KEY.len()..].trim_ascii_start();
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&digits[..length]).ok().and_then(|number| number.parse().ok());
    // What the parser refuses must not mislead the search either.
    Ok(number.filter(|&number| number <= MAX_POSITION))
}

fn read(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (end - start) as usize];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const DAY: u32 = 20_260_315;

    fn line(block: u64) -> String {
        format!(
            "{{\"local_time\":\"t\",\"block_time\":\"t\",\"block_number\":{block},\"events\":[]}}\n"
        )
    }

    /// A stream directory with one file for each content, hours 0, 1, ...
    fn stream(contents: &[&str]) -> (TempDir, Vec<HourFile>) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join(format!("hourly/{DAY}"))).unwrap();
        let mut files = Vec::new();
        for (hour, content) in (0..).zip(contents) {
            let file = HourFile { day: DAY, hour };
            fs::write(file.path(directory.path()), content).unwrap();
            files.push(file);
        }
        (directory, files)
    }

    fn chosen(start: Start, form: Form, contents: &[&str]) -> Vec<(u8, u64)> {
        let (directory, files) = stream(contents);
        let places = choose(start, form, directory.path(), &files).unwrap();
        places.into_iter().map(|(file, offset)| (file.hour, offset)).collect()
    }

    const NOW: Start = Start::Configured(StartFrom::Now);

    #[test]
    fn now_is_the_end_of_the_newest_file_at_the_start_of_a_line() {
        let whole = line(1) + &line(2);
        let torn = format!("{whole}{{\"local_ti");

        let places = chosen(NOW, Form::ByBlock, &[&torn, &torn]);

        // Also of the older one: its unfinished line may still be finished.
        assert_eq!(places, [(0, whole.len() as u64), (1, whole.len() as u64)]);
    }

    #[test]
    fn now_in_streaming_files_is_the_first_line_of_the_last_block() {
        let first = line(6);
        let file = [line(6), line(7), line(7), line(7), "{\"torn".into()].concat();

        assert_eq!(chosen(NOW, Form::Streaming, &[&file]), [(0, first.len() as u64)]);
    }

    #[test]
    fn a_last_block_that_began_in_the_file_before_is_read_from_there() {
        let before = line(6).len() as u64;
        let old = [line(6), line(7)].concat();

        for new in [[line(7), line(7)].concat(), String::new(), "{\"torn".into()] {
            assert_eq!(chosen(NOW, Form::Streaming, &[&old, &new]), [(0, before)], "{new:?}");
        }
        let new = [line(8), line(8)].concat();
        assert_eq!(chosen(NOW, Form::Streaming, &[&old, &new]), [(0, old.len() as u64)]);
    }

    #[test]
    fn oldest_and_a_directory_that_came_later_begin_at_zero() {
        let file = line(1);

        let oldest = Start::Configured(StartFrom::Oldest);
        assert!(chosen(oldest, Form::ByBlock, &[&file]).is_empty());
        assert!(chosen(Start::Beginning, Form::ByBlock, &[&file]).is_empty());
        assert!(chosen(NOW, Form::Streaming, &[]).is_empty());
    }

    #[test]
    fn an_hour_begins_with_the_first_file_at_or_after_it() {
        let end = line(1).len() as u64;
        let from = |hour| Start::Configured(StartFrom::Hour { day: DAY, hour });

        let files = [line(1), line(2)];
        let files = [files[0].as_str(), files[1].as_str()];
        assert_eq!(chosen(from(1), Form::ByBlock, &files), [(0, end)]);
        assert!(chosen(from(0), Form::ByBlock, &files).is_empty());
        // Later than anything there is: all of it lies before.
        assert_eq!(chosen(from(9), Form::ByBlock, &files)[..2], [(0, end), (1, end)]);
    }

    #[test]
    fn a_block_is_found_wherever_it_stands() {
        let files: Vec<String> = [(10..20), (20..30), (30..40)]
            .map(|blocks| blocks.map(line).collect::<String>() + "{\"local_ti")
            .to_vec();
        let contents: Vec<&str> = files.iter().map(String::as_str).collect();
        let length = line(10).len() as u64;

        for block in 11..40 {
            let places = chosen(Start::Block(block), Form::ByBlock, &contents);
            let expected: Vec<(u8, u64)> = (0..3)
                .map(|hour: u8| {
                    (hour, length * (block - 10).saturating_sub(10 * u64::from(hour)).min(10))
                })
                .filter(|&(_, offset)| offset > 0)
                .collect();
            assert_eq!(places, expected, "block {block}");
        }
        assert!(chosen(Start::Block(3), Form::ByBlock, &contents).is_empty());
        assert_eq!(
            chosen(Start::Block(99), Form::ByBlock, &contents).last(),
            Some(&(2, 10 * length))
        );
    }

    #[test]
    fn lines_without_a_block_do_not_mislead_the_search() {
        let good: String = (10..20).map(line).collect();
        let garbage = "\0\0\0 not a block\n".repeat(50);
        let file = [good.clone(), garbage, (20..30).map(line).collect()].concat();

        let places = chosen(Start::Block(15), Form::ByBlock, &[&file]);

        assert_eq!(places, [(0, line(10).len() as u64 * 5)]);
    }

    // H18
    #[test]
    fn an_imported_position_in_mid_line_moves_back_to_the_line() {
        let file = "first\nsecond\nthird";
        let at = |hour, offset| Start::At { file: HourFile { day: DAY, hour }, offset };

        for (imported, aligned) in [(0, 0), (3, 0), (6, 6), (9, 6), (13, 13), (99, 13)] {
            let places = chosen(at(1, imported), Form::ByBlock, &[file, file, file]);
            let mut expected = vec![(0, 13), (1, aligned)];
            expected.retain(|(_, offset)| *offset > 0);
            assert_eq!(places, expected, "{imported}");
        }
        // All that is left is newer.
        assert_eq!(chosen(at(7, 3), Form::ByBlock, &[file]), [(0, 13)]);
    }

    #[test]
    fn an_imported_position_in_streaming_files_moves_back_to_the_first_line_of_its_block() {
        let lines = [line(6), line(7), line(7), line(8)];
        let file = lines.concat();
        let (first, length) = (lines[0].len() as u64, lines[1].len() as u64);
        let at = |offset| Start::At { file: HourFile { day: DAY, hour: 0 }, offset };

        for (imported, aligned) in [
            (first + 1, 0),
            (first + length, first),
            (first + length + 5, first),
            (first + 2 * length, first),
            (file.len() as u64, first + 2 * length),
        ] {
            let places = chosen(at(imported), Form::Streaming, &[&file]);
            let expected: Vec<_> = [(0, aligned)].into_iter().filter(|place| place.1 > 0).collect();
            assert_eq!(places, expected, "{imported}");
        }
    }
}
