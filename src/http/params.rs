//! Reads the parameters of a query string and collects every fault before it reports any.

use std::fmt::Write;

use actix_web::web::Query;

use super::error::ApiError;
use crate::event::Timestamp;

/// Most characters of a client's text that are repeated to it.
const ECHO_CHARS: usize = 64;

/// The pairs of a query string that nobody has asked for yet, and the faults found so far.
pub struct Params {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    faults: Vec<String>,
}

impl Params {
    pub fn new(query: &str) -> Self {
        // The reader of pairs would take the first as text and replace what the second stands for.
        let mut faults: Vec<_> = query
            .split('&')
            .filter(|pair| !pair.split('=').all(is_percent_encoded))
            .map(|pair| format!("{}: not percent-encoded UTF-8", echo(pair)))
            .collect();
        let pairs = match Query::<Vec<(String, String)>>::from_query(query) {
            Ok(pairs) => pairs.into_inner(),
            Err(error) => {
                faults.push(format!("the query string cannot be read: {error}"));
                Vec::new()
            }
        };
        Self { pairs, known: Vec::new(), faults }
    }

    /// Takes all values of a parameter that may be repeated. `accepted` completes "give ...".
    pub fn all<T>(
        &mut self,
        name: &'static str,
        accepted: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        self.known.push(name);
        let mut values = Vec::new();
        for (_, text) in self.pairs.extract_if(.., |(key, _)| key == name) {
            match read(&text) {
                Some(value) => values.push(value),
                None => self.faults.push(refusal(name, &text, accepted)),
            }
        }
        values
    }

    /// Takes the value of a parameter that may be given once.
    pub fn one<T>(
        &mut self,
        name: &'static str,
        accepted: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let given = self.pairs.iter().filter(|(key, _)| key == name).count();
        if given > 1 {
            self.faults.push(format!("{name}: given {given} times, give it once"));
        }
        self.all(name, accepted, read).pop()
    }

    /// Notes a fault that lies between several parameters.
    pub fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// Reports all faults, parameters that nobody asked for among them.
    pub fn finish(mut self) -> Result<(), ApiError> {
        self.pairs.sort();
        self.pairs.dedup_by(|left, right| left.0 == right.0);
        for (name, _) in &self.pairs {
            let known = self.known.join(", ");
            self.faults.push(format!("{}: unknown parameter, known are {known}", echo(name)));
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(ApiError::InvalidParameter(self.faults.join("; ")))
    }
}

fn refusal(name: &str, text: &str, accepted: &str) -> String {
    format!("{name}: {} is not accepted, give {accepted}", echo(text))
}

/// A client's text between quotes, cut to a length that fits an answer.
fn echo(text: &str) -> String {
    let mut shown: String = text.chars().take(ECHO_CHARS).collect();
    if shown.len() < text.len() {
        // Writing to memory does not fail; the original length helps to find the value.
        write!(shown, "... ({} bytes)", text.len()).expect("a String takes everything");
    }
    format!("{shown:?}")
}

/// Whether two hexadecimal digits follow every `%`, and all of it stands for UTF-8.
fn is_percent_encoded(text: &str) -> bool {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let Some((digits, rest)) = piece.split_at_checked(2) else { return false };
        // `from_str_radix` would take a plus sign too.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return false;
        }
        bytes.extend(u8::from_str_radix(digits, 16));
        bytes.extend_from_slice(rest.as_bytes());
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// Reads a whole number without sign.
pub fn number(text: &str) -> Option<u64> {
    // `parse` would also take a plus sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// What [`time()`] reads, for messages.
pub const TIME: &str = "RFC 3339 such as 2026-03-15T00:00:00Z, or microseconds since 1970";

/// Reads a point in time: RFC 3339, or a number of microseconds since 1970.
///
/// A zone's plus sign arrives as a space where a client did not escape it; that is understood.
pub fn time(text: &str) -> Option<Timestamp> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Timestamp);
    }
    // Date and time of day are 19 characters; the fraction and the zone follow.
    let zone_at = text.bytes().skip(19).position(|byte| b"Zz+- ".contains(&byte))? + 19;
    let (local, zone) = text.split_at_checked(zone_at)?;
    let offset_minutes = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign, h1, h2, b':', m1, m2] => {
            let digits = [h1, h2, m1, m2];
            if !digits.iter().all(|digit| digit.is_ascii_digit()) {
                return None;
            }
            let [h1, h2, m1, m2] = digits.map(|digit| i64::from(digit - b'0'));
            let (hours, minutes) = (h1 * 10 + h2, m1 * 10 + m2);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 60 + minutes;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let time = Timestamp::parse_node(local.replace(['t', ' '], "T").as_bytes()).ok()?;
    Some(Timestamp(time.0 - offset_minutes * 60_000_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_written_form_of_a_time_is_the_same_moment() {
        let moment = Timestamp(1_773_532_800_196_239);

        for text in [
            "1773532800196239",
            "2026-03-15T00:00:00.196239Z",
            "2026-03-15t00:00:00.196239755z",
            "2026-03-15T02:00:00.196239+02:00",
            "2026-03-15T02:00:00.196239 02:00",
            "2026-03-14T18:30:00.196239-05:30",
        ] {
            assert_eq!(time(text), Some(moment), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "now",
            "-1",
            "2026-03-15",
            "2026-03-15T00:00:00",
            "2026-03-15T00:00:00+2:00",
            "2026-03-15T00:00:00+24:00",
            "2026-03-15T25:00:00Z",
            "99999999999999999999",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_a_time_panic(text in "\\PC*", rest in "[-+:Zz 0-9é]{0,10}") {
            assert!(time(&text).is_none() || !text.is_empty());
            time(&format!("2026-03-15T00:00:00{rest}"));
        }
    }

    #[test]
    fn what_is_not_percent_encoded_utf8_is_refused_and_named() {
        for query in ["coin=%zz", "coin=%ff", "coin=a%", "coin=%+1", "a=1&coin=%4", "%ff=1&b=2"] {
            let mut params = Params::new(query);
            params.one("coin", "a name", |name| Some(name.to_owned()));

            let error = params.finish().unwrap_err().to_string();

            assert!(error.contains("not percent-encoded UTF-8"), "{query}: {error}");
        }
        for query in ["coin=BTC", "coin=%C3%A4%e2%82%ac", "coin=%40a+b%25=c", ""] {
            let mut params = Params::new(query);
            params.one("coin", "a name", |name| Some(name.to_owned()));

            assert!(params.finish().is_ok(), "{query}");
        }
    }

    #[test]
    fn all_faults_of_a_query_are_told_at_once() {
        let mut params = Params::new("limit=x&limit=3&colour=red&colour=blue&size=1");

        params.one("limit", "a number", number);
        let error = params.finish().unwrap_err().to_string();

        assert!(error.contains("limit: given 2 times"), "{error}");
        assert!(error.contains(r#"limit: "x" is not accepted, give a number"#), "{error}");
        assert!(error.contains(r#""colour": unknown parameter, known are limit"#), "{error}");
        assert_eq!(error.matches("unknown parameter").count(), 2, "{error}");
    }
}
