//! The text exposition format, version 0.0.4.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use super::worker::{BOUNDS_MICROS, Histogram};
use std::fmt::{Display, Write};

/// A page that grows family by family.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    family: &'static str,
}

/// The type of a family.
#[derive(Debug, Clone, Copy)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl Exposition {
    /// Begins a family; samples that follow belong to it.
    pub(super) fn family(&mut self, name: &'static str, help: &str, kind: MetricKind) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        self.family = name;
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Adds a sample of the current family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    /// Adds a whole histogram family of durations.
    pub(super) fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram) {
        self.family(name, help, MetricKind::Histogram);
        let mut count = 0;
        for (bound, bucket) in BOUNDS_MICROS.iter().zip(&histogram.buckets) {
            count += bucket;
            self.line("_bucket", &[("le", &seconds(*bound).to_string())], count);
        }
        // The count is the sum of the buckets, so the two agree even while workers count on.
        count += histogram.buckets[BOUNDS_MICROS.len()];
        self.line("_bucket", &[("le", "+Inf")], count);
        self.line("_sum", &[], seconds(histogram.sum_micros));
        self.line("_count", &[], count);
    }

    /// The finished page.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.escaped(value);
            self.text.push('"');
        }
        self.text.push_str(if labels.is_empty() { "" } else { "}" });
        self.put(format_args!(" {value}\n"));
    }

    fn escaped(&mut self, value: &str) {
        for character in value.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a String takes everything");
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut page = Exposition::default();
        page.family("x", "A test.", MetricKind::Gauge);
        page.sample(&[("a", "q\" b\\ n\n"), ("b", "é")], 1);
        let expected = "# HELP x A test.\n# TYPE x gauge\nx{a=\"q\\\" b\\\\ n\\n\",b=\"é\"} 1\n";
        assert_eq!(page.finish(), expected);
    }
}
