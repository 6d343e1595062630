//! What the behaviour tests share.

pub mod extras;
pub mod program;
