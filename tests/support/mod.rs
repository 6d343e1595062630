//! What the behaviour tests share.

#[cfg(feature = "sandbox")]
pub mod bodies;
#[cfg(feature = "sandbox")]
pub mod canary;
#[cfg(feature = "sandbox")]
pub mod commands;
#[cfg(feature = "sandbox")]
pub mod crowd;
pub mod extras;
#[cfg(feature = "sandbox")]
pub mod importing;
pub mod program;
#[cfg(feature = "sandbox")]
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod receiver;
#[cfg(feature = "sandbox")]
pub mod secure;
#[cfg(feature = "sandbox")]
pub mod socket;
#[cfg(feature = "sandbox")]
pub mod strace;
#[cfg(feature = "sandbox")]
pub mod stream;
#[cfg(feature = "sandbox")]
pub mod wire;
