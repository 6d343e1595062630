//! Asks Login with Amazon once what a refresh token is, before it is stored.

use crate::{
    cli::Failure,
    clock::{Clock, SystemClock},
    config::Config,
    https::{self, LwaHttp},
    lwa::{self, Application, Granted, LwaClient},
    secret::Secret,
    store::StoredAccessToken,
};
use anyhow::{Context as _, anyhow};

/// What the token has become: Login with Amazon may rotate it.
pub(super) struct Verified {
    pub(super) refresh_token: Secret,
    pub(super) access_token: StoredAccessToken,
}

/// Refreshes `token` once with the credentials of `application`.
///
/// # Errors
/// Says which of the two is wrong, or that Login with Amazon cannot be reached.
pub(super) async fn verify(
    config: &Config,
    application: &str,
    token: &Secret,
) -> anyhow::Result<Verified> {
    let configured = config.applications.get(application).context("no such application")?;
    let tls = https::client_config(config.upstream.ca_file.as_deref(), true)?;
    let (connect, total) = (config.token.lwa_connect_timeout, config.token.lwa_timeout);
    let client = LwaClient::new(LwaHttp::new(&tls, connect, total)?);
    let profile = Application::new(application, configured);
    match client.refresh(&profile, token, config.token.lwa_attempts_max).await {
        Ok(granted) => Ok(verified(granted, token)),
        Err(error) => Err(explain(error, application)),
    }
}

fn verified(granted: Granted, token: &Secret) -> Verified {
    let issued_at = SystemClock.now().unix();
    let expires_at = issued_at + granted.expires_in.as_secs();
    Verified {
        refresh_token: granted.refresh_token.unwrap_or_else(|| token.clone()),
        access_token: StoredAccessToken { token: granted.access_token, issued_at, expires_at },
    }
}

fn explain(error: lwa::Error, application: &str) -> anyhow::Error {
    match error {
        lwa::Error::InvalidGrant => anyhow!(
            "nothing was stored: Login with Amazon does not accept this refresh token for application \
             {application} (invalid_grant). Consent was withdrawn or has ended, or the token belongs \
             to another application; `adsproxy login` gets a new one"
        ),
        lwa::Error::InvalidClient => anyhow!(
            "nothing was stored: Login with Amazon rejects the client id or secret of application \
             {application} (invalid_client); compare them with the security profile"
        ),
        lwa::Error::UnauthorizedClient => anyhow!(
            "nothing was stored: Login with Amazon does not let application {application} do this \
             (unauthorized_client)"
        ),
        error => Failure::unavailable(format!(
            "nothing was stored: the refresh token cannot be verified ({:#}); try again, or say \
             --no-verify",
            anyhow!(error)
        ))
        .into(),
    }
}
