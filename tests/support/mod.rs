//! What the behaviour tests share.

#[cfg(feature = "sandbox")]
pub mod crowd;
pub mod extras;
#[cfg(feature = "sandbox")]
pub mod proxy;
