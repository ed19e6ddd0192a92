//! Fills: who is concerned by an element of a fills line, and by which bytes.
//!
//! Place in the pipeline: rules of the `Parser` for the kind `node_fills`. A line, shortened:
//!
//! ```json
//! {"local_time":"2026-03-15T00:00:00.196239755","block_time":"2026-03-14T23:59:59.991006841",
//!  "block_number":923950857,"events":[["0x010461c14e146ac35fe42271bdc1134ee31c703a",{"coin":"UNI",
//!  "px":"3.9457","sz":"3.9","side":"B","time":1773532799991,"dir":"Open Long",...}]]}
//! ```
//!
//! Invariant: the body is the second item of the pair, verbatim; nothing of it is decoded here.

use std::ops::Range;

use serde_json::value::RawValue;

use super::{
    elements::Element,
    json::{address_of, members, place_in, text_of, utf8},
};
use crate::event::{Address, Keys, Topic};

pub const TOPIC: Topic = Topic::new("fills");

/// What filters may ask a fill for.
const KEYS: [&str; 3] = ["coin", "side", "dir"];

/// Names the TWAP order that a fill is a slice of; `null` in all others.
const TWAP: &str = "twapId";

/// Place of the fill in `["0x..",{`, counted from the `[`.
const COMPACT_BODY: usize = 2 + Address::TEXT_LEN + 2;

/// The user and the place of the body of an element `[user, fill]`.
///
/// `None` for what is no such pair: fewer than two items, a user that is no address, data that is
/// no object. Items behind the second are passed over.
#[inline]
pub fn pair(line: &[u8], element: &Element) -> Option<(Address, Range<usize>)> {
    let text = &line[element.range.clone()];
    let body = element.child.clone();
    // As nodes write it: the pair holds the address at its fixed place, then one object and
    // nothing else.
    if body.start == element.range.start + COMPACT_BODY
        && body.end + 1 == element.range.end
        && text.starts_with(b"[\"0x")
        && text[COMPACT_BODY - 2..].starts_with(b"\",{")
        && let Ok(user) = Address::parse(&text[2..2 + Address::TEXT_LEN])
    {
        return Some((user, body));
    }
    any_pair(line, text)
}

/// The same for any white space and any further items.
#[cold]
fn any_pair(line: &[u8], text: &[u8]) -> Option<(Address, Range<usize>)> {
    let items: Vec<&RawValue> = serde_json::from_slice(text).ok()?;
    let [user, data, ..] = items[..] else { return None };
    let user = address_of(user)?;
    data.get().starts_with('{').then(|| (user, place_in(line, data.get())))
}

/// Reads the keys of a fill and proves that its whole body is valid JSON. A slice of a TWAP has the key
/// `type` besides: the very name `twapId` in its body.
pub fn read_keys(body: &[u8]) -> Result<Keys, serde_json::Error> {
    let text = utf8(body)?;
    let [coin, side, dir] = KEYS;
    let [values @ .., twap] = members(text, [coin, side, dir, TWAP])?;
    let places = KEYS.into_iter().zip(values).filter_map(|(name, value)| {
        let at = place_in(body, text_of(value?)?);
        Some((name, at.start as u32..at.end as u32))
    });
    let kind = twap.filter(|value| value.get() != "null").and_then(|value| {
        let at = name_before(text, place_in(body, value.get()).start)?;
        Some(("type", at.start as u32..at.end as u32))
    });
    Ok(Keys::new(places.chain(kind)))
}

