//! What the behaviour tests share.

#[cfg(feature = "sandbox")]
pub mod crowd;
pub mod bodies;
pub mod extras;
pub mod program;
#[cfg(feature = "sandbox")]
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod wire;
