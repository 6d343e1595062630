//! The beginning: which account and application, where the browser is sent, what is remembered.

use super::{
    Kept, LOGIN_PATH, Logins, Problem, is_random_text, kept, milliseconds, name_of, random,
};
use crate::{
    audit::Action,
    config::{self, DEFAULT_APPLICATION},
    id::{AccountId, Region},
    lwa::{Application, authorize},
    provider::ads,
    secret::Secret,
    store::{Credential, notes::NoteKind},
};
use http::Uri;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// What somebody wants to connect.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Under which alias.
    pub account: AccountId,
    /// In which region; the configuration's or the record's if none, else that of its profiles.
    pub region: Option<Region>,
    /// To which application.
    pub application: Option<String>,
    /// Another Amazon user's grant may replace the account's without a question.
    pub replace: bool,
    /// Who asks, for the audit log: `terminal`, `admin`, `link`.
    pub origin: &'static str,
}

impl Wish {
    /// Just `account`, as `origin` asks for it.
    #[must_use]
    pub fn new(account: AccountId, origin: &'static str) -> Self {
        Self { account, region: None, application: None, replace: false, origin }
    }
}

/// A login that was begun.
#[derive(Debug)]
pub struct Started {
    /// Where the browser is to go.
    pub auth_url: String,
    /// What it comes back with.
    pub state: Secret,
    /// The cookie that binds it to the browser: name and value.
    pub cookie: (String, Secret),
    /// The path that the browser comes back to.
    pub callback_path: String,
    /// Whether the browser comes back by https.
    pub is_https: bool,
    /// How long it may take.
    pub expires_in: Duration,
}

/// What is remembered of a login, sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) region: Option<String>,
    /// Which application, and where its codes are exchanged: with several regions the answer of
    /// one must never be taken to another (RFC 9700 section 4.4).
    pub(super) application: String,
    pub(super) client_id: String,
    pub(super) token_url: String,
    pub(super) redirect_uri: String,
    pub(super) verifier: Kept,
    /// The hash of the cookie's value.
    pub(super) cookie: String,
    pub(super) begun_at_ms: u64,
    pub(super) replace: bool,
    /// The link it came from, which works until one of its logins has succeeded.
    pub(super) ticket: Option<String>,
    pub(super) origin: String,
}

/// What is remembered of a link.
#[derive(Serialize, Deserialize)]
pub(super) struct Ticket {
    region: Option<String>,
    application: Option<String>,
    replace: bool,
    origin: String,
    /// In seconds since 1970.
    made_at: u64,
    /// Until when a login may begin, in milliseconds since 1970; the note outlives the last one.
    opens_until_ms: u64,
}

impl Ticket {
    /// Whether the account of `record` was connected since the link was made.
    pub(super) fn is_spent(&self, record: Option<&Credential>) -> bool {
        record.and_then(|record| record.consented_at).is_some_and(|at| at > self.made_at)
    }
}

/// Where a login leads to.
pub(super) struct Target {
    pub(super) application: Arc<Application>,
    pub(super) region: Option<Region>,
}

impl Logins {
    /// Begins a login.
    ///
    /// # Errors
    /// When the account, region or application cannot be, or the store does not take it.
    pub async fn begin(&self, wish: &Wish) -> Result<Started, Problem> {
        self.begin_from(wish, None).await
    }

    /// Begins a login from a link. The link stays good until one of its logins has succeeded: a
    /// program that looks at links before a person does must not use it up.
    ///
    /// # Errors
    /// `LinkUsed`; as [`Logins::begin`].
    pub async fn begin_by_link(&self, account: &AccountId, link: &str) -> Result<Started, Problem> {
        let name = name_of(link);
        let known = match is_random_text(link) {
            true => self.look::<Ticket>(NoteKind::Ticket, &name).await?,
            false => None,
        };
        let (owner, ticket) = known.ok_or(Problem::LinkUsed)?;
        if owner != *account {
            return Err(Problem::LinkUsed);
        }
        // Each message has a link of its own; the first one that is used ends the others.
        let record = self.engine.store().load(account).await?;
        if ticket.is_spent(record.as_ref()) || ticket.opens_until_ms <= self.now_ms() {
            return Err(Problem::LinkUsed);
        }
        // Whoever follows it has the whole time of a login, however late that is.
        self.extend(&name, self.engine.config().login.timeout).await?;
        let mut known = ["terminal", "admin"].into_iter();
        let origin = known.find(|known| *known == ticket.origin).unwrap_or("link");
        let wish = Wish {
            account: owner,
            region: ticket.region.and_then(|region| region.parse().ok()),
            application: ticket.application,
            replace: ticket.replace,
            origin,
        };
        self.begin_from(&wish, Some(name)).await
    }

