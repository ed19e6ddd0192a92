//! Durations and sizes as people write them: `50ms`, `1h30m`, `64MiB`.

use std::time::Duration;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;

/// Units of a duration in microseconds, longest first.
const DURATIONS: [(&str, u64); 7] = [
    ("w", 604_800_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Units of a size in bytes; the first five are used for showing.
const SIZES: [(&str, u64); 9] = [
    ("TiB", TIB),
    ("GiB", GIB),
    ("MiB", MIB),
    ("KiB", KIB),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// What [`read_duration`] understands, for messages.
pub(super) const DURATION_UNITS: &str = "us, ms, s, m, h, d, w";
/// What [`read_size`] understands, for messages.
pub(super) const SIZE_UNITS: &str = "B, kB, MB, GB, TB, KiB, MiB, GiB, TiB";

/// Reads one or more numbers with a unit each, such as `7d` or `1h30m`.
pub fn read_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut micros = 0_u64;
    loop {
        let (number, after) = split_number(rest)?;
        let unit_len = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let (_, each) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
        micros = micros.checked_add(number.checked_mul(*each)?)?;
        if next.is_empty() {
            return Some(Duration::from_micros(micros));
        }
        rest = next;
    }
}

/// Reads a number of bytes with or without a unit, such as `64MiB` or `1000`.
pub(super) fn read_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, each) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*each)
}

/// The shortest exact form: `7d`, `1500ms`.
pub(super) fn show_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    // Weeks are understood but not used for showing: people count retention in days.
    let units = &DURATIONS[1..];
    let unit = units.iter().find(|(_, each)| micros >= *each && micros.is_multiple_of(*each));
    let (name, each) = unit.unwrap_or(&("s", 1_000_000));
    format!("{}{name}", micros / each)
}

/// The shortest exact form: `64MiB`, `1000B`.
pub(super) fn show_size(bytes: u64) -> String {
    let units = &SIZES[..5];
    let unit = units.iter().find(|(_, each)| bytes >= *each && bytes.is_multiple_of(*each));
    let (name, each) = unit.unwrap_or(&("B", 1));
    format!("{}{name}", bytes / each)
}

/// A number with optional `_` between its digits, and what follows it.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '_');
    let (number, rest) = text.split_at(end.unwrap_or(text.len()));
    Some((number.replace('_', "").parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(read_duration("50ms"), Some(Duration::from_millis(50)));
        assert_eq!(read_duration("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(read_duration("1h30m"), Some(Duration::from_secs(5_400)));
        for text in ["", "7", "d", "7 d", "7dd", "-1s", "1.5h", "7D", "99999999999999999d"] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_or_without_a_unit() {
        assert_eq!(read_size("64MiB"), Some(64 << 20));
        assert_eq!(read_size("64 MiB"), Some(64 << 20));
        assert_eq!(read_size("1_000"), Some(1_000));
        assert_eq!(read_size("2GB"), Some(2_000_000_000));
        for text in ["", "MiB", "64mib", "64M", "-1", "1.5GiB", "99999999999TiB"] {
            assert_eq!(read_size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(number in 0_u64..=u64::MAX / 2) {
            let duration = Duration::from_micros(number);

            prop_assert_eq!(read_duration(&show_duration(duration)), Some(duration));
            prop_assert_eq!(read_size(&show_size(number)), Some(number));
        }
    }
}
