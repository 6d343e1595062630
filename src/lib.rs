//! adsproxy: an authenticating reverse proxy for the Amazon Advertising API.

pub mod backoff;
pub mod clock;
pub mod config;
pub mod id;
pub mod secret;
pub mod store;
