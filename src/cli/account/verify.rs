//! Asks Login with Amazon once what a refresh token is, before it is stored.

use crate::{
    cli::CommandFailure,
    clock::{Clock, SystemClock},
    config::Config,
    https::{self, LwaHttp},
    lwa::{self, Application, LwaClient, LwaFailure},
    secret::Secret,
    store::StoredAccessToken,
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
    let (failure, error) = (error.failure(), anyhow!(error));
    let text = format!(
        "nothing was stored: the refresh token cannot be verified for application {application} \
         ({error:#}). {}",
        failure.advice()
    );
    match failure {
        LwaFailure::Unreachable => {
            CommandFailure::unavailable(format!("{text} Or say --no-verify.")).into()
        }
        _ => anyhow!(text),
    }
}
