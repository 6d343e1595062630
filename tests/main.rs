//! Behaviour tests: one file per behaviour.

mod deploy;
#[cfg(feature = "sandbox")]
mod egress_proxy;
#[cfg(feature = "sandbox")]
mod lwa_shim;
#[cfg(feature = "sandbox")]
mod redirects;
#[cfg(feature = "sandbox")]
mod replay_bodies;
#[cfg(feature = "sandbox")]
mod replay_on_401;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(feature = "sandbox")]
mod sandbox_command;
#[cfg(feature = "sandbox")]
mod sdk;
#[cfg(feature = "sandbox")]
mod streaming_bodies;
mod support;
#[cfg(feature = "sandbox")]
mod token_refresh;
