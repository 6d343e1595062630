//! adsproxy: an authenticating reverse proxy for the Amazon Advertising API.

pub mod admin;
pub mod clock;
pub mod config;
pub mod https;
pub mod id;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod proxy;
pub mod secret;
