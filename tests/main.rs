//! Behaviour tests: one file per behaviour.

mod cli;
#[cfg(feature = "sandbox")]
mod clock_and_sleep;
mod config;
mod deploy;
#[cfg(feature = "sandbox")]
mod grant_death;
#[cfg(feature = "sandbox")]
mod outage;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(feature = "sandbox")]
mod sandbox_command;
#[cfg(feature = "sandbox")]
mod sdk;
#[cfg(feature = "sandbox")]
mod store_crash;
mod support;
#[cfg(feature = "sandbox")]
mod token_refresh;
