//! The start of a login: its account and application, where the browser is sent, what is remembered.

use super::{GrantProfiles, LOGIN_PATH, LoginError, Logins, is_random_text, key_of, milliseconds};
use crate::{
    audit::Action,
    config::DEFAULT_APPLICATION,
    id::{AccountId, Region},
    lwa::{
        Application,
        authorize::{self, random_text},
    },
    problem::Code,
    provider::ads,
    secret::Secret,
    store::{Credential, Space},
};
use http::Uri;
use serde::{Deserialize, Serialize};
use std::{fmt::Display, sync::Arc, time::Duration};

/// How an account is to be connected.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LoginRequest {
    /// The configuration's or the record's if none, else that of its profiles.
    pub(crate) region: Option<Region>,
    pub(crate) application: Option<String>,
    /// Another Amazon user's grant may replace the account's without a confirmation.
    pub(crate) replace: bool,
    /// For the audit log: `terminal`, `admin` or `link`.
    pub(crate) origin: String,
}

/// A login that was begun.
#[derive(Debug)]
pub(crate) struct StartedLogin {
    /// Where the browser is to go.
    pub(crate) auth_url: String,
    pub(crate) state: Secret,
    /// The name and value of the cookie that binds it to the browser.
    pub(crate) cookie: (String, Secret),
    /// Where the browser comes back to.
    pub(crate) redirect_uri: Uri,
    pub(crate) expires_in: Duration,
}

/// The origin of a login that a reconnect link began.
const BY_LINK: &str = "link";

/// What a reconnect link asks for.
#[derive(Debug)]
pub(crate) struct ReconnectRequest {
    pub(crate) account: AccountId,
    /// The company that asks, else the host.
    pub(crate) who: String,
    /// Those the account had when it was connected.
    pub(crate) profiles: GrantProfiles,
}

/// What is remembered of a login.
#[derive(Serialize, Deserialize)]
pub(super) struct PendingLogin {
    pub(super) request: LoginRequest,
    pub(super) application: String,
    /// Of the client id and of where codes are exchanged: with several regions the response of one
    /// must never be taken to another (RFC 9700 section 4.4).
    pub(super) settings_hash: String,
    #[serde(with = "super::exposed")]
    pub(super) verifier: Secret,
    /// The name of the cookie, and the hash of its value.
    pub(super) cookie: (String, String),
    pub(super) begun_at_ms: u64,
    /// The link it came from, which works until one of its logins has succeeded.
    pub(super) link: Option<String>,
}

/// What is remembered of a link.
#[derive(Serialize, Deserialize)]
pub(super) struct LoginLink {
    request: LoginRequest,
    /// In seconds since 1970.
    made_at: u64,
    /// Until when a login may begin, in milliseconds since 1970; the entry outlives the last one.
    opens_until_ms: u64,
}

impl LoginLink {
    /// Whether the account of `record` was connected since the link was made.
    pub(super) fn is_spent(&self, record: Option<&Credential>) -> bool {
        record.and_then(|record| record.consented_at).is_some_and(|at| at > self.made_at)
    }
}

impl Logins {
    /// Begins a login from a link. The link stays good until one of its logins has succeeded: a
    /// program that looks at links before a person does must not use it up.
    pub(crate) async fn begin_by_link(
        &self,
        account: &AccountId,
        link: &str,
    ) -> Result<StartedLogin, LoginError> {
        let (key, owner, link, _) = self.open_link(account, link).await?;
        // However late it is opened, there is the whole time of a login.
        self.extend_link(&key, self.engine.config().login.timeout).await?;
        self.begin(&owner, &link.request, Some(key)).await
    }

    /// What a link from [`Logins::reconnect_link`] asks the person for who opens it; none for a link
    /// of a program that opens the browser by itself. Begins nothing.
    pub(crate) async fn reconnect_request(
        &self,
        account: &AccountId,
        link: &str,
    ) -> Result<Option<ReconnectRequest>, LoginError> {
        let (_, account, link, record) = self.open_link(account, link).await?;
        if link.request.origin != BY_LINK {
            return Ok(None);
        }
        let (application, _) = self.destination(&account, &link.request).await?;
        let host = return_address(&application).host().unwrap_or_default().to_owned();
        let profiles = match &record {
            Some(record) => self.remembered(&account, record).await,
            None => GrantProfiles::default(),
        };
        let who = self.engine.config().login.company.clone().unwrap_or(host);
        Ok(Some(ReconnectRequest { account, who, profiles }))
    }

