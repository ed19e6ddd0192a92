//! The text format of Prometheus, version 0.0.4: families with help and type, samples with labels.
//!
//! A page is made anew from the atomics of the stages for each scrape. A library would want to own
//! the counters, or a collector of constants for each; the format itself is these few lines, and
//! the tests read every line of it back.
//! Invariants: the samples of a family stand together; label values are escaped; the buckets of a
//! histogram are cumulative and end with `+Inf`, which equals the count.

use std::fmt::{Display, Write as _};

use crate::stats::Observed;

/// What `Content-Type` says.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Label names with their values.
pub type Labels<'l> = &'l [(&'static str, &'l str)];

/// A page that is being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// A family whose samples are being written.
pub struct Family<'p> {
    page: &'p mut Page,
    name: &'static str,
}

impl Page {
    /// Begins a family. It is on the page also when it has no sample now.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &str) -> Family<'_> {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {}", kind.name()));
        Family { page: self, name }
    }

    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a String takes all that is written to it");
    }
}

impl Family<'_> {
    /// Adds a sample. `value` is a finite number.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        let labels = shown(labels, None);
        self.page.line(format_args!("{}{labels} {value}", self.name));
        self
    }

    /// Adds a sample if there is a value: what was never measured is not on the page.
    pub fn measured(&mut self, labels: Labels<'_>, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.sample(labels, value),
            None => self,
        }
    }

    /// Adds the samples of a histogram, in seconds.
    pub fn histogram(&mut self, labels: Labels<'_>, observed: &Observed) {
        let name = self.name;
        for (bound, count) in &observed.at_most {
            let bound = seconds(*bound as i64).to_string();
            let labels = shown(labels, Some(&bound));
            self.page.line(format_args!("{name}_bucket{labels} {count}"));
        }
        let (count, sum) = (observed.count, seconds(observed.sum_micros as i64));
        let infinite = shown(labels, Some("+Inf"));
        self.page.line(format_args!("{name}_bucket{infinite} {count}"));
        let labels = shown(labels, None);
        self.page.line(format_args!("{name}_sum{labels} {sum}"));
        self.page.line(format_args!("{name}_count{labels} {count}"));
    }
}

/// Microseconds as the base unit of durations and points in time.
pub fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

fn shown(labels: Labels<'_>, bound: Option<&str>) -> String {
    let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
    let each: Vec<_> =
        labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if each.is_empty() { String::new() } else { format!("{{{}}}", each.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::Histogram;

    #[test]
    fn a_family_says_its_help_and_type_once_before_its_samples() {
        let mut page = Page::default();

        page.family(Kind::Counter, "a_total", "Line one\nand \\two.")
            .sample(&[], 1)
            .sample(&[("x", "y"), ("z", "")], -2.5)
            .measured(&[("x", "never")], None::<i64>);

        assert_eq!(
            page.finish(),
            "# HELP a_total Line one\\nand \\\\two.\n# TYPE a_total counter\n\
             a_total 1\na_total{x=\"y\",z=\"\"} -2.5\n"
        );
    }

    #[test]
    fn a_label_value_cannot_end_its_quotes_or_its_line() {
        let mut page = Page::default();

        page.family(Kind::Gauge, "a", "").sample(&[("path", "/a\"b\\c\nd ü}")], 1);

        let text = page.finish();
        assert_eq!(text.lines().last(), Some("a{path=\"/a\\\"b\\\\c\\nd ü}\"} 1"));
    }

    #[test]
    fn buckets_are_cumulative_in_seconds_and_end_with_the_count() {
        let histogram = Histogram::default();
        for micros in [50, 100, 2_000, 999_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut page = Page::default();

        page.family(Kind::Histogram, "d", "").histogram(&[("k", "v")], &histogram.observed());

        let text = page.finish();
        for line in [
            "d_bucket{k=\"v\",le=\"0.0001\"} 2",
            "d_bucket{k=\"v\",le=\"0.001\"} 2",
            "d_bucket{k=\"v\",le=\"0.0025\"} 3",
            "d_bucket{k=\"v\",le=\"60\"} 3",
            "d_bucket{k=\"v\",le=\"+Inf\"} 4",
            "d_sum{k=\"v\"} 999.00215",
            "d_count{k=\"v\"} 4",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
    }
}
