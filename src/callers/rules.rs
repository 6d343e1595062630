//! What a caller may do once it is known: which accounts, methods, paths and profiles it may use, and
//! whether it may write. Pure: no rule looks at anything but the request.
//!
//! Rules judge what goes to Amazon, byte for byte. A path that could be read as another one there is
//! refused as soon as any rule but `accounts` is set. On the MCP server each call is a `POST` to one
//! path, so that `read_only` does not judge the request: the rules of tools do.

pub use super::denial::Denial;

use super::{
    denial::{ReadOnlyBecause, list},
    glob::{AccountGlob, PathGlob},
    mcp::{self, ToolRules},
    path::ambiguity,
};
use crate::{
    config::RulesConfig,
    inbound::path_key::masked,
    provider::{
        ads::{self, Service},
        operations::{OperationClass, classify},
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header::CONNECTION};
use std::sync::Arc;

/// Which requests are allowed.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// An account must match one pattern of each list: the caller's own and its session's.
    accounts: Vec<Box<[AccountGlob]>>,
    /// Whether the first of them is the configuration's.
    has_own_accounts: bool,
    methods: Option<Box<[Method]>>,
    paths: Option<Box<[PathGlob]>>,
    profiles: Option<Box<[Box<str>]>>,
    /// The profile that every call of the MCP server is fixed to.
    mcp_profile: Option<Box<str>>,
    read_only: Option<ReadOnlyBecause>,
    /// Which tools of the MCP server it may use; none: all.
    pub tools: Option<Arc<ToolRules>>,
    /// What fixes its requests to the MCP server to one account.
    pub pins: Arc<[(HeaderName, HeaderValue)]>,
}

/// What of a request the rules judge.
#[derive(Debug)]
pub struct RuledRequest<'a> {
    pub method: &'a Method,
    /// As it goes to Amazon: without our prefix and without the query.
    pub path: &'a str,
    pub service: Service,
    /// As the caller sent them.
    pub headers: &'a HeaderMap,
    /// The account's default headers.
    pub defaults: &'a [(HeaderName, HeaderValue)],
}

/// Fields by which servers let a `POST` be another method.
const METHOD_OVERRIDES: [&str; 3] =
    ["x-http-method", "x-http-method-override", "x-method-override"];

impl Rules {
    pub fn new(config: &RulesConfig) -> Self {
        let read_only = config.read_only.then_some(ReadOnlyBecause::Rule);
        // The configuration has checked them.
        let methods = |names: &Vec<String>| names.iter().filter_map(|it| it.parse().ok()).collect();
        let paths = |globs: &Vec<String>| globs.iter().map(|glob| PathGlob::new(glob)).collect();
        let boxed = |texts: &Vec<String>| texts.iter().map(|text| text.as_str().into()).collect();
        let pinned = config.mcp.as_ref().and_then(|pins| pins.profile.as_deref());
        Self {
            accounts: config.accounts.iter().map(|globs| account_globs(globs)).collect(),
            has_own_accounts: config.accounts.is_some(),
            methods: config.methods.as_ref().map(methods),
            paths: config.paths.as_ref().map(paths),
            profiles: config.profiles.as_ref().map(boxed),
            mcp_profile: pinned.map(Into::into),
            read_only,
            tools: ToolRules::new(config),
            pins: mcp::pins(config.mcp.as_ref()),
        }
    }

    /// What a session of this caller may do: at most what these rules allow.
    pub fn narrowed(&self, accounts: Option<&[String]>, read_only: bool) -> Self {
        let mut rules = self.clone();
        rules.accounts.extend(accounts.map(account_globs));
        rules.read_only = rules.read_only.or(read_only.then_some(ReadOnlyBecause::Session));
        if read_only {
            rules.tools = Some(ToolRules::of_reading_session(rules.tools.as_deref()));
        }
        rules
    }

    /// Whether the account that the caller calls `name` is one of those that it may use.
    pub fn sees(&self, name: &str) -> bool {
        self.accounts.iter().all(|globs| globs.iter().any(|glob| glob.matches(name)))
    }

    pub fn is_read_only(&self) -> bool {
        self.read_only.is_some()
    }

