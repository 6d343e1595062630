//! The families of metrics of one moment, and their text in the exposition format, version 0.0.4.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use super::worker::{BOUNDS_MICROS, Histogram};
use std::{
    fmt::{self, Display, Write},
    sync::atomic::Ordering::Relaxed,
};

/// A page that grows family by family.
#[derive(Debug, Default)]
pub struct Exposition {
    pub families: Vec<Family>,
}

/// Samples of one name.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub data: FamilyData,
}

/// What a family counts or measures.
#[derive(Debug)]
pub enum FamilyData {
    Counter(Vec<Sample>),
    Gauge(Vec<Sample>),
    /// One sample, of durations: a count for each bound, and one for what is beyond.
    Histogram {
        bounds_micros: &'static [u64],
        counts: Vec<u64>,
        sum_micros: u64,
    },
}

/// One value, and what tells it from others of its family.
#[derive(Debug)]
pub struct Sample {
    pub labels: Vec<(&'static str, String)>,
    pub value: Number,
}

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => value.fmt(f),
            Self::Real(value) => value.fmt(f),
        }
    }
}

impl Exposition {
    /// Begins a family, to which the samples that follow belong: a counter if the name says so.
    pub(super) fn family(&mut self, name: &'static str, help: &'static str) {
        let data = match name.ends_with("_total") {
            true => FamilyData::Counter(Vec::new()),
            false => FamilyData::Gauge(Vec::new()),
        };
        self.families.push(Family { name, help, data });
    }

    /// Adds a sample of the current family.
    pub(super) fn sample(&mut self, labels: &[(&'static str, &str)], value: impl Into<Number>) {
        let labels = labels.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        let sample = Sample { labels, value: value.into() };
        match self.families.last_mut().map(|family| &mut family.data) {
            Some(FamilyData::Counter(samples) | FamilyData::Gauge(samples)) => samples.push(sample),
            Some(FamilyData::Histogram { .. }) | None => {}
        }
    }

    /// Adds a family of one sample.
    pub(super) fn single(
        &mut self,
        name: &'static str,
        help: &'static str,
        value: impl Into<Number>,
    ) {
        self.family(name, help);
        self.sample(&[], value);
    }

    /// Adds a family with a sample for each value of `label`.
    pub(super) fn by_label<'v>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        samples: impl IntoIterator<Item = (&'v str, u64)>,
    ) {
        self.family(name, help);
        for (text, value) in samples {
            self.sample(&[(label, text)], value);
        }
    }

    /// Adds a whole histogram family of durations.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        histogram: &Histogram,
    ) {
        let counts = histogram.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let sum_micros = histogram.sum_micros.load(Relaxed);
        let data = FamilyData::Histogram { bounds_micros: &BOUNDS_MICROS, counts, sum_micros };
        self.families.push(Family { name, help, data });
    }

    /// The page.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for family in &self.families {
            family.write(&mut text).expect("a String takes everything");
        }
        text
    }
}

impl Family {
    fn write(&self, text: &mut String) -> fmt::Result {
        let Self { name, help, data } = self;
        let kind = match data {
            FamilyData::Counter(_) => "counter",
            FamilyData::Gauge(_) => "gauge",
            FamilyData::Histogram { .. } => "histogram",
        };
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        match data {
            FamilyData::Counter(samples) | FamilyData::Gauge(samples) => {
                samples.iter().try_for_each(|sample| sample.write(name, text))
            }
            FamilyData::Histogram { bounds_micros, counts, sum_micros } => {
                let mut count = 0;
                for (bound, bucket) in bounds_micros.iter().zip(counts) {
                    count += bucket;
                    writeln!(text, "{name}_bucket{{le=\"{}\"}} {count}", seconds(*bound))?;
                }
                // The count is the sum of the buckets, so the two agree even while workers count on.
                let count: u64 = counts.iter().sum();
                writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}")?;
                writeln!(text, "{name}_sum {}\n{name}_count {count}", seconds(*sum_micros))
            }
        }
    }
}

impl Sample {
    fn write(&self, family: &str, text: &mut String) -> fmt::Result {
        text.push_str(family);
        for (index, (name, value)) in self.labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(text, "{}{name}=\"{value}\"", if index == 0 { '{' } else { ',' })?;
        }
        let end = if self.labels.is_empty() { "" } else { "}" };
        writeln!(text, "{end} {}", self.value)
    }
}

/// Microseconds as seconds.
pub fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut page = Exposition::default();
        page.family("x", "A test.");
        page.sample(&[("a", "q\" b\\ n\n"), ("b", "é")], 1_u64);
        let expected = "# HELP x A test.\n# TYPE x gauge\nx{a=\"q\\\" b\\\\ n\\n\",b=\"é\"} 1\n";
        assert_eq!(page.text(), expected);
    }
}
