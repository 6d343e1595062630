//! What belongs to the provider whose API is proxied, one file for each. There is one.

pub mod ads;
pub mod operations;
