//! The text exposition format, version 0.0.4.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use super::worker::{BOUNDS_MICROS, Histogram};
use std::{
    fmt::{Display, Write},
    sync::atomic::Ordering::Relaxed,
};

/// A page that grows family by family.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    pub(super) text: String,
    family: &'static str,
}

impl Exposition {
    /// Begins a family, to which the samples that follow belong: a counter if the name says so.
    pub(super) fn family(&mut self, name: &'static str, help: &str) {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        self.begin(name, help, kind);
    }

    fn begin(&mut self, name: &'static str, help: &str, kind: &str) {
        self.family = name;
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Adds a sample of the current family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    /// Adds a family of one sample.
    pub(super) fn single(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, help);
        self.sample(&[], value);
    }

    /// Adds a family with a sample for each value of `label`.
    pub(super) fn by_label<'v>(
        &mut self,
        name: &'static str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'v str, u64)>,
    ) {
        self.family(name, help);
        for (text, value) in samples {
            self.sample(&[(label, text)], value);
        }
    }

    /// Adds a whole histogram family of durations.
    pub(super) fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram) {
        self.begin(name, help, "histogram");
        let (bounded, [rest]) = histogram.buckets.split_at(BOUNDS_MICROS.len()) else { return };
        let mut count = 0;
        for (bound, bucket) in BOUNDS_MICROS.iter().zip(bounded) {
            count += bucket.load(Relaxed);
            self.line("_bucket", &[("le", &seconds(*bound).to_string())], count);
        }
        // The count is the sum of the buckets, so the two agree even while workers count on.
        count += rest.load(Relaxed);
        self.line("_bucket", &[("le", "+Inf")], count);
        self.line("_sum", &[], seconds(histogram.sum_micros.load(Relaxed)));
        self.line("_count", &[], count);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.put(format_args!("{}{name}=\"{value}\"", if index == 0 { '{' } else { ',' }));
        }
        self.text.push_str(if labels.is_empty() { "" } else { "}" });
        self.put(format_args!(" {value}\n"));
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
        page.family("x", "A test.");
        page.sample(&[("a", "q\" b\\ n\n"), ("b", "é")], 1);
        let expected = "# HELP x A test.\n# TYPE x gauge\nx{a=\"q\\\" b\\\\ n\\n\",b=\"é\"} 1\n";
        assert_eq!(page.text, expected);
    }
}
