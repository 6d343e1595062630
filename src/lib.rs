//! adsproxy: an authenticating reverse proxy for the Amazon Advertising API.
//!
//! The map, in reading order. A request goes `listen -> proxy -> account -> token -> forward` and
//! back; everything else serves these.

pub mod app;
pub mod cli;
pub mod proxy;

pub mod account;
pub mod core;
pub mod forward;
pub mod listen;
pub mod lwa;
pub mod store;
pub mod token;

pub mod admin;
pub mod config;
pub mod log;
pub mod metrics;
#[cfg(feature = "sandbox")]
pub mod sandbox;

pub mod backoff;
pub mod clock;
pub mod deadline;
pub mod error_chain;
pub mod event;
pub mod executor;
pub mod https;
pub mod id;
pub mod secret;
pub mod small_write;
