//! Makes messages of OTLP from the metrics page: the same names, labels and values.

use super::{
    convert::{Attributes, nanos},
    otlp::{
        Gauge, HistogramPoint, Histograms, Metric, MetricData, NumberPoint, PointValue, Sum,
        Temporality,
    },
};
use crate::metrics::{Exposition, Family, FamilyData, Number, Sample, seconds};
use std::time::Duration;

/// From when to when a page counts, since 1970-01-01 UTC.
#[derive(Clone, Copy)]
pub(super) struct Period {
    pub(super) start: Duration,
    pub(super) now: Duration,
}

/// The metrics of `page`; those without a sample are left out.
pub(super) fn metrics(page: &Exposition, period: Period) -> Vec<Metric> {
    page.families.iter().filter_map(|family| metric(family, period)).collect()
}

fn metric(family: &Family, period: Period) -> Option<Metric> {
    let cumulative = Temporality::Cumulative.into();
    let points = |samples: &[Sample]| -> Vec<NumberPoint> {
        samples.iter().map(|sample| point(sample, period)).collect()
    };
    let data = match &family.data {
        FamilyData::Counter(samples) | FamilyData::Gauge(samples) if samples.is_empty() => {
            return None;
        }
        FamilyData::Counter(samples) => MetricData::Sum(Sum {
            data_points: points(samples),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        FamilyData::Gauge(samples) => MetricData::Gauge(Gauge { data_points: points(samples) }),
        FamilyData::Histogram { bounds_micros, counts, sum_micros } => {
            let point = HistogramPoint {
                start_time_unix_nano: nanos(period.start),
                time_unix_nano: nanos(period.now),
                count: counts.iter().sum(),
                sum: Some(seconds(*sum_micros)),
                bucket_counts: counts.clone(),
                explicit_bounds: bounds_micros.iter().map(|bound| seconds(*bound)).collect(),
            };
            let data_points = vec![point];
            MetricData::Histogram(Histograms { data_points, aggregation_temporality: cumulative })
        }
    };
    let unit = match family.name {
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_bytes") => "By",
        _ => "",
    };
    Some(Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
    })
}

fn point(sample: &Sample, period: Period) -> NumberPoint {
    let mut attributes = Attributes::default();
    for (key, value) in &sample.labels {
        attributes.text(key, value);
    }
    NumberPoint {
        attributes: attributes.0,
        start_time_unix_nano: nanos(period.start),
        time_unix_nano: nanos(period.now),
        value: Some(match sample.value {
            Number::Whole(value) => PointValue::Int(i64::try_from(value).unwrap_or(i64::MAX)),
            Number::Real(value) => PointValue::Double(value),
        }),
    }
}
