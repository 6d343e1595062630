//! Behaviour tests, one file per behaviour.

#[cfg(feature = "sandbox")]
mod sandbox;
