//! Amazon's response: does it fit a login of this browser, then the code, the profiles, the grant.
//!
//! Everything that can refuse a response comes before the token endpoint is asked, in this order:
//! one state, a login under way, its cookie, in time, not used; only then is the login taken.

use super::{
    Confirmation, GrantProfiles, LoginError, LoginOutcome, Logins, MEMORY,
    begin::{LoginRequest, PendingLogin, settings_hash},
    is_random_text, key_of, parse,
    profiles::{self, is_deceptive},
};
use crate::{
    audit::Action,
    error_chain::chain,
    id::AccountId,
    lwa::{self, Application, authorize::random_text},
    problem::Code,
    provider::ads,
    secret::Secret,
    store::Space,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long Amazon's codes live.
const CODE_LIFETIME: Duration = Duration::from_secs(300);
/// How often a grant is compared again because the account changed meanwhile.
const COMPARISONS_MAX: usize = 3;
/// A denial's description may be shown up to here.
const QUOTATION_MAX_CHARS: usize = 200;

/// Amazon's response as the browser brings it.
#[derive(Debug)]
pub(crate) struct Callback {
    /// The arguments of the address, decoded.
    pub(crate) arguments: Vec<(String, Secret)>,
    pub(crate) cookies: Vec<(String, Secret)>,
}

impl Callback {
    /// The argument `name`, unless it is empty.
    fn get(&self, name: &str) -> Option<&Secret> {
        let named = self.arguments.iter().find(|(have, value)| have == name && !value.is_empty());
        named.map(|(_, value)| value)
    }
}

/// A connected account.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Connected {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) application: String,
    /// The region was not named, and no profile shows it.
    pub(crate) region_is_guess: bool,
    /// Whether there was a grant before.
    pub(crate) replaced: bool,
    /// The profiles that the login gives access to.
    pub(crate) profiles: GrantProfiles,
}

/// A new grant: to be saved, or waiting for a confirmation.
#[derive(Serialize, Deserialize)]
pub(super) struct NewGrant {
    pub(super) application: String,
    pub(super) request: LoginRequest,
    #[serde(with = "super::exposed")]
    pub(super) refresh_token: Secret,
    /// In seconds since 1970.
    pub(super) consented_at: u64,
    pub(super) profiles: GrantProfiles,
    pub(super) link: Option<String>,
    pub(super) replaces: Replaces,
}

/// What a new grant may replace: what it was compared with, and nothing that came later.
#[derive(Serialize, Deserialize)]
pub(super) enum Replaces {
    /// Whatever there is: a person said so beforehand.
    Anything,
    /// No grant.
    Nothing,
    /// The grant of that consent, or where its date is not known, of that refresh token.
    Grant { consented_at: Option<u64>, fingerprint: String },
}

impl Logins {
    /// Takes Amazon's response. The login goes on to its end although the browser leaves; after an
    /// error nothing has changed.
    ///
    /// # Cancel safety
    /// Safe: the work runs in its own task.
    pub(crate) async fn finish(&self, callback: Callback) -> Result<LoginOutcome, LoginError> {
        let this = self.clone();
        self.spawn(async move {
            let claimed = this.claim(&callback).await;
            let (account, pending) = claimed.inspect_err(|error| {
                let (code, why) = (error.code(), chain(error));
                tracing::warn!(code, why, "a response from a browser was refused");
            })?;
            let done = this.complete(&account, &pending, callback).await;
            this.remember_outcome(&account, pending.link.as_deref(), &done).await;
            if let Err(error) = &done {
                let (account_id, code) = (account.as_str(), error.code());
                tracing::warn!(account = account_id, code, why = chain(error), "login failed");
                this.record_failure(&account, &pending, error.code).await;
            }
            done
        })
        .await
    }

    /// Nothing was changed, so an audit log that fails is no reason to stop.
    async fn record_failure(&self, account: &AccountId, pending: &PendingLogin, code: Code) {
        // These are on record already, or cannot be.
        if matches!(code, Code::NotSaved | Code::AuditFailed) {
            return;
        }
        let entry = self.entry(Action::Login, account).about(&pending.request.origin);
        let _ = self.engine.audit().write(entry.failed(code.row().code)).await;
    }

