//! How the database is reached: by which URL, with which TLS, over which connections.

use super::super::Error;
use crate::{backoff::Backoff, config::StoreConfig, https, secret::Secret};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
    task::{AbortHandle, JoinHandle},
};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, NoTls, Notification, Socket,
    config::{Host, SslMode, TargetSessionAttrs},
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// More wait: the statements are short.
const CONNECTIONS: usize = 4;
/// A connection that is older is replaced, so that a new address of the database is found.
const LIFETIME: Duration = Duration::from_secs(600);
/// Between attempts to connect, while they fail.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Makes connections as one URL says.
pub(super) struct DatabaseConnector {
    config: Config,
    tls: Option<Tls>,
}

/// A few connections, made when they are needed.
pub(super) struct DatabasePool {
    connector: DatabaseConnector,
    idle: Mutex<Vec<PooledClient>>,
    places: Semaphore,
    /// How often a connection broke or could not be made.
    pub(super) losses: AtomicU64,
    /// No attempt before this, after one that failed.
    retry: Mutex<(Backoff, Option<Instant>)>,
}

pub(super) struct PooledClient {
    pub(super) client: Client,
    since: Instant,
    connection: AbortHandle,
}

impl Drop for PooledClient {
    /// What had no response in time must not be done later: a pooler, which may still have it in a queue,
    /// drops it with the connection.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl DatabaseConnector {
    /// For the URL of the key `name` in `[store]`.
    pub(super) fn new(
        name: &str,
        url: Option<&Secret>,
        store: &StoreConfig,
    ) -> Result<Self, Error> {
        let text = url.map(Secret::expose).unwrap_or_default();
        let unfit = |why| Error::DatabaseSettings(format!("store.{name} {why}"));
        let ParsedUrl { mut config, mode, roots } = parse(text).map_err(unfit)?;
        let is_encrypted = is_encrypted(&config, mode.as_deref(), store.unsafe_allow_plaintext);
        let tls = if is_encrypted.map_err(unfit)? {
            let ca_file = store.ca_file.as_deref().or(roots.as_deref());
            let tls = https::client_config(ca_file, false).map_err(failed)?;
            let mut tls = ClientConfig::clone(&tls);
            tls.alpn_protocols.clear();
            Some(Tls(Arc::new(tls)))
        } else {
            None
        };
        config
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT_TIMEOUT)
            .application_name("adsproxy");
        Ok(Self { config, tls })
    }

    /// Connects; `note` gets what the database notifies of, as long as the task runs.
    pub(super) async fn connect(
        &self,
        note: impl Fn(&Notification) + Send + 'static,
    ) -> Result<(Client, JoinHandle<()>), Error> {
        let connecting = async {
            // A name that is slow to resolve counts, too.
            match &self.tls {
                Some(tls) => {
                    let (client, connection) = self.config.connect(tls.clone()).await?;
                    Ok((client, tokio::spawn(drive(connection, note))))
                }
                None => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    Ok((client, tokio::spawn(drive(connection, note))))
                }
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error: tokio_postgres::Error| failed(error)),
            Err(_) => Err(unreachable("no connection within five seconds")),
        }
    }
}

/// Moves the bytes of a connection until it ends.
async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<Socket, T>,
    note: impl Fn(&Notification),
) {
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        if let AsyncMessage::Notification(notification) = message {
            note(&notification);
        }
    }
}

impl DatabasePool {
    pub(super) fn new(store: &StoreConfig) -> Result<Self, Error> {
        Ok(Self {
            connector: DatabaseConnector::new("url", store.url.as_ref(), store)?,
            idle: Mutex::default(),
            places: Semaphore::new(CONNECTIONS),
            losses: AtomicU64::new(0),
            retry: Mutex::new((Backoff::new(RETRY.0, RETRY.1), None)),
        })
    }

