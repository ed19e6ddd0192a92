//! The cursor: where a client stands in the order of a store. Opaque to clients.

use std::{fmt, str::FromStr};

use super::Topic;

/// "Delivered up to here."
///
/// Its text is made of characters that need no escaping in URLs and headers:
/// `1.{epoch}.{run}.{seq}[.{topic}-{position}]*`, all numbers hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which store: drawn once when it is created.
    pub epoch: u64,
    /// Which run of the daemon: its start, microseconds since 1970.
    pub run: u64,
    pub seq: u64,
    /// Highest position of each topic at this point, so that another store can resume.
    pub positions: Vec<(Topic, u64)>,
}

/// Why a text is not a cursor of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this service")]
pub struct CursorError;

/// Version of the text form.
const VERSION: &str = "1";

impl Cursor {
    /// Reads a client's text. Positions of topics that are not `known` are left out, so that a
    /// client cannot make the program remember names.
    pub fn parse(text: &str, known: &[Topic]) -> Result<Self, CursorError> {
        let mut parts = text.split('.');
        if parts.next() != Some(VERSION) {
            return Err(CursorError);
        }
        let mut number = || hex(parts.next().ok_or(CursorError)?);
        let (epoch, run, seq) = (number()?, number()?, number()?);
        let mut positions = Vec::new();
        for part in parts {
            let (name, position) = part.rsplit_once('-').ok_or(CursorError)?;
            let position = hex(position)?;
            if let Some(&topic) = known.iter().find(|topic| topic.as_str() == name) {
                positions.push((topic, position));
            }
        }
        Ok(Self { epoch, run, seq, positions })
    }

    /// How far a topic had come; `None` when it had not begun.
    pub fn position(&self, topic: Topic) -> Option<u64> {
        position_of(&self.positions, topic)
    }
}

/// The position of one topic among those of several.
pub fn position_of(positions: &[(Topic, u64)], topic: Topic) -> Option<u64> {
    positions.iter().find(|(known, _)| *known == topic).map(|(_, position)| *position)
}

fn hex(text: &str) -> Result<u64, CursorError> {
    // `from_str_radix` would also take a sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CursorError);
    }
    u64::from_str_radix(text, 16).map_err(|_| CursorError)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}.{:x}.{:x}.{:x}", self.epoch, self.run, self.seq)?;
        self.positions.iter().try_for_each(|(topic, position)| write!(f, ".{topic}-{position:x}"))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    /// Reads a text without its positions, which is enough within the same store.
    fn from_str(text: &str) -> Result<Self, CursorError> {
        Self::parse(text, &[])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOPICS: [Topic; 2] = [Topic::new("fills"), Topic::new("a-b")];

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(epoch: u64, run: u64, seq: u64, fills: u64, other: u64) {
            let positions = vec![(TOPICS[0], fills), (TOPICS[1], other)];
            let cursor = Cursor { epoch, run, seq, positions };

            prop_assert_eq!(Cursor::parse(&cursor.to_string(), &TOPICS), Ok(cursor));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            prop_assert!(Cursor::parse(&text, &TOPICS).is_err() || text.starts_with("1."));
        }
    }

    #[test]
    fn what_is_not_a_cursor_is_refused() {
        for text in ["", "1", "1.1.2", "2.1.2.3", "1.1.2.+3", "1.1.2.3.fills", "1.1.2.3.fills-x"] {
            assert_eq!(Cursor::parse(text, &TOPICS), Err(CursorError), "{text}");
        }
    }
}
