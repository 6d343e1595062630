//! Gives a refresh token back to LWA where an RFC 7009 endpoint is configured.
//!
//! Amazon documents none; a broker in front of it may have one.

use super::{Application, Error, LwaClient, wire};
use crate::secret::Secret;
use http::StatusCode;
use std::sync::atomic::Ordering;

/// What came of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// The endpoint took the token back.
    Yes,
    /// No endpoint is configured.
    NoEndpoint,
}

impl LwaClient {
    /// Revokes `token` at the configured endpoint, with the client secret that works.
    ///
    /// # Errors
    /// When the endpoint does not answer 200: the grant may live on.
    pub async fn revoke(
        &self,
        application: &Application,
        token: &Secret,
    ) -> Result<Revoked, Error> {
        let Some(url) = &application.revocation_url else { return Ok(Revoked::NoEndpoint) };
        let secrets = application.secrets.load_full();
        let count = secrets.len();
        let first = application.working.load(Ordering::Relaxed);
        for offset in 0..count {
            let secret = &secrets[(first + offset) % count];
            let form = wire::revocation_form(&application.client_id, secret, token);
            let received = self.post(url, &form).await?;
            let code = wire::error_code(&received.answer);
            match received.status {
                StatusCode::OK => return Ok(Revoked::Yes),
                _ if code == Some("invalid_client") => {}
                status => {
                    let (status, retry_after) = (status.as_u16(), received.retry_after);
                    let code = code.unwrap_or("unknown");
                    return Err(Error::Refused { status, code, retry_after });
                }
            }
        }
        Err(Error::InvalidClient)
    }
}
