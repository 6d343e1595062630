//! The one table of routes: dispatch, 404 and 405, the front page, `/openapi.json` and the
//! documentation come from it. A row without an audience does not compile.

#[cfg(feature = "dashboard")]
use super::dashboard;
use super::{
    accounts, audit_log,
    bodies::{
        AccountBody, AccountDetails, AccountPage, AnswerBody, AuditPage, LinkBody, LoginBegun,
        LoginBody, Overview, Refreshed, RequestPage, SessionBody, ThrottlingPage, TokenStatus,
    },
    caller_bodies::{CallerPage, EndedKey, NewSession, SessionDetails, SessionPage},
    callers, health, local, oauth, openapi, outbox, page, paging,
    reload::{self, ReloadReport},
    requests,
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
/// to callers of a tenant, for what is their own; `for users` to users of an issuer. The rows of the
/// dashboard come last, where it is built in: pages to GET, forms to POST.
macro_rules! table {
    (@tenants $($who:ident)*) => { false $(|| table!(@is_tenants $who))* };
    (@users $($who:ident)*) => { false $(|| table!(@is_users $who))* };
    (@is_tenants tenants) => { true };
    (@is_tenants users) => { false };
    (@is_users users) => { true };
    (@is_users tenants) => { false };
    (@route $method:ident $path:expr, $audience:ident $(for $($who:ident)and+)?, $site:expr,
       $handler:expr, $operation:literal, $summary:literal, $shape:expr) => {
        Route {
            method: Method::$method,
            path: $path,
            audience: Audience::$audience,
            for_tenants: table!(@tenants $($($who)+)?),
            for_users: table!(@users $($($who)+)?),
            site: $site,
            handler: |call| Box::pin($handler(call)),
            operation: $operation,
            summary: $summary,
            shape: || $shape,
        }
    };
    ($($method:ident $path:expr, $audience:ident $(for $($who:ident)and+)?, $site:expr, $handler:expr,
       $operation:literal, $summary:literal, $shape:expr;)*
     #[dashboard] { $($page_method:ident $page_path:expr, $page_audience:ident $(for $tenants:ident)?,
       $page_handler:expr, $page_operation:literal, $page_summary:literal;)* }) => {
        /// Every route, in the order of the documentation.
        pub static ROUTES: &[Route] = &[
            $(table!(@route $method $path, $audience $(for $($who)and+)?, $site, $handler,
                $operation, $summary, $shape),)*
            $(#[cfg(feature = "dashboard")]
            table!(@route $page_method $page_path, $page_audience $(for $tenants)?,
                table!(@site $page_method), $page_handler, $page_operation, $page_summary,
                Shape::page()),)*
        ];
    };
    (@site GET) => { Site::Page };
    (@site POST) => { Site::OwnForm };
}

