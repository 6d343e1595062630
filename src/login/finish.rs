//! Amazon's answer: is it one to a login of this browser, then the code, the profiles, the grant.
//!
//! Everything that can refuse an answer comes before the token endpoint is asked, in this order:
//! one state, a login under way, its cookie, in time, not used; only then is the login taken.

use super::{
    Found, Logins, Problem,
    begin::{Pending, cookie_name, is_https},
    is_random_text, kept, name_of,
    profiles::{self, is_deceptive},
    random,
};
use crate::{
    audit::Action,
    error_chain::chain,
    id::{AccountId, Region},
    lwa,
    provider::ads,
    secret::Secret,
    store::notes::NoteKind,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Amazon's codes live so long.
const CODE_LIFETIME: Duration = Duration::from_secs(300);
/// How often a grant is compared anew because the account changed meanwhile.
const COMPARISONS_MAX: usize = 3;
/// A denial's description may be shown up to here.
const QUOTATION_MAX_CHARS: usize = 200;

/// Amazon's answer as the browser brings it: the arguments of the address, decoded.
#[derive(Debug, Default)]
pub struct Callback {
    /// Each `state`.
    pub states: Vec<String>,
    /// Each `code`.
    pub codes: Vec<Secret>,
    /// Each `error`.
    pub errors: Vec<String>,
    /// Each `error_description`.
    pub descriptions: Vec<String>,
    /// Each `scope`.
    pub scopes: Vec<String>,
    /// The cookies of the request.
    pub cookies: Vec<(String, Secret)>,
}

/// How a login ended.
#[derive(Debug)]
pub enum Finished {
    /// The account is connected.
    Connected(Connected),
    /// A person must say yes first.
    Question(Question),
}

/// A connected account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Which.
    pub account: String,
    /// Its region.
    pub region: String,
    /// Its application.
    pub application: String,
    /// Nobody named its region, and no profile told it.
    pub region_is_guess: bool,
    /// Whether there was a grant before.
    pub replaced: bool,
    /// Whom one became.
    pub profiles: Found,
}

/// Whether to replace an account by a grant that has, or may have, other profiles.
#[derive(Debug)]
pub struct Question {
    /// Which account.
    pub account: AccountId,
    /// What the answer must come with.
    pub token: Secret,
    /// The profiles it has; none if that cannot be told.
    pub before: Option<Found>,
    /// The profiles it would have.
    pub now: Found,
}

/// A new grant that nobody has said yes to yet, or that needs no yes.
#[derive(Serialize, Deserialize)]
pub(super) struct NewGrant {
    pub(super) application: String,
    pub(super) region: Option<String>,
    pub(super) refresh_token: super::Kept,
    pub(super) consented_at: u64,
    pub(super) profiles: Found,
    pub(super) ticket: Option<String>,
    pub(super) origin: String,
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
    /// Takes Amazon's answer. The login goes on to its end although the browser leaves.
    ///
    /// # Errors
    /// Each [`Problem`]; nothing was changed.
    ///
    /// # Cancel safety
    /// Safe: the work runs in its own task.
    pub async fn finish(&self, callback: Callback) -> Result<Finished, Problem> {
        let this = self.clone();
        let work = self.spawn(async move {
            let claimed = this.claim(&callback).await;
            let (id, pending) = claimed.inspect_err(|problem| {
                let (code, why) = (problem.code(), chain(problem));
                tracing::warn!(code, why, "an answer from a browser was refused");
            })?;
            let done = this.complete(&id, &pending, callback).await;
            this.remember_outcome(&id, pending.ticket.as_deref(), &done).await;
            if let Err(problem) = &done {
                let (account, code) = (id.as_str(), problem.code());
                tracing::warn!(account, code, why = chain(problem), "login failed");
                this.record_failure(&id, &pending, problem).await;
            }
            done
        });
        work.await
    }

    /// Nothing was changed, so an audit log that fails is no reason to stop.
    async fn record_failure(&self, account: &AccountId, pending: &Pending, problem: &Problem) {
        // These are on record already, or cannot be.
        if matches!(problem, Problem::NotSaved(_) | Problem::Audit(_)) {
            return;
        }
        let entry = self.entry(Action::Login, account, &pending.origin).failed(problem.code());
        let _ = self.engine.audit().write(entry).await;
    }

