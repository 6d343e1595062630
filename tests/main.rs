//! Behaviour tests: one file per behaviour.

#[cfg(feature = "sandbox")]
mod bad_input;
mod deploy;
#[cfg(feature = "sandbox")]
mod header_hygiene;
#[cfg(feature = "sandbox")]
mod http2;
#[cfg(feature = "sandbox")]
mod limits;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(feature = "sandbox")]
mod sandbox_command;
#[cfg(feature = "sandbox")]
mod sdk;
#[cfg(feature = "sandbox")]
mod selection;
mod support;
#[cfg(feature = "sandbox")]
mod token_refresh;
