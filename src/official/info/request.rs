//! Info requests: what of them is answered here, and with which conditions.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::Number;

use super::error::InfoError;
use crate::{
    event::{Address, Timestamp},
    object,
    official::Rows,
};

/// A request. Fields that are not named here are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Rows of one user.
    History {
        user: Address,
        rows: Rows,
        /// Both ends inclusive; `None` for the newest ones.
        times: Option<RangeInclusive<Timestamp>>,
        /// Newest first, where times are asked for.
        reversed: bool,
    },
    /// Of the first exchange: the others' is one of the requests that are passed on.
    Meta(Meta),
    /// A type that is not answered here.
    Other(String),
}

/// What clients ask for when they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    Perps,
    Spot,
}

/// `{"type":"userFillsByTime","user":"0x..","startTime":1683245555699,"endTime":null}`.
#[derive(Deserialize)]
struct Typed<'r> {
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'r, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'r> {
    #[serde(borrow)]
    user: std::borrow::Cow<'r, str>,
    /// Milliseconds since 1970, as the end.
    start_time: Option<Number>,
    end_time: Option<Number>,
    aggregate_by_time: Option<bool>,
    reversed: Option<bool>,
}

#[derive(Deserialize)]
struct OfDex<'r> {
    #[serde(borrow)]
    dex: Option<std::borrow::Cow<'r, str>>,
}

impl Request {
    /// Reads the text of a request.
    ///
    /// # Errors
    /// When it is not JSON, not an object with a type, or not what its type needs.
    pub fn read(text: &[u8]) -> Result<Self, InfoError> {
        let Typed { kind } = object::read(text)?;
        let (rows, by_time) = match &*kind {
            "userFills" => (Rows::Fills { aggregate: false }, false),
            "userFillsByTime" => (Rows::Fills { aggregate: false }, true),
            "userFunding" => (Rows::Fundings, true),
            "userNonFundingLedgerUpdates" => (Rows::LedgerUpdates, true),
            "userTwapSliceFills" => (Rows::TwapSliceFills, false),
            "userTwapSliceFillsByTime" => (Rows::TwapSliceFills, true),
            "meta" => return Meta::Perps.of_dex(text, kind.into_owned()),
            "spotMeta" => return Meta::Spot.of_dex(text, kind.into_owned()),
            _ => return Ok(Self::Other(kind.into_owned())),
        };
        let Fields { user, start_time, end_time, aggregate_by_time, reversed } =
            object::read(text)?;
        let user = Address::parse(user.as_bytes())?;
        let rows = match rows {
            Rows::Fills { .. } => Rows::Fills { aggregate: aggregate_by_time.unwrap_or_default() },
            others => others,
        };
        let times = if by_time {
            let start = millis(start_time.as_ref(), "startTime")?;
            let end = millis(end_time.as_ref(), "endTime")?;
            let first = start.map_or(i64::MIN, |start| start.saturating_mul(1_000));
            let last = end.map_or(i64::MAX, |end| end.saturating_mul(1_000).saturating_add(999));
            Some(Timestamp(first)..=Timestamp(last))
        } else {
            None
        };
        Ok(Self::History { user, rows, times, reversed: reversed.unwrap_or_default() })
    }
}

impl Meta {
    /// The request to the upstream.
    pub fn request(self) -> &'static str {
        match self {
            Self::Perps => r#"{"type":"meta"}"#,
            Self::Spot => r#"{"type":"spotMeta"}"#,
        }
    }

    /// The answer where nobody can be asked: clients start with it, and know no coin's number.
    pub fn empty(self) -> &'static str {
        match self {
            Self::Perps => r#"{"universe":[]}"#,
            Self::Spot => r#"{"universe":[],"tokens":[]}"#,
        }
    }

    /// The empty name is that of the first exchange.
    fn of_dex(self, text: &[u8], kind: String) -> Result<Request, InfoError> {
        let OfDex { dex } = object::read(text)?;
        Ok(match dex.as_deref() {
            None | Some("") => Request::Meta(self),
            Some(_) => Request::Other(kind),
        })
    }
}

