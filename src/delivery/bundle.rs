//! Frames that several sessions get one behind the other, in one piece.
//!
//! Place in the pipeline: made by a shard, queued in the outboxes of its sessions, written as one.
//! Invariant: its bytes are those of whole frames, in their order.

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

    /// All frames, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn frame_count(&self) -> usize {
        self.ends.len()
    }

    /// The frames, each as a part of the whole, which stays as long as any of them.
    pub fn frames(&self) -> impl Iterator<Item = Bytes> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| self.bytes.slice(begin..end))
    }

    /// How many frames end within so many bytes from the beginning, and where the last of them does.
    pub fn whole_frames(&self, bytes: usize) -> (usize, usize) {
        let count = self.ends.partition_point(|end| *end <= bytes);
        (count, count.checked_sub(1).map_or(0, |last| self.ends[last]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_its_frames_and_knows_where_each_ends() {
        let frames = [&b"one"[..], b"three", b"x"].map(Bytes::from_static);

        let bundle = Bundle::new(&frames);

        assert_eq!((bundle.bytes(), bundle.frame_count()), (&b"onethreex"[..], 3));
        assert!(bundle.frames().eq(frames));
        let whole: Vec<_> = (0..=9).map(|bytes| bundle.whole_frames(bytes)).collect();
        let expected =
            [(0, 0), (0, 0), (0, 0), (1, 3), (1, 3), (1, 3), (1, 3), (1, 3), (2, 8), (3, 9)];
        assert_eq!(whole, expected);
    }
}
