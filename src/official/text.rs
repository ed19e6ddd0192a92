//! Strings of a body, as they are written there.

use std::ops::Range;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;

use crate::event::Address;

/// A JSON string: what stands between its quotes, escapes included. Nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Text<'b>(&'b str);

impl<'b> Text<'b> {
    /// As it is written: put between quotes it is the same JSON string again.
    pub fn as_written(self) -> &'b str {
        self.0
    }

    /// The address that it is. Nobody escapes hexadecimal digits, so escapes are not looked at.
    pub fn address(self) -> Option<Address> {
        Address::parse(self.0.as_bytes()).ok()
    }

    /// Where it stands in the body from which it was read.
    pub(super) fn place_in(self, body: &[u8]) -> Option<Range<usize>> {
        let start = (self.0.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
        let end = start + self.0.len();
        (end <= body.len()).then_some(start..end)
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Text<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        let text = raw.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        text.map(Self).ok_or_else(|| D::Error::custom("not a string"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_escapes_and_knows_its_place() {
        let body = br#"["a","O\u0027Brien \"x\""]"#;

        let [_, text]: [Text<'_>; 2] = serde_json::from_slice(body).unwrap();

        assert_eq!(text.as_written(), r#"O\u0027Brien \"x\""#);
        assert_eq!(&body[text.place_in(body).unwrap()], text.as_written().as_bytes());
        assert_eq!(text.place_in(b"elsewhere"), None);
    }

    #[test]
    fn what_is_no_string_is_refused() {
        for json in ["1", "null", "[\"a\"]", "true", "{}"] {
            assert!(serde_json::from_str::<Text<'_>>(json).is_err(), "{json}");
        }
    }
}
