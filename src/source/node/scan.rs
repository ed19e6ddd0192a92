//! Finds the brackets of JSON that stand outside of strings, 64 bytes at a time.
//!
//! Place in the pipeline: the bottom of the `Parser`; everything that is skipped unread is skipped
//! here. A block of 64 bytes becomes three bit masks (quotes, backslashes, brackets); which bits lie
//! inside a string is the running parity of the unescaped quotes, a prefix XOR. The technique is
//! that of simdjson (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 2019).
//!
//! Why not a library: `memchr` stops at each hit, and JSON has a quote every eight bytes, so it is
//! slower than the masks by far. The SIMD parsers decode or index every value, which costs more
//! than the whole scan here, and need compiler flags to be fast at all. SSE2 is part of every
//! x86_64, so nothing is detected at run time; other machines take the portable classifier, which
//! gives the same masks (a property test compares them).
//!
//! Invariant: for valid JSON exactly the brackets outside of strings are found. For other bytes
//! the positions may be anything, but they rise strictly and each holds a bracket.

/// Bytes that one step looks at: as many as a mask has bits.
const BLOCK_BYTES: usize = 64;

/// One bit for each byte of a block, the first byte lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Masks {
    quotes: u64,
    backslashes: u64,
    /// `[`, `]`, `{` and `}`.
    brackets: u64,
}

/// Iterates over the positions of brackets outside of strings.
pub struct Brackets<'a> {
    bytes: &'a [u8],
    /// Where the block of `pending` starts.
    block: usize,
    /// Where the next block starts.
    next_block: usize,
    /// Brackets of the current block that were not handed out.
    pending: u64,
    /// All ones while the next block starts inside a string.
    in_string: u64,
    /// 1 when the first byte of the next block is escaped by the last one of this.
    escape_carry: u64,
}

impl<'a> Brackets<'a> {
    /// Starts at `from`, which lies outside of any string.
    pub fn new(bytes: &'a [u8], from: usize) -> Self {
        Self { bytes, block: from, next_block: from, pending: 0, in_string: 0, escape_carry: 0 }
    }

    /// Classifies the next block; `false` at the end.
    #[inline]
    fn load(&mut self) -> bool {
        let Some(rest) = self.bytes.get(self.next_block..) else { return false };
        let masks = match rest.first_chunk::<BLOCK_BYTES>() {
            Some(block) => classify(block),
            None if rest.is_empty() => return false,
            None => {
                let mut block = [0; BLOCK_BYTES];
                block[..rest.len()].copy_from_slice(rest);
                classify(&block)
            }
        };
        let quotes = masks.quotes & !self.escaped(masks.backslashes);
        let in_string = prefix_xor(quotes) ^ self.in_string;
        // The state after the last byte, spread over all bits.
        self.in_string = ((in_string as i64) >> 63) as u64;
        self.pending = masks.brackets & !in_string;
        self.block = self.next_block;
        self.next_block += BLOCK_BYTES;
        true
    }

    /// Which bytes of the block follow an odd run of backslashes.
    #[inline]
    fn escaped(&mut self, backslashes: u64) -> u64 {
        if backslashes == 0 {
            return std::mem::take(&mut self.escape_carry);
        }
        // Subtraction runs through each series of backslashes at once: every second byte of it is
        // an escape, and the borrow marks whether the byte behind it is escaped.
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let may_escape = backslashes & !self.escape_carry;
        let series = ((may_escape << 1) | ODD).wrapping_sub(may_escape);
        let escapes_and_ends = series ^ ODD;
        let escaped = escapes_and_ends ^ (backslashes | self.escape_carry);
        self.escape_carry = (escapes_and_ends & backslashes) >> 63;
        escaped
    }
}

impl Iterator for Brackets<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.pending == 0 {
            if !self.load() {
                return None;
            }
        }
        let bit = self.pending.trailing_zeros() as usize;
        self.pending &= self.pending - 1;
        Some(self.block + bit)
    }
}

/// Bit n of the result is the parity of the bits 0 to n.
#[inline]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn classify(block: &[u8; BLOCK_BYTES]) -> Masks {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };

    let mut masks = Masks { quotes: 0, backslashes: 0, brackets: 0 };
    for (quarter, bytes) in block.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: `bytes` are 16 readable bytes, the load needs no alignment, and SSE2 is part of
        // every x86_64 target.
        let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast::<__m128i>()) };
        // SAFETY: as above: these intrinsics need SSE2 only and touch no memory.
        let (quotes, backslashes, brackets) = unsafe {
            let equal = |bytes, byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
            // `[` and `{` differ in this bit only, `]` and `}` as well.
            let folded = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
            let brackets = _mm_or_si128(equal(folded, b'{'), equal(folded, b'}'));
            (
                _mm_movemask_epi8(equal(bytes, b'"')),
                _mm_movemask_epi8(equal(bytes, b'\\')),
                _mm_movemask_epi8(brackets),
            )
        };
        let shift = quarter * 16;
        masks.quotes |= u64::from(quotes as u16) << shift;
        masks.backslashes |= u64::from(backslashes as u16) << shift;
        masks.brackets |= u64::from(brackets as u16) << shift;
    }
    masks
}

#[cfg(not(target_arch = "x86_64"))]
use classify_portable as classify;

/// The same masks without intrinsics.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn classify_portable(block: &[u8; BLOCK_BYTES]) -> Masks {
    let mask = |wanted: fn(u8) -> bool| {
        block.iter().rev().fold(0, |mask, &byte| mask << 1 | u64::from(wanted(byte)))
    };
    Masks {
        quotes: mask(|byte| byte == b'"'),
        backslashes: mask(|byte| byte == b'\\'),
        brackets: mask(|byte| matches!(byte, b'[' | b']' | b'{' | b'}')),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One byte after the other, as one would write it without thought of speed.
    fn brackets_one_by_one(bytes: &[u8]) -> Vec<usize> {
        let (mut found, mut in_string, mut escaped) = (Vec::new(), false, false);
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'"' if !escaped => in_string = !in_string,
                b'[' | b']' | b'{' | b'}' if !in_string => found.push(at),
                _ => {}
            }
            escaped = byte == b'\\' && !escaped;
        }
        found
    }

    /// Mostly the bytes that matter, so that runs of backslashes cross the ends of blocks.
    fn dense_bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => Just(b'\\'),
            3 => Just(b'"'),
            3 => prop::sample::select(b"[]{}".to_vec()),
            1 => any::<u8>(),
        ];
        prop::collection::vec(byte, 0..400)
    }

    proptest! {
        #[test]
        fn the_intrinsics_and_the_portable_code_give_the_same_masks(bytes in any::<[u8; 32]>(), dense in dense_bytes()) {
            let mut block = [0; BLOCK_BYTES];
            block[..32].copy_from_slice(&bytes);
            let half = dense.len().min(32);
            block[32..32 + half].copy_from_slice(&dense[..half]);

            prop_assert_eq!(classify(&block), classify_portable(&block));
        }

        #[test]
        fn blocks_find_what_a_walk_byte_by_byte_finds(bytes in dense_bytes(), from in 0..70_usize) {
            let from = from.min(bytes.len());
            let expected: Vec<_> = brackets_one_by_one(&bytes[from..]).iter().map(|at| at + from).collect();

            prop_assert_eq!(Brackets::new(&bytes, from).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn every_byte_is_classified_alike() {
        for first in (0..=255).step_by(BLOCK_BYTES) {
            let block = std::array::from_fn(|at| (first + at) as u8);
            assert_eq!(classify(&block), classify_portable(&block));
        }
    }
}