    /// The login that an answer belongs to, taken: nobody else gets it.
    async fn claim(&self, callback: &Callback) -> Result<(AccountId, Pending), Problem> {
        let state = match callback.states.as_slice() {
            [] => return Err(Problem::StateMissing),
            [state] if state.is_empty() => return Err(Problem::StateMissing),
            [state] => state,
            _ => return Err(Problem::Doubled("state")),
        };
        for (name, values) in [("code", callback.codes.len()), ("error", callback.errors.len())] {
            if values > 1 {
                return Err(Problem::Doubled(name));
            }
        }
        if !is_random_text(state) {
            return Err(Problem::StateUnknown);
        }
        let name = name_of(state);
        let notes = self.engine.store().notes();
        let seen = notes.look(NoteKind::Login, &name).await?.ok_or(Problem::StateUnknown)?;
        let pending: Pending =
            serde_json::from_str(seen.text.expose()).map_err(|_| Problem::StateUnknown)?;
        // Before it is taken: who has seen the state alone must not end somebody's login.
        let cookie = cookie_name(&name, is_https(&pending.redirect_uri));
        if !is_bound(&callback.cookies, &cookie, &pending.cookie) {
            // Somebody may have been made to finish another person's login.
            self.record_failure(&seen.account, &pending, &Problem::OtherBrowser).await;
            return Err(Problem::OtherBrowser);
        }
        let taken = notes.take(NoteKind::Login, &name).await?.ok_or(Problem::StateUnknown)?;
        let now_ms = self.now_ms();
        // A clock that was set back must not keep a login alive.
        if taken.expires_at_ms <= now_ms || pending.begun_at_ms > now_ms.saturating_add(60_000) {
            self.record_failure(&taken.account, &pending, &Problem::StateExpired).await;
            return Err(Problem::StateExpired);
        }
        Ok((taken.account, pending))
    }

    async fn complete(
        &self,
        account: &AccountId,
        pending: &Pending,
        callback: Callback,
    ) -> Result<Finished, Problem> {
        let changed = || Problem::ConfigurationChanged(pending.application.clone());
        let application = self.application(&pending.application).ok_or_else(changed)?;
        if application.client_id() != pending.client_id
            || application.token_url() != pending.token_url
            || application.redirect_uri() != pending.redirect_uri
        {
            return Err(changed());
        }
        if let Some(error) = callback.errors.first() {
            let said = callback.descriptions.first().map_or("", String::as_str);
            return Err(refusal(error, said, &application));
        }
        let code = callback.codes.into_iter().next().filter(|code| !code.is_empty());
        let code = code.ok_or(Problem::CodeMissing)?;
        allows_all(&application, callback.scopes.first().map(String::as_str))?;
        self.claim_code(account, &code).await?;
        self.ticket_is_good(pending).await?;

        let began = self.engine.clock().now();
        let verifier = Secret::from(pending.verifier.as_str());
        let granted = self.engine.lwa().exchange(&application, &code, &verifier).await;
        let waited = Duration::from_millis(self.now_ms().saturating_sub(pending.begun_at_ms));
        let granted = granted.map_err(|error| lwa_problem(error, waited, &application))?;
        let incomplete = |what| Problem::LwaAnswer(lwa::Error::BadAnswer(what));
        let refresh_token =
            granted.refresh_token.ok_or_else(|| incomplete("it holds no refresh token"))?;
        allows_all(&application, granted.scope.as_deref())?;
        let bearer = profiles::bearer(&granted.access_token)
            .ok_or_else(|| incomplete("its access token is not one"))?;
        let (client_id, upstream) = (application.client_id(), &self.engine.config().upstream);
        let now = profiles::of_grant(self.engine.http(), upstream, &bearer, client_id);
        let before = async {
            match pending.replace {
                true => (Replaces::Anything, None),
                false => self.known(account).await,
            }
        };
        let (profiles, (replaces, before)) = tokio::join!(now, before);
        let grant = NewGrant {
            application: pending.application.clone(),
            region: pending.region.clone(),
            refresh_token: kept(&refresh_token),
            consented_at: began.unix(),
            profiles,
            ticket: pending.ticket.clone(),
            origin: pending.origin.clone(),
            replaces,
        };
        self.keep_or_ask(account, before, grant).await
    }

    /// Keeps the grant if it is nobody else's; asks if it is, or if that cannot be told.
    async fn keep_or_ask(
        &self,
        account: &AccountId,
        mut before: Option<Found>,
        mut grant: NewGrant,
    ) -> Result<Finished, Problem> {
        for _ in 0..COMPARISONS_MAX {
            if let Some(before) = before
                && before.is_same(&grant.profiles) != Some(true)
            {
                return self.ask(account, before, grant).await.map(Finished::Question);
            }
            match self.keep(account, &grant).await {
                // Somebody else was faster: what is there now is what to compare with.
                Err(Problem::AccountChanged) => {
                    (grant.replaces, before) = self.known(account).await;
                }
                done => return done.map(Finished::Connected),
            }
        }
        Err(Problem::AccountChanged)
    }

    /// Keeps the new grant aside until a person says yes. The old one stays in place.
    async fn ask(
        &self,
        account: &AccountId,
        before: Found,
        grant: NewGrant,
    ) -> Result<Question, Problem> {
        let token = random()?;
        let lifetime = self.engine.config().login.confirm_timeout;
        if let Some(ticket) = &grant.ticket {
            self.extend(ticket, lifetime).await?;
        }
        self.note((NoteKind::Grant, &name_of(token.expose())), account, &grant, lifetime).await?;
        tracing::warn!(
            account = account.as_str(),
            "the new grant has other profiles: a person is asked"
        );
        let before = (before != Found::default()).then_some(before);
        Ok(Question { account: account.clone(), token, before, now: grant.profiles })
    }