    /// The login that a response belongs to, taken: no other request gets it.
    async fn claim(&self, callback: &Callback) -> Result<(AccountId, PendingLogin), LoginError> {
        let count = |name| callback.arguments.iter().filter(|(have, _)| have == name).count();
        if let Some(name) = ["state", "code", "error"].into_iter().find(|name| count(*name) > 1) {
            let detail = format!("the response has {name} more than once");
            return Err(LoginError::new(Code::ParameterDoubled, detail));
        }
        let state = callback.get("state").ok_or(Code::StateMissing)?.expose();
        if !is_random_text(state) {
            return Err(Code::StateUnknown.into());
        }
        let key = key_of(state);
        let logins = self.engine.store().entries(Space::Login);
        let known = logins.get(&key).await?.and_then(parse::<PendingLogin>);
        let (account, pending) = known.ok_or(Code::StateUnknown)?;
        // Before it is taken: a program that has seen the state alone must not end the login.
        if !is_bound(callback, &pending) {
            // A person may have been made to finish another person's login.
            self.record_failure(&account, &pending, Code::OtherBrowser).await;
            return Err(Code::OtherBrowser.into());
        }
        let taken = logins.take(&key).await?.ok_or(Code::StateUnknown)?;
        // A clock that was set back must not keep a login alive.
        let is_from_future = pending.begun_at_ms > self.now_ms().saturating_add(60_000);
        if self.is_expired(&taken) || is_from_future {
            self.record_failure(&account, &pending, Code::StateExpired).await;
            return Err(Code::StateExpired.into());
        }
        Ok((account, pending))
    }

    async fn complete(
        &self,
        account: &AccountId,
        pending: &PendingLogin,
        callback: Callback,
    ) -> Result<LoginOutcome, LoginError> {
        let application = self.engine.enroller.application(&pending.application);
        let application = application
            .filter(|application| settings_hash(application) == pending.settings_hash)
            .ok_or(Code::ConfigurationChanged)?;
        let code = code(&callback, &application)?;
        self.claim_code(account, code).await?;
        if let Some(link) = &pending.link {
            // A link is good for one login that succeeds.
            self.known_link(link).await?;
        }
        let (mut grant, before) = self.exchange(account, &application, code, pending).await?;
        match self.keep_if_same(account, before, &mut grant).await? {
            Ok(connected) => Ok(LoginOutcome::Connected(connected)),
            // Other profiles, or not known.
            Err(before) => self.ask(account, before, grant).await.map(LoginOutcome::Question),
        }
    }

    /// Exchanges the code, and compares the profiles of the new grant and of the one in place.
    async fn exchange(
        &self,
        account: &AccountId,
        application: &Application,
        code: &Secret,
        pending: &PendingLogin,
    ) -> Result<(NewGrant, Option<GrantProfiles>), LoginError> {
        let consented_at = self.engine.clock().now().unix();
        let granted = self.engine.with.lwa.exchange(application, code, &pending.verifier).await;
        let waited = Duration::from_millis(self.now_ms().saturating_sub(pending.begun_at_ms));
        let granted = granted.map_err(|error| lwa_error(error, waited, application))?;
        allows_all(application, granted.scope.as_deref().unwrap_or_default())?;
        let incomplete =
            |what| LoginError::of(Code::LwaInvalidResponse, lwa::Error::BadResponse(what));
        let refresh_token =
            granted.refresh_token.ok_or_else(|| incomplete("it holds no refresh token"))?;
        let bearer = profiles::bearer(&granted.access_token)
            .ok_or_else(|| incomplete("its access token is not one"))?;
        let (client_id, upstream) = (application.client_id(), &self.engine.config().upstream);
        let now = profiles::of_grant(&self.engine.http, upstream, &bearer, client_id);
        let before = async {
            match pending.request.replace {
                true => (Replaces::Anything, None),
                false => self.known(account).await,
            }
        };
        let (profiles, (replaces, before)) = tokio::join!(now, before);
        let grant = NewGrant {
            application: pending.application.clone(),
            request: pending.request.clone(),
            refresh_token,
            consented_at,
            profiles,
            link: pending.link.clone(),
            replaces,
        };
        Ok((grant, before))
    }

    /// Keeps a grant, or returns the profiles in place if they are not the same.
    pub(super) async fn keep_if_same(
        &self,
        account: &AccountId,
        mut before: Option<GrantProfiles>,
        grant: &mut NewGrant,
    ) -> Result<Result<Connected, GrantProfiles>, LoginError> {
        for _ in 0..COMPARISONS_MAX {
            if let Some(before) = before
                && before.is_same(&grant.profiles) != Some(true)
            {
                return Ok(Err(before));
            }
            match self.keep(account, grant).await {
                // Another login was faster: its grant is what to compare with.
                Err(error) if error.code == Code::AccountChanged => {
                    (grant.replaces, before) = self.known(account).await;
                }
                done => return done.map(Ok),
            }
        }
        Err(Code::AccountChanged.into())
    }

    /// Keeps the new grant aside until a person confirms it. The old one stays in place.
    async fn ask(
        &self,
        account: &AccountId,
        before: GrantProfiles,
        grant: NewGrant,
    ) -> Result<Confirmation, LoginError> {
        let token = random_text();
        let lifetime = self.engine.config().login.confirm_timeout;
        if let Some(link) = &grant.link {
            self.extend_link(link, lifetime).await?;
        }
        self.put((Space::Grant, &key_of(token.expose())), account, &grant, lifetime).await?;
        let account = account.to_string();
        tracing::warn!(account, "the new grant has other profiles and waits for a confirmation");
        let before = (before != GrantProfiles::default()).then_some(before);
        Ok(Confirmation { account, token, before, now: grant.profiles })
    }

