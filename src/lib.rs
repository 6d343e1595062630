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
//! use adsproxy::{Engine, Kind, load};
//! # #[cfg(feature = "sandbox")]
//! # use adsproxy::sandbox::{Emulator, EmulatorOptions};
//! # use std::{error::Error, sync::{Arc, atomic::{AtomicU32, Ordering}}};
//!
//! # #[cfg(not(feature = "sandbox"))]
//! # fn main() {}
//! # #[cfg(feature = "sandbox")]
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! # let amazon = Emulator::start(EmulatorOptions::default()).await?;
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

mod app;
mod cli;
mod problem;
mod proxy;

mod account;
mod audit;
mod callers;
mod engine;
mod forward;
mod grants;
mod hooks;
mod inbound;
mod listen;
mod login;
mod lwa;
mod provider;
mod recent;
mod reports;
mod store;
mod sync;
mod telemetry;
mod throttling;
mod token;

mod admin;
mod config;
mod log;
mod metrics;
// For tests, ours and those of library users; its items speak for themselves.
#[cfg(feature = "sandbox")]
#[doc(hidden)]
pub mod sandbox;
// What any bytes must not break; for tests/fuzz.
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;

mod backoff;
mod caller_body;
mod clock;
mod deadline;
mod durable_file;
mod error_chain;
mod event;
mod executor;
mod https;
mod id;
mod named;
mod secret;
mod small_write;
mod trace_context;
mod trusted_path;

pub use crate::{
    cli::{Cli, exit_code, run},
    config::{Config, load},
    engine::Engine,
    event::{Event, Kind},
    token::TokenManager,
};

/// The parts that the behaviour tests drive directly; not for other programs.
#[doc(hidden)]
pub mod testing {
    #[cfg(feature = "fuzz")]
    pub use crate::fuzz;
    pub use crate::{
        admin::ROUTES,
        app::App,
        audit::{Action, Actor, Audit, Entry},
        callers::key::{
            InvalidKeyDigest, InvalidKeyId, KeyDigest, KeyFormatError, KeyId, KeyKind, NewKey,
            NoRandomKey, PresentedKey,
        },
        clock::{Clock, ManualClock, SystemClock},
        config::{
            ApplicationConfig, AuditConfig, Config, DEFAULT_APPLICATION, Encryption, EncryptionKey,
            IssuerConfig, MetricsConfig, StoreConfig, StoreKind, Token, load,
        },
        engine::Engine,
        event::{Event, Kind},
        grants::Grants,
        hooks::outbox::list as list_outbox,
        https::{LwaHttp, client_config},
        id::{AccountId, Region},
        listen::IDLE_GRACE,
        login::Logins,
        lwa::{Application, LwaClient},
        metrics::Metrics,
        problem::TABLE,
        reports::Reports,
        secret::Secret,
        store::{
            Credential, Epoch, Error, Expected, Item, KeyRing, Lease, Limit, Space, Store,
            StoredAccessToken, UnknownFields, Version, backend,
        },
        token::{AccessToken, Authority, Cause, Dependencies, KnownGrant, Place, TokenManager},
    };
}
