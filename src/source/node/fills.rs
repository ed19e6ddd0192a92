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

/// Reads the keys of a fill and proves that its whole body is valid JSON.
pub fn read_keys(body: &[u8]) -> Result<Keys, serde_json::Error> {
    let values = members(utf8(body)?, KEYS)?;
    let places = KEYS.into_iter().zip(values).filter_map(|(name, value)| {
        let at = place_in(body, text_of(value?)?);
        Some((name, at.start as u32..at.end as u32))
    });
    Ok(Keys::new(places))
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