    /// Remembers that a code was used, or refuses it because it was.
    async fn claim_code(&self, account: &AccountId, code: &Secret) -> Result<(), LoginError> {
        let key = key_of(code.expose());
        if self.get::<()>((Space::Code, &key)).await?.is_some() {
            return Err(Code::UsedAlready.into());
        }
        self.put((Space::Code, &key), account, &(), MEMORY).await
    }
}

/// Whether one of the cookies is the login's.
fn is_bound(callback: &Callback, pending: &PendingLogin) -> bool {
    let (name, hash) = &pending.cookie;
    let named = callback.cookies.iter().filter(|(have, _)| have == name);
    // Hashes of random texts: that the comparison stops early reveals nothing of use.
    named.map(|(_, value)| key_of(value.expose())).any(|have| have == *hash)
}

/// The code in Amazon's response to `application`, or what its error means.
fn code<'a>(callback: &'a Callback, application: &Application) -> Result<&'a Secret, LoginError> {
    let text = |name| callback.get(name).map_or("", Secret::expose);
    if let Some(error) = callback.get("error") {
        return Err(consent_error(error.expose(), text("error_description"), application));
    }
    let code = callback.get("code").ok_or(Code::NothingCameBack)?;
    allows_all(application, text("scope"))?;
    Ok(code)
}

fn consent_error(error: &str, description: &str, application: &Application) -> LoginError {
    match error {
        "access_denied" => {
            let quotation = quotation(description);
            LoginError { quotation, ..Code::AccessDenied.into() }
        }
        "unauthorized_client" => Code::NotApproved.into(),
        "invalid_client" => application_rejected(),
        "redirect_uri_mismatch" => redirect_mismatch(application),
        "invalid_request" if description.contains("redirect") => redirect_mismatch(application),
        "invalid_scope" => scope_unknown(application),
        "invalid_request" if description.contains("scope") => scope_unknown(application),
        error => {
            let known = ["server_error", "ServerError", "temporarily_unavailable"];
            let error = known.into_iter().find(|known| *known == error);
            let error = error.unwrap_or("an error it does not document");
            let detail = format!("amazon could not finish the consent: {error}");
            LoginError::new(Code::AmazonFailed, detail)
        }
    }
}

fn redirect_mismatch(application: &Application) -> LoginError {
    let detail =
        format!("amazon does not know the return address {}", application.config.redirect_uri);
    LoginError::new(Code::RedirectUriMismatch, detail)
}

fn application_rejected() -> LoginError {
    let detail = "amazon rejects the application's client id or secret";
    LoginError::new(Code::ApplicationRejected, detail)
}

fn scope_unknown(application: &Application) -> LoginError {
    let scopes = application.config.scopes.join(" ");
    let detail = format!("amazon does not know the scope {scopes:?} for this application");
    LoginError::new(Code::ScopeUnknown, detail)
}

/// What may be shown of a description: one line, not long.
fn quotation(description: &str) -> Option<String> {
    let line = description.chars().filter(|c| !is_deceptive(*c)).take(QUOTATION_MAX_CHARS);
    Some(line.collect()).filter(|line: &String| !line.trim().is_empty())
}

/// Whether the scopes consented to, where the response names them, cover all that was asked for.
fn allows_all(application: &Application, granted: &str) -> Result<(), LoginError> {
    if granted.trim().is_empty() {
        return Ok(());
    }
    let granted: Vec<_> = granted.split([' ', ',']).map(ads::canonical_scope).collect();
    let wanted = &application.config.scopes;
    match wanted.iter().all(|scope| granted.contains(&ads::canonical_scope(scope))) {
        true => Ok(()),
        false => {
            let detail = format!("less was consented to than {:?}", wanted.join(" "));
            Err(LoginError::new(Code::ScopeMissing, detail))
        }
    }
}

/// What LWA's error for a code means; `waited` is the age of the login, and so more than that of
/// the code.
fn lwa_error(error: lwa::Error, waited: Duration, application: &Application) -> LoginError {
    use lwa::Error;
    match error {
        Error::CodeExpired => Code::TooLate.into(),
        Error::InvalidGrant if waited >= CODE_LIFETIME => Code::TooLate.into(),
        Error::InvalidGrant => Code::UsedAlready.into(),
        Error::UnauthorizedClient => Code::NotApproved.into(),
        Error::InvalidClient => application_rejected(),
        Error::RedirectMismatch => redirect_mismatch(application),
        Error::Refused { code: "invalid_scope", .. } => scope_unknown(application),
        Error::Transport(cause) if cause.is_timeout() => Code::LwaTimeout.into(),
        Error::Refused { status: 429 | 500.., .. } | Error::Transport(_) => {
            LoginError::of(Code::LwaUnavailable, error)
        }
        Error::Refused { .. } | Error::BadResponse(_) | Error::NotLwa { .. } => {
            LoginError::of(Code::LwaInvalidResponse, error)
        }
    }
}
