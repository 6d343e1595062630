//! What `adsproxy --version` says of the build: see `build.rs`.

/// Behind the name of the program.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit ",
    env!("ADSPROXY_COMMIT"),
    "\nfeatures ",
    env!("ADSPROXY_FEATURES"),
    "\ntarget ",
    env!("ADSPROXY_TARGET"),
);
