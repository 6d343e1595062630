//! Notifications over a connection of its own, `store.listen_url`: what one server writes, the others
//! hear of at once.
//!
//! All is well without: who listens polls as well. A transaction pooler takes the LISTEN and
//! delivers nothing, so the connection is proven, from time to time, by a notification that goes out
//! over `store.url`.

use super::{
    super::hints::{ALL, Hints, hint},
    Error, Postgres, Statements,
    connect::DatabaseConnector,
    random, text,
};
use crate::{backoff::Backoff, config::StoreConfig, error_chain::chain};
use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::broadcast, time::timeout};
use tracing::{info, warn};

/// Hints that wait for a reader; one that is slower looks at everything.
const HINTS_MAX: usize = 256;
/// Between attempts to connect, while they fail.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How soon a notification must arrive.
const PROOF_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the connection is proven.
const PROOF_INTERVAL: Duration = Duration::from_secs(30);
/// The only space whose readers are in a hurry: they wait for tokens.
const SPACE: &str = "accounts";

/// Where notifications come from, if `store.listen_url` is set.
pub(super) struct ChangeListener {
    connector: DatabaseConnector,
    hints: broadcast::Sender<u64>,
    is_started: AtomicBool,
}

/// No notification arrives, although the connection is there.
#[derive(Debug, thiserror::Error)]
#[error(
    "no notification arrives over store.listen_url: it leads to a pooler in transaction mode or to \
     another database; give it the address of the database itself"
)]
struct NothingArrives;

impl ChangeListener {
    pub(super) fn new(store: &StoreConfig) -> Result<Option<Self>, Error> {
        let Some(url) = &store.listen_url else { return Ok(None) };
        let connector = DatabaseConnector::new("listen_url", Some(url), store)?;
        let (hints, is_started) = (broadcast::Sender::new(HINTS_MAX), AtomicBool::new(false));
        Ok(Some(Self { connector, hints, is_started }))
    }
}

impl Postgres {
    /// The hints from now on. The first caller begins to listen.
    pub(super) fn listen(&self) -> Hints {
        let Some(listener) = &self.inner.listener else { return Hints::default() };
        let hints = Hints::new(listener.hints.subscribe());
        if !listener.is_started.swap(true, Relaxed) {
            self.runtime.spawn(listen(Arc::downgrade(&self.inner)));
        }
        hints
    }

    /// Connects as a server does, and awaits one notification; none if it is not configured.
    pub(super) fn prove_listener(&self) -> Option<Result<(), Error>> {
        self.inner.listener.as_ref()?;
        let inner = self.inner.clone();
        let proof = async move {
            let listener = inner.listener.as_ref().expect("it was there before");
            let (_client, connection) = inner.subscribe(listener).await?;
            let proof = inner.prove(listener).await;
            connection.abort();
            proof
        };
        Some(self.wait(3 * PROOF_TIMEOUT, proof))
    }
}

impl Statements {
    /// The end of a statement's RETURNING that notifies of a write at a key; nothing where nothing is
    /// to listen. It is sent as the statement commits, through a pooler, too.
    pub(super) fn notify(&self, space: &str, key: &str) -> String {
        match self.listener.is_some() && space == SPACE {
            true => format!(", pg_notify({{name}}, '{:016x}')::text", hint(space, key)),
            false => String::new(),
        }
    }

    async fn subscribe(
        &self,
        listener: &ChangeListener,
    ) -> Result<(tokio_postgres::Client, tokio::task::JoinHandle<()>), Error> {
        let hints = listener.hints.clone();
        let connected = listener.connector.connect(move |notification| {
            if let Ok(hint) = u64::from_str_radix(notification.payload(), 16) {
                // Without a reader it is not needed.
                let _ = hints.send(hint);
            }
        });
        let (client, connection) = connected.await?;
        let listening = timeout(PROOF_TIMEOUT, client.batch_execute(&self.of_schema(LISTEN))).await;
        listening.map_err(super::failed)?.map_err(super::failed)?;
        Ok((client, connection))
    }

    /// Sends a notification over `store.url`, and awaits it.
    async fn prove(&self, listener: &ChangeListener) -> Result<(), Error> {
        let proof = u64::from_be_bytes(*random::<8>()?);
        let mut hints = listener.hints.subscribe();
        self.rows(
            "SELECT pg_notify($1, $2)::text",
            &[text(&self.name), text(&format!("{proof:016x}"))],
        )
        .await?;
        let arrives = async { while hints.recv().await.is_ok_and(|hint| hint != proof) {} };
        let nothing = |_| Error::Database { source: io::Error::other(NothingArrives) };
        timeout(PROOF_TIMEOUT, arrives).await.map_err(nothing)
    }

    /// Listens until the connection ends or proves useless.
    async fn listen_once(
        &self,
        listener: &ChangeListener,
        backoff: &mut Backoff,
    ) -> Result<(), Error> {
        let (_client, mut connection) = self.subscribe(listener).await?;
        let mut is_new = true;
        let ended = loop {
            if let Err(error) = self.prove(listener).await {
                break Err(error);
            }
            if std::mem::take(&mut is_new) {
                info!("the database notifies this server of changes");
                backoff.reset();
                // What was written meanwhile.
                let _ = listener.hints.send(ALL);
            }
            if timeout(PROOF_INTERVAL, &mut connection).await.is_ok() {
                break Err(super::unreachable("the connection for notifications has ended"));
            }
        };
        connection.abort();
        ended
    }
}

const LISTEN: &str = "LISTEN {schema}";

/// Listens as long as the backend is there.
async fn listen(inner: Weak<Statements>) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut reported = None;
    while let Some(inner) = inner.upgrade() {
        let Some(listener) = &inner.listener else { return };
        if let Err(error) = inner.listen_once(listener, &mut backoff).await {
            let error = chain(&error);
            // Once for each reason: it is tried for ever.
            if reported.as_ref() != Some(&error) {
                warn!(error, "no notifications from the database: changes are polled for");
                reported = Some(error);
            }
        }
        drop(inner);
        tokio::time::sleep(backoff.next()).await;
    }
}
