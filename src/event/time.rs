//! Points in time: microseconds since 1970, UTC.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};
use time::{Date, Month, OffsetDateTime, UtcDateTime};

/// Microseconds since 1970-01-01, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// Why a text is not a time of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is YYYY-MM-DDTHH:MM:SS with an optional fraction, in UTC")]
pub struct TimeError;

impl Timestamp {
    pub fn now() -> Self {
        #[cfg(feature = "failpoints")]
        return Self::of_system().minus(crate::failpoint::clock_step());
        #[cfg(not(feature = "failpoints"))]
        Self::of_system()
    }

    fn of_system() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self(since_1970.map_or(0, |elapsed| elapsed.as_micros() as i64))
    }

    /// Reads a time as nodes write it, `2026-03-15T00:00:00.196239755`: up to nine fractional
    /// digits and no zone. What is finer than a microsecond is cut off.
    pub fn parse_node(text: &[u8]) -> Result<Self, TimeError> {
        let number = |from: usize, to: usize| -> Result<u32, TimeError> {
            text.get(from..to).ok_or(TimeError)?.iter().try_fold(0, |number, digit| match digit {
                b'0'..=b'9' => Ok(number * 10 + u32::from(digit - b'0')),
                _ => Err(TimeError),
            })
        };
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if separators.iter().any(|&(at, byte)| text.get(at) != Some(&byte)) {
            return Err(TimeError);
        }
        let month = Month::try_from(number(5, 7)? as u8).map_err(|_| TimeError)?;
        let date = Date::from_calendar_date(number(0, 4)? as i32, month, number(8, 10)? as u8)
            .map_err(|_| TimeError)?;
        let seconds = date
            .with_hms(number(11, 13)? as u8, number(14, 16)? as u8, number(17, 19)? as u8)
            .map_err(|_| TimeError)?
            .assume_utc()
            .unix_timestamp();
        let mut micros = 0;
        match text.get(19..).unwrap_or_default() {
            [] => {}
            [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
                number(20, text.len())?;
                for place in 0..6 {
                    let digit = digits.get(place).map_or(0, |digit| i64::from(digit - b'0'));
                    micros = micros * 10 + digit;
                }
            }
            _ => return Err(TimeError),
        }
        Ok(Self(seconds * 1_000_000 + micros))
    }

    /// The calendar form, for paths and people.
    fn to_utc(self) -> UtcDateTime {
        UtcDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .unwrap_or(UtcDateTime::UNIX_EPOCH)
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0) as u64)
    }

    /// Goes back; stops at the earliest time that there is.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Goes forward; stops at the latest time that there is.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        Self((time.unix_timestamp_nanos() / 1_000) as i64)
    }
}

/// RFC 3339 with microseconds: `2026-03-15T00:00:00.196239Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let utc = self.to_utc();
        let (year, month, day) = (utc.year(), u8::from(utc.month()), utc.day());
        let (hour, minute, second) = (utc.hour(), utc.minute(), utc.second());
        let micros = utc.microsecond();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// On the wire a time is its number of microseconds.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_time_is_read_to_the_microsecond() {
        let time = Timestamp::parse_node(b"2026-03-15T00:00:00.196239755").unwrap();

        assert_eq!(time.to_string(), "2026-03-15T00:00:00.196239Z");
        assert_eq!(time.0, 1_773_532_800_196_239);
    }

    #[test]
    fn fractions_of_any_length_are_understood() {
        assert_eq!(Timestamp::parse_node(b"1970-01-01T00:00:01").unwrap().0, 1_000_000);
        assert_eq!(Timestamp::parse_node(b"1970-01-01T00:00:01.5").unwrap().0, 1_500_000);
    }

    #[test]
    fn impossible_times_are_refused() {
        for text in ["", "2026-13-01T00:00:00", "2026-02-30T00:00:00", "2026-03-15T24:00:00"] {
            assert_eq!(Timestamp::parse_node(text.as_bytes()), Err(TimeError), "{text}");
        }
        for text in ["2026-03-15 00:00:00", "2026-03-15T00:00:00.", "2026-03-15T00:00:00.1x"] {
            assert_eq!(Timestamp::parse_node(text.as_bytes()), Err(TimeError), "{text}");
        }
    }
}