/// Milliseconds. A fraction, as clients get it who count in seconds, is cut off.
fn millis(number: Option<&Number>, name: &'static str) -> Result<Option<i64>, InfoError> {
    let Some(number) = number else { return Ok(None) };
    let text = number.to_string();
    let whole = text.split_once('.').map_or(&*text, |(whole, _)| whole);
    match whole.parse() {
        Ok(millis) => Ok(Some(millis)),
        Err(_) => Err(InfoError::Time { name, text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::samples::sample;

    const USER: &str = "0xB7b6f3cea3f66bf525f5d8f965f6dbf6d9b017b2";

    fn read(text: &str) -> Result<Request, u16> {
        let text = text.replace("USER", USER);
        Request::read(text.as_bytes()).map_err(|error| error.status())
    }

    fn times(text: &str) -> (i64, i64) {
        match read(text).unwrap() {
            Request::History { times: Some(times), .. } => (times.start().0, times.end().0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_ends_of_the_time_are_whole_milliseconds() {
        let both = r#"{"type":"userFunding","user":"USER","startTime":5,"endTime":7}"#;
        assert_eq!(times(both), (5_000, 7_999));
        for open in ["", r#","endTime":null"#] {
            let text = format!(r#"{{"type":"userFunding","user":"USER","startTime":5{open}}}"#);
            assert_eq!(times(&text), (5_000, i64::MAX));
        }
        assert_eq!(times(r#"{"type":"userFillsByTime","user":"USER"}"#), (i64::MIN, i64::MAX));
        assert_eq!(times(&both.replace(":5", ":5.75")), (5_000, 7_999));
        let far = both.replace('5', "-9223372036854775808").replace(":7", ":9223372036854775807");
        assert_eq!(times(&far), (i64::MIN, i64::MAX));
        for odd in ["1e400", "9223372036854775808", "1e30", "\"5\""] {
            let read = read(&both.replace(":5", &format!(":{odd}")));
            assert!(matches!(read, Err(400 | 422)), "{odd}: {read:?}");
        }
    }

    #[test]
    fn the_user_may_be_written_in_any_case_and_fields_of_tomorrow_are_passed_over() {
        let text = r#"{"new":[1],"aggregateByTime":true,"user":"USER","type":"userFills"}"#;

        let (read, lower) = (read(text), read(&text.replace("USER", &USER.to_lowercase())));

        assert_eq!(read, lower);
        let user = USER.parse().unwrap();
        let rows = Rows::Fills { aggregate: true };
        let expected = Request::History { user, rows, times: None, reversed: false };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn null_is_as_good_as_nothing() {
        let text = r#"{"type":"userFillsByTime","user":"USER","startTime":1,"aggregateByTime":null,"reversed":null}"#;

        let Ok(Request::History { rows, reversed, .. }) = read(text) else { panic!() };

        assert_eq!((rows, reversed), (Rows::Fills { aggregate: false }, false));
    }

    #[test]
    fn meta_of_another_exchange_is_another_request() {
        assert_eq!(read(r#"{"type":"meta"}"#), Ok(Request::Meta(Meta::Perps)));
        assert_eq!(read(r#"{"type":"meta","dex":""}"#), Ok(Request::Meta(Meta::Perps)));
        assert_eq!(read(r#"{"dex":null,"type":"spotMeta"}"#), Ok(Request::Meta(Meta::Spot)));
        let other = Request::Other("meta".to_owned());
        assert_eq!(read(r#"{"type":"meta","dex":"xyz"}"#), Ok(other));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_who_is_at_fault() {
        for (status, text) in [
            (400, ""),
            (400, "{"),
            (400, "userFills"),
            (400, "{\"type\":\"userFills\"}}"),
            (422, "[\"userFills\"]"),
            (422, "null"),
            (422, "{}"),
            (422, r#"{"type":7}"#),
            (422, r#"{"type":"userFills"}"#),
            (422, r#"{"type":"userFills","user":"0x12"}"#),
            (422, r#"{"type":"userFills","user":"USER","aggregateByTime":"yes"}"#),
            (422, r#"{"type":"userFunding","user":"USER","startTime":"now"}"#),
        ] {
            assert_eq!(read(text), Err(status), "{text}");
        }
    }

    #[test]
    fn recorded_requests_are_understood() {
        for (name, rows) in [
            ("get_user_fills_by_time", Rows::Fills { aggregate: false }),
            ("user_funding_history_with_end_time", Rows::Fundings),
            ("user_non_funding_ledger_updates_without_end_time", Rows::LedgerUpdates),
        ] {
            let Some(text) = sample(&format!("official_api/{name}.request.json")) else { continue };
            let Ok(Request::History { rows: found, .. }) = read(&text) else { panic!("{text}") };
            assert_eq!(found, rows);
        }
    }
}
