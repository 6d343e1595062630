//! adsproxy: an authenticating reverse proxy for the Amazon Advertising API.
//!
//! The map, in reading order. A request goes `listen -> proxy -> account -> token -> forward` and
//! back; everything else serves these.
//!
//! # As a library
//!
//! A program in Rust needs no proxy to have its tokens kept fresh. [`Engine`] opens the store of a
//! configuration, its [`TokenManager`] is the one that the server uses, and several processes may
//! share one store: they refresh once between them.
//!
//! ```
//! use adsproxy::{Engine, config::load, event::Kind};
//! # #[cfg(feature = "sandbox")]
//! # use adsproxy::sandbox::{Emulator, Options};
//! # use std::{error::Error, sync::{Arc, atomic::{AtomicU32, Ordering}}};
//!
//! # #[cfg(not(feature = "sandbox"))]
//! # fn main() {}
//! # #[cfg(feature = "sandbox")]
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! # let amazon = Emulator::start(Options::default()).await?;
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("proxy.toml");
//! # let secret = |name: &str, text: &str| -> std::io::Result<String> {
//! #     use std::{io::Write, os::unix::fs::OpenOptionsExt};
//! #     let path = directory.path().join(name);
//! #     let mut file =
//! #         std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
//! #     file.write_all(text.as_bytes())?;
//! #     Ok(format!("{{ file = {path:?} }}"))
//! # };
//! # std::fs::write(&path, format!(
//! #     "[lwa]\nclient_id = {:?}\nclient_secret = {}\ntoken_url = \"http://{}/auth/o2/token\"\n\
//! #      [store]\nkind = \"memory\"\n\
//! #      [accounts.acme]\nregion = \"na\"\nrefresh_token = {}\n",
//! #     adsproxy::sandbox::CLIENT_ID,
//! #     secret("client", adsproxy::sandbox::CLIENT_SECRET)?,
//! #     amazon.addr(),
//! #     secret("grant", adsproxy::sandbox::ACCOUNTS[0].1)?,
//! # ))?;
//! // The first of ~/.config/adsproxy/proxy.toml and /etc/adsproxy/proxy.toml unless a path is given.
//! let options = load::Options { path: Some(path), ..load::Options::default() };
//! let engine = Engine::embed(load::load(&options)?.config)?;
//!
//! // Called where it happens, so it only takes note.
//! let refreshes = Arc::new(AtomicU32::new(0));
//! let counter = refreshes.clone();
//! engine.events().subscribe(move |event| {
//!     if event.kind == Kind::TokenRefreshed {
//!         counter.fetch_add(1, Ordering::Relaxed);
//!     }
//! });
//!
//! // Refreshes ahead of expiry and notices accounts that come and go, until the guard is dropped.
//! engine.enroll().await?;
//! let guard = engine.keep_fresh();
//!
//! let token = engine.token(&"acme".parse()?).await?;
//! let request = http::Request::get("https://advertising-api.amazon.com/v2/profiles")
//!     .header("authorization", token.header())
//!     .body(())?;
//! # assert!(request.headers()["authorization"].to_str()?.starts_with("Bearer Atza|"));
//! assert_eq!(refreshes.load(Ordering::Relaxed), 1);
//! drop(guard);
//! # Ok(())
//! # }
//! ```

pub mod app;
pub mod cli;
pub mod proxy;

pub mod account;
pub mod audit;
pub mod engine;
pub mod forward;
pub mod hooks;
pub mod inbound;
pub mod listen;
pub mod login;
pub mod lwa;
pub mod provider;
pub mod store;
pub mod sync;
pub mod token;

pub mod admin;
pub mod config;
pub mod log;
pub mod metrics;
#[cfg(feature = "sandbox")]
pub mod sandbox;

pub mod backoff;
pub mod caller_body;
pub mod clock;
pub mod deadline;
pub mod durable_file;
pub mod error_chain;
pub mod event;
pub mod executor;
pub mod https;
pub mod id;
pub mod secret;
pub mod small_write;
pub mod trusted_path;

pub use crate::engine::Engine;
pub use token::TokenManager;
