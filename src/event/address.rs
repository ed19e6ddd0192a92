//! The address of a user: 20 bytes, written `0x` and 40 hexadecimal digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A user's address. Text of any case gives the same value; it is printed in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u8; 20]);

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is 0x and 40 hexadecimal digits")]
pub struct AddressError;

impl Address {
    /// Length of the text form in bytes.
    pub const TEXT_LEN: usize = 42;

    /// Reads the text form from raw bytes, in any case.
    pub fn parse(text: &[u8]) -> Result<Self, AddressError> {
        let digits = match text {
            [b'0', b'x' | b'X', digits @ ..] if digits.len() == 40 => digits,
            _ => return Err(AddressError),
        };
        let mut bytes = [0; 20];
        // One test at the end instead of one a digit: this runs for every event of the chain.
        let mut invalid = 0;
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let (high, low) = (NIBBLE[pair[0] as usize], NIBBLE[pair[1] as usize]);
            invalid |= high | low;
            *byte = high << 4 | (low & 0x0f);
        }
        if invalid & 0xf0 == 0 { Ok(Self(bytes)) } else { Err(AddressError) }
    }
}

/// The value of each hexadecimal digit; 0xff for all other bytes.
const NIBBLE: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; Self::TEXT_LEN];
        text[..2].copy_from_slice(b"0x");
        for (byte, pair) in self.0.iter().zip(text[2..].as_chunks_mut::<2>().0) {
            *pair = [
                b"0123456789abcdef"[(byte >> 4) as usize],
                b"0123456789abcdef"[(byte & 0x0f) as usize],
            ];
        }
        f.write_str(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_of_the_text_is_the_same_address() {
        let lower = "0x010461c14e146ac35fe42271bdc1134ee31c703a";

        let upper: Address = "0X010461C14E146AC35FE42271BDC1134EE31C703A".parse().unwrap();

        assert_eq!(upper, lower.parse().unwrap());
        assert_eq!(upper.to_string(), lower);
    }

    #[test]
    fn what_is_not_forty_digits_is_refused() {
        for text in [
            "",
            "0x",
            "010461c14e146ac35fe42271bdc1134ee31c703a",
            &format!("0x{}g", "0".repeat(39)),
        ] {
            assert_eq!(text.parse::<Address>(), Err(AddressError), "{text}");
        }
    }
}
