//! The data plane: the way of a request from a caller to Amazon and back.

pub mod guard;