    async fn begin_from(&self, wish: &Wish, ticket: Option<String>) -> Result<Started, Problem> {
        let Target { application, region } = self.target(wish).await?;
        let (state, verifier, cookie) = (random()?, random()?, random()?);
        let pending = Pending {
            region: wish.region.map(|region| region.to_string()),
            application: application.name().to_owned(),
            client_id: application.client_id().to_owned(),
            token_url: application.token_url(),
            redirect_uri: application.redirect_uri().to_owned(),
            verifier: kept(&verifier),
            cookie: name_of(cookie.expose()),
            begun_at_ms: self.now_ms(),
            replace: wish.replace,
            ticket,
            origin: wish.origin.to_owned(),
        };
        let name = name_of(state.expose());
        let expires_in = self.engine.config().login.timeout;
        // Where there are too many, nothing is written at all.
        self.note((NoteKind::Login, &name), &wish.account, &pending, expires_in).await?;
        let entry = self.entry(Action::LoginStarted, &wish.account, wish.origin);
        if let Err(error) = self.engine.audit().write(entry).await {
            let _ = self.engine.store().notes().take(NoteKind::Login, &name).await;
            return Err(error.into());
        }
        let redirect: Uri = application.redirect_uri().parse().unwrap_or_default();
        Ok(Started {
            auth_url: authorize::url(&application, region, &state, &verifier),
            cookie: (cookie_name(&name, is_https(application.redirect_uri())), cookie),
            callback_path: redirect.path().to_owned(),
            is_https: is_https(application.redirect_uri()),
            state,
            expires_in,
        })
    }

    /// A link that begins a login for exactly `account`, in whichever browser opens it, until one
    /// such login has succeeded: for the message that an account must be connected again.
    ///
    /// # Errors
    /// As [`Logins::begin`]; nothing is made for an application that is not configured.
    pub async fn reconnect_link(&self, account: &AccountId) -> Result<Secret, Problem> {
        let lifetime = self.engine.config().login.reconnect_link;
        Ok(self.link(&Wish::new(account.clone(), "link"), lifetime).await?.0)
    }

    /// A link for `wish` that lives as long as a login may take; its second part asks how the login
    /// went ([`Logins::outcome`]).
    ///
    /// # Errors
    /// As [`Logins::reconnect_link`].
    pub async fn start_link(&self, wish: &Wish) -> Result<(Secret, Secret), Problem> {
        self.link(wish, self.engine.config().login.timeout).await
    }

    async fn link(&self, wish: &Wish, lifetime: Duration) -> Result<(Secret, Secret), Problem> {
        let Target { application, .. } = self.target(wish).await?;
        let base = base(application.redirect_uri())?;
        let secret = random()?;
        let ticket = Ticket {
            region: wish.region.map(|region| region.to_string()),
            application: wish.application.clone(),
            replace: wish.replace,
            origin: wish.origin.to_owned(),
            made_at: self.engine.clock().now().unix(),
            opens_until_ms: self.now_ms().saturating_add(milliseconds(lifetime)),
        };
        let name = name_of(secret.expose());
        self.note((NoteKind::Ticket, &name), &wish.account, &ticket, lifetime).await?;
        let account = &wish.account;
        let url = format!("{base}{LOGIN_PATH}?account={account}&reconnect={}", secret.expose());
        Ok((Secret::new(url), Secret::new(name)))
    }