table! {
    GET "/", Public, Site::Own, front_page, "listRoutes", "this list", Shape::text();
    GET "/openapi.json", Public, Site::Own, openapi::show, "getOpenApi",
        "these routes as an OpenAPI document", Shape::json::<Value>();
    GET "/livez", Read, Site::Own, health::live, "getLiveness",
        "the process runs, and no worker hangs", Shape::text().or(503, "A worker hangs.");
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
                ("reconnect", "The secret of a link, in place of a credential."),
                ("continue", "`true`: past the page that says what a reconnect link asks for.")])
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
        "what Amazon's 429s and 5xx say, and which calls they make hopeless, page by page",
        Shape::json::<ThrottlingPage>().query(&paging::ARGUMENTS);
    GET "/api/v1/requests", Operate for tenants, Site::Own, requests::list, "listRequests",
        "the latest requests, newest first, page by page; of `?account=`, `?status=`, `?caller=`, \
         `?error=`",
        Shape::json::<RequestPage>()
            .query(&paging::ARGUMENTS)
            .query(&[ACCOUNT, ("status", "A status (`404`) or a class of them (`5xx`)."),
                ("caller", "The name of a caller."), ("error", "A code of ours.")]);
    GET "/api/v1/audit", Operate, Site::Own, audit_log::list, "listAuditEntries",
        "the audit log, newest first, page by page; of `?account=`, `?action=`, `?actor=`",
        Shape::json::<AuditPage>()
            .query(&paging::ARGUMENTS)
            .query(&[ACCOUNT, ("action", "An action (`login`) or a kind of them (`token`)."),
                ("actor", "A kind of actor, a user, a key id, a session or a subject.")])
            .fails(&[Code::AuditFailed]);
    GET "/api/v1/callers", Operate for tenants, Site::Own, callers::list, "listCallers",
        "the callers and their keys, page by page",
        Shape::json::<CallerPage>().query(&paging::ARGUMENTS).writes();
    DELETE "/api/v1/callers/keys/{id}", Operate, Site::Own, callers::revoke, "revokeKey",
        "ends a key of the configuration",
        Shape::json::<EndedKey>().fails(&[Code::NotFound]).writes();
    GET "/api/v1/sessions", Operate for tenants and users, Site::Own, sessions::list, "listSessions",
        "the sessions that have not ended, newest first, page by page",
        Shape::json::<SessionPage>().query(&paging::ARGUMENTS).writes();
    POST "/api/v1/sessions", Operate for users, Site::Own, sessions::issue, "createSession",
        "makes a key that ends by itself, for `{\"caller\": …, \"ttl_secs\": …}`; a user's own without \
         `caller`",
        Shape::json::<NewSession>().created().takes::<SessionBody>().writes();
    GET "/api/v1/sessions/{id}", Operate for tenants and users, Site::Own, sessions::show,
        "getSession", "one session, also one that has expired a short while ago",
        Shape::json::<SessionDetails>().fails(&[Code::NotFound]).writes();
    DELETE "/api/v1/sessions/{id}", Operate for users, Site::Own, sessions::end, "endSession",
        "ends a session; one may end itself",
        Shape::json::<EndedKey>().fails(&[Code::NotFound]).writes();
    POST "/api/v1/reload", Operate, Site::Own, reload::reload, "reloadConfiguration",
        "reads the configuration again: all of it takes effect, or nothing",
        Shape::json::<ReloadReport>()
            .fails(&[Code::NotFound, Code::ConfigurationRejected])
            .writes();
    GET "/api/v1/server", Local, Site::Own, local::server, "getServer",
        "which server this is", Shape::json::<Value>();
    POST "/quitquitquit", Local, Site::Own, local::quit, "quit",
        "finishes what is under way and ends the server", Shape::text();
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
    #[dashboard] {
        POST "/api/v1/dashboard/links", Local, dashboard::sign_in::link, "createDashboardLink",
            "returns a link that signs a browser in to the dashboard, once";
        GET "/dashboard", Dashboard for tenants, dashboard::accounts::show, "showAccounts",
            "the dashboard: all accounts, the worst first";
        GET "/dashboard/accounts/{id}", Dashboard for tenants, dashboard::account::show,
            "showAccount", "one account";
        GET "/dashboard/accounts/{id}/refresh", Dashboard for tenants, dashboard::act::ask_refresh,
            "askRefresh", "asks whether to fetch a new access token";
        POST "/dashboard/accounts/{id}/refresh", Dashboard for tenants, dashboard::act::refresh,
            "doRefresh", "fetches a new access token";
        POST "/dashboard/accounts/{id}/profiles", Dashboard for tenants,
            dashboard::act::read_profiles, "doReadProfiles", "reads the profiles at Amazon";
        GET "/dashboard/accounts/{id}/disconnect", Dashboard for tenants,
            dashboard::act::ask_disconnect, "askDisconnect", "asks whether to forget the grant";
        POST "/dashboard/accounts/{id}/disconnect", Dashboard for tenants,
            dashboard::act::disconnect, "doDisconnect", "forgets the grant";
        GET "/dashboard/connect", Dashboard for tenants, dashboard::connect::ask, "askConnect",
            "asks which account to connect";
        POST "/dashboard/connect", Dashboard for tenants, dashboard::connect::begin, "doConnect",
            "begins a login at Amazon";
        GET "/dashboard/requests", Dashboard for tenants, dashboard::requests::show,
            "showRequests", "the latest requests";
        GET "/dashboard/callers", Dashboard for tenants, dashboard::callers::show, "showCallers",
            "callers, their keys and sessions";
        POST "/dashboard/sessions", Dashboard for users, dashboard::callers::issue,
            "doIssueSession", "makes a session, and shows its key once";
        GET "/dashboard/sessions/{id}/end", Dashboard for users, dashboard::callers::ask_end,
            "askEndSession", "asks whether to end a session";
        POST "/dashboard/sessions/{id}/end", Dashboard for users, dashboard::callers::end,
            "doEndSession", "ends a session";
        GET "/dashboard/keys/{id}/revoke", Dashboard, dashboard::callers::ask_revoke,
            "askRevokeKey", "asks whether to revoke a key";
        POST "/dashboard/keys/{id}/revoke", Dashboard, dashboard::callers::revoke, "doRevokeKey",
            "ends a key of the configuration";
        GET "/dashboard/health", Dashboard for tenants, dashboard::health::show, "showHealth",
            "what works and what does not";
        POST "/dashboard/hooks/resend", Dashboard, dashboard::health::resend, "doResendHook",
            "queues messages to hooks again";
        GET "/dashboard/audit", Dashboard for tenants, dashboard::audit::show, "showAudit",
            "the audit log";
        POST "/dashboard/audit/verify", Dashboard, dashboard::check::verify, "doVerifyAudit",
            "checks that the audit log was not changed";
        GET "/dashboard/api", Dashboard for tenants, dashboard::api::show, "showApi",
            "the admin API";
        GET "/dashboard/sign-in", Public, dashboard::sign_in::show, "showSignIn",
            "the page to sign in to the dashboard";
        POST "/dashboard/sign-in", Public, dashboard::sign_in::sign_in, "signIn",
            "signs a browser in to the dashboard";
        POST "/dashboard/oidc", Public, dashboard::oidc::start, "beginOidcSignIn",
            "sends a browser to the OpenID provider";
        GET "/dashboard/oidc/callback", Public, dashboard::oidc::callback, "finishOidcSignIn",
            "the return address: where the OpenID provider sends the browser";
        POST "/dashboard/browsers/{id}/end", Public, dashboard::browsers::end_one, "endBrowser",
            "signs another browser out of the dashboard";
        POST "/dashboard/browsers/end", Public, dashboard::browsers::end_others,
            "endOtherBrowsers", "signs the visitor's other browsers out of the dashboard";
        POST "/dashboard/sign-out", Public, dashboard::sign_in::sign_out, "signOut",
            "signs a browser out of the dashboard";
        GET "/dashboard/assets/{id}", Public, dashboard::assets::show, "getAsset",
            "the style and the script of the pages";
    }
}
