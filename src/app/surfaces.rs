//! The listeners beside the data plane: admin, with its logins, and health.

use super::control;
use crate::{
    admin::{Admin, Sources},
    audit::Actor,
    engine::Engine,
    inbound::{guard::Guard, peer::Peer},
    listen::{
        bind::{BindError, SocketFile},
        control_plane,
    },
    login::Logins,
};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tracing::warn;

/// How long a login that Amazon has answered may take to its end: to ask for a token and, in three
/// regions at once, for profiles.
const LOGINS_TIMEOUT: Duration = Duration::from_secs(20);

/// The admin and health listeners.
pub(super) struct Surfaces {
    /// The admin listener's address as bound; port 0 if there is none.
    pub(super) admin: SocketAddr,
    /// The health listener's address as bound.
    pub(super) health: Option<SocketAddr>,
    /// The logins of the admin listener and the control socket, and these listeners.
    logins: Option<(Logins, Vec<JoinHandle<()>>)>,
    /// The control socket's place; unlinked at the end.
    _control: Option<SocketFile>,
}

impl Surfaces {
    /// No listener at all.
    pub(super) fn none() -> Self {
        Self {
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            health: None,
            logins: None,
            _control: None,
        }
    }

    /// Opens the configured listeners, which serve until `stop` is true.
    pub(super) async fn open(
        engine: &Engine,
        sources: Sources,
        stop: &watch::Sender<bool>,
    ) -> Result<Self, super::Error> {
        let config = engine.config();
        let admin = listener(config.listen.admin).await?;
        let address = admin.local_addr()?;
        let health = match config.listen.health {
            None => None,
            Some(address) => {
                let listener = listener(address).await?;
                let bound = listener.local_addr()?;
                let service = Admin::health(sources.clone());
                let service = move |_: &_| Some(service.clone());
                tokio::spawn(control_plane::serve(listener, service, stop.subscribe()));
                Some(bound)
            }
        };
        let guard = Guard::new(&config.guard);
        let logins = Logins::new(engine.clone(), Actor::admin(None));
        let sweeper = logins.clone();
        tokio::spawn(async move { sweeper.run_purge().await });
        let admin_service = Admin::guarded(sources.clone(), guard, Some(logins.clone()));
        let reports = admin_service.clone();
        tokio::spawn(async move { reports.run_reports().await });
        let admin_service = move |peer: &Peer| Some(admin_service.of_peer(*peer));
        let serving = control_plane::serve(admin, admin_service, stop.subscribe());
        let mut serving = vec![tokio::spawn(serving)];
        let control = control::bind(config);
        let file = match control {
            None => None,
            Some((listener, file)) => {
                let listener = UnixListener::from_std(listener)?;
                let service = control::service(Admin::control(sources, logins.clone()));
                let control = control_plane::serve(listener, service, stop.subscribe());
                serving.push(tokio::spawn(control));
                Some(file)
            }
        };
        Ok(Self { admin: address, health, logins: Some((logins, serving)), _control: file })
    }

    /// Waits, for a while, until the logins that Amazon has answered are at their end and told.
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

async fn listener(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError::new(address, error))
}