    /// Remembers that a code was used, or refuses it because it was.
    async fn claim_code(&self, account: &AccountId, code: &Secret) -> Result<(), Problem> {
        let name = name_of(code.expose());
        if self.look::<()>(NoteKind::Code, &name).await?.is_some() {
            return Err(Problem::CodeReused);
        }
        self.note((NoteKind::Code, &name), account, &(), super::MEMORY).await
    }

    /// A link is good for one login that succeeds.
    async fn ticket_is_good(&self, pending: &Pending) -> Result<(), Problem> {
        let Some(ticket) = &pending.ticket else { return Ok(()) };
        let known = self.engine.store().notes().look(NoteKind::Ticket, ticket).await?;
        known.map(drop).ok_or(Problem::LinkUsed)
    }
}

/// Whether one of the cookies is the login's.
fn is_bound(cookies: &[(String, Secret)], name: &str, hash: &str) -> bool {
    let named = cookies.iter().filter(|(have, _)| have == name);
    // Hashes of random texts: that the comparison stops early tells nothing of use.
    named.map(|(_, value)| name_of(value.expose())).any(|have| have == hash)
}

/// What an error in Amazon's answer means.
fn refusal(error: &str, said: &str, application: &lwa::Application) -> Problem {
    let redirect_uri = || application.redirect_uri().to_owned();
    match error {
        "access_denied" => Problem::Denied(quotation(said)),
        "invalid_scope" => Problem::ScopeUnknown { scopes: application.scopes().join(" ") },
        "unauthorized_client" => Problem::NotApproved,
        "invalid_client" => Problem::ApplicationRejected,
        "redirect_uri_mismatch" => Problem::RedirectUri { redirect_uri: redirect_uri() },
        "invalid_request" if said.contains("redirect") => {
            Problem::RedirectUri { redirect_uri: redirect_uri() }
        }
        "invalid_request" if said.contains("scope") => {
            Problem::ScopeUnknown { scopes: application.scopes().join(" ") }
        }
        "server_error" | "ServerError" => Problem::AmazonFailed("server_error"),
        "temporarily_unavailable" => Problem::AmazonFailed("temporarily_unavailable"),
        _ => Problem::AmazonFailed("an error it does not document"),
    }
}

/// What may be shown of a description: one line, not long.
fn quotation(said: &str) -> Option<String> {
    let line: String =
        said.chars().filter(|c| !is_deceptive(*c)).take(QUOTATION_MAX_CHARS).collect();
    (!line.trim().is_empty()).then_some(line)
}

/// Whether what was consented to, where the answer tells, covers all that was asked for.
fn allows_all(application: &lwa::Application, granted: Option<&str>) -> Result<(), Problem> {
    let Some(granted) = granted.filter(|granted| !granted.trim().is_empty()) else {
        return Ok(());
    };
    let granted: Vec<_> = granted.split([' ', ',']).map(ads::canonical_scope).collect();
    let wanted = application.scopes();
    match wanted.iter().all(|scope| granted.contains(&ads::canonical_scope(scope))) {
        true => Ok(()),
        false => Err(Problem::ScopeMissing { scopes: wanted.join(" ") }),
    }
}

/// What LWA's refusal of a code means; `waited` is the age of the login, and so more than that of
/// the code.
fn lwa_problem(error: lwa::Error, waited: Duration, application: &lwa::Application) -> Problem {
    use lwa::Error;
    match error {
        Error::CodeExpired => Problem::CodeLate,
        Error::InvalidGrant if waited >= CODE_LIFETIME => Problem::CodeLate,
        Error::InvalidGrant => Problem::CodeReused,
        Error::UnauthorizedClient => Problem::NotApproved,
        Error::InvalidClient => Problem::ApplicationRejected,
        Error::RedirectMismatch => {
            Problem::RedirectUri { redirect_uri: application.redirect_uri().to_owned() }
        }
        Error::Refused { code: "invalid_scope", .. } => {
            Problem::ScopeUnknown { scopes: application.scopes().join(" ") }
        }
        Error::Transport(cause) if cause.is_timeout() => Problem::LwaTimeout,
        Error::Refused { status, .. } if status < 500 && status != 429 => Problem::LwaAnswer(error),
        Error::Refused { .. } | Error::Transport(_) => Problem::LwaUnavailable(error),
        Error::BadAnswer(_) | Error::NotLwa { .. } => Problem::LwaAnswer(error),
    }
}

impl NewGrant {
    /// The region somebody named.
    pub(super) fn region(&self) -> Option<Region> {
        self.region.as_deref().and_then(|region| region.parse().ok())
    }
}
