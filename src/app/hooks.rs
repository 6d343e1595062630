//! The hooks of a server or a command: their start, and the last they may do.

use crate::{
    audit::Actor,
    engine::Engine,
    hooks::{HookContext, Hooks, Reconnect},
    https,
    login::Logins,
};
use std::{sync::Arc, time::Duration};
use tokio::{runtime::Handle, time::timeout};
use tracing::warn;

/// How long the exit waits for deliveries to hooks.
const HOOKS_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) async fn finish_hooks(hooks: &mut Hooks) {
    if timeout(HOOKS_TIMEOUT, hooks.finish()).await.is_err() {
        warn!("a delivery to a hook was still under way");
    }
}

/// Starts the configured hooks on `control`, with links to connect accounts of `engine` again.
pub(crate) fn start_hooks(engine: &Engine, control: Handle) -> Result<Option<Hooks>, https::Error> {
    let logins = Logins::new(engine.clone(), Actor::Server);
    let reconnect: Reconnect = Arc::new(move |account| {
        let logins = logins.clone();
        Box::pin(async move {
            let link = logins.reconnect_link(&account).await;
            link.inspect_err(|problem| warn!(%account, "no link to reconnect: {problem}")).ok()
        })
    });
    let with = HookContext {
        clock: engine.clock().clone(),
        metrics: engine.with.metrics.clone(),
        store: engine.store().clone(),
        reconnect,
        control,
    };
    let hooks = Hooks::start(&engine.config(), with)?;
    if let Some(hooks) = &hooks {
        engine.with.reports.to_hooks(hooks.outbox.clone());
    }
    Ok(hooks)
}
