//! Numbers for people.

use std::time::Duration;

const DAY: f64 = 86_400.0;

/// `1 migration`, `2 migrations`, `3 addresses`.
pub fn count(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ if one.ends_with('s') => format!("{number} {one}es"),
        _ => format!("{number} {one}s"),
    }
}

/// `0.4 s`, `12 s`, `3 min`, `5 h`, `2.5 days`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 0.0995 => format!("{:.0} ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 2.0 * DAY => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.1} days", s / DAY),
    }
}

/// `512 B`, `3.4 KiB`, `1.2 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_unit_that_people_would_say() {
        let spans = [3, 400, 12_000, 180_000, 18_000_000, 216_000_000]
            .map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["3 ms", "0.4 s", "12 s", "3 min", "5 h", "2.5 days"]);
        assert_eq!([0, 1_023, 3_482, 1 << 30].map(bytes), ["0 B", "1023 B", "3.4 KiB", "1.0 GiB"]);
    }
}
