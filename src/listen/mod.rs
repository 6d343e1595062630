//! Where callers arrive: listeners are handed a service and do not know what it does.

pub mod tls;
