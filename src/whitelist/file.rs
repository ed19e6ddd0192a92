//! The list as a file: one address a line, `#` starts a comment.
//!
//! Invariant: a file is used as a whole or not at all; every bad line is named in the fault.

use std::{fmt, fs, io, path::Path};

use ahash::HashSet;

use crate::event::Address;

/// Bad lines of which a message shows the text. Their number is always told.
const SHOWN_LINES: usize = 20;

/// Characters of a bad line that are shown.
const SHOWN_CHARS: usize = 60;

/// Longest file that is read: more than 20 million addresses. Beyond it the path is a mistake.
const MAX_BYTES: u64 = 1 << 30;

/// What a file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ListFile {
    pub addresses: HashSet<Address>,
    /// Lines whose address stands further up as well.
    pub duplicates: usize,
}

/// Why a file gave no list.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("{0}")]
    BadLines(BadLines),
}

/// The lines that are no addresses; shown in bounded length.
#[derive(Debug, Default)]
pub struct BadLines {
    /// Number, counted from 1, of every bad line.
    pub numbers: Vec<usize>,
    /// The text of the first ones.
    shown: Vec<String>,
}

impl fmt::Display for BadLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.numbers.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} bad line{plural}, an address is 0x and 40 hexadecimal digits: ")?;
        for (ordinal, (number, text)) in self.numbers.iter().zip(&self.shown).enumerate() {
            let separator = if ordinal > 0 { ", " } else { "" };
            write!(f, "{separator}line {number}: {text:?}")?;
        }
        if self.numbers.len() > self.shown.len() {
            f.write_str(", and more")?;
        }
        Ok(())
    }
}

/// Reads a file.
pub fn read(path: &Path) -> Result<ListFile, FileFault> {
    // A pipe or a device could block for ever or never end.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file").into());
    }
    if metadata.len() > MAX_BYTES {
        return Err(FileFault::TooLong);
    }
    parse(&fs::read(path)?).map_err(FileFault::BadLines)
}

/// Reads the content of a file. Any case, white space around an address, CRLF and a byte order
/// mark are fine.
pub fn parse(content: &[u8]) -> Result<ListFile, BadLines> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let (mut list, mut bad) = (ListFile::default(), BadLines::default());
    for (line, number) in content.split(|byte| *byte == b'\n').zip(1..) {
        let text = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if text.is_empty() {
            continue;
        }
        match Address::parse(text) {
            Ok(address) => list.duplicates += usize::from(!list.addresses.insert(address)),
            Err(_) => {
                bad.numbers.push(number);
                if bad.shown.len() < SHOWN_LINES {
                    let text = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN_CHARS)]);
                    bad.shown.push(text.chars().take(SHOWN_CHARS).collect());
                }
            }
        }
    }
    if bad.numbers.is_empty() { Ok(list) } else { Err(bad) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0x010461c14e146ac35fe42271bdc1134ee31c703a";
    const TWO: &str = "0x727956612a8700627451204a3ae26268bd1a1525";

    // H25
    #[test]
    fn comments_white_space_case_and_line_ends_do_not_matter() {
        let upper = TWO.to_uppercase();
        let content =
            format!("\u{feff}# ours\r\n\r\n  {ONE}\t# first\r\n{upper}\n\n{ONE}\n   # end");

        let list = parse(content.as_bytes()).unwrap();

        assert_eq!(
            list.addresses,
            [ONE, TWO].map(|text| text.parse().unwrap()).into_iter().collect()
        );
        assert_eq!(list.duplicates, 1);
    }

    #[test]
    fn every_bad_line_is_named() {
        let content = format!("{ONE}\nnobody\n# x\n{}\n{TWO} {ONE}\n\u{fffd}\u{1}", &ONE[..41]);

        let bad = parse(content.as_bytes()).unwrap_err();

        assert_eq!(bad.numbers, [2, 4, 5, 6]);
        assert!(bad.to_string().starts_with("4 bad lines, "), "{bad}");
        assert!(bad.to_string().contains("line 2: \"nobody\""), "{bad}");

        let bad = parse(format!("{ONE}\nnobody\n{TWO}").as_bytes()).unwrap_err();

        let said = "1 bad line, an address is 0x and 40 hexadecimal digits: line 2: \"nobody\"";
        assert_eq!(bad.to_string(), said);
    }

    #[test]
    fn the_message_about_a_file_of_garbage_is_bounded() {
        let bad = parse("ä".repeat(5_000).as_bytes()).unwrap_err();
        assert_eq!(bad.shown[0].chars().count(), SHOWN_CHARS);

        let bad = parse("bad line\n".repeat(100_000).as_bytes()).unwrap_err();
        assert_eq!(bad.numbers.len(), 100_000);
        assert!(bad.to_string().len() < 2_000);
    }

    #[test]
    fn what_is_no_file_is_a_fault() {
        let directory = tempfile::tempdir().unwrap();

        assert!(matches!(read(directory.path()), Err(FileFault::Io(_))));
        assert!(matches!(read(&directory.path().join("absent")), Err(FileFault::Io(_))));
    }
}
