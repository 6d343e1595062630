//! Whose rules `policy explain` asks: a caller's, those of the bearer of a token, or a session's.

use crate::{
    callers::{
        jwt::accepts_tenant,
        key::KeyId,
        rules::{Denial, Rules},
    },
    cli::{
        Context,
        caller::{admin, id_of},
        table::{configured, plain},
        wire::{AdminRequest, failure},
    },
    clock::{Clock as _, SystemClock},
    config::{CallerConfig, Config, IssuerConfig, RulesConfig},
    id::Tenant,
};
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Who {
    /// A caller by its name
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// A caller by the id of one of its keys
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// The bearer of a token of this issuer
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// A session by its id; asks the running server, else the store
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// The tenant that the token names
    #[arg(long, value_name = "TENANT", requires = "issuer",
          conflicts_with_all = ["caller", "key_id", "session"])]
    tenant: Option<Tenant>,
}

/// Whose rules are asked.
#[derive(Default)]
pub(super) struct Asked {
    /// Its table in the configuration, and its name; empty for a session that is not there.
    pub(super) table: &'static str,
    pub(super) name: String,
    pub(super) session: Option<KeyId>,
    pub(super) tenant: Option<Tenant>,
    pub(super) rules: Rules,
    /// Why it is no caller any more.
    pub(super) denial: Option<Denial>,
}

impl Asked {
    fn new(table: &'static str, name: &str, rules: &RulesConfig, tenant: Option<&Tenant>) -> Self {
        let (name, rules, tenant) = (name.to_owned(), Rules::new(rules), tenant.cloned());
        Self { table, name, rules, tenant, ..Self::default() }
    }

    fn of_caller(caller: &CallerConfig) -> Self {
        Self::new("callers", &caller.name, &caller.rules, caller.tenant.as_ref())
    }
}

impl Who {
    pub(super) fn find(&self, context: &Context, config: &Config) -> anyhow::Result<Asked> {
        if let Some(id) = &self.session {
            return session(context, config, id_of(id)?);
        }
        if let Some(name) = &self.issuer {
            let issuer = config.issuers.iter().find(|issuer| issuer.name == *name);
            let names = config.issuers.iter().map(|issuer| &issuer.name);
            let Some(issuer) = issuer else {
                bail!("there is no issuer {name:?}; {}", configured(names));
            };
            let tenant = self.tenant.as_ref();
            let denial = tenant.and_then(|tenant| foreign(issuer, tenant));
            return Ok(Asked { denial, ..of_issuer(issuer, tenant) });
        }
        let has_key = |caller: &CallerConfig, id: &str| caller.keys.iter().any(|key| key.id == id);
        let is_meant = |caller: &&CallerConfig| {
            self.caller.as_ref().is_some_and(|name| caller.name == *name)
                || self.key_id.as_deref().is_some_and(|id| has_key(caller, id))
        };
        let Some(caller) = config.callers.iter().find(is_meant) else {
            let known = configured(config.callers.iter().map(|caller| &caller.name));
            bail!(match (&self.caller, &self.key_id) {
                (Some(name), _) => format!("there is no caller {name:?}; {known}"),
                (_, id) => format!(
                    "no caller has a key with the id {:?}; {known}",
                    id.as_deref().unwrap_or_default()
                ),
            });
        };
        let denial = self.key_id.as_deref().and_then(|id| expired(caller, id));
        Ok(Asked { denial, ..Asked::of_caller(caller) })
    }
}

fn of_issuer(issuer: &IssuerConfig, tenant: Option<&Tenant>) -> Asked {
    Asked::new("issuers", &issuer.name, &issuer.rules, tenant)
}

