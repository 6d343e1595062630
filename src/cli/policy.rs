//! `adsproxy policy explain`: whether the configuration allows a request, which rule refuses it, and
//! the line that would allow it. Needs no server.

use super::{Context, print, table::configured};
use crate::{
    callers::rules::{Denial, RuledRequest, Rules},
    clock::{Clock as _, SystemClock},
    config::{CallerConfig, Config, RulesConfig},
    id::{AccountId, Tenant},
    provider::{
        ads::{self, Service},
        operations::classify,
    },
};
use anyhow::{anyhow, bail};
use clap::{ArgGroup, Args, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;

/// Of the JSON; it goes up when a member changes its meaning or goes away.
const VERSION: u32 = 1;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Say whether the configuration allows a request, and why not
    Explain(Explain),
}

impl PolicyVerb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Explain(verb) => verb.run(context),
        }
    }
}

#[derive(Debug, Args)]
#[command(override_usage = "adsproxy policy explain --caller <NAME> [OPTIONS] <METHOD> <PATH>")]
#[command(group = ArgGroup::new("who").required(true).args(["caller", "key_id", "issuer"]))]
pub(super) struct Explain {
    #[command(flatten)]
    who: Who,
    /// The account, as the caller says it
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// The profile (Amazon-Advertising-API-Scope)
    #[arg(long, value_name = "ID")]
    profile: Option<HeaderValue>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The method, such as POST
    method: String,
    /// The path at Amazon, such as /sp/campaigns/list
    path: String,
}

#[derive(Debug, Args)]
#[group(skip)]
struct Who {
    /// A caller by its name
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// A caller by the id of one of its keys
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// The bearer of a token of this issuer
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// The tenant that the token names
    #[arg(long, value_name = "TENANT", requires = "issuer", conflicts_with_all = ["caller", "key_id"])]
    tenant: Option<Tenant>,
}

/// Whose rules are asked.
struct Asked<'a> {
    /// Its table in the configuration, and its name.
    table: &'static str,
    name: &'a str,
    tenant: Option<&'a Tenant>,
    rules: &'a RulesConfig,
    /// Why it is no caller any more.
    denial: Option<Denial>,
}

impl Explain {
    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        let asked = self.who.find(&config)?;
        let method = self.method.to_ascii_uppercase();
        let method: Method = method.parse().map_err(|_| anyhow!("{method:?} is no method"))?;
        let path = self.path.split('?').next().unwrap_or_default();
        if !path.starts_with('/') {
            bail!("the path begins with /, such as /sp/campaigns/list");
        }
        let service = ads::service(path).0;
        let class = match service {
            Service::Api => classify(&method, path).as_str(),
            Service::Mcp => "mcp",
        };
        let denial = self.judge(&config, &asked, (&method, path, service))?;
        print(match self.json {
            true => json(&asked, class, denial.as_ref()),
            false => text(&asked, class, denial.as_ref()),
        })
    }

    fn judge(
        &self,
        config: &Config,
        asked: &Asked<'_>,
        (method, path, service): (&Method, &str, Service),
    ) -> anyhow::Result<Option<Denial>> {
        let rules = Rules::new(asked.rules);
        let mut defaults: &[(HeaderName, HeaderValue)] = &[];
        if let Some(name) = &self.account {
            let id = match asked.tenant {
                None => name.parse(),
                tenant @ Some(_) => AccountId::of(tenant, name),
            };
            let id = id.map_err(|error| anyhow!("--account {name:?}: {error}"))?;
            if let Some(account) = config.accounts.get(&id) {
                defaults = &account.headers;
            }
        }
        let mut headers = HeaderMap::new();
        headers.extend(self.profile.clone().map(|profile| (ads::SCOPE_FIELD.clone(), profile)));
        let request = RuledRequest { method, path, service, headers: &headers, defaults };
        let account = || self.account.as_deref().and_then(|name| rules.explain_account(name));
        let denial = asked.denial.clone().or_else(account);
        Ok(denial.or_else(|| rules.judge(&request).err()))
    }
}

impl Who {
    fn find<'a>(&'a self, config: &'a Config) -> anyhow::Result<Asked<'a>> {
        if let Some(name) = &self.issuer {
            let issuer = config.issuers.iter().find(|issuer| issuer.name == *name);
            let names = config.issuers.iter().map(|issuer| &issuer.name);
            let Some(issuer) = issuer else {
                bail!("there is no issuer {name:?}; {}", configured(names));
            };
            let (name, tenant) = (issuer.name.as_str(), self.tenant.as_ref());
            return Ok(Asked {
                table: "issuers",
                name,
                tenant,
                rules: &issuer.rules,
                denial: None,
            });
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
        let (name, tenant) = (caller.name.as_str(), caller.tenant.as_ref());
        Ok(Asked { table: "callers", name, tenant, rules: &caller.rules, denial })
    }
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

fn json(asked: &Asked<'_>, class: &str, denial: Option<&Denial>) -> String {
    let document = json!({
        "version": VERSION,
        "allowed": denial.is_none(),
        asked.table.trim_end_matches('s'): asked.name,
        "tenant": asked.tenant.map(Tenant::as_str),
        "operation": class,
        "rule": denial.map(|denial| denial.rule),
        "reason": denial.map(|denial| &denial.why),
        "allow": denial.and_then(|denial| denial.allow.as_ref()),
    });
    format!("{document:#}\n")
}

fn text(asked: &Asked<'_>, class: &str, denial: Option<&Denial>) -> String {
    let Asked { table, name, .. } = asked;
    let operation = format!("operation  {class}\n");
    let Some(denial) = denial else {
        return format!("allowed    by [[{table}]] {name}\n{operation}");
    };
    let mut text = format!(
        "refused    by [[{table}]] {name}\n{operation}rule       {}: {}\n",
        denial.rule, denial.why
    );
    if let Some(line) = &denial.allow {
        text.push_str(&format!("to allow   {line}\n"));
    }
    text
}