    /// The key of a link that may begin a login for `account` now, its account, what it is for, and
    /// the record of the account.
    async fn open_link(
        &self,
        account: &AccountId,
        link: &str,
    ) -> Result<(String, AccountId, LoginLink, Option<Credential>), LoginError> {
        if !is_random_text(link) {
            return Err(Code::LinkUsed.into());
        }
        let key = key_of(link);
        let (owner, link) = self.known_link(&key).await?;
        // Each message has a link of its own; the first one that is used ends the others.
        let record = self.engine.store().load(&owner).await?;
        // A browser knows its account by the alias that is in the link.
        let is_meant = owner == *account || owner.alias() == account.as_str();
        if !is_meant || link.is_spent(record.as_ref()) || link.opens_until_ms <= self.now_ms() {
            return Err(Code::LinkUsed.into());
        }
        Ok((key, owner, link, record))
    }

    /// The link `key` and its account; it opens no login any more once one has succeeded.
    pub(super) async fn known_link(&self, key: &str) -> Result<(AccountId, LoginLink), LoginError> {
        let known = self.get::<LoginLink>((Space::Ticket, key)).await?;
        Ok(known.ok_or(Code::LinkUsed)?)
    }

    /// Begins a login; `link` is the one it comes from.
    pub(crate) async fn begin(
        &self,
        account: &AccountId,
        request: &LoginRequest,
        link: Option<String>,
    ) -> Result<StartedLogin, LoginError> {
        let (application, region) = self.destination(account, request).await?;
        self.check_accounts_max(account).await?;
        self.check_share(account)?;
        let (state, verifier, cookie) = (random_text(), random_text(), random_text());
        let key = key_of(state.expose());
        let redirect_uri = return_address(&application);
        let name = cookie_name(&key, &redirect_uri);
        let pending = PendingLogin {
            request: request.clone(),
            application: application.name().to_owned(),
            settings_hash: settings_hash(&application),
            verifier: verifier.clone(),
            cookie: (name.clone(), key_of(cookie.expose())),
            begun_at_ms: self.now_ms(),
            link,
        };
        let expires_in = self.engine.config().login.timeout;
        // At the limit nothing is written at all.
        self.put((Space::Login, &key), account, &pending, expires_in).await?;
        let entry = self.entry(Action::LoginStarted, account).about(&request.origin);
        if let Err(error) = self.engine.audit().write(entry).await {
            let _ = self.engine.store().entries(Space::Login).delete(&key).await;
            return Err(error.into());
        }
        Ok(StartedLogin {
            auth_url: authorize::url(&application, region, &state, &verifier),
            cookie: (name, cookie),
            redirect_uri,
            state,
            expires_in,
        })
    }

    /// A link that begins a login for exactly `account`, in whichever browser opens it, until one
    /// such login has succeeded: for the message that an account must be connected again.
    ///
    /// # Errors
    /// When no application is configured for the account, or the store does not take the link.
    pub async fn reconnect_link(&self, account: &AccountId) -> Result<Secret, LoginError> {
        let request = LoginRequest { origin: BY_LINK.to_owned(), ..LoginRequest::default() };
        let lifetime = self.engine.config().login.reconnect_link;
        Ok(self.new_link(account, &request, lifetime).await?.0)
    }

    /// A link that begins a login within `lifetime`; its second part asks how the login went
    /// ([`Logins::outcome`]).
    pub(crate) async fn link(
        &self,
        account: &AccountId,
        request: &LoginRequest,
        lifetime: Duration,
    ) -> Result<(Secret, Secret), LoginError> {
        self.check_accounts_max(account).await?;
        self.check_share(account)?;
        self.new_link(account, request, lifetime).await
    }

    async fn new_link(
        &self,
        account: &AccountId,
        request: &LoginRequest,
        lifetime: Duration,
    ) -> Result<(Secret, Secret), LoginError> {
        let (application, _) = self.destination(account, request).await?;
        let address = return_address(&application);
        if ads::is_amazon(address.host().unwrap_or_default()) {
            // Amazon would be sent the secret in it.
            return Err(LoginError::bad_request(format_args!(
                "a link leads to the host of lwa.redirect_uri, and {} is not this server: use \
                 `adsproxy login --paste`, or another redirect_uri",
                application.config.redirect_uri
            )));
        }
        let secret = random_text();
        let link = LoginLink {
            request: request.clone(),
            made_at: self.engine.clock().now().unix(),
            opens_until_ms: self.now_ms().saturating_add(milliseconds(lifetime)),
        };
        let key = key_of(secret.expose());
        self.put((Space::Ticket, &key), account, &link, lifetime).await?;
        let scheme = address.scheme_str().unwrap_or("http");
        let authority = address.authority().map_or("localhost", |authority| authority.as_str());
        let base = format!("{scheme}://{authority}{LOGIN_PATH}");
        let alias = account.alias();
        let url = format!("{base}?account={alias}&reconnect={}", secret.expose());
        Ok((Secret::new(url), Secret::new(key)))
    }

