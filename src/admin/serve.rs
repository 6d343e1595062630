//! The accept loop of the admin and health listeners: plain HTTP/1, few connections.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Connections at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 256;
/// From the first wait for a request to the end of its header; ends idle connections too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live: a caller who never reads an answer must not keep its place.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// How long connections may finish once `drain` is set.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `drain` becomes true or its sender is gone, then lets open requests finish.
///
/// Set `drain` after the data plane has drained: readiness should be seen to fall meanwhile.
pub async fn serve<S>(listener: TcpListener, service: S, mut drain: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let accept = async || {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the places");
        (listener.accept().await, place)
    };
    loop {
        let (accepted, place) = tokio::select! {
            () = told(&mut drain) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = connection(stream, service.clone(), drain.clone());
                connections.spawn(async move {
                    let _place = place;
                    // Whether it ended or was cut makes no difference to anybody here.
                    let _cut = timeout(CONNECTION_TIMEOUT, serving).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin or health listener failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let finished =
        timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
    // What is not finished by then is cut when `connections` is dropped.
    let _cut = finished.await;
}

async fn connection<S>(stream: TcpStream, service: S, mut drain: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut drain) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin or health listener broke");
    }
}

/// Returns once `drain` is true or its sender is gone.
async fn told(drain: &mut watch::Receiver<bool>) {
    // Either way it is time to stop; the guard inside must not live across an await.
    let _stop = drain.wait_for(|drain| *drain).await.is_ok();
}
