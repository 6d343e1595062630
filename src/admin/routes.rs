//! The one table of routes: dispatch, 404 and 405, the front page and the documentation come from it.

use super::{
    AdminCall, accounts, health, local, oauth, outbox, page,
    respond::{Handled, text},
    throttling,
};
use crate::{config::CALLBACK_PATH, login::LOGIN_PATH, named::named};
use http::{Method, StatusCode};
use std::{fmt::Write as _, pin::Pin};

const LOGINS_PATH: &str = "/api/auth/amazon/logins";

named! {
    /// Who may send a request to a route.
    pub enum Audience {
        /// The request brings a secret of its own: a state, a link, a token to confirm with.
        Public = "public",
        /// Health and metrics.
        Read = "read",
        /// Everything else.
        Operate = "operate",
        /// Processes of the server's own user and of root, over the control socket only.
        Local = "local",
    }
}

/// The listener that a request arrived on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminSurface {
    Admin,
    Health,
    Control,
}

impl AdminSurface {
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

type Handling = Pin<Box<dyn Future<Output = Handled> + Send>>;

#[derive(Debug)]
pub struct Route {
    pub method: Method,
    /// `{id}` matches one segment.
    pub path: &'static str,
    pub audience: Audience,
    pub(super) site: Site,
    pub(super) handler: fn(AdminCall) -> Handling,
    pub summary: &'static str,
}

impl Route {
    /// Whether a request that brings no secret changes something.
    pub(super) fn writes_unauthenticated(&self) -> bool {
        let writes = self.method != Method::GET || matches!(self.site, Site::LinkWith(_));
        writes && self.audience == Audience::Operate
    }

    /// Whether HEAD is served as GET: not where a GET changes something.
    fn has_head(&self) -> bool {
        self.method == Method::GET && self.site == Site::Own
    }
}

macro_rules! table {
    ($($method:ident $path:expr, $audience:ident, $site:expr, $handler:expr, $summary:literal;)*) => {
        /// Every route, in the order of the documentation.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            audience: Audience::$audience,
            site: $site,
            handler: |call| Box::pin($handler(call)),
            summary: $summary,
        }),*];
    };
}

table! {
    GET "/", Public, Site::Own, front_page, "this list";
    GET "/livez", Read, Site::Own, health::live, "the process runs";
    GET "/readyz", Read, Site::Own, health::ready,
        "requests are wanted (`?verbose` lists the checks)";
    GET "/startupz", Read, Site::Own, health::started, "the start is over";
    GET "/healthz", Read, Site::Own, health::ready, "the same as `/readyz`";
    GET "/metrics", Read, Site::Own, health::metrics, "metrics for Prometheus";
    GET "/status", Operate, Site::Own, accounts::overview, "accounts and their tokens";
    GET LOGIN_PATH, Operate, Site::LinkWith("reconnect"), oauth::login,
        "begins a login for `?account=`: a redirect for browsers, else JSON";
    POST LOGINS_PATH, Operate, Site::Own, oauth::start,
        "returns a link that begins a login, for `{\"account\": …}`";
    GET "/api/auth/amazon/logins/{id}", Public, Site::Own, oauth::outcome,
        "the state of a login begun by such a link";
    GET CALLBACK_PATH, Public, Site::Link, oauth::callback,
        "the return address: where Amazon sends the browser";
    POST page::CONFIRM_PATH, Public, Site::Form, oauth::confirm,
        "answers the question whether to replace an account";
    POST "/api/auth/amazon/logout", Operate, Site::Own, oauth::logout,
        "forgets the grant of `{\"account\": …}`";
    POST "/api/auth/refresh", Operate, Site::Own, accounts::refresh,
        "fetches a new access token for `{\"account\": …}`; does not return it";
    GET "/api/auth/token-status", Operate, Site::Own, accounts::token_status,
        "how long the tokens live, of all accounts or of `?account=`";
    GET "/api/v1/accounts", Operate, Site::Own, accounts::list, "all accounts";
    GET "/api/v1/accounts/{id}", Operate, Site::Own, accounts::show, "one account";
    DELETE "/api/v1/accounts/{id}", Operate, Site::Own, accounts::delete,
        "forgets the grant of an account";
    GET "/api/v1/throttling", Operate, Site::Own, throttling::list,
        "what Amazon's 429s and 5xx say, and which calls they make hopeless";
    GET "/api/v1/server", Local, Site::Own, local::server, "which server this is";
    POST "/api/v1/accounts/{id}/token", Local, Site::Own, local::token,
        "returns an access token, for `adsproxy token`";
    POST "/api/v1/accounts/{id}/disclosures", Local, Site::Own, local::disclosure,
        "records what an access token is used for";
    POST "/api/v1/accounts/{id}/grant", Local, Site::Own, local::give,
        "puts a grant that a person brings into the store";
    POST "/api/v1/accounts/{id}/grant/check", Local, Site::Own, local::check,
        "says what would become of such a grant";
    POST "/api/v1/accounts/{id}/removal", Local, Site::Own, local::remove,
        "forgets what the store has of an account";
    GET "/api/v1/outbox", Local, Site::Own, outbox::list,
        "messages that wait for hooks, and those that were given up";
    POST "/api/v1/outbox/resend", Local, Site::Own, outbox::resend,
        "queues messages that were given up again, for `{\"id\": …}` or `{\"all\": true}`";
    POST local::TOKEN_PATH, Local, Site::Own, local::oauth_token,
        "tokens for the private data planes of commands";
}

