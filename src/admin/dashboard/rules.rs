//! What a caller may do, and the lines of the configuration that would allow more. The lines are shown to
//! be pasted: the configuration is the operators' file, which is not written here.

use crate::{
    admin::AdminCall,
    callers::{
        explain::AskedRequest,
        rules::{Denial, Rules},
    },
    config::{Config, RulesConfig},
    id::{AccountId, Tenant},
    login::LoginError,
};
use http::{HeaderValue, Method};
use std::fmt::Write as _;
use toml::Value;

/// The form, and the result of what was asked with it.
pub(super) struct RulesForm {
    /// Each table of rules as the form names it, and whether it was asked for.
    pub(super) choices: Vec<(String, bool)>,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) account: String,
    pub(super) profile: String,
    pub(super) shown: Option<ShownRules>,
}

pub(super) struct ShownRules {
    /// Such as `[[callers]] reports`.
    pub(super) name: String,
    pub(super) lines: Vec<String>,
    /// Or what is wrong with the question.
    pub(super) verdict: Option<Result<RequestVerdict, String>>,
}

/// What becomes of a request.
pub(super) struct RequestVerdict {
    /// The class of its operation.
    pub(super) class: &'static str,
    pub(super) denial: Option<Denial>,
    /// The rules of tools judge each call on the MCP server besides.
    pub(super) has_tool_rules: bool,
}

impl RulesForm {
    /// None where the rules are not shown, or there are none.
    pub(super) fn of(call: &AdminCall) -> Result<Option<Self>, LoginError> {
        let config = call.logins.engine.config();
        let text = |name| call.query.one(name).map(Option::unwrap_or_default);
        let (wanted, all) = (text("rules")?, tables(&config));
        if !call.sees_all() || all.is_empty() {
            return Ok(None);
        }
        let mut form = Self {
            choices: all.iter().map(|one| (one.name.clone(), one.name == wanted)).collect(),
            method: text("method")?,
            path: text("path")?,
            account: text("account")?,
            profile: text("profile")?,
            shown: None,
        };
        if let Some(one) = all.iter().find(|one| one.name == wanted) {
            let verdict = match form.path.is_empty() {
                true => None,
                false => Some(form.judge(&config, one)),
            };
            let lines = rule_lines(one.rules).lines().map(str::to_owned).collect();
            form.shown = Some(ShownRules { name: wanted, lines, verdict });
        }
        Ok(Some(form))
    }

    fn judge(&self, config: &Config, one: &RuleTable<'_>) -> Result<RequestVerdict, String> {
        let method = if self.method.is_empty() { "GET" } else { &self.method };
        let method: Result<Method, _> = method.to_ascii_uppercase().parse();
        let method = method.map_err(|_| format!("{:?} is no method, such as POST", self.method))?;
        let path = self.path.split('?').next().unwrap_or_default();
        if !path.starts_with('/') {
            return Err("The path begins with /, such as /sp/campaigns/list".to_owned());
        }
        let given = |text: &'_ String| Some(text.clone()).filter(|text| !text.is_empty());
        let profile = given(&self.profile).map(|it| HeaderValue::from_str(&it)).transpose();
        let profile = profile.map_err(|_| format!("{:?} is no profile", self.profile))?;
        let account = given(&self.account);
        let id = match (&account, &one.owner) {
            (Some(name), RulesOwner::Caller(None)) => Some(name.parse::<AccountId>()),
            (Some(name), RulesOwner::Caller(Some(tenant))) => {
                Some(AccountId::of(Some(tenant), name))
            }
            // Of which tenant its user is, is not known.
            (_, RulesOwner::Issuer) | (None, _) => None,
        };
        let id = id.transpose().map_err(|error| format!("{:?}: {error}", self.account))?;
        let known = id.and_then(|id| config.accounts.get(&id));
        let defaults = known.map_or(&[][..], |account| &account.headers);
        let (account, profile) = (account.as_deref(), profile.as_ref());
        let request = AskedRequest { method: &method, path, account, defaults, profile };
        let rules = Rules::new(one.rules);
        let (class, denial) = request.judge(&rules);
        let has_tool_rules = class == "mcp" && rules.tools.is_some();
        Ok(RequestVerdict { class, denial, has_tool_rules })
    }
}

/// A table of the configuration that has rules.
struct RuleTable<'a> {
    name: String,
    rules: &'a RulesConfig,
    owner: RulesOwner<'a>,
}

/// Whose rules they are.
enum RulesOwner<'a> {
    /// A caller, perhaps of a tenant.
    Caller(Option<&'a Tenant>),
    /// The users of an issuer.
    Issuer,
}

fn tables(config: &Config) -> Vec<RuleTable<'_>> {
    let callers = config.callers.iter().map(|one| RuleTable {
        name: format!("[[callers]] {}", one.name),
        rules: &one.rules,
        owner: RulesOwner::Caller(one.tenant.as_ref()),
    });
    let issuers = config.issuers.iter().map(|one| RuleTable {
        name: format!("[[issuers]] {}", one.name),
        rules: &one.rules,
        owner: RulesOwner::Issuer,
    });
    callers.chain(issuers).collect()
}

/// The rules as lines of the configuration; empty if there is none.
fn rule_lines(rules: &RulesConfig) -> String {
    let mut lines = String::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            writeln!(lines, "{name} = {value}").expect("writing to a String cannot fail");
        }
    };
    let list = |texts: &Vec<String>| Value::from(texts.clone());
    let flag = |is_set: bool| is_set.then_some(Value::Boolean(true));
    add("accounts", rules.accounts.as_ref().map(list));
    add("read_only", flag(rules.read_only));
    add("methods", rules.methods.as_ref().map(list));
    add("paths", rules.paths.as_ref().map(list));
    add("profiles", rules.profiles.as_ref().map(list));
    add("requests_per_minute", rules.requests_per_minute.map(Value::from));
    add("operator", flag(rules.operator));
    add(
        "mcp",
        rules.mcp.as_ref().map(|pins| {
            let pins = [
                ("profile", &pins.profile),
                ("account", &pins.account),
                ("manager", &pins.manager),
            ];
            let set = pins.into_iter().filter_map(|(name, pin)| Some((name, pin.as_deref()?)));
            Value::Table(set.map(|(name, pin)| (name.to_owned(), pin.into())).collect())
        }),
    );
    add("tools", rules.tools.as_ref().map(list));
    add("deny", Some(&rules.deny).filter(|deny| !deny.is_empty()).map(list));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::McpPins;

    #[test]
    fn the_lines_are_those_that_make_the_rules() {
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
        let rules = RulesConfig {
            accounts: texts(&["acme", "eu-*"]),
            read_only: true,
            methods: texts(&["GET"]),
            paths: texts(&["/reporting/*", "/a\"b'c"]),
            profiles: texts(&["1234567890"]),
            requests_per_minute: Some(600),
            operator: true,
            mcp: Some(McpPins { profile: Some("12".to_owned()), ..McpPins::default() }),
            tools: texts(&["*-query_*", "c"]),
            deny: vec!["write*".to_owned()],
        };
        let lines = rule_lines(&rules);
        let table: toml::Table = lines.parse().expect("it is TOML");
        assert_eq!(lines.lines().count(), 10, "{lines}");
        assert_eq!(table["paths"][1].as_str(), Some("/a\"b'c"));
        assert_eq!(table["mcp"]["profile"].as_str(), Some("12"));
        assert_eq!(table["accounts"][1].as_str(), Some("eu-*"));
        assert_eq!(rule_lines(&RulesConfig::default()), "");
    }
}
