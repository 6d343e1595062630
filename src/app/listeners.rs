//! The listeners beside the data plane: admin, with its logins, and health.

use super::{control, worker};
use crate::{
    admin::{Admin, AdminSurface, health::Health},
    audit::Actor,
    callers::sessions::Sessions,
    config::{Config, ListenAddress},
    engine::Engine,
    inbound::{guard::Guard, peer::ConnectionInfo, request_id},
    listen::{
        Listener,
        bind::{BindError, SocketFile, unix_listener},
        control_plane,
        rejection::ListenRejection,
    },
    login::{Logins, returns_to_localhost},
};
use bytes::Bytes;
use http::{Response, Uri};
use rustix::fs::Mode;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tracing::warn;

/// How long a login that Amazon has responded to may take to its end: to ask for a token and, in three
/// regions at once, for profiles.
const LOGINS_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two attempts to bind an address that another program holds.
const REBIND_INTERVAL: Duration = Duration::from_secs(1);

/// The admin and health listeners; by default none.
#[derive(Default)]
pub(super) struct AdminListeners {
    /// The admin listener's address as bound.
    pub(super) admin: Option<ListenAddress>,
    /// The health listener's address as bound.
    pub(super) health: Option<SocketAddr>,
    /// The public listener's address as bound.
    pub(super) public: Option<SocketAddr>,
    /// The logins of the admin listener and the control socket, and these listeners.
    logins: Option<(Logins, Vec<JoinHandle<()>>)>,
    /// The Unix sockets; unlinked at the end.
    files: Vec<SocketFile>,
}

impl AdminListeners {
    /// Opens the configured listeners, which serve until `stop` is true.
    pub(super) async fn open(
        engine: &Engine,
        sessions: &Sessions,
        health: &Arc<Health>,
        stop: &watch::Sender<bool>,
    ) -> Result<Self, super::Error> {
        let config = engine.config();
        let logins = Logins::new(engine.clone(), Actor::unknown());
        let service_of = |surface, guard| {
            Admin::new(surface, health.clone(), guard, logins.clone(), sessions.clone())
        };
        let purging = logins.clone();
        tokio::spawn(async move { purging.run_purge().await });
        let admin = service_of(AdminSurface::Admin, Guard::new(&config.guard));
        let service = move |info: &ConnectionInfo| Some(admin.of_connection(info));

        let mut opened = Self { admin: config.listen.admin.clone(), ..Self::default() };
        let mut serving = Vec::new();
        match &config.listen.admin {
            Some(ListenAddress::Tcp(address)) => {
                let listener = listener(*address).await?;
                let bound = listener.local_addr()?;
                opened.admin = Some(ListenAddress::Tcp(bound));
                serving.push(spawn(listener, service.clone(), stop));
                if let Some(other) = other_loopback(config, bound) {
                    let first = TcpListener::bind(other).await;
                    let (logins, stop) = (logins.clone(), stop.subscribe());
                    serving.push(tokio::spawn(serve_other(first, other, service, logins, stop)));
                }
            }
            Some(shown @ ListenAddress::Unix(path)) => {
                let bound = unix_listener(path, Mode::from_raw_mode(0o660));
                let (listener, file) = bound.map_err(|error| BindError::new(shown, error))?;
                serving.push(spawn(UnixListener::from_std(listener)?, service, stop));
                opened.files.push(file);
            }
            None => {}
        }
        if let Some(address) = config.listen.health {
            let listener = listener(address).await?;
            opened.health = Some(listener.local_addr()?);
            let service = service_of(AdminSurface::Health, Guard::default());
            spawn(listener, move |_: &_| Some(service.clone()), stop);
        }
        if let Some(address) = config.listen.public {
            let listener = listener(address).await?;
            opened.public = Some(listener.local_addr()?);
            let public = service_of(AdminSurface::Public, public_guard(config));
            let service = move |info: &ConnectionInfo| Some(public.of_connection(info));
            serving.push(spawn(listener, service, stop));
        }
        if let Some((listener, file)) = control::bind(config) {
            let service = control::service(service_of(AdminSurface::Control, Guard::default()));
            serving.push(spawn(UnixListener::from_std(listener)?, service, stop));
            opened.files.push(file);
        }
        opened.logins = Some((logins, serving));
        Ok(opened)
    }

    /// Waits, for a while, until the logins that Amazon has responded to have ended and are reported.
    pub(super) async fn finish_logins(&mut self) {
        let Some((logins, serving)) = self.logins.take() else { return };
        let finished = async {
            for listener in serving {
                let _ = listener.await;
            }
            logins.finish_all().await;
        };
        if timeout(LOGINS_TIMEOUT, finished).await.is_err() {
            warn!("a login was still under way");
        }
    }
}

/// Accepts what the admin listener does, and the names under which Amazon sends browsers back.
fn public_guard(config: &Config) -> Guard {
    let mut guard = config.guard.clone();
    let addresses = config.applications.values().map(|it| it.redirect_uri.parse::<Uri>());
    let hosts = addresses.flatten().filter_map(|address| address.host().map(str::to_owned));
    guard.allowed_hosts.extend(hosts);
    Guard::new(&guard)
}

/// The other loopback address of the admin listener, if `http://localhost` leads to both: a browser
/// may look there first, and what listens there would get Amazon's responses.
fn other_loopback(config: &Config, admin: SocketAddr) -> Option<SocketAddr> {
    let mut applications = config.applications.values();
    if !applications.any(|it| returns_to_localhost(&it.redirect_uri, admin.port())) {
        return None;
    }
    match admin.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Some((Ipv6Addr::LOCALHOST, admin.port()).into()),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Some((Ipv4Addr::LOCALHOST, admin.port()).into()),
        _ => None,
    }
}

/// Serves the admin listener's other loopback address. While another program holds it, no login
/// begins; where the machine has no such address, there is nothing to serve.
async fn serve_other(
    mut bound: io::Result<TcpListener>,
    address: SocketAddr,
    service: impl Fn(&ConnectionInfo) -> Option<Admin>,
    logins: Logins,
    mut stop: watch::Receiver<bool>,
) {
    while matches!(&bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
        if logins.foreign_listener.lock().replace(address).is_none() {
            warn!(%address, "another program listens where a browser may take Amazon's response: \
                no login begins until it has stopped");
        }
        if timeout(REBIND_INTERVAL, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
        bound = TcpListener::bind(address).await;
    }
    *logins.foreign_listener.lock() = None;
    if let Ok(listener) = bound {
        control_plane::serve(listener, service, reject, stop).await;
    }
}

/// Serves on the current runtime until `stop` is true.
fn spawn(
    listener: impl Listener + Sync,
    service: impl Fn(&ConnectionInfo) -> Option<Admin> + Send + Sync + 'static,
    stop: &watch::Sender<bool>,
) -> JoinHandle<()> {
    tokio::spawn(control_plane::serve(listener, service, reject, stop.subscribe()))
}

async fn listener(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError::new(address, error))
}

/// The response to what never became a request.
pub(crate) fn reject(rejection: ListenRejection) -> Response<Bytes> {
    let request_id = request_id::fresh(request_id::first());
    worker::as_error(rejection).problem().respond(&request_id)
}
