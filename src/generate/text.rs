//! Writing the parts of a line: numbers, decimals, hexadecimal digits and times.

use time::UtcDateTime;

/// Appends formatted text to a `Vec<u8>`.
macro_rules! put {
    ($out:expr, $($text:tt)*) => {{
        use std::io::Write as _;
        write!($out, $($text)*).expect("writing to memory does not fail")
    }};
}
pub(super) use put;

/// A number that stands for nothing but chance: the same for the same input (SplitMix64).
pub(super) fn mix(seed: u64, value: u64) -> u64 {
    let mut mixed = seed ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

pub(super) fn push_u64(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// Appends `value / 10^places` as nodes write decimals: no trailing zeros, but at least one digit
/// behind the point.
pub(super) fn push_decimal(out: &mut Vec<u8>, value: i64, places: u32) {
    if value < 0 {
        out.push(b'-');
    }
    let unit = 10u64.pow(places);
    let value = value.unsigned_abs();
    push_u64(out, value / unit);
    out.push(b'.');
    let start = out.len();
    let (mut rest, mut unit) = (value % unit, unit);
    while rest > 0 || out.len() == start {
        unit = (unit / 10).max(1);
        out.push(b'0' + (rest / unit) as u8);
        rest %= unit;
    }
}

pub(super) fn decimal(value: i64, places: u32) -> String {
    let mut text = Vec::new();
    push_decimal(&mut text, value, places);
    String::from_utf8(text).expect("digits are ASCII")
}

pub(super) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"0x");
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0x0f)]]);
    }
}

/// Appends a time as nodes write it: nine fractional digits, no zone.
pub(super) fn push_time(out: &mut Vec<u8>, time_ns: i64) {
    let utc = utc(time_ns);
    let parts: [(u32, u32, u8); 7] = [
        (utc.year().unsigned_abs(), 1_000, b'-'),
        (u32::from(u8::from(utc.month())), 10, b'-'),
        (u32::from(utc.day()), 10, b'T'),
        (u32::from(utc.hour()), 10, b':'),
        (u32::from(utc.minute()), 10, b':'),
        (u32::from(utc.second()), 10, b'.'),
        (utc.nanosecond(), 100_000_000, 0),
    ];
    for (number, highest, separator) in parts {
        let mut unit = highest;
        while unit > 0 {
            out.push(b'0' + (number / unit % 10) as u8);
            unit /= 10;
        }
        if separator != 0 {
            out.push(separator);
        }
    }
}

pub(super) fn utc(time_ns: i64) -> UtcDateTime {
    UtcDateTime::from_unix_timestamp_nanos(i128::from(time_ns))
        .expect("64 bits of nanoseconds end in the year 2262")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_look_like_those_of_a_node() {
        let cases = [
            (39_457, 4, "3.9457"),
            (130, 1, "13.0"),
            (0, 6, "0.0"),
            (-461, 6, "-0.000461"),
            (5, 0, "5.0"),
            (1_005_000, 6, "1.005"),
        ];
        for (value, places, expected) in cases {
            assert_eq!(decimal(value, places), expected);
        }
    }

    #[test]
    fn times_have_nine_digits_and_no_zone() {
        let mut text = Vec::new();

        push_time(&mut text, 1_773_532_800_096_239_755);

        assert_eq!(text, b"2026-03-15T00:00:00.096239755");
    }
}
