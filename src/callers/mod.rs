//! Who calls, and what they may: credentials, rules, sessions.

pub mod key;
