//! The one table of routes: dispatch, 404 and 405, the front page and the documentation come from it.

use super::{accounts, health, local, oauth, page, respond::Reply, tokens};
use crate::{
    admin::{Call, Sources},
    config::CALLBACK_PATH,
    login::{LOGIN_PATH, LoginError},
};
use http::Method;
use std::{fmt::Write as _, pin::Pin};

pub(super) const LOGINS_PATH: &str = "/api/auth/amazon/logins";

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The request brings a secret of its own: a state, a link, a token to confirm with.
    Public,
    /// Health and metrics.
    Read,
    /// Everything else.
    Operate,
    /// Processes of the server's own user and of root, over the control socket only.
    Local,
}

impl Audience {
    /// The name in the documentation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Local => "local",
        }
    }
}

/// The listener that a request arrived on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Admin,
    Health,
    Control,
}

impl Surface {
    fn serves(self, audience: Audience) -> bool {
        match self {
            Self::Health => audience == Audience::Read,
            Self::Admin => audience != Audience::Local,
            Self::Control => true,
        }
    }
}

/// Which pages may send a browser to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    /// Pages of this listener.
    Own,
    /// Any page, as a link that a person follows.
    Link,
    /// As [`Site::Link`] if this query argument has a value, else as [`Site::Own`].
    LinkWith(&'static str),
    /// A form on a page of this listener, which sends no referrer.
    Form,
}

pub(super) type Acting = Pin<Box<dyn Future<Output = Result<Reply, LoginError>> + Send>>;

/// What a route does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handler {
    /// Shows what the process knows; given the query.
    Show(fn(&Sources, &str) -> Reply),
    /// Works on accounts and logins.
    Act(fn(Call) -> Acting),
}

/// One row of the table.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) method: Method,
    /// `{id}` stands for one segment.
    pub(super) path: &'static str,
    pub(super) audience: Audience,
    pub(super) site: Site,
    pub(super) handler: Handler,
    pub(super) summary: &'static str,
}

impl Route {
    /// Says whether a request that brings no secret changes something.
    pub(super) fn writes_unauthenticated(&self) -> bool {
        let writes = self.method != Method::GET || matches!(self.site, Site::LinkWith(_));
        writes && self.audience == Audience::Operate
    }

    /// Says whether HEAD is served as GET: not where a GET changes something.
    fn has_head(&self) -> bool {
        self.method == Method::GET && self.site == Site::Own
    }
}

/// A row of the table for the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteDoc {
    /// The HTTP method.
    pub method: String,
    /// The path, with `{id}` for a segment that varies.
    pub path: &'static str,
    /// Who may use it.
    pub audience: &'static str,
    /// What it does.
    pub summary: &'static str,
}

macro_rules! table {
    ($($method:ident $path:expr, $audience:ident, $site:expr, $kind:ident($handler:expr), $summary:literal;)*) => {
        pub(super) static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            audience: Audience::$audience,
            site: $site,
            handler: table!(@$kind $handler),
            summary: $summary,
        }),*];
    };
    (@show $handler:expr) => { Handler::Show($handler) };
    (@act $handler:expr) => { Handler::Act(|call| Box::pin($handler(call))) };
}

table! {
    GET "/", Public, Site::Own, show(|_, _| super::respond::text(index(ROUTES, env!("CARGO_PKG_VERSION")))),
        "this list";
    GET "/livez", Read, Site::Own, show(health::live), "the process runs";
    GET "/readyz", Read, Site::Own, show(health::ready),
        "requests are wanted (`?verbose` lists the checks)";
    GET "/startupz", Read, Site::Own, show(health::started), "the start is over";
    GET "/healthz", Read, Site::Own, show(health::ready), "the same as `/readyz`";
    GET "/metrics", Read, Site::Own, show(health::metrics), "metrics for Prometheus";
    GET "/status", Operate, Site::Own, show(accounts::status), "accounts and their tokens";
    GET LOGIN_PATH, Operate, Site::LinkWith("reconnect"), act(oauth::login),
        "begins a login for `?account=`: a redirect for browsers, else JSON";
    POST LOGINS_PATH, Operate, Site::Own, act(oauth::start),
        "returns a link that begins a login, for `{\"account\": …}`";
    GET "/api/auth/amazon/logins/{id}", Public, Site::Own, act(oauth::outcome),
        "the state of a login begun by such a link";
    GET CALLBACK_PATH, Public, Site::Link, act(oauth::callback),
        "the return address: where Amazon sends the browser";
    POST page::CONFIRM_PATH, Public, Site::Form, act(oauth::confirm),
        "answers the question whether to replace an account";
    POST "/api/auth/amazon/logout", Operate, Site::Own, act(oauth::logout),
        "forgets the grant of `{\"account\": …}`";
    POST "/api/auth/refresh", Operate, Site::Own, act(tokens::refresh),
        "fetches a new access token for `{\"account\": …}`; does not return it";
    GET "/api/auth/token-status", Operate, Site::Own, act(tokens::status),
        "how long the tokens live, of all accounts or of `?account=`";
    GET "/api/v1/accounts", Operate, Site::Own, act(accounts::list), "all accounts";
    GET "/api/v1/accounts/{id}", Operate, Site::Own, act(accounts::show), "one account";
    DELETE "/api/v1/accounts/{id}", Operate, Site::Own, act(accounts::delete),
        "forgets the grant of an account";
    GET "/api/v1/server", Local, Site::Own, act(local::server), "which server this is";
    POST "/api/v1/accounts/{id}/token", Local, Site::Own, act(local::token),
        "returns an access token, for `adsproxy token`";
    POST "/api/v1/accounts/{id}/disclosures", Local, Site::Own, act(local::disclosure),
        "records what an access token is used for";
    POST local::TOKEN_PATH, Local, Site::Own, act(local::oauth_token),
        "tokens for the private data planes of commands";
}

