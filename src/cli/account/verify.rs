//! Asks Login with Amazon once what a refresh token is, before it is stored.

use crate::{
    cli::Failure,
    clock::{Clock, SystemClock},
    config::Config,
    https::{self, LwaHttp},
    lwa::{self, Application, LwaClient},
    secret::Secret,
    store::StoredAccessToken,
    token::{Obstacle, Rejection},
};
use anyhow::{Context as _, anyhow};

/// What Login with Amazon gave for the token, which it may have rotated.
pub(super) struct Verified {
    pub(super) refresh_token: Secret,
    pub(super) access_token: StoredAccessToken,
}

/// Refreshes `token` once with the credentials of `application`.
///
/// # Errors
/// Says which of the two is wrong, what else Login with Amazon refuses, or that it cannot be reached.
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
    let granted = client.refresh(&profile, token, config.token.lwa_attempts_max).await;
    let granted = granted.map_err(|error| failure(error, application))?;
    let issued_at = SystemClock.now().unix();
    let expires_at = issued_at + granted.expires_in.as_secs();
    Ok(Verified {
        refresh_token: granted.refresh_token.unwrap_or_else(|| token.clone()),
        access_token: StoredAccessToken { token: granted.access_token, issued_at, expires_at },
    })
}

fn failure(error: lwa::Error, application: &str) -> anyhow::Error {
    let why = match &error {
        lwa::Error::InvalidGrant => format!(
            "Login with Amazon does not accept this refresh token for application {application} \
             (invalid_grant). Consent was withdrawn or has ended, or the token belongs to another \
             application; `adsproxy login` gets a new one"
        ),
        lwa::Error::InvalidClient => format!(
            "Login with Amazon rejects the client id or secret of application {application} \
             (invalid_client); compare them with the security profile"
        ),
        lwa::Error::UnauthorizedClient => Rejection::UnauthorizedClient.advice().to_owned(),
        lwa::Error::NotLwa { .. } | lwa::Error::BadAnswer(_) => {
            Obstacle::NotLwa.advice().to_owned()
        }
        lwa::Error::Refused { .. } if !error.is_transient() => {
            format!(
                "Login with Amazon refuses the token request, and will refuse it again: {error}"
            )
        }
        _ => {
            return Failure::unavailable(format!(
                "nothing was stored: the refresh token cannot be verified ({:#}); try again, or \
                 say --no-verify",
                anyhow!(error)
            ))
            .into();
        }
    };
    anyhow!("nothing was stored: {why}")
}