/// The place of the name `twapId` in front of its value. `None` when it is written with escapes.
fn name_before(text: &str, value: usize) -> Option<Range<usize>> {
    let before = text[..value].trim_end().strip_suffix(':')?.trim_end().strip_suffix('"')?;
    let start = before.strip_suffix(TWAP)?.len();
    Some(start..before.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::node::elements::walk;

    const USER: &str = "0x010461c14e146ac35fe42271bdc1134ee31c703a";

    fn pairs(events: &str) -> Vec<Option<(Address, String)>> {
        let mut found = Vec::new();
        walk(events.as_bytes(), 0, |element| {
            let pair = pair(events.as_bytes(), &element);
            found.push(pair.map(|(user, body)| (user, events[body].to_owned())));
        })
        .unwrap();
        found
    }

    // H03
    #[test]
    fn a_pair_gives_its_user_and_its_body_in_any_writing() {
        let body = r#"{"coin":"a]}\"","x":{"y":[]}}"#;
        let upper = USER.to_uppercase().replace('X', "x");
        let escaped = USER.replace('a', "\\u0061");

        for events in [
            format!(r#"[["{USER}",{body}]]"#),
            format!(r#"[["{upper}",{body}]]"#),
            format!(r#"[ [ "{USER}" , {body} ] ]"#),
            format!(r#"[["{USER}",{body},{{"more":1}}]]"#),
            format!(r#"[["{USER}",{body} ]]"#),
            format!(r#"[["{escaped}",{body}]]"#),
        ] {
            let expected = Some((USER.parse().unwrap(), body.to_owned()));
            assert_eq!(pairs(&events), [expected], "{events}");
        }
    }

    // H03
    #[test]
    fn what_is_no_pair_is_none_and_keeps_its_place() {
        let good = format!(r#"["{USER}",{{}}]"#);
        for bad in [
            format!(r#"["{USER}"]"#),
            "[]".to_owned(),
            format!(r#"[7,{{"user":"{USER}"}}]"#),
            format!(r#"["{USER}",7]"#),
            format!(r#"["{USER}",["x"]]"#),
            format!(r#"["{USER}x",{{}}]"#),
            format!(r#"["0xg{}",{{}}]"#, &USER[3..]),
            format!(r#""{USER}""#),
            format!(r#"{{"{USER}":{{}}}}"#),
            "null".to_owned(),
        ] {
            let found = pairs(&format!("[{good},{bad},{good}]"));
            let which: Vec<_> = found.iter().map(Option::is_some).collect();
            assert_eq!(which, [true, false, true], "{bad}");
        }
    }

    #[test]
    fn keys_are_places_in_the_body() {
        let body = r#"{"dir":"Open \"Long\"","coin":"BTC","px":"1","side":7,"x":{"coin":"no"}}"#;

        let keys = read_keys(body.as_bytes()).unwrap();

        let places = [("coin", r#"BTC"#), ("dir", r#"Open \"Long\""#)].map(|(name, text)| {
            let start = body.find(text).unwrap() as u32;
            (name, start..start + text.len() as u32)
        });
        assert_eq!(keys, Keys::new(places));
    }

    #[test]
    fn a_slice_of_a_twap_has_a_kind_and_no_other_fill_has_one() {
        let kind = |body: &str| {
            let event = crate::event::Event {
                id: crate::event::EventId { topic: TOPIC, position: 1, index: 0, part: 0 },
                time: crate::event::Timestamp(0),
                user: None,
                keys: read_keys(body.as_bytes()).unwrap(),
                body: body.to_owned().into(),
            };
            event.kind().map(str::to_owned)
        };

        for slice in [
            r#"{"coin":"BTC","twapId":1954}"#,
            r#"{"twapId" : 0 , "coin":"twapId"}"#,
            "{\"twapId\"\n:\t7}",
            // The last one counts.
            r#"{"twapId":null,"x":{"twapId":3},"twapId":4}"#,
            r#"{"twapId":"8"}"#,
        ] {
            assert_eq!(kind(slice).as_deref(), Some("twapId"), "{slice}");
        }
        for other in [
            r#"{"coin":"BTC"}"#,
            r#"{"coin":"twapId","twapId":null}"#,
            r#"{"twapId":4,"twapId":null}"#,
            r#"{"x":{"twapId":3}}"#,
            r#"{"twapI\u0064":3}"#,
        ] {
            assert_eq!(kind(other), None, "{other}");
        }
    }

    #[test]
    fn keys_are_read_of_valid_json_only() {
        for body in [
            &b"{\"coin\":\"BTC\",}"[..],
            b"{\"coin\":\"BTC\"} ]",
            b"{\"coin\":\"BTC\",\"x\":01}",
            b"{\"coin\":\"BTC\",\"x\":\"\xff\"}",
            b"[]",
        ] {
            assert!(read_keys(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
}
