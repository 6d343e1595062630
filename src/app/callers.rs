//! Who may call: the callers of the configuration, the keys of issuers, the sessions.

use super::{CommandProxy, Error};
use crate::{
    callers::{Callers, sessions::Sessions},
    engine::Engine,
    metrics::Metrics,
};
use std::collections::HashSet;
use tokio::runtime::Runtime;

/// The sessions of the store and the callers that they are of. Before anybody calls: what was
/// revoked is revoked.
pub(super) fn open(
    engine: &Engine,
    private: Option<&CommandProxy>,
    metrics: &Metrics,
    control: &Runtime,
) -> Result<Sessions, Error> {
    let config = &*engine.config();
    let sessions = |callers| Sessions::new(engine.store().clone(), callers, engine.clock().clone());
    if let Some(private) = private {
        // Its key is all that is asked for.
        let callers = Callers::new(config);
        callers.publish(&[private.session()], &HashSet::new());
        return Ok(sessions(callers));
    }
    let sessions = sessions(Callers::start(config, metrics, control.handle())?);
    control.block_on(sessions.load())?;
    control.spawn(sessions.clone().follow());
    Ok(sessions)
}
