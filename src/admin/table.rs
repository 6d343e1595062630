//! The one table of routes: dispatch, 404 and 405, the front page, `/openapi.json` and the
//! documentation come from it. A row without an audience does not compile.

use super::{
    accounts, audit_log,
    bodies::{
        AccountBody, AccountDetails, AccountPage, AnswerBody, AuditPage, LinkBody, LoginBegun,
        LoginBody, Overview, Refreshed, SessionBody, ThrottlingList, TokenStatus,
    },
    callers, health, local, oauth, openapi, outbox, page, paging,
    routes::{Audience, Route, Site, front_page},
    sessions,
    shape::Shape,
    throttling,
};
use crate::{
    config::CALLBACK_PATH,
    login::{LOGIN_PATH, LoggedOut, LoginOutcome},
    problem::Code,
};
use http::Method;
use serde_json::Value;

const LOGINS_PATH: &str = "/api/auth/amazon/logins";
const ACCOUNT: (&str, &str) = ("account", "The account.");

/// `method path, audience, site, handler, operation id, summary, shape`. `for tenants` opens a route
/// to callers of a tenant, for accounts of their own.
macro_rules! table {
    (@) => { false };
    (@ tenants) => { true };
    ($($method:ident $path:expr, $audience:ident $(for $tenants:ident)?, $site:expr, $handler:expr,
       $operation:literal, $summary:literal, $shape:expr;)*) => {
        /// Every route, in the order of the documentation.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            audience: Audience::$audience,
            for_tenants: table!(@ $($tenants)?),
            site: $site,
            handler: |call| Box::pin($handler(call)),
            operation: $operation,
            summary: $summary,
            shape: || $shape,
        }),*];
    };
}

