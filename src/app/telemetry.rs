//! Starts the telemetry of a server: none for the private data plane of a command.

use super::CommandProxy;
use crate::{
    engine::Engine,
    telemetry::{Telemetry, TelemetryContext},
};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Starts what the environment asks for, and records the refreshes of `engine`.
pub(super) fn start(
    engine: &Engine,
    private: Option<&CommandProxy>,
    control: &Handle,
) -> Option<Telemetry> {
    if private.is_some() {
        return None;
    }
    let metrics = engine.with.metrics.clone();
    let read_metrics = {
        let engine = engine.clone();
        Arc::new(move || engine.with.metrics.families(Some(&engine.accounts())))
    };
    let (clock, control) = (engine.clock().clone(), control.clone());
    let context = TelemetryContext { clock, metrics, read_metrics, control };
    let telemetry = Telemetry::start(&engine.config(), &context)?;
    if let Some(spans) = &telemetry.spans {
        engine.tokens().record(spans.refreshes());
    }
    Some(telemetry)
}
