//! The places of history at which a page ends: opaque text to clients.

use std::fmt;

use crate::{
    event::{Cursor, CursorError, Topic},
    store::PageKey,
};

/// Version of the text form.
const VERSION: &str = "1";

/// "The pages so far end here." What `next` shows and `after` takes.
///
/// Its text is `1.{a|d}.{block}.{seq}~{resume}`, numbers hexadecimal. It names a place in the
/// order of one store and not a query: a client may change filters between pages and still sees
/// what lies behind the place. It may not change the order, which would turn it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageCursor {
    pub descending: bool,
    pub key: PageKey,
    /// The resume cursor of the first page: only what arrived after that may be missing from the
    /// pages together.
    pub resume: Cursor,
}

impl PageCursor {
    /// Reads a client's text.
    pub fn parse(text: &str, known: &[Topic]) -> Result<Self, CursorError> {
        let (place, resume) = text.split_once('~').ok_or(CursorError)?;
        let parts: Vec<&str> = place.split('.').collect();
        let [VERSION, order, position, seq] = parts[..] else { return Err(CursorError) };
        let descending = match order {
            "a" => false,
            "d" => true,
            _ => return Err(CursorError),
        };
        let key = PageKey { position: hex(position)?, seq: hex(seq)? };
        Ok(Self { descending, key, resume: Cursor::parse(resume, known)? })
    }
}

fn hex(text: &str) -> Result<u64, CursorError> {
    // `from_str_radix` would also take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CursorError);
    }
    u64::from_str_radix(text, 16).map_err(|_| CursorError)
}

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.descending { 'd' } else { 'a' };
        let PageKey { position, seq } = self.key;
        write!(f, "{VERSION}.{order}.{position:x}.{seq:x}~{}", self.resume)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOPICS: [Topic; 1] = [Topic::new("fills")];

    proptest! {
        #[test]
        fn a_place_survives_its_text(descending: bool, position: u64, seq: u64, head: u64) {
            let positions = vec![(TOPICS[0], head)];
            let resume = Cursor { epoch: 1, run: 2, seq: head, positions };
            let place = PageCursor { descending, key: PageKey { position, seq }, resume };

            prop_assert_eq!(PageCursor::parse(&place.to_string(), &TOPICS), Ok(place));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            prop_assert!(PageCursor::parse(&text, &TOPICS).is_err());
        }
    }

    #[test]
    fn what_is_not_a_place_is_refused() {
        for text in [
            "",
            "1.a.1.2",
            "2.a.1.2~1.1.1.1",
            "1.x.1.2~1.1.1.1",
            "1.a.1~1.1.1.1",
            "1.a..2~1.1.1.1",
            "1.a.+1.2~1.1.1.1",
            "1.a.1.2~",
            "1.a.1.2.3~1.1.1.1",
        ] {
            assert_eq!(PageCursor::parse(text, &TOPICS), Err(CursorError), "{text}");
        }
    }
}