table! {
    GET "/", Public, Site::Own, front_page, "listRoutes", "this list", Shape::text();
    GET "/openapi.json", Public, Site::Own, openapi::show, "getOpenApi",
        "these routes as an OpenAPI document", Shape::json::<Value>();
    GET "/livez", Read, Site::Own, health::live, "getLiveness", "the process runs", Shape::text();
    GET "/readyz", Read, Site::Own, health::ready, "getReadiness",
        "requests are wanted (`?verbose` lists the checks)", health::shape();
    GET "/startupz", Read, Site::Own, health::started, "getStartup", "the start is over",
        health::shape();
    GET "/healthz", Read, Site::Own, health::ready, "getHealth", "the same as `/readyz`",
        health::shape();
    GET "/metrics", Read, Site::Own, health::metrics, "getMetrics", "metrics for Prometheus",
        Shape::text();
    GET "/status", Operate for tenants, Site::Own, accounts::overview, "getStatus",
        "accounts and their tokens", Shape::json::<Overview>();
    GET LOGIN_PATH, Operate for tenants, Site::LinkWith("reconnect"), oauth::login, "beginLogin",
        "begins a login for `?account=`: a redirect for browsers, else JSON",
        oauth::begins(Shape::json::<LoginBegun>())
            .query(&[ACCOUNT, ("region", "`na`, `eu` or `fe`."),
                ("application", "Which entry of `[applications]`."),
                ("reconnect", "The secret of a link, in place of a credential.")])
            .or_page()
            .or(303, "A browser goes on to Amazon.");
    POST LOGINS_PATH, Operate for tenants, Site::Own, oauth::start, "createLogin",
        "returns a link that begins a login, for `{\"account\": …}`",
        oauth::begins(Shape::json::<LinkBody>()).created().takes::<LoginBody>();
    GET "/api/auth/amazon/logins/{id}", Public, Site::Own, oauth::outcome, "getLogin",
        "the state of a login begun by such a link",
        Shape::json::<Value>().fails(&[Code::LinkUsed]).writes();
    GET CALLBACK_PATH, Public, Site::Link, oauth::callback, "finishLogin",
        "the return address: where Amazon sends the browser",
        oauth::ends(Shape::json::<LoginOutcome>())
            .query(&[("state", "Of the login."), ("code", "Amazon's code."),
                ("error", "Why there is no code.")])
            .or_page();
    POST page::CONFIRM_PATH, Public, Site::Form, oauth::confirm, "confirmLogin",
        "answers the question whether to replace an account",
        oauth::ends(Shape::json::<LoginOutcome>()).takes::<AnswerBody>().or_page();
    POST "/api/auth/amazon/logout", Operate for tenants, Site::Own, oauth::logout, "logout",
        "forgets the grant of `{\"account\": …}`",
        Shape::json::<LoggedOut>().takes::<AccountBody>().of_account().writes();
    POST "/api/auth/refresh", Operate for tenants, Site::Own, accounts::refresh, "refreshToken",
        "fetches a new access token for `{\"account\": …}`; does not return it",
        accounts::fetches(Shape::json::<Refreshed>()).takes::<AccountBody>().query(&[ACCOUNT]);
    GET "/api/auth/token-status", Operate for tenants, Site::Own, accounts::token_status,
        "getTokenStatus", "how long the tokens live, of all accounts or of `?account=`",
        Shape::json::<TokenStatus>().query(&[ACCOUNT]).query(&paging::ARGUMENTS).of_account();
    GET "/api/v1/accounts", Operate for tenants, Site::Own, accounts::list, "listAccounts",
        "all accounts, page by page (`?limit=`, `?cursor=`), or those of `?state=`",
        Shape::json::<AccountPage>()
            .query(&paging::ARGUMENTS)
            .query(&[("state", "Accounts in this state only.")]);
    GET "/api/v1/accounts/{id}", Operate for tenants, Site::Own, accounts::show, "getAccount",
        "one account", Shape::json::<AccountDetails>().of_account();
    DELETE "/api/v1/accounts/{id}", Operate for tenants, Site::Own, accounts::delete,
        "deleteAccount", "forgets the grant of an account",
        Shape::json::<LoggedOut>().of_account().writes();
    GET "/api/v1/throttling", Operate for tenants, Site::Own, throttling::list, "listThrottling",
        "what Amazon's 429s and 5xx say, and which calls they make hopeless",
        Shape::json::<ThrottlingList>();
    GET "/api/v1/audit", Operate, Site::Own, audit_log::list, "listAuditEntries",
        "the audit log, newest first, page by page; of `?account=`, `?action=`, `?actor=`",
        Shape::json::<AuditPage>()
            .query(&paging::ARGUMENTS)
            .query(&[ACCOUNT, ("action", "An action (`login`) or a kind of them (`token`)."),
                ("actor", "A kind of actor, a user, a key id, a session or a subject.")])
            .fails(&[Code::AuditFailed]);
    GET "/api/v1/callers", Operate, Site::Own, callers::list, "listCallers",
        "the callers and their keys", Shape::json::<Value>().writes();
    DELETE "/api/v1/callers/keys/{id}", Operate, Site::Own, callers::revoke, "revokeKey",
        "ends a key of the configuration",
        Shape::json::<Value>().fails(&[Code::NotFound]).writes();
    GET "/api/v1/sessions", Operate, Site::Own, sessions::list, "listSessions",
        "the sessions that have not ended", Shape::json::<Value>().writes();
    POST "/api/v1/sessions", Operate, Site::Own, sessions::issue, "createSession",
        "makes a key that ends by itself, for `{\"caller\": …, \"ttl_secs\": …}`",
        Shape::json::<Value>().created().takes::<SessionBody>().writes();
    DELETE "/api/v1/sessions/{id}", Operate, Site::Own, sessions::end, "endSession",
        "ends a session; one may end itself",
        Shape::json::<Value>().fails(&[Code::NotFound]).writes();
    GET "/api/v1/server", Local, Site::Own, local::server, "getServer",
        "which server this is", Shape::json::<Value>();
    POST "/api/v1/accounts/{id}/token", Local, Site::Own, local::token, "takeToken",
        "returns an access token, for `adsproxy token`", Shape::json::<Value>();
    POST "/api/v1/accounts/{id}/disclosures", Local, Site::Own, local::disclosure, "recordDisclosure",
        "records what an access token is used for", Shape::json::<Value>();
    POST "/api/v1/accounts/{id}/grant", Local, Site::Own, local::give, "putGrant",
        "puts a grant that a person brings into the store", Shape::json::<Value>();
    POST "/api/v1/accounts/{id}/grant/check", Local, Site::Own, local::check, "checkGrant",
        "says what would become of such a grant", Shape::json::<Value>();
    POST "/api/v1/accounts/{id}/removal", Local, Site::Own, local::remove, "removeAccount",
        "forgets what the store has of an account", Shape::json::<Value>();
    GET "/api/v1/outbox", Local, Site::Own, outbox::list, "listOutbox",
        "messages that wait for hooks, and those that were given up", Shape::json::<Value>();
    POST "/api/v1/outbox/resend", Local, Site::Own, outbox::resend, "resendOutbox",
        "queues messages that were given up again, for `{\"id\": …}` or `{\"all\": true}`", Shape::json::<Value>();
    POST local::TOKEN_PATH, Local, Site::Own, local::oauth_token, "takeTokenAsFromLwa",
        "tokens for the private data planes of commands", Shape::json::<Value>();
}
