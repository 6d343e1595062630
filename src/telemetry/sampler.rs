//! Which traces are recorded.

use crate::{config::telemetry::TracesConfig, trace_context::SpanContext};

/// All of the numbers that a trace id is compared by.
const ALL: f64 = (1_u64 << 63) as f64;

/// Decides once per trace, and by its id, so that every program with the same ratio decides alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    /// Below it, half of a trace id is sampled.
    below: u64,
    follows_parent: bool,
}

impl Sampler {
    pub(super) fn new(config: &TracesConfig) -> Self {
        let below = (config.ratio * ALL) as u64;
        Self { below, follows_parent: config.follows_parent }
    }

    /// Whether the trace of `span`, which began here, is recorded.
    pub(super) fn samples_root(self, span: SpanContext) -> bool {
        let half = span.trace_id.last_chunk().map_or(0, |half| u64::from_be_bytes(*half));
        half >> 1 < self.below
    }

    /// Whether a span whose caller's is `parent` is recorded.
    pub(super) fn samples_child(self, parent: SpanContext) -> bool {
        if self.follows_parent { parent.is_sampled() } else { self.samples_root(parent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::telemetry, trace_context::SpanIds};

    fn sampler(variables: &[(&str, &str)]) -> Sampler {
        Sampler::new(&telemetry::testing::traces(variables))
    }

    fn sampled(ratio: &str) -> usize {
        let sampler = sampler(&[
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ]);
        let ids = SpanIds::default();
        (0..4000).filter(|_| sampler.samples_root(ids.root())).count()
    }

    #[test]
    fn a_ratio_of_the_traces_that_begin_here_is_recorded() {
        assert_eq!((sampled("0"), sampled("1")), (0, 4000));
        assert!((800..1200).contains(&sampled("0.25")), "{}", sampled("0.25"));
    }

    #[test]
    fn a_trace_that_began_elsewhere_is_recorded_as_its_caller_says_if_that_is_asked_for() {
        let root = SpanIds::default().root();
        let [yes, no] = [true, false].map(|is_sampled| root.with([1; 8], is_sampled));
        let off = sampler(&[("OTEL_TRACES_SAMPLER", "parentbased_always_off")]);
        assert!(off.samples_child(yes) && !off.samples_child(no) && !off.samples_root(yes));
        let never = sampler(&[("OTEL_TRACES_SAMPLER", "always_off")]);
        assert!(!never.samples_child(yes) && !never.samples_child(no));
        let always = sampler(&[("OTEL_TRACES_SAMPLER", "always_on")]);
        assert!(always.samples_child(yes) && always.samples_child(no) && always.samples_root(no));
    }
}