    /// The only account that the rules can allow, if they name one.
    pub fn only_account(&self) -> Option<&str> {
        let single = self.accounts.iter().find_map(|globs| match &**globs {
            [glob] => glob.only_name(),
            _ => None,
        });
        single.filter(|name| self.sees(name))
    }

    /// Why the account that the caller calls `name` is not seen, if it is not.
    pub fn explain_account(&self, name: &str) -> Option<Denial> {
        let globs = self.accounts.iter().find(|globs| !globs.iter().any(|it| it.matches(name)))?;
        let mut names: Vec<&str> = globs.iter().map(AccountGlob::as_str).collect();
        // A key in the wrong place: operators read this.
        let name = &*masked(name);
        let why = format!("{name} is none of {}", list(&names));
        names.push(name);
        let is_own = self.has_own_accounts && self.accounts.first() == Some(globs);
        let allow = is_own.then(|| format!("accounts = {}", list(&names)));
        Some(Denial { rule: "accounts", why, allow })
    }

    /// Whether every request to an account that is seen is allowed.
    fn allows_every_request(&self) -> bool {
        self.methods.is_none()
            && self.paths.is_none()
            && self.profiles.is_none()
            && self.read_only.is_none()
            && !self.judges_mcp()
    }

    /// Whether requests to the MCP server are treated otherwise than those to the API.
    fn judges_mcp(&self) -> bool {
        self.tools.is_some() || !self.pins.is_empty()
    }

    /// Judges a request to an account that is seen.
    ///
    /// # Errors
    /// The first rule that refuses it.
    pub fn judge(&self, request: &RuledRequest<'_>) -> Result<(), Denial> {
        if self.allows_every_request() {
            return Ok(());
        }
        self.judge_path(request.path)?;
        self.judge_method(request)?;
        if request.service == Service::Api {
            self.judge_operation(request)?;
        }
        self.judge_profile(request)?;
        if self.judges_mcp() && ads::is_nearly_mcp(request.path) {
            let why = "Amazon could read the path as the MCP server's, /mcp".to_owned();
            return Err(Denial { rule: "path", why, allow: None });
        }
        Ok(())
    }

    fn judge_path(&self, path: &str) -> Result<(), Denial> {
        if let Some(why) = ambiguity(path) {
            let why = format!("Amazon could read the path as another one: {why}");
            return Err(Denial { rule: "path", why, allow: None });
        }
        let Some(globs) = &self.paths else { return Ok(()) };
        if globs.iter().any(|glob| glob.matches(path)) {
            return Ok(());
        }
        let mut paths: Vec<&str> = globs.iter().map(PathGlob::as_str).collect();
        let why = format!("the path is none of {}", list(&paths));
        let path = &*masked(path);
        let wanted = suggested_glob(path);
        // A star of the caller's would allow more than was asked for.
        let allow = (!path.contains('*')).then(|| {
            paths.push(&wanted);
            format!("paths = {}", list(&paths))
        });
        Err(Denial { rule: "paths", why, allow })
    }

    fn judge_method(&self, request: &RuledRequest<'_>) -> Result<(), Denial> {
        let Some(methods) = &self.methods else { return Ok(()) };
        refuse_overrides("methods", request.headers)?;
        if methods.contains(request.method) {
            return Ok(());
        }
        let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let why = format!("the method is none of {}", list(&names));
        names.push(request.method.as_str());
        Err(Denial { rule: "methods", why, allow: Some(format!("methods = {}", list(&names))) })
    }

    fn judge_operation(&self, request: &RuledRequest<'_>) -> Result<(), Denial> {
        let Some(because) = self.read_only else { return Ok(()) };
        refuse_overrides("read_only", request.headers)?;
        if classify(request.method, request.path) != OperationClass::Write {
            return Ok(());
        }
        Err(because.denial("the operation writes, or is not known to only read"))
    }

