//! What the behaviour tests share.

#[cfg(feature = "sandbox")]
pub mod canary;
pub mod extras;
#[cfg(feature = "sandbox")]
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod wire;
