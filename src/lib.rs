//! adsproxy: an authenticating reverse proxy for the Amazon Advertising API.

pub mod clock;
pub mod config;
pub mod id;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;