    /// The host that Amazon sends the browser back to.
    ///
    /// # Errors
    /// As [`Logins::begin`].
    pub async fn redirect_host(&self, wish: &Wish) -> Result<String, Problem> {
        let Target { application, .. } = self.target(wish).await?;
        let uri: Uri = application.redirect_uri().parse().unwrap_or_default();
        Ok(uri.host().unwrap_or_default().to_owned())
    }

    /// Which application and region: the configuration says, else the wish, else the record.
    pub(super) async fn target(&self, wish: &Wish) -> Result<Target, Problem> {
        let configured = self.engine.config().accounts.get(&wish.account);
        let record = self.engine.store().load(&wish.account).await?;
        let region = self.region(wish, configured, record.as_ref())?;
        let name = self.application_name(wish, configured, record.as_ref())?;
        let application = self.application(&name).ok_or_else(|| {
            let known: Vec<_> = self.engine.config().applications.keys().cloned().collect();
            let known = known.join(", ");
            Problem::BadRequest(format!("there is no application {name:?}; configured: {known}"))
        })?;
        Ok(Target { application, region })
    }

    pub(super) fn application(&self, name: &str) -> Option<Arc<Application>> {
        self.engine.application(name)
    }

    fn region(
        &self,
        wish: &Wish,
        configured: Option<&config::Account>,
        record: Option<&Credential>,
    ) -> Result<Option<Region>, Problem> {
        match (configured.map(|account| account.region), wish.region) {
            (Some(says), Some(wished)) if says != wished => {
                let account = &wish.account;
                Err(Problem::BadRequest(format!(
                    "accounts.{account} in the configuration says region {says}, and wins; change \
                     it there"
                )))
            }
            (Some(region), _) | (None, Some(region)) => Ok(Some(region)),
            (None, None) => Ok(record.map(|record| record.region)),
        }
    }

    fn application_name(
        &self,
        wish: &Wish,
        configured: Option<&config::Account>,
        record: Option<&Credential>,
    ) -> Result<String, Problem> {
        let says = configured.map(|account| &account.application);
        match (says, &wish.application) {
            (Some(says), Some(wished)) if says != wished => {
                let account = &wish.account;
                Err(Problem::BadRequest(format!(
                    "accounts.{account} in the configuration says application {says}, and wins; \
                     change it there"
                )))
            }
            (Some(name), _) | (None, Some(name)) => Ok(name.clone()),
            (None, None) => Ok(match record {
                Some(record) => record.application.clone(),
                None => self.only_application(),
            }),
        }
    }

    /// `[lwa]`, or the one there is.
    fn only_application(&self) -> String {
        let applications = &self.engine.config().applications;
        match applications.keys().next() {
            Some(only) if applications.len() == 1 => only.clone(),
            _ => DEFAULT_APPLICATION.to_owned(),
        }
    }
}

/// The cookie of the login that is kept under `name`: each has its own, so that logins beside each
/// other in one browser do not disturb each other. `__Host-` would force the path `/`; on http
/// loopback there is no prefix at all, because not every browser takes a secure cookie there.
pub(super) fn cookie_name(name: &str, is_https: bool) -> String {
    let prefix = if is_https { "__Secure-" } else { "" };
    format!("{prefix}adsproxy_login_{}", &name[..16])
}

/// Whether the browser comes back by https.
pub(super) fn is_https(redirect_uri: &str) -> bool {
    redirect_uri.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"))
}

/// Scheme and authority of the return address, where links lead to.
fn base(redirect_uri: &str) -> Result<String, Problem> {
    let uri: Uri = redirect_uri.parse().unwrap_or_default();
    let scheme = uri.scheme_str().unwrap_or("http");
    let host = uri.host().unwrap_or_default();
    if ads::is_amazon(host) {
        // Amazon would be sent the secret in it.
        return Err(Problem::BadRequest(format!(
            "a link leads to the host of lwa.redirect_uri, and {redirect_uri} is not this server: \
             use `adsproxy login --paste`, or another redirect_uri"
        )));
    }
    Ok(format!(
        "{scheme}://{}",
        uri.authority().map_or("localhost", |authority| authority.as_str())
    ))
}
