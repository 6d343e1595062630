//! Behaviour tests: one file per behaviour.

#[cfg(feature = "sandbox")]
mod admin;
mod deploy;
#[cfg(feature = "sandbox")]
mod drain;
mod layers;
#[cfg(feature = "sandbox")]
mod listeners;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(feature = "sandbox")]
mod sandbox_command;
#[cfg(feature = "sandbox")]
mod sdk;
#[cfg(feature = "sandbox")]
mod secrets;
mod support;
#[cfg(feature = "sandbox")]
mod token_refresh;
