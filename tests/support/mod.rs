//! What the behaviour tests share.

pub mod extras;
#[cfg(feature = "sandbox")]
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod wire;
