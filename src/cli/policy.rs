//! `adsproxy policy explain`: whether the configuration allows a request, which rule refuses it, and
//! the line that would allow it. Needs no server, but for what a session is.

mod who;

use super::{Context, print, table::plain};
use crate::{
    callers::{explain::AskedRequest, rules::Denial},
    config::Config,
    id::{AccountId, Tenant},
};
use anyhow::{anyhow, bail};
use clap::{ArgGroup, Args, Subcommand};
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};
use who::{Asked, Who};

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
#[command(override_usage = "adsproxy policy explain --caller <NAME> [OPTIONS] <METHOD> <PATH>
       adsproxy policy explain --caller <NAME> [OPTIONS] --tool <NAME>")]
#[command(group = ArgGroup::new("who").required(true).args(["caller", "key_id", "issuer", "session"]))]
pub(super) struct Explain {
    #[command(flatten)]
    who: Who,
    /// The account, as the caller says it
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// The profile (Amazon-Advertising-API-Scope)
    #[arg(long, value_name = "ID")]
    profile: Option<HeaderValue>,
    /// A tool of the MCP server: on /mcp, and by invoke_tool on /mcp/lite
    #[arg(long, value_name = "NAME", conflicts_with_all = ["method", "path"])]
    tool: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The method, such as POST
    #[arg(required_unless_present = "tool")]
    method: Option<String>,
    /// The path at Amazon, such as /sp/campaigns/list
    #[arg(required_unless_present = "tool")]
    path: Option<String>,
}

/// What becomes of one request.
struct Verdict {
    path: String,
    /// The class of the operation.
    class: &'static str,
    denial: Option<Denial>,
}

impl Explain {
    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        let asked = self.who.find(context, &config)?;
        let verdicts = match &self.tool {
            None => vec![self.request(&config, &asked)?],
            Some(tool) => self.of_tool(&config, &asked, tool)?,
        };
        print(match self.json {
            true => self.as_json(&asked, &verdicts),
            false => self.as_text(&asked, &verdicts),
        })
    }

    fn request(&self, config: &Config, asked: &Asked) -> anyhow::Result<Verdict> {
        let method = self.method.as_deref().unwrap_or_default().to_ascii_uppercase();
        let method: Method = method.parse().map_err(|_| anyhow!("{method:?} is no method"))?;
        let path = self.path.as_deref().unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        if !path.starts_with('/') {
            bail!("the path begins with /, such as /sp/campaigns/list");
        }
        self.judge(config, asked, (&method, path))
    }

    /// The call of a tool on the MCP server, and by way of the lite one.
    fn of_tool(&self, config: &Config, asked: &Asked, tool: &str) -> anyhow::Result<Vec<Verdict>> {
        let mut verdicts = Vec::new();
        for (path, is_lite) in [("/mcp", false), ("/mcp/lite", true)] {
            let mut verdict = self.judge(config, asked, (&Method::POST, path))?;
            let denial = || asked.rules.tools.as_ref()?.explain(tool, is_lite);
            verdict.denial = verdict.denial.or_else(denial);
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    fn judge(
        &self,
        config: &Config,
        asked: &Asked,
        (method, path): (&Method, &str),
    ) -> anyhow::Result<Verdict> {
        let mut defaults: &[(HeaderName, HeaderValue)] = &[];
        if let Some(name) = &self.account {
            let id = match &asked.tenant {
                None => name.parse(),
                Some(tenant) => AccountId::of(Some(tenant), name),
            };
            let id = id.map_err(|error| anyhow!("--account {name:?}: {error}"))?;
            if let Some(account) = config.accounts.get(&id) {
                defaults = &account.headers;
            }
        }
        let (account, profile) = (self.account.as_deref(), self.profile.as_ref());
        let request = AskedRequest { method, path, account, defaults, profile };
        let (class, denial) = request.judge(&asked.rules);
        let denial = asked.denial.clone().or(denial);
        Ok(Verdict { path: path.to_owned(), class, denial })
    }

    fn as_json(&self, asked: &Asked, verdicts: &[Verdict]) -> String {
        let (first, rest) = verdicts.split_first().expect("one at least");
        let mut document = json!({
            "version": VERSION,
            "tenant": asked.tenant.as_ref().map(Tenant::as_str),
            "operation": first.class,
        });
        let members = document.as_object_mut().expect("made so");
        if !asked.name.is_empty() {
            let table = asked.table.trim_end_matches('s');
            members.insert(table.to_owned(), asked.name.as_str().into());
        }
        members.extend(asked.session.map(|id| ("session".to_owned(), id.as_str().into())));
        members.extend(first.members());
        if let Some(tool) = &self.tool {
            members.insert("tool".to_owned(), tool.as_str().into());
            members.extend(rest.iter().map(|lite| ("lite".to_owned(), lite.members().into())));
        }
        format!("{document:#}\n")
    }

    fn as_text(&self, asked: &Asked, verdicts: &[Verdict]) -> String {
        let Asked { table, name, session, .. } = asked;
        let by = match session {
            Some(id) if name.is_empty() => format!("session {id}"),
            Some(id) => format!("[[{table}]] {name}, session {id}"),
            None => format!("[[{table}]] {name}"),
        };
        let one = |Verdict { path, class, denial }: &Verdict| {
            let word = if denial.is_none() { "allowed" } else { "refused" };
            let mut text = format!("{word}    by {by}\noperation  {class}\n");
            if let Some(tool) = &self.tool {
                let how = if path == "/mcp" { "" } else { ", by invoke_tool" };
                text += &format!("tool       {} on {path}{how}\n", plain(tool));
            }
            if let Some(denial) = denial {
                text += &format!("rule       {}: {}\n", denial.rule, denial.why);
                let line = denial.allow.iter().map(|line| format!("to allow   {line}\n"));
                text.extend(line);
            }
            text
        };
        verdicts.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

impl Verdict {
    fn members(&self) -> Map<String, Value> {
        let denial = self.denial.as_ref();
        let document = json!({
            "allowed": denial.is_none(),
            "rule": denial.map(|denial| denial.rule),
            "reason": denial.map(|denial| &denial.why),
            "allow": denial.and_then(|denial| denial.allow.as_ref()),
        });
        let Value::Object(members) = document else { unreachable!("made so") };
        members
    }
}
