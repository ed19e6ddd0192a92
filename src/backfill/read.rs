//! Reads one hour file, plain or packed, in chunks of whole lines.
//!
//! Invariants: one chunk and one unfinished line are in memory; what was handed on before a damage
//! stays good.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use bytes::Bytes;
use lz4_flex::frame::FrameDecoder;
use memchr::{memchr, memrchr};
use serde::de::IgnoredAny;

/// Bytes of a chunk: a few milliseconds of parsing.
const CHUNK_BYTES: usize = 256 << 10;

/// A frame has at least its magic number and its descriptor.
const MIN_FRAME_BYTES: u64 = 7;

/// Whole lines.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Of the first byte, in the unpacked file.
    pub offset: u64,
    pub lines: Bytes,
    /// Lines that were longer than a line may be.
    pub oversized: u64,
}

/// One open file.
pub struct LineReader {
    source: Source,
    /// Of `pending`, in the unpacked file.
    offset: u64,
    /// Bytes from `offset` on that were read and not handed on.
    pending: Vec<u8>,
    /// Within a line that is too long.
    skipping: bool,
    max_line_bytes: usize,
    ended: bool,
}

enum Source {
    Plain { file: io::Take<File>, start: u64, length: u64 },
    Packed { decoder: Box<FrameDecoder<Counted>>, size: u64 },
}

/// A file that counts what was read of it.
struct Counted {
    file: File,
    read: u64,
    /// Whether more was asked for than there is. The decoder takes an archive that is cut off between
    /// two blocks for one that has ended; but of a whole one it asks for no more than its end.
    wanted_more: bool,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read += read as u64;
        self.wanted_more |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

impl LineReader {
    /// Reads a file from an offset up to another one, or to its end as it is now.
    pub fn plain(path: &Path, from: u64, to: Option<u64>, max_line: usize) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let length = to.unwrap_or(size).min(size).saturating_sub(from);
        file.seek(SeekFrom::Start(from))?;
        Ok(Self::new(
            Source::Plain { file: file.take(length), start: from, length },
            from,
            max_line,
        ))
    }

    /// Reads an LZ4 archive from its start.
    pub fn packed(path: &Path, max_line: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        if size < MIN_FRAME_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it is too short for an LZ4 archive: fetch it again",
            ));
        }
        let decoder = Box::new(FrameDecoder::new(Counted { file, read: 0, wanted_more: false }));
        Ok(Self::new(Source::Packed { decoder, size }, 0, max_line))
    }

    fn new(source: Source, offset: u64, max_line_bytes: usize) -> Self {
        Self { source, offset, pending: Vec::new(), skipping: false, max_line_bytes, ended: false }
    }

    /// Bytes of the file, as it lies there, that were read: of a packed one those of the archive.
    pub fn position(&self) -> u64 {
        match &self.source {
            Source::Plain { file, start, length } => start + length - file.limit(),
            Source::Packed { decoder, .. } => decoder.get_ref().read,
        }
    }

    /// Reads the next chunk; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or its archive is damaged behind [`Self::position`].
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let mut chunk = Chunk { offset: self.offset, ..Chunk::default() };
        while !self.ended {
            let before = self.pending.len();
            self.pending.resize(before + CHUNK_BYTES, 0);
            let read = self.source.read(&mut self.pending[before..]);
            self.pending.truncate(before + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                self.ended = true;
                break;
            }
            if self.skipping && !self.skip(before) {
                continue;
            }
            if let Some(last) = memrchr(b'\n', &self.pending) {
                let rest = self.pending.split_off(last + 1);
                chunk.lines = std::mem::replace(&mut self.pending, rest).into();
                chunk.offset = self.offset;
                self.offset += chunk.lines.len() as u64;
                return Ok(Some(chunk));
            }
            if self.pending.len() > self.max_line_bytes {
                chunk.oversized += 1;
                self.skipping = true;
                self.offset += self.pending.len() as u64;
                self.pending.clear();
            }
        }
        // The last line of a file that is complete can lack its newline.
        let rest = std::mem::take(&mut self.pending);
        let whole = !self.skipping
            && rest.first() == Some(&b'{')
            && serde_json::from_slice::<IgnoredAny>(&rest).is_ok();
        chunk.offset = self.offset;
        if whole {
            self.offset += rest.len() as u64;
            chunk.lines = rest.into();
        }
        Ok((whole || chunk.oversized > 0).then_some(chunk))
    }

    /// Looks for the end of a line that is too long, in what was just read. Tells whether it came.
    fn skip(&mut self, from: usize) -> bool {
        let end = memchr(b'\n', &self.pending[from..]).map(|newline| from + newline + 1);
        let passed = end.unwrap_or(self.pending.len());
        self.pending.drain(..passed);
        self.offset += passed as u64;
        self.skipping = end.is_none();
        !self.skipping
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain { file, .. } => file.read(buffer),
            Self::Packed { decoder, size } => loop {
                let read = decoder.read(buffer).map_err(damaged)?;
                if read > 0 {
                    return Ok(read);
                }
                let Counted { read, wanted_more, .. } = decoder.get_ref();
                if *wanted_more {
                    return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
                }
                if read >= size {
                    return Ok(0);
                }
                // The end of a frame, and another one follows.
            },
        }
    }
}