    /// Does `work` with a connection, which is kept for others if it is `Ok`.
    pub(super) async fn with<
        T,
        W: Future<Output = (PooledClient, Result<T, tokio_postgres::Error>)>,
    >(
        &self,
        work: impl FnOnce(PooledClient) -> W,
    ) -> Result<T, Error> {
        let _place = self.places.acquire().await.map_err(failed)?;
        let connected = match self.idle() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        let (connected, done) = work(connected).await;
        match connected.client.is_closed() {
            true => drop(self.losses.fetch_add(1, Relaxed)),
            false => self.idle.lock().push(connected),
        }
        done.map_err(failed)
    }

    fn idle(&self) -> Option<PooledClient> {
        let mut idle = self.idle.lock();
        idle.retain(|one| {
            let is_closed = one.client.is_closed();
            self.losses.fetch_add(is_closed.into(), Relaxed);
            !is_closed && one.since.elapsed() < LIFETIME
        });
        idle.pop()
    }

    async fn connect(&self) -> Result<PooledClient, Error> {
        if self.retry.lock().1.is_some_and(|after| Instant::now() < after) {
            return Err(unreachable("the last attempt failed, the next follows in a moment"));
        }
        let connected = self.connector.connect(|_| ()).await;
        let mut retry = self.retry.lock();
        match connected {
            Ok((client, connection)) => {
                retry.0.reset();
                retry.1 = None;
                let connection = connection.abort_handle();
                Ok(PooledClient { client, since: Instant::now(), connection })
            }
            Err(error) => {
                self.losses.fetch_add(1, Relaxed);
                retry.1 = Some(Instant::now() + retry.0.next());
                Err(error)
            }
        }
    }
}

pub(super) fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Database { source: io::Error::other(error) }
}

pub(super) fn unreachable(why: &'static str) -> Error {
    Error::Database { source: io::Error::other(why) }
}

/// What a URL, or words like `host=…`, say.
pub(in crate::store::backend) struct ParsedUrl {
    pub(in crate::store::backend) config: Config,
    /// `sslmode`, of which the driver knows too few.
    pub(in crate::store::backend) mode: Option<String>,
    /// `sslrootcert`, which it does not know; none for the roots of the system.
    roots: Option<PathBuf>,
}

/// The driver's own error may show a password. An error says what is wrong with the URL.
pub(in crate::store::backend) fn parse(text: &str) -> Result<ParsedUrl, &'static str> {
    let (mode, rest) = take_option(text, "sslmode");
    let (roots, rest) = take_option(&rest, "sslrootcert");
    let config: Config = rest
        .parse()
        .map_err(|_| "is no URL of PostgreSQL, or has an option that is not known here")?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("names no host");
    }
    let roots = roots.filter(|path| path != "system").map(PathBuf::from);
    Ok(ParsedUrl { config, mode, roots })
}

/// Takes an option out of a URL or out of words.
fn take_option(text: &str, name: &str) -> (Option<String>, String) {
    let (is_url, query) = match text.split_once('?') {
        Some((_, query)) if text.contains("://") => (true, query),
        _ => (text.contains("://"), if text.contains("://") { "" } else { text }),
    };
    let option = format!("{name}=");
    let separator = if is_url { '&' } else { ' ' };
    let Some(value) = query.split(separator).find_map(|word| word.strip_prefix(&option)) else {
        return (None, text.to_owned());
    };
    let rest = text.replacen(&format!("{option}{value}"), "", 1);
    // What is left of an option that was alone, first or in the middle.
    let rest = rest.replace("&&", "&").replace("?&", "?");
    let rest = rest.trim_end_matches(['&', '?']).to_owned();
    let value = match is_url {
        true => percent_decode_str(value).decode_utf8_lossy().into_owned(),
        false => value.to_owned(),
    };
    (Some(value), rest)
}

pub(in crate::store::backend) fn is_encrypted(
    config: &Config,
    mode: Option<&str>,
    allow: bool,
) -> Result<bool, &'static str> {
    let is_near = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    let addresses = config.get_hostaddrs();
    let is_local = match addresses.is_empty() {
        true => config.get_hosts().iter().all(is_near),
        false => addresses.iter().all(IpAddr::is_loopback),
    };
    match mode {
        Some("require" | "verify-ca" | "verify-full") => Ok(true),
        Some("disable" | "allow" | "prefer") if is_local || allow => Ok(false),
        Some("disable" | "allow" | "prefer") => Err(
            "has an sslmode that permits a connection without TLS to another machine: leave it \
                 out, or set store.unsafe_allow_plaintext = true",
        ),
        Some(_) => Err("has an sslmode that PostgreSQL does not have"),
        None => Ok(!is_local),
    }
}