    /// The host that Amazon sends the browser back to.
    pub(crate) async fn redirect_host(
        &self,
        account: &AccountId,
        request: &LoginRequest,
    ) -> Result<String, LoginError> {
        let (application, _) = self.destination(account, request).await?;
        Ok(return_address(&application).host().unwrap_or_default().to_owned())
    }

    /// The application and the region: the configuration's, else the request's, else the record's.
    async fn destination(
        &self,
        account: &AccountId,
        request: &LoginRequest,
    ) -> Result<(Arc<Application>, Option<Region>), LoginError> {
        let config = self.engine.config();
        let configured = config.accounts.get(account);
        let record = self.engine.store().load(account).await?;
        let region = configured.map(|account| account.region);
        let region = shared_value("region", region, request.region)?;
        let region = region.or(record.as_ref().map(|record| record.region));
        let name = configured.map(|account| &account.application);
        let name = shared_value("application", name, request.application.as_ref())?;
        let mut names = config.applications.keys();
        let name = name.or(record.as_ref().map(|record| &record.application));
        let name = match (name, names.next()) {
            (Some(name), _) => name.as_str(),
            (None, Some(only)) if config.applications.len() == 1 => only,
            (None, _) => DEFAULT_APPLICATION,
        };
        let application = self.engine.enroller.application(name).ok_or_else(|| {
            let known: Vec<_> = config.applications.keys().map(String::as_str).collect();
            // The others are no business of a tenant's.
            LoginError::bad_request(match account.tenant() {
                Some(_) => "no application is configured for this account".to_owned(),
                None => {
                    format!("there is no application {name:?}; configured: {}", known.join(", "))
                }
            })
        })?;
        if let Some(address) = *self.foreign_listener.lock()
            && returns_to_localhost(&application.config.redirect_uri, address.port())
        {
            return Err(LoginError::new(
                Code::RedirectPortTaken,
                format!("another program listens at {address} and may get Amazon's response"),
            ));
        }
        Ok((application, region))
    }
}

/// Whether the return address is `http://localhost` with this port, which a browser looks for at
/// 127.0.0.1 and at ::1.
pub(crate) fn returns_to_localhost(redirect_uri: &str, port: u16) -> bool {
    redirect_uri.parse().is_ok_and(|uri: Uri| {
        uri.scheme_str() == Some("http")
            && uri.host() == Some("localhost")
            && uri.port_u16().unwrap_or(80) == port
    })
}

/// What is configured, else what is asked for; an error if they differ.
fn shared_value<T: Display + PartialEq>(
    what: &str,
    configured: Option<T>,
    asked: Option<T>,
) -> Result<Option<T>, LoginError> {
    match (configured, asked) {
        (Some(configured), Some(asked)) if configured != asked => {
            Err(LoginError::bad_request(format_args!(
                "the configuration of this account says {what} {configured}, and wins; change it \
                 there"
            )))
        }
        (configured, asked) => Ok(configured.or(asked)),
    }
}

/// Changes with anything of the application that a login depends on.
pub(super) fn settings_hash(application: &Application) -> String {
    let (client_id, token_url) = (application.client_id(), &application.config.token_url);
    key_of(&format!("{client_id} {token_url} {}", application.config.redirect_uri))
}

/// The cookie of the login that is kept as `key`: each has its own, so that logins beside each
/// other in one browser do not disturb each other. `__Host-` would force the path `/`; on http
/// loopback there is no prefix at all, because not every browser takes a secure cookie there.
fn cookie_name(key: &str, redirect_uri: &Uri) -> String {
    let prefix = if redirect_uri.scheme_str() == Some("https") { "__Secure-" } else { "" };
    format!("{prefix}adsproxy_login_{}", &key[..16])
}

pub(crate) fn is_login_cookie(name: &str) -> bool {
    name.strip_prefix("__Secure-").unwrap_or(name).starts_with("adsproxy_login_")
}

fn return_address(application: &Application) -> Uri {
    application.config.redirect_uri.parse().unwrap_or_default()
}
