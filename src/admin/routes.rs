//! What a route is, which one a request is for, and the front page that lists them.

use super::{
    AdminCall,
    arguments::Arguments,
    respond::{Handled, text},
    shape::Shape,
    table::ROUTES,
};
use crate::named::named;
use http::{Method, StatusCode};
use std::{fmt::Write as _, pin::Pin};

named! {
    /// Who may send a request to a route.
    pub enum Audience {
        /// The request brings a secret of its own: a state, a link, a token to confirm with.
        Public = "public",
        /// Health and metrics.
        Read = "read",
        /// Everything else: an operator, or where the route is for tenants one of a tenant.
        Operate = "operate",
        /// Browsers that have signed in to the dashboard: an operator's, or where the route is for
        /// tenants a tenant's.
        Dashboard = "dashboard",
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
    /// May be reached from the Internet: has what a browser is led to from elsewhere.
    Public,
}

impl AdminSurface {
    fn serves(self, route: &Route) -> bool {
        match self {
            Self::Health => route.audience == Audience::Read,
            Self::Admin => route.audience != Audience::Local,
            Self::Control => route.audience != Audience::Dashboard,
            Self::Public => matches!(route.site, Site::Link | Site::LinkWith(_) | Site::Form),
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
    /// Pages of this listener, and as a link that a person follows any page: it changes nothing.
    #[cfg_attr(not(feature = "dashboard"), expect(dead_code, reason = "no page is built in"))]
    Page,
    /// A form on a page of this listener, which names that page.
    #[cfg_attr(not(feature = "dashboard"), expect(dead_code, reason = "no page is built in"))]
    OwnForm,
}

type Handling = Pin<Box<dyn Future<Output = Handled> + Send>>;

#[derive(Debug)]
pub struct Route {
    pub method: Method,
    /// `{id}` matches one segment.
    pub path: &'static str,
    pub audience: Audience,
    /// Whether an *operate* route serves callers of a tenant, for accounts of their own.
    pub for_tenants: bool,
    /// Whether an *operate* route serves users of an issuer, for sessions of their own.
    pub for_users: bool,
    pub(super) site: Site,
    pub(super) handler: fn(AdminCall) -> Handling,
    /// The name of the operation in the OpenAPI document; never changes.
    pub operation: &'static str,
    pub summary: &'static str,
    pub(super) shape: fn() -> Shape,
}

impl Route {
    /// Handles a request, or begins the stream of what changes on its page.
    pub(super) fn handle(&'static self, call: AdminCall) -> Handling {
        #[cfg(feature = "dashboard")]
        if super::dashboard::live::is_wanted(self, &call) {
            return Box::pin(super::dashboard::live::begin(self, call));
        }
        (self.handler)(call)
    }

    /// Whether a request needs no credential, or brings a secret of its own in `query`.
    pub(super) fn is_open(&self, query: &Arguments) -> bool {
        match (self.audience, self.site) {
            (Audience::Public | Audience::Read, _) => true,
            (_, Site::LinkWith(secret)) => query.all(secret).iter().any(|it| !it.is_empty()),
            _ => false,
        }
    }

    /// Whether a request changes something.
    pub(super) fn writes(&self) -> bool {
        let writes = self.method != Method::GET || matches!(self.site, Site::LinkWith(_));
        writes && matches!(self.audience, Audience::Operate | Audience::Dashboard)
    }

    /// Whether HEAD is served as GET: not where a GET changes something.
    fn has_head(&self) -> bool {
        self.method == Method::GET && matches!(self.site, Site::Own | Site::Page)
    }

    /// Whether it is a page of the dashboard, or what one sends.
    pub(super) fn is_of_dashboard(&self) -> bool {
        self.audience == Audience::Dashboard
            || self.audience == Audience::Public && matches!(self.site, Site::Page | Site::OwnForm)
    }
}

/// The route of a request, and the segment that matches `{id}`.
pub(super) type FoundRoute<'p> = Result<(&'static Route, &'p str), OtherRoutes>;

/// What is at a path where no route takes the method.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OtherRoutes {
    /// Those of the path; empty if nothing is there.
    pub(super) methods: String,
    /// One of them needs no credential, so it is no secret that it is there.
    pub(super) is_open: bool,
}

/// Finds the route of a request.
pub(super) fn find<'p>(
    table: &'static [Route],
    surface: AdminSurface,
    method: &Method,
    path: &'p str,
) -> FoundRoute<'p> {
    let (mut methods, mut is_open) = (Vec::new(), false);
    for route in table.iter().filter(|route| surface.serves(route)) {
        let Some(id) = matched(route.path, path) else { continue };
        if route.method == *method || (*method == Method::HEAD && route.has_head()) {
            return Ok((route, id));
        }
        is_open |= matches!(route.audience, Audience::Public | Audience::Read);
        methods.push(route.method.as_str());
        methods.extend(route.has_head().then_some("HEAD"));
    }
    Err(OtherRoutes { methods: methods.join(", "), is_open })
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

pub(super) async fn front_page(_: AdminCall) -> Handled {
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
    use crate::{admin::health, config::CALLBACK_PATH, login::LOGIN_PATH};
    use std::collections::BTreeSet;

    static WITH_ONE_MORE: &[Route] = &[Route {
        method: Method::PUT,
        path: "/api/v1/things/{id}",
        audience: Audience::Operate,
        for_tenants: false,
        for_users: false,
        site: Site::Own,
        handler: |call| Box::pin(health::live(call)),
        operation: "putThing",
        summary: "sets a `thing`",
        shape: Shape::text,
    }];

    #[test]
    fn a_route_added_to_the_table_is_dispatched_and_listed() {
        let found = find(WITH_ONE_MORE, AdminSurface::Admin, &Method::PUT, "/api/v1/things/7");
        assert!(found.is_ok_and(|(_, id)| id == "7"));
        let found = find(WITH_ONE_MORE, AdminSurface::Admin, &Method::GET, "/api/v1/things/7");
        assert!(found.is_err_and(|other| other.methods == "PUT"));
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
            assert_eq!(
                on(AdminSurface::Control),
                route.audience != Audience::Dashboard,
                "{}",
                route.path
            );
            let leads_here = [CALLBACK_PATH, LOGIN_PATH, "/api/auth/amazon/confirm"];
            let is_public = leads_here.contains(&route.path);
            assert_eq!(on(AdminSurface::Public), is_public, "{}", route.path);
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
    fn operations_have_names_of_their_own_and_only_operate_is_for_others() {
        let names: BTreeSet<_> = ROUTES.iter().map(|route| route.operation).collect();
        assert_eq!(names.len(), ROUTES.len());
        for route in ROUTES.iter().filter(|route| route.for_tenants || route.for_users) {
            let is_right = matches!(route.audience, Audience::Operate | Audience::Dashboard);
            assert!(is_right, "{}", route.path);
        }
    }

    #[test]
    fn an_id_is_one_segment() {
        for path in ["/api/v1/accounts/", "/api/v1/accounts/a/b", "/api/v1/accounts//"] {
            let found = find(ROUTES, AdminSurface::Admin, &Method::GET, path);
            assert!(found.is_err_and(|other| other.methods.is_empty()), "{path}");
        }
    }

    #[test]
    fn head_changes_nothing() {
        let head = |path| find(ROUTES, AdminSurface::Admin, &Method::HEAD, path);
        assert!(head("/status").is_ok());
        assert!(head(LOGIN_PATH).is_err_and(|other| other.methods == "GET"));
        assert!(head(CALLBACK_PATH).is_err_and(|other| !other.methods.is_empty()));
    }
}
