//! Who calls, and what they may: credentials, rules, sessions.

pub mod key;
#[allow(dead_code, reason = "the part of the data plane follows")]
pub mod mcp;
