//! The way of one request through the emulator: taken down, served, taken down again.

use super::{
    EmulatorState,
    ads::{self, ApiCall},
    consent, control,
    form::FormPairs,
    lwa,
    record::{BODY_KEPT_MAX_BYTES, ReceivedBody, Surface},
    reports,
    response::{EmulatorResponse, HandlerResult, Stop, With, early},
    settings::ApiSettings,
};
use http::{Request, request::Parts};
use hyper::body::Incoming;
use std::{io, sync::Arc};

/// Bytes of a request body that the emulated operations look at: Amazon's batches are about 1 MB.
const BODY_READ_MAX_BYTES: usize = 2 * 1024 * 1024;

/// What every request is served from.
#[derive(Debug)]
pub(super) struct EmulatorService {
    pub(super) state: Arc<EmulatorState>,
    /// The host of presigned addresses.
    pub(super) s3_authority: String,
}

impl EmulatorService {
    /// Responds to one request and takes it down; an error hangs up.
    pub(super) async fn serve(&self, request: Request<Incoming>) -> io::Result<EmulatorResponse> {
        let (parts, body) = request.into_parts();
        let surface = surface(&parts);
        let token = ads::bearer(&parts.headers);
        let sender = token.and_then(|token| self.state.lwa.generation(token));
        let number = self.state.record.arrived(surface, &parts, sender);
        let result = early(self.handle(surface, &parts, body, number).await);
        let reply = result.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        self.state.record.responded(number, surface, reply.status());
        Ok(reply)
    }

    async fn handle(
        &self,
        surface: Surface,
        parts: &Parts,
        body: Incoming,
        number: u64,
    ) -> HandlerResult {
        let state = &self.state;
        if surface == Surface::Api {
            let settings = state.api.settings();
            let reply = early(self.call(parts, body, number, &settings).await)?;
            return Ok(ads::finish(parts, &settings, reply).await);
        }
        let body = self.receive(parts, number, body).await?;
        match surface {
            Surface::Token => lwa::token(state, parts, &body.start).await,
            Surface::Revoke => lwa::revoke(state, parts, &body.start),
            Surface::S3 => Ok(reports::stored(parts, &body, state.lwa.now())),
            Surface::Consent => Ok(consent::page(state, &parts.uri)),
            Surface::Control | Surface::Api => Ok(control::respond(state, parts)),
        }
    }

    async fn call(
        &self,
        parts: &Parts,
        body: Incoming,
        number: u64,
        settings: &ApiSettings,
    ) -> HandlerResult {
        let ((account, grant), body) = if settings.responds_before_body {
            let owner = ads::authenticate(&self.state, parts).await.map_err(closing)?;
            (owner, self.receive(parts, number, body).await?)
        } else {
            let body = self.receive(parts, number, body).await?;
            (ads::authenticate(&self.state, parts).await?, body)
        };
        let query = FormPairs::of_query(&parts.uri);
        let call = ApiCall { service: self, parts, query, body: &body, account, grant, settings };
        ads::respond(&call).await
    }

    /// Reads the body to its end; a broken one gets no response.
    async fn receive(
        &self,
        parts: &Parts,
        number: u64,
        body: Incoming,
    ) -> Result<ReceivedBody, Stop> {
        // The test aids look at length and hash only, and take uploads of any size.
        let is_aid = parts.uri.path().starts_with("/_");
        let keep = if is_aid { BODY_KEPT_MAX_BYTES } else { BODY_READ_MAX_BYTES };
        let body = ReceivedBody::read(body, keep).await;
        self.state.record.received(number, &body);
        if body.complete { Ok(body) } else { Err(Stop::HangUp) }
    }
}

/// As servers do that leave a body unread: the connection is of no more use.
fn closing(stop: Stop) -> Stop {
    match stop {
        Stop::Early(reply) => reply.with("connection", "close").into(),
        Stop::HangUp => stop,
    }
}

fn surface(parts: &Parts) -> Surface {
    match (parts.method.as_str(), parts.uri.path()) {
        ("POST", "/auth/o2/token") => Surface::Token,
        ("POST", "/auth/o2/revoke") => Surface::Revoke,
        ("GET", "/ap/oa") => Surface::Consent,
        (_, path) if path.starts_with("/_s3/") => Surface::S3,
        (_, path) if path == "/_sandbox" || path.starts_with("/_sandbox/") => Surface::Control,
        _ => Surface::Api,
    }
}
