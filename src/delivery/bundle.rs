//! Frames that several sessions get one behind the other, in one piece.
//!
//! Place in the pipeline: made by a shard, queued in the outboxes of its sessions, written as one.
//! Invariant: it is the frames in their order, whole ones.

use std::ops::Range;

use bytes::Bytes;

/// Frames in one piece.
#[derive(Debug)]
pub struct Bundle {
    bytes: Bytes,
    /// Where each frame ends.
    ends: Box<[usize]>,
}

impl Bundle {
    pub fn new(frames: &[Bytes]) -> Self {
        let mut end = 0;
        let ends = frames.iter().map(|frame| {
            end += frame.len();
            end
        });
        Self { ends: ends.collect(), bytes: frames.concat().into() }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many frames it has.
    pub fn frame_count(&self) -> usize {
        self.ends.len()
    }

    pub fn frames(&self) -> impl Iterator<Item = Bytes> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| self.bytes.slice(begin..end))
    }

    /// How many frames end within the first bytes of it, and where the one lies that ends beyond them and has
    /// begun within: nowhere, if there is none.
    pub fn cut(&self, bytes: usize) -> (usize, Range<usize>) {
        let whole = self.ends.partition_point(|end| *end <= bytes);
        let begin = whole.checked_sub(1).map_or(0, |last| self.ends[last]);
        let end = if begin < bytes { self.ends[whole] } else { begin };
        (whole, begin..end)
    }

    pub fn slice(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_tells_the_frames_before_it_and_the_one_it_goes_through() {
        let frames = [&b"one"[..], b"three", b"x"].map(Bytes::from_static);

        let bundle = Bundle::new(&frames);

        assert_eq!(bundle.bytes(), b"onethreex");
        assert!(bundle.frames().eq(frames));
        let cuts: Vec<_> = (0..=9).map(|bytes| bundle.cut(bytes)).collect();
        let expected = [
            (0, 0..0),
            (0, 0..3),
            (0, 0..3),
            (1, 3..3),
            (1, 3..8),
            (1, 3..8),
            (1, 3..8),
            (1, 3..8),
            (2, 8..8),
            (3, 9..9),
        ];
        assert_eq!(cuts, expected);
    }
}
