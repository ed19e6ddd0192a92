//! The elements of a JSON array, found by its brackets: nothing inside of them is read.
//!
//! Place in the pipeline: between [`scan`](super::scan) and the rules of fills and misc events.
//! Invariant: brackets nest and match in kind, commas separate the elements, and what stands
//! between containers is valid JSON; the inside of a container is only known to nest.

use std::ops::Range;

use serde::de::IgnoredAny;

use super::scan::Brackets;

/// Deepest nesting that is followed: as deep as serde_json goes.
const MAX_DEPTH: u32 = 128;

/// Why bytes are not an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArrayFault {
    /// The bytes end before the array does.
    #[error("the array of events is not closed")]
    Unclosed,
    #[error("brackets do not match at byte {0}")]
    Mismatch(usize),
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A comma too many or too few, or a scalar that is none.
    #[error("not JSON between events at byte {0}")]
    Between(usize),
}

/// One element, as places in the bytes that were walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub range: Range<usize>,
    /// Its first inner array or object; empty when there is none.
    pub child: Range<usize>,
}

/// Calls `each` for the elements of the array whose `[` stands at `open`; gives the position
/// behind its `]`. Elements before a fault have been handed out by then.
#[inline]
pub fn walk(bytes: &[u8], open: usize, mut each: impl FnMut(Element)) -> Result<usize, ArrayFault> {
    // One bit a level, the innermost lowest: 1 for an object.
    let mut kinds = 0_u128;
    let mut depth = 0;
    let mut start = open;
    let mut child = 0..0;
    // End of the last element; `None` before the first.
    let mut last_end = None;
    for at in Brackets::new(bytes, open) {
        let byte = bytes[at];
        if matches!(byte, b'{' | b'[') {
            match depth {
                1 => {
                    if last_end.is_none_or(|end| bytes[end..at] != *b",") {
                        let after_value = last_end.is_some();
                        let from = last_end.unwrap_or(open + 1);
                        between(bytes, from..at, after_value, Next::Value, &mut each)?;
                    }
                    start = at;
                    child = 0..0;
                }
                2 if child.start == 0 => child.start = at,
                MAX_DEPTH => return Err(ArrayFault::TooDeep),
                _ => {}
            }
            kinds = kinds << 1 | u128::from(byte == b'{');
            depth += 1;
            continue;
        }
        if (kinds & 1 == 1) != (byte == b'}') {
            return Err(ArrayFault::Mismatch(at));
        }
        kinds >>= 1;
        depth -= 1;
        match depth {
            0 => {
                let from = last_end.unwrap_or(open + 1);
                if from != at {
                    between(bytes, from..at, last_end.is_some(), Next::Close, &mut each)?;
                }
                return Ok(at + 1);
            }
            1 => {
                each(Element { range: start..at + 1, child: child.clone() });
                last_end = Some(at + 1);
            }
            2 if child.end == 0 => child.end = at + 1,
            _ => {}
        }
    }
    Err(ArrayFault::Unclosed)
}

/// What follows a stretch between containers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    Close,
}

/// Reads what stands between two containers of the array, where more than one comma stands there:
/// white space and scalars, which are elements too.
#[cold]
fn between(
    bytes: &[u8],
    range: Range<usize>,
    mut after_value: bool,
    next: Next,
    each: &mut impl FnMut(Element),
) -> Result<(), ArrayFault> {
    let mut after_comma = false;
    let mut at = range.start;
    while at < range.end {
        match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b',' if after_value => {
                (after_value, after_comma) = (false, true);
                at += 1;
            }
            _ if after_value => return Err(ArrayFault::Between(at)),
            _ => {
                let end = scalar_end(bytes, at..range.end);
                if serde_json::from_slice::<IgnoredAny>(&bytes[at..end]).is_err() {
                    return Err(ArrayFault::Between(at));
                }
                each(Element { range: at..end, child: 0..0 });
                (after_value, after_comma) = (true, false);
                at = end;
            }
        }
    }
    match next {
        Next::Value if after_value => Err(ArrayFault::Between(range.end)),
        Next::Close if after_comma => Err(ArrayFault::Between(range.end)),
        _ => Ok(()),
    }
}

/// Where the scalar that starts the range ends.
fn scalar_end(bytes: &[u8], range: Range<usize>) -> usize {
    let text = &bytes[range.clone()];
    let length = if text[0] == b'"' {
        let mut escaped = false;
        text.iter()
            .skip(1)
            .position(|&byte| {
                let closes = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                closes
            })
            .map(|before| before + 2)
    } else {
        text.iter().position(|byte| b", \t\r\n".contains(byte))
    };
    // At least one byte, so that the walk goes on whatever stands there.
    range.start + length.unwrap_or(text.len()).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, value::RawValue};

    use super::*;

    fn found(bytes: &[u8], open: usize) -> Result<(Vec<Range<usize>>, usize), ArrayFault> {
        let mut elements = Vec::new();
        let end = walk(bytes, open, |element| elements.push(element.range))?;
        Ok((elements, end))
    }

    fn boundaries_by_serde(text: &str) -> Vec<Range<usize>> {
        let elements: Vec<&RawValue> = serde_json::from_str(text).unwrap();
        elements
            .iter()
            .map(|element| {
                let start = element.get().as_ptr() as usize - text.as_ptr() as usize;
                start..start + element.get().len()
            })
            .collect()
    }

    fn json() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[\\[\\]{}\",\\\\a]{0,80}", ".{0,20}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 128, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_elements_are_those_that_serde_json_finds(values in prop::collection::vec(json(), 0..12)) {
            let compact = serde_json::to_string(&values).unwrap();
            let spaced = serde_json::to_string_pretty(&values).unwrap();

            for text in [compact, spaced] {
                let (elements, end) = found(text.as_bytes(), 0).unwrap();
                prop_assert_eq!(&elements, &boundaries_by_serde(&text));
                prop_assert_eq!(end, text.len());
            }
        }

        #[test]
        fn what_stands_before_and_behind_does_not_matter(values in prop::collection::vec(json(), 0..4), before in ".{0,80}") {
            let array = serde_json::to_string(&values).unwrap();
            let text = format!("{before}{array}]}}\"");

            let (elements, end) = found(text.as_bytes(), before.len()).unwrap();

            prop_assert_eq!(elements.len(), values.len());
            prop_assert_eq!(end, before.len() + array.len());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop::sample::select(b"[]{}\",:\\ 1a\xff".to_vec()), 1..200)) {
            if bytes[0] == b'[' {
                let _either = found(&bytes, 0);
            }
        }
    }

    #[test]
    fn what_is_not_an_array_is_refused() {
        for text in [
            "[", "[[]", "[{]}", "[[}]", "[[],]", "[,[]]", "[[] []]", "[[],,[]]", "[1 2]", "[1,]",
            "[,]", "[x]", "[[]1]", "[1[]]", "[\"a]", "[\"\\\"]",
        ] {
            assert!(found(text.as_bytes(), 0).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_is_followed_as_deep_as_serde_json_goes() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));

        assert!(found(nested(128).as_bytes(), 0).is_ok());
        assert_eq!(found(nested(129).as_bytes(), 0), Err(ArrayFault::TooDeep));
    }

    #[test]
    fn the_first_inner_container_is_pointed_out() {
        let text = br#"[["a",{"b":[]},{}],{"c":1}]"#;
        let mut children = Vec::new();

        walk(text, 0, |element| children.push(text[element.child].to_vec())).unwrap();

        assert_eq!(children, [br#"{"b":[]}"#.to_vec(), Vec::new()]);
    }
}
