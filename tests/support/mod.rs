//! What the behaviour tests share.

#[cfg(feature = "sandbox")]
pub mod bodies;
#[cfg(feature = "sandbox")]
pub mod browser;
#[cfg(feature = "sandbox")]
pub mod callers;
#[cfg(feature = "sandbox")]
pub mod canary;
#[cfg(feature = "sandbox")]
pub mod commands;
#[cfg(feature = "sandbox")]
pub mod crowd;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
pub mod dashboard;
pub mod deploy;
pub mod extras;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
pub mod fleet;
#[cfg(feature = "sandbox")]
pub mod grants;
#[cfg(feature = "sandbox")]
pub mod importing;
#[cfg(feature = "sandbox")]
pub mod issuer;
#[cfg(feature = "sandbox")]
pub mod load;
#[cfg(feature = "sandbox")]
pub mod login;
#[cfg(feature = "sandbox")]
pub mod otlp;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
pub mod pooler;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
pub mod postgres;
pub mod program;
#[cfg(feature = "sandbox")]
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod receiver;
#[cfg(feature = "sandbox")]
pub mod recorder;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
pub mod relay;
#[cfg(feature = "sandbox")]
pub mod reverse_proxy;
#[cfg(feature = "sandbox")]
pub mod sandbox;
#[cfg(feature = "sandbox")]
pub mod secure;
#[cfg(feature = "sandbox")]
pub mod signer;
#[cfg(feature = "sandbox")]
pub mod socket;
#[cfg(feature = "sandbox")]
pub mod strace;
#[cfg(feature = "sandbox")]
pub mod stranger;
#[cfg(feature = "sandbox")]
pub mod stream;
#[cfg(feature = "sandbox")]
pub mod uploads;
#[cfg(feature = "sandbox")]
pub mod wire;
#[cfg(feature = "sandbox")]
pub mod world;
