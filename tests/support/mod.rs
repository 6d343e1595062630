//! What the behaviour tests share.

#[cfg(feature = "sandbox")]
pub mod bodies;
pub mod extras;
#[cfg(feature = "sandbox")]
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod secure;
#[cfg(feature = "sandbox")]
pub mod wire;
