//! Metrics as the text that Prometheus reads: version 0.0.4 of its format.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::{Display, Write};

use crate::engine::Histogram;

/// A label and its value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// What kind of metric follows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text, family after family.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    /// The name of the family whose samples follow.
    name: &'static str,
}

impl Exposition {
    /// Begins a family of metrics.
    pub(super) fn family(&mut self, kind: Kind, name: &'static str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.name = name;
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // To write into a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A family that has one sample.
    pub(super) fn single(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &str,
        value: impl Display,
    ) {
        self.family(kind, name, help);
        self.sample(&[], value);
    }

    /// A sample of the family.
    pub(super) fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, value);
    }

    /// The samples of a histogram, whose values are so many of a unit.
    pub(super) fn histogram(&mut self, labels: &[Label<'_>], histogram: &Histogram, unit: f64) {
        #[allow(clippy::cast_precision_loss, reason = "the bounds are few and round")]
        let in_units = |value: u64| (value as f64 / unit).to_string();
        let bounds = histogram.cumulated().map(|(bound, count)| (in_units(bound), count));
        let last = ("+Inf".to_owned(), histogram.count());
        for (bound, count) in bounds.chain([last]) {
            let labels: Vec<_> = labels.iter().copied().chain([("le", &*bound)]).collect();
            self.line("_bucket", &labels, count);
        }
        #[allow(clippy::cast_precision_loss, reason = "a sum is as exact as a float can be")]
        self.line("_sum", labels, histogram.sum() as f64 / unit);
        self.line("_count", labels, histogram.count());
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        self.text += self.name;
        self.text += suffix;
        for (place, (label, value)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(value));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}

/// The value of a label, as it stands between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_reads_as_the_format_says() {
        let mut exposition = Exposition::default();
        exposition.single(Kind::Gauge, "up_seconds", "For how\nlong.", 1.5);
        exposition.family(Kind::Counter, "asked_total", "Requests.");
        exposition.sample(&[("key", "a\"b\\c\nd"), ("result", "allowed")], 7);
        let expected = concat!(
            "# HELP up_seconds For how\\nlong.\n# TYPE up_seconds gauge\nup_seconds 1.5\n",
            "# HELP asked_total Requests.\n# TYPE asked_total counter\n",
            "asked_total{key=\"a\\\"b\\\\c\\nd\",result=\"allowed\"} 7\n",
        );
        assert_eq!(exposition.finish(), expected);
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound_and_to_infinity() {
        let mut histogram = Histogram::new(&[5_000_000, 1_000_000_000]);
        for nanos in [1_000_000, 2_000_000_000] {
            histogram.observe(nanos);
        }
        let mut exposition = Exposition::default();
        exposition.family(Kind::Histogram, "wait_seconds", "Waits.");
        exposition.histogram(&[("kind", "lock")], &histogram, 1e9);
        let text = exposition.finish();
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "wait_seconds_bucket{kind=\"lock\",le=\"0.005\"} 1",
                "wait_seconds_bucket{kind=\"lock\",le=\"1\"} 1",
                "wait_seconds_bucket{kind=\"lock\",le=\"+Inf\"} 2",
                "wait_seconds_sum{kind=\"lock\"} 2.001",
                "wait_seconds_count{kind=\"lock\"} 2",
            ]
        );
    }
}
