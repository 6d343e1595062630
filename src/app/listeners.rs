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
        bind::{BindError, Bound, SocketFile, unix_listener},
        control_plane,
        inherited::InheritedSockets,
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
    pub(super) health: Option<ListenAddress>,
    /// The public listener's address as bound.
    pub(super) public: Option<ListenAddress>,
    /// The logins of the admin listener and the control socket, and these listeners.
    logins: Option<(Logins, Vec<JoinHandle<()>>)>,
    /// The Unix sockets; unlinked at the end.
    files: Vec<SocketFile>,
}

impl AdminListeners {
    /// Opens the configured listeners, which serve until `stop` is true.
    pub(super) async fn open(
        &mut self,
        engine: &Engine,
        sessions: &Sessions,
        health: &Arc<Health>,
        stop: &watch::Sender<bool>,
        inherited: &mut InheritedSockets,
    ) -> Result<(), super::Error> {
        let config = &*engine.config();
        let logins = Logins::new(engine.clone(), Actor::unknown());
        let service_of = |surface, guard| {
            Admin::new(surface, health.clone(), guard, logins.clone(), sessions.clone())
        };
        let purging = logins.clone();
        tokio::spawn(async move { purging.run_purge().await });
        let admin = service_of(AdminSurface::Admin, Guard::new(&config.guard));
        let mut serving = self.open_admin(admin, &logins, stop, inherited).await?;
        if let Some(shown) = &config.listen.health {
            let sockets = self.bind(shown, inherited, true).await?;
            self.health = sockets.iter().find_map(Bound::address);
            let service = service_of(AdminSurface::Health, Guard::default());
            for socket in sockets {
                let service = service.clone();
                spawn_bound(socket, move |_: &_| Some(service.clone()), stop)?;
            }
        }
        if let Some(shown) = &config.listen.public {
            let sockets = self.bind(shown, inherited, true).await?;
            self.public = sockets.iter().find_map(Bound::address);
            let public = service_of(AdminSurface::Public, public_guard(config));
            let service = move |info: &ConnectionInfo| Some(public.of_connection(info));
            for socket in sockets {
                serving.push(spawn_bound(socket, service.clone(), stop)?);
            }
        }
        if let Some((listener, file)) = control::bind(config) {
            let service = control::service(service_of(AdminSurface::Control, Guard::default()));
            serving.push(spawn(UnixListener::from_std(listener)?, service, stop));
            self.files.push(file);
        }
        self.logins = Some((logins, serving));
        Ok(())
    }

    /// Opens the admin listener, if there is one.
    async fn open_admin(
        &mut self,
        admin: Admin,
        logins: &Logins,
        stop: &watch::Sender<bool>,
        inherited: &mut InheritedSockets,
    ) -> Result<Vec<JoinHandle<()>>, super::Error> {
        let config = &*logins.engine.config();
        let Some(shown) = &config.listen.admin else { return Ok(Vec::new()) };
        let sockets = self.bind(shown, inherited, false).await?;
        let own: Vec<ListenAddress> = sockets.iter().filter_map(Bound::address).collect();
        self.admin = own.first().cloned();
        let service = move |info: &ConnectionInfo| Some(admin.of_connection(info));
        let mut serving = Vec::new();
        for socket in sockets {
            let service = service.clone();
            let address = socket.address().and_then(|address| address.tcp());
            serving.push(spawn_bound(socket, service.clone(), stop)?);
            let other = address.and_then(|address| other_loopback(config, address));
            if let Some(other) = other.filter(|other| !own.contains(&ListenAddress::Tcp(*other))) {
                let first = TcpListener::bind(other).await;
                let (logins, stop) = (logins.clone(), stop.subscribe());
                serving.push(tokio::spawn(serve_other(first, other, service, logins, stop)));
            }
        }
        Ok(serving)
    }

    /// The sockets of a listener: those at `shown`, or those that were passed, at `any` address or only
    /// where that may be.
    async fn bind(
        &mut self,
        shown: &ListenAddress,
        inherited: &mut InheritedSockets,
        any: bool,
    ) -> Result<Vec<Bound>, super::Error> {
        let failed = |error| BindError::new(shown, error);
        Ok(match shown {
            ListenAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                vec![Bound::Tcp(listener.into_std()?)]
            }
            ListenAddress::Unix(path) => {
                let bound = unix_listener(path, Mode::from_raw_mode(0o660));
                let (listener, file) = bound.map_err(failed)?;
                self.files.push(file);
                vec![Bound::Unix(listener)]
            }
            ListenAddress::Inherited(name) if any => inherited.take_any(name).map_err(failed)?,
            ListenAddress::Inherited(name) => inherited.take(name).map_err(failed)?,
        })
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

/// The same on a socket that is bound.
fn spawn_bound(
    socket: Bound,
    service: impl Fn(&ConnectionInfo) -> Option<Admin> + Send + Sync + 'static,
    stop: &watch::Sender<bool>,
) -> io::Result<JoinHandle<()>> {
    Ok(match socket {
        Bound::Tcp(tcp) => spawn(TcpListener::from_std(tcp)?, service, stop),
        Bound::Unix(unix) => spawn(UnixListener::from_std(unix)?, service, stop),
    })
}

/// The response to what never became a request.
pub(crate) fn reject(rejection: ListenRejection) -> Response<Bytes> {
    let request_id = request_id::fresh(request_id::first());
    worker::as_error(rejection).problem().respond(&request_id)
}
