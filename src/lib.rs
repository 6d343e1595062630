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
mod engine;
mod forward;
mod grants;
mod hooks;
mod inbound;
mod listen;
mod login;
mod lwa;
mod provider;
mod reports;
mod store;
mod sync;
mod token;

mod admin;
mod config;
mod log;
mod metrics;
// For tests, ours and those of library users; its items speak for themselves.
#[cfg(feature = "sandbox")]
#[doc(hidden)]
pub mod sandbox;

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
    pub mod admin {
        pub use crate::admin::ROUTES;
    }
    pub mod app {
        pub use crate::app::App;
    }
    pub mod audit {
        pub use crate::audit::{Actor, Audit};
    }
    pub mod clock {
        pub use crate::clock::{Clock, ManualClock, SystemClock};
    }
    pub mod config {
        pub use crate::config::{
            ApplicationConfig, Config, DEFAULT_APPLICATION, Encryption, EncryptionKey,
            MetricsConfig, StoreConfig, StoreKind, Token, load,
        };
    }
    pub mod engine {
        pub use crate::engine::Engine;
    }
    pub mod event {
        pub use crate::event::{Event, Kind};
    }
    pub mod grants {
        pub use crate::grants::Grants;
    }
    pub mod hooks {
        pub use crate::hooks::outbox::list;
    }
    pub mod https {
        pub use crate::https::{LwaHttp, client_config};
    }
    pub mod id {
        pub use crate::id::{AccountId, Region};
    }
    pub mod listen {
        pub use crate::listen::IDLE_GRACE;
    }
    pub mod login {
        pub use crate::login::Logins;
    }
    pub mod lwa {
        pub use crate::lwa::{Application, LwaClient};
    }
    pub mod metrics {
        pub use crate::metrics::Metrics;
    }
    pub mod problem {
        pub use crate::problem::TABLE;
    }
    pub mod reports {
        pub use crate::reports::Reports;
    }
    pub mod secret {
        pub use crate::secret::Secret;
    }
    pub mod store {
        pub use crate::store::{
            Credential, Epoch, Error, Expected, Item, KeyRing, Lease, Limit, Space, Store,
            StoredAccessToken, Version, backend,
        };
    }
    pub mod token {
        pub use crate::token::{
            AccessToken, Authority, Cause, Dependencies, KnownGrant, TokenManager,
        };
    }
}