/// What the decoder found, in the words of who has to mend it: its own are about blocks and checksums.
/// A disk that cannot be read says so itself.
fn damaged(error: io::Error) -> io::Error {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the LZ4 archive is cut off here: fetch it again",
        io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            "the LZ4 archive is damaged here, or none (`lz4 -t FILE` looks at all of it): fetch it \
             again, or unpack it"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), what)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use lz4_flex::frame::FrameEncoder;

    use super::*;

    fn pack(content: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::new(Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn lines_of(reader: &mut LineReader) -> (String, u64) {
        let (mut lines, mut oversized) = (Vec::new(), 0);
        while let Some(chunk) = reader.next_chunk().unwrap() {
            oversized += chunk.oversized;
            lines.extend_from_slice(&chunk.lines);
        }
        (String::from_utf8(lines).unwrap(), oversized)
    }

    #[test]
    fn plain_and_packed_files_give_the_same_lines_and_several_frames_are_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let text: String = (0..60_000).map(|line| format!("{{\"line\":{line}}}\n")).collect();
        let (plain, packed) = (directory.path().join("7"), directory.path().join("7.lz4"));
        fs::write(&plain, &text).unwrap();
        let half = text.len() / 2;
        let frames = [pack(&text.as_bytes()[..half]), pack(&text.as_bytes()[half..])].concat();
        fs::write(&packed, &frames).unwrap();

        let mut readers = [LineReader::plain(&plain, 0, None, 99), LineReader::packed(&packed, 99)]
            .map(Result::unwrap);

        for reader in &mut readers {
            assert_eq!(lines_of(reader), (text.clone(), 0));
        }
        assert_eq!(readers[0].position(), text.len() as u64);
        assert_eq!(readers[1].position(), frames.len() as u64);
        let mut part = LineReader::plain(&plain, 11, Some(33), 99).unwrap();
        assert_eq!(lines_of(&mut part).0, text[11..33]);
    }

    #[test]
    fn a_last_line_without_its_newline_counts_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7");
        for (last, expected) in [("{\"a\":1}", "x\n{\"a\":1}"), ("{\"a\":", "x\n"), ("a", "x\n")] {
            fs::write(&path, format!("x\n{last}")).unwrap();
            let mut reader = LineReader::plain(&path, 0, None, 99).unwrap();
            assert_eq!(lines_of(&mut reader).0, expected);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7");
        let long = "x".repeat(3 * CHUNK_BYTES);
        fs::write(&path, format!("a\n{long}\nb\n{long}")).unwrap();

        let mut reader = LineReader::plain(&path, 0, None, CHUNK_BYTES).unwrap();

        let (lines, oversized) = lines_of(&mut reader);
        assert_eq!((lines.as_str(), oversized), ("a\nb\n", 2));
    }

    #[test]
    fn a_damaged_archive_is_an_error_wherever_it_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7.lz4");
        let text: String = (0..20_000).map(|line| format!("{{\"line\":{line}}}\n")).collect();
        let packed = pack(text.as_bytes());
        let mut cuts: Vec<Vec<u8>> =
            [0, 4, 9, packed.len() / 3, packed.len() - 1].map(|end| packed[..end].to_vec()).into();
        cuts.push([packed.clone(), b"garbage that is no frame".to_vec()].concat());
        cuts.extend((7..packed.len()).step_by(997).map(|end| packed[..end].to_vec()));
        for damaged in cuts {
            fs::write(&path, &damaged).unwrap();

            let read = LineReader::packed(&path, 99).and_then(|mut reader| {
                while reader.next_chunk()?.is_some() {}
                Ok(())
            });

            let Err(said) = read.map_err(|error| error.to_string()) else {
                panic!("{} of {} bytes", damaged.len(), packed.len());
            };
            assert!(said.contains("LZ4 archive") && said.contains("fetch it again"), "{said}");
        }
    }
}
