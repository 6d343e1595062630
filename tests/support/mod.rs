//! What the behaviour tests share.

pub mod extras;
pub mod program;
#[cfg(feature = "sandbox")]
pub mod proxy;
