//! What the behaviour tests share.

#[cfg(feature = "sandbox")]
pub mod certs;
pub mod extras;
#[cfg(feature = "sandbox")]
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod socket;