/// Finds the route of a request, and the segment that matches `{id}`; else the methods of the path.
pub(super) fn find<'t, 'p>(
    table: &'t [Route],
    surface: AdminSurface,
    method: &Method,
    path: &'p str,
) -> Result<(&'t Route, &'p str), String> {
    let mut methods = Vec::new();
    for route in table.iter().filter(|route| surface.serves(route.audience)) {
        let Some(id) = matched(route.path, path) else { continue };
        if route.method == *method || (*method == Method::HEAD && route.has_head()) {
            return Ok((route, id));
        }
        methods.push(route.method.as_str());
        methods.extend(route.has_head().then_some("HEAD"));
    }
    Err(methods.join(", "))
}

/// The segment that matches `{id}`, empty if the pattern has none; nothing if `path` differs.
fn matched<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    match pattern.split_once("{id}") {
        None => (pattern == path).then_some(""),
        Some((before, after)) => {
            let id = path.strip_prefix(before)?.strip_suffix(after)?;
            (!id.is_empty() && !id.contains('/')).then_some(id)
        }
    }
}

async fn front_page(_: AdminCall) -> Handled {
    Ok(text(StatusCode::OK, index(ROUTES, env!("CARGO_PKG_VERSION"))))
}

fn index(table: &[Route], version: &str) -> String {
    let shown = || table.iter().filter(|route| route.audience != Audience::Local);
    let width = shown().map(|route| route.path.len()).max().unwrap_or(0);
    let mut page = format!("adsproxy {version}\n\n");
    for Route { method, path, audience, summary, .. } in shown() {
        let (method, audience) = (method.as_str(), audience.as_str());
        let summary = summary.replace('`', "");
        writeln!(page, "{method:6} {path:width$}  {audience:7}  {summary}")
            .expect("writing to a String cannot fail");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    static WITH_ONE_MORE: &[Route] = &[Route {
        method: Method::PUT,
        path: "/api/v1/things/{id}",
        audience: Audience::Operate,
        site: Site::Own,
        handler: |call| Box::pin(health::live(call)),
        summary: "sets a `thing`",
    }];

    #[test]
    fn a_route_added_to_the_table_is_dispatched_and_listed() {
        let found = find(WITH_ONE_MORE, AdminSurface::Admin, &Method::PUT, "/api/v1/things/7");
        assert!(found.is_ok_and(|(_, id)| id == "7"));
        let found = find(WITH_ONE_MORE, AdminSurface::Admin, &Method::GET, "/api/v1/things/7");
        assert!(found.is_err_and(|methods| methods == "PUT"));
        let page = index(WITH_ONE_MORE, "1.2.3");
        assert!(page.contains("PUT    /api/v1/things/{id}  operate  sets a thing\n"), "{page}");
    }

    #[test]
    fn the_health_listener_has_the_read_routes_and_only_the_control_socket_the_local_ones() {
        for route in ROUTES {
            let on = |surface| {
                let path = route.path.replace("{id}", "x");
                find(ROUTES, surface, &route.method, &path).is_ok()
            };
            assert_eq!(
                on(AdminSurface::Health),
                route.audience == Audience::Read,
                "{}",
                route.path
            );
            assert_eq!(
                on(AdminSurface::Admin),
                route.audience != Audience::Local,
                "{}",
                route.path
            );
            assert!(on(AdminSurface::Control), "{}", route.path);
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
            let found = find(ROUTES, AdminSurface::Admin, &Method::GET, path);
            assert!(found.is_err_and(|methods| methods.is_empty()), "{path}");
        }
    }

    #[test]
    fn head_changes_nothing() {
        let head = |path| find(ROUTES, AdminSurface::Admin, &Method::HEAD, path);
        assert!(head("/status").is_ok());
        assert!(head(LOGIN_PATH).is_err_and(|methods| methods == "GET"));
        assert!(head(CALLBACK_PATH).is_err_and(|methods| !methods.is_empty()));
    }
}