/// The session `id`: its caller, narrowed to what the session may, by the configuration as it is now.
fn session(context: &Context, config: &Config, id: KeyId) -> anyhow::Result<Asked> {
    let server = admin(context, config.clone())?;
    let response = server.response(AdminRequest::get(&format!("/api/v1/sessions/{id}")))?;
    let said = match response.status {
        200 => response.said,
        404 => {
            let why = "there is no such session: it has ended, was revoked, or was never made";
            let allow = Some("adsproxy caller issue NAME --ttl 2h".to_owned());
            let denial = Some(denied(why.to_owned(), allow));
            return Ok(Asked { session: Some(id), denial, ..Asked::default() });
        }
        status => {
            let otherwise = format!("adsproxy at {server} responds with {status}");
            return Err(failure(&response.said, &otherwise));
        }
    };
    let text = |name: &str| said[name].as_str().unwrap_or_default();
    let tenant: Option<Tenant> = said["tenant"].as_str().map(str::parse).transpose()?;
    let (name, is_users) = (text("caller"), said["subject"].is_string());
    let (found, denial) = match is_users {
        true => {
            let issuer = config.issuers.iter().find(|issuer| issuer.name == name);
            let denial = issuer.and_then(|it| denied_user(it, tenant.as_ref()));
            (issuer.map(|issuer| of_issuer(issuer, tenant.as_ref())), denial)
        }
        false => {
            let caller = config.callers.iter().find(|caller| caller.name == name);
            (caller.map(Asked::of_caller), None)
        }
    };
    let gone = || denied(format!("its caller {} is not in the configuration", plain(name)), None);
    let ended = ended(config, &said).or_else(|| found.is_none().then(gone)).or(denial);
    let refused = "the server that runs does not accept it: its configuration may be another one";
    let orphaned = (text("state") == "orphaned").then(|| denied(refused.to_owned(), None));
    let mut asked = found.unwrap_or_else(|| Asked { name: plain(name), ..Asked::default() });
    let accounts: Option<Vec<String>> = serde_json::from_value(said["accounts"].clone())
        .context("the server describes the session in another way than this version")?;
    let read_only = said["read_only"] == true;
    if accounts.is_some() || read_only {
        asked.rules = asked.rules.narrowed(accounts.as_deref(), read_only);
    }
    asked.table = if is_users { "issuers" } else { "callers" };
    Ok(Asked { session: Some(id), denial: ended.or(orphaned), ..asked })
}

/// Why a session is accepted no more, by itself or by the key that it was made with.
fn ended(config: &Config, said: &Value) -> Option<Denial> {
    let text = |name: &str| plain(said[name].as_str().unwrap_or_default());
    let again = || {
        let is_callers = said["subject"].is_null();
        is_callers.then(|| format!("adsproxy caller issue {} --ttl 2h", text("caller")))
    };
    let key = said["made_by"]["key_id"].as_str().unwrap_or_default();
    match said["state"].as_str() {
        Some("expired") => Some(denied(format!("it ended at {}", text("expires")), again())),
        Some("revoked") => {
            let why = format!("the key {} that it was made with was revoked", plain(key));
            Some(denied(why, again()))
        }
        _ => {
            let id = key.strip_prefix("adsk_")?;
            let mut keys = config.callers.iter().flat_map(|caller| &caller.keys);
            let why = format!("the key {} that it was made with is not configured", plain(key));
            (!keys.any(|known| known.id == id)).then(|| denied(why, again()))
        }
    }
}

fn denied(why: String, allow: Option<String>) -> Denial {
    Denial { rule: "session", why, allow }
}

/// Why users of `issuer` have no session for `tenant`, if that is so.
fn denied_user(issuer: &IssuerConfig, tenant: Option<&Tenant>) -> Option<Denial> {
    if issuer.session_ttl_max.is_none() {
        let why = "users of this issuer have no sessions".to_owned();
        let allow = Some("session_ttl_max_secs = 86400".to_owned());
        return Some(Denial { rule: "session_ttl_max_secs", why, allow });
    }
    if issuer.tenant_claim.is_empty() != tenant.is_none() {
        let why = "it was made when users of this issuer had tenants, or had none".to_owned();
        return Some(Denial { rule: "tenant_claim", why, allow: None });
    }
    tenant.and_then(|tenant| foreign(issuer, tenant))
}

/// That users of `tenant` do not come from `issuer`, if that is so.
fn foreign(issuer: &IssuerConfig, tenant: &Tenant) -> Option<Denial> {
    if accepts_tenant(issuer, tenant) {
        return None;
    }
    let mut tenants = issuer.tenants.clone().unwrap_or_default();
    let why = format!("{tenant} is none of {tenants:?}");
    tenants.push(tenant.to_string());
    Some(Denial { rule: "tenants", why, allow: Some(format!("tenants = {tenants:?}")) })
}

/// That the key with this id is over, if it is.
fn expired(caller: &CallerConfig, id: &str) -> Option<Denial> {
    let now = i64::try_from(SystemClock.now().unix()).unwrap_or(i64::MAX);
    let key = caller.keys.iter().find(|key| key.id == id)?;
    let end = key.expires.filter(|end| end.as_second() <= now)?;
    let why = format!("the key {id} ended at {end}");
    let allow = Some(format!("adsproxy caller rotate {}", caller.name));
    Some(Denial { rule: "keys", why, allow })
}