/// TLS whose certificate is verified in full.
#[derive(Clone)]
struct Tls(Arc<ClientConfig>);

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = TlsDialer;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<TlsDialer> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        Ok(TlsDialer(self.0.clone(), name))
    }
}

struct TlsDialer(Arc<ClientConfig>, ServerName<'static>);

impl TlsConnect<Socket> for TlsDialer {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        let handshake = tokio_rustls::TlsConnector::from(self.0).connect(self.1, stream);
        Box::pin(async { Ok(Encrypted(Box::new(handshake.await.map_err(explained)?))) })
    }
}

/// With what to do about a certificate that is not accepted.
fn explained(error: io::Error) -> io::Error {
    let of_tls = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(rustls::Error::InvalidCertificate(why)) => io::Error::other(format!(
            "the certificate of the database is not accepted ({why}): store.ca_file names the CA, \
             and store.url the host as the certificate does"
        )),
        _ => error,
    }
}

struct Encrypted(Box<tokio_rustls::client::TlsStream<Socket>>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encrypted(url: &str) -> Result<bool, String> {
        let judged = parse(url).and_then(|it| is_encrypted(&it.config, it.mode.as_deref(), false));
        judged.map_err(|_| {
            let connector =
                DatabaseConnector::new("url", Some(&url.into()), &StoreConfig::default());
            crate::error_chain::chain(&connector.err().expect("it is judged so"))
        })
    }

    #[test]
    fn tls_is_a_must_beyond_this_machine() {
        for url in [
            "postgres://u:p@db.example/x",
            "postgres://u:p@db.example/x?sslmode=require",
            "postgres://u:p@db.example/x?connect_timeout=3&sslmode=verify-full&application_name=a",
            "host=db.example sslmode=verify-ca user=u",
            "postgres://u:p@localhost,db.example/x",
            "postgres://u@127.0.0.1/x?sslmode=require",
            "postgres://u@db.example/x?sslrootcert=/ca%20s.pem&sslmode=verify-full",
        ] {
            assert_eq!(encrypted(url), Ok(true), "{url}");
        }
        for url in [
            "postgres://u:p@127.0.0.1:5432/x",
            "postgres://u:p@[::1]/x?sslmode=disable",
            "postgres:///x?host=/run/postgresql",
            "host=localhost user=u",
        ] {
            assert_eq!(encrypted(url), Ok(false), "{url}");
        }
    }

    #[test]
    fn the_url_may_name_the_ca_as_libpq_has_it() {
        for (url, roots) in [
            ("postgres://u@db/x?sslrootcert=/ca%20s.pem&sslmode=verify-full", Some("/ca s.pem")),
            ("host=db sslrootcert=/ca.pem", Some("/ca.pem")),
            ("postgres://u@db/x?sslrootcert=system", None),
            ("postgres://u@db/sslrootcert=x", None),
        ] {
            let found = parse(url).map(|it| it.roots).expect(url);
            assert_eq!(found.as_deref().and_then(|it| it.to_str()), roots, "{url}");
        }
    }

    #[test]
    fn a_url_that_permits_plaintext_or_is_none_is_refused_without_its_password() {
        for url in [
            "postgres://u:CANARY@db.example/x?sslmode=disable",
            "postgres://u:CANARY@db.example/x?sslmode=prefer",
            "postgres://u:CANARY@localhost/x?sslmode=CANARY",
            "postgres://u:CANARY@localhost/x?CANARY=1",
            "postgres://u:CANARY@localhost:CANARY/x",
            "password=CANARY",
            "CANARY",
            "",
        ] {
            let error = encrypted(url).expect_err(url);
            assert!(error.contains("store.url"), "{error}");
            assert!(!error.contains("CANARY"), "{error}");
        }
    }
}