    /// Lets through what Amazon answers for one of the profiles only: requests whose one scope is one
    /// of them, on paths that go by the scope, with no other field that names an account.
    fn judge_profile(&self, request: &RuledRequest<'_>) -> Result<(), Denial> {
        let Some(profiles) = &self.profiles else { return Ok(()) };
        let deny = |why: &str| Err(Denial { rule: "profiles", why: why.to_owned(), allow: None });
        if request.service == Service::Mcp {
            return match &self.mcp_profile {
                Some(pinned) if profiles.contains(pinned) => Ok(()),
                _ => deny("a call of the MCP server names its profile itself: pin it by `mcp`"),
            };
        }
        let is_allowed = |scope: &[u8]| profiles.iter().any(|it| it.as_bytes() == scope);
        let other = request.headers.iter().find(|(name, value)| {
            names_another_account(name)
                && !request.defaults.iter().any(|(own, given)| own == *name && given == *value)
        });
        if let Some((name, _)) = other {
            return deny(&format!("the field {name} can name another account than the scope does"));
        }
        let mut connection = request.headers.get_all(CONNECTION).iter();
        if connection.any(|line| names_scope(line.as_bytes())) {
            return deny("a Connection field takes the scope away");
        }
        let mut scopes = request.headers.get_all(&ads::SCOPE_FIELD).iter();
        let default = || request.defaults.iter().find(|(name, _)| *name == ads::SCOPE_FIELD);
        let scope = scopes.next().or_else(|| default().map(|(_, value)| value));
        if scopes.next().is_some() {
            return deny("Amazon-Advertising-API-Scope is sent more than once");
        }
        if let Some(scope) = scope.filter(|scope| !is_allowed(scope.as_bytes())) {
            return Err(denied_scope(profiles, scope));
        }
        if !ads::is_beside_profiles(request.path) {
            return match scope {
                Some(_) => Ok(()),
                None => deny("Amazon-Advertising-API-Scope is missing"),
            };
        }
        let id = request.path.strip_prefix("/v2/profiles/");
        match id.is_some_and(|id| *request.method == Method::GET && is_allowed(id.as_bytes())) {
            true => Ok(()),
            false => deny("the path does not go by Amazon-Advertising-API-Scope"),
        }
    }
}

fn account_globs<T: AsRef<str>>(globs: &[T]) -> Box<[AccountGlob]> {
    globs.iter().map(|glob| AccountGlob::new(glob.as_ref())).collect()
}

/// A scope that is none of `profiles`.
fn denied_scope(profiles: &[Box<str>], scope: &HeaderValue) -> Denial {
    let mut names: Vec<&str> = profiles.iter().map(AsRef::as_ref).collect();
    let why = format!("Amazon-Advertising-API-Scope is none of {}", list(&names));
    let scope = scope.to_str().unwrap_or_default();
    let is_profile = !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_digit());
    let allow = is_profile.then(|| {
        names.push(scope);
        format!("profiles = {}", list(&names))
    });
    Denial { rule: "profiles", why, allow }
}

/// Refuses a field that would make the request another method's.
fn refuse_overrides(rule: &'static str, headers: &HeaderMap) -> Result<(), Denial> {
    let field = headers.keys().find(|name| METHOD_OVERRIDES.contains(&name.as_str()));
    field.map_or(Ok(()), |name| {
        let why = format!("the field {name} can make the request one with another method");
        Err(Denial { rule, why, allow: None })
    })
}

/// Whether a field of the caller's names an account in another way than the scope. All of Amazon's
/// own fields do, but those that we set.
fn names_another_account(name: &HeaderName) -> bool {
    let is_amazons = name.as_str().starts_with("amazon-") || name == "advertiserid";
    let is_known = [&ads::SCOPE_FIELD, &ads::CLIENT_ID, &ads::ADS_CLIENT_ID].contains(&name);
    is_amazons && !is_known
}

/// Whether a `Connection` line names the scope, which is then not sent on.
fn names_scope(line: &[u8]) -> bool {
    let mut names = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names.any(|name| name.eq_ignore_ascii_case(ads::SCOPE_FIELD.as_str().as_bytes()))
}

/// A pattern that allows `path` and what is beside it.
fn suggested_glob(path: &str) -> String {
    match path.match_indices('/').nth(2) {
        Some((end, _)) => format!("{}/*", &path[..end]),
        None => path.to_owned(),
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
