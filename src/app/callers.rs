//! Who may call: the callers of the configuration, the keys of issuers, the sessions.

use crate::{
    callers::{Callers, sessions::Sessions},
    engine::Engine,
    https,
    metrics::Metrics,
};
use tokio::runtime::Handle;

/// Sessions that were not read yet, and the callers that they are of.
pub(super) fn open(
    engine: &Engine,
    is_server: bool,
    metrics: &Metrics,
    control: &Handle,
) -> Result<Sessions, https::Error> {
    let config = engine.config();
    let callers = match is_server {
        true => Callers::start(config, metrics, control)?,
        // Its key is all that is asked for.
        false => Callers::new(config),
    };
    Ok(Sessions::new(engine.store().clone(), callers, engine.clock().clone()))
}
