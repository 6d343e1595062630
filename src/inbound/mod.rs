//! What a connection and a request head are: peer, header fields, request id, guard, keys in paths, and how
//! often one peer may do what costs.
//!
//! Below the data plane and the admin listener, which judge a request in the same way. Knows no
//! account, no token and no configuration.

pub mod fields;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod guard;
pub mod path_key;
pub mod peer;
pub mod request_id;
pub mod throttle;