/// What the table says about a path on a listener.
#[derive(Debug)]
pub(super) enum Found {
    /// The route and the segment that stands for `{id}`.
    Route(&'static Route, String),
    /// The path is there for other methods, these.
    OtherMethod(String),
    /// Nothing is there.
    Nothing,
}

/// Looks up `path` for `method` among the routes of `surface`.
pub(super) fn find(
    table: &'static [Route],
    surface: Surface,
    method: &Method,
    path: &str,
) -> Found {
    let mut methods = Vec::new();
    for route in table.iter().filter(|route| surface.serves(route.audience)) {
        let Some(id) = matched(route.path, path) else { continue };
        if route.method == *method || (*method == Method::HEAD && route.has_head()) {
            return Found::Route(route, id.to_owned());
        }
        methods.push(route.method.as_str());
        methods.extend(route.has_head().then_some("HEAD"));
    }
    if methods.is_empty() { Found::Nothing } else { Found::OtherMethod(methods.join(", ")) }
}

/// The segment that stands for `{id}`, empty if the pattern has none; nothing if `path` differs.
fn matched<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    match pattern.split_once("{id}") {
        None => (pattern == path).then_some(""),
        Some((before, after)) => {
            let id = path.strip_prefix(before)?.strip_suffix(after)?;
            (!id.is_empty() && !id.contains('/')).then_some(id)
        }
    }
}

/// The front page.
pub(super) fn index(table: &[Route], version: &str) -> String {
    let shown = || table.iter().filter(|route| route.audience != Audience::Local);
    let width = shown().map(|route| route.path.len()).max().unwrap_or(0);
    let mut text = format!("adsproxy {version}\n\n");
    for route in shown() {
        let Route { method, path, audience, summary, .. } = route;
        let (method, audience, summary) = (method.as_str(), audience.as_str(), plain(summary));
        writeln!(text, "{method:6} {path:width$}  {audience:7}  {summary}")
            .expect("writing to a String cannot fail");
    }
    text
}

fn plain(summary: &str) -> String {
    summary.replace('`', "")
}

fn docs(table: &[Route]) -> Vec<RouteDoc> {
    let doc = |route: &Route| RouteDoc {
        method: route.method.to_string(),
        path: route.path,
        audience: route.audience.as_str(),
        summary: route.summary,
    };
    table.iter().map(doc).collect()
}

/// Every route of the admin listener and of the control socket, in the order of the table.
#[must_use]
pub fn route_docs() -> Vec<RouteDoc> {
    docs(ROUTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    static WITH_ONE_MORE: &[Route] = &[Route {
        method: Method::PUT,
        path: "/api/v1/things/{id}",
        audience: Audience::Operate,
        site: Site::Own,
        handler: Handler::Show(|_, _| super::super::respond::text("thing")),
        summary: "sets a `thing`",
    }];

    #[test]
    fn a_route_added_to_the_table_is_dispatched_listed_and_documented() {
        let found = find(WITH_ONE_MORE, Surface::Admin, &Method::PUT, "/api/v1/things/7");
        assert!(matches!(found, Found::Route(_, id) if id == "7"));
        let found = find(WITH_ONE_MORE, Surface::Admin, &Method::GET, "/api/v1/things/7");
        assert!(matches!(found, Found::OtherMethod(methods) if methods == "PUT"));
        let page = index(WITH_ONE_MORE, "1.2.3");
        assert!(page.contains("PUT    /api/v1/things/{id}  operate  sets a thing\n"), "{page}");
        let [doc] = &docs(WITH_ONE_MORE)[..] else { panic!("one row") };
        assert_eq!((doc.method.as_str(), doc.audience), ("PUT", "operate"));
    }

    #[test]
    fn the_health_listener_has_the_read_routes_and_only_the_control_socket_the_local_ones() {
        for route in ROUTES {
            let on = |surface| {
                let path = route.path.replace("{id}", "x");
                matches!(find(ROUTES, surface, &route.method, &path), Found::Route(..))
            };
            assert_eq!(on(Surface::Health), route.audience == Audience::Read, "{}", route.path);
            assert_eq!(on(Surface::Admin), route.audience != Audience::Local, "{}", route.path);
            assert!(on(Surface::Control), "{}", route.path);
        }
    }

    #[test]
    fn no_two_routes_are_for_the_same_request() {
        for (index, route) in ROUTES.iter().enumerate() {
            let path = route.path.replace("{id}", "x");
            let twin = ROUTES[index + 1..]
                .iter()
                .find(|other| other.method == route.method && matched(other.path, &path).is_some());
            assert!(twin.is_none(), "{path}");
        }
    }

    #[test]
    fn an_id_is_one_segment() {
        for path in ["/api/v1/accounts/", "/api/v1/accounts/a/b", "/api/v1/accounts//"] {
            assert!(matches!(find(ROUTES, Surface::Admin, &Method::GET, path), Found::Nothing));
        }
    }

    #[test]
    fn head_changes_nothing() {
        let head = |path| find(ROUTES, Surface::Admin, &Method::HEAD, path);
        assert!(matches!(head("/status"), Found::Route(..)));
        assert!(matches!(head(LOGIN_PATH), Found::OtherMethod(methods) if methods == "GET"));
        assert!(matches!(head(CALLBACK_PATH), Found::OtherMethod(_)));
    }
}
