//! What `adsproxy sandbox` prints: addresses, command lines that work, switches.

use super::{
    ACCOUNTS, control,
    text::{DATE, days_ago, spelled},
};
use crate::clock::{Clock, SystemClock};
use std::{net::SocketAddr, path::Path};

const REQUESTS: [(&str, &str); 4] = [
    (
        "Profiles, the account named by a header, by the path, by a placeholder token",
        "\
curl -s -H 'X-Ads-Account: acme' http://PROXY/v2/profiles
curl -s ACME/v2/profiles
curl -s -H 'Authorization: Bearer Atza|acme' http://PROXY/v2/profiles",
    ),
    (
        "Campaigns: list and create",
        r#"curl -s ACME/sp/campaigns/list SCOPE -H 'Content-Type: application/vnd.spCampaign.v3+json' -d '{}'
curl -s ACME/sp/campaigns SCOPE -H 'Content-Type: application/vnd.spCampaign.v3+json' -d '{"campaigns":[{"name":"Mine","state":"PAUSED"}]}'"#,
    ),
    (
        "A report from request to download (PENDING at the first look, then COMPLETED)",
        r#"id=$(curl -s ACME/reporting/reports SCOPE -H 'Content-Type: application/vnd.createasyncreportrequest.v3+json' -d '{"name":"mine '$(date +%s%N)'","startDate":"START","endDate":"END","configuration":{"reportTypeId":"spCampaigns","format":"GZIP_JSON"}}' | sed 's/.*"reportId":"\([^"]*\).*/\1/')
curl -s ACME/reporting/reports/$id SCOPE
curl -sL ACME/v2/reports/$id/download | gunzip"#,
    ),
    (
        "MCP: a call whose response is an event stream",
        r#"curl -sN ACME/mcp -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' -d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"campaign_management-query_campaign","_meta":{"progressToken":"mine"}}}'"#,
    ),
];

const ADMINISTRATION: [(&str, &str); 2] = [
    (
        "Accounts and the audit log, for an operator",
        "CURL ADMIN/api/v1/accounts\nCURL ADMIN/api/v1/audit",
    ),
    (
        "A login: open the url of the response in a browser, and choose one of the two advertisers",
        "CURL ADMIN/api/auth/amazon/logins -d account=initech",
    ),
];

const FAULTS: [(&str, &str); 3] = [
    (
        "All access tokens die; the next call still returns 200",
        "SWITCH/expire' && curl -si ACME/v2/profiles",
    ),
    (
        "The advertiser takes the grant back: 403 reauthorization_required until a new login",
        "SWITCH/revoke?account=globex' && curl -si GLOBEX/v2/profiles",
    ),
    (
        "LWA is down: requests go on while the token lives",
        "SWITCH/lwa?fault=down&times=forever' && curl -si ACME/v2/profiles\nSWITCH/clear'",
    ),
];

/// Titles and command lines of requests through the proxy at `proxy`.
pub fn requests(proxy: &str) -> Vec<(&'static str, String)> {
    let now = SystemClock.now();
    let day = |ago| spelled(days_ago(now, ago), DATE);
    let fill = |commands: &str| {
        commands
            .replace("ACME", &format!("http://{proxy}/a/acme"))
            .replace("PROXY", proxy)
            .replace("SCOPE", &format!("-H 'Amazon-Advertising-API-Scope: {}'", ACCOUNTS[0].2))
            .replace("START", &day(10))
            .replace("END", &day(1))
    };
    REQUESTS.map(|(title, commands)| (title, fill(commands))).into()
}

/// Titles and command lines that switch a fault on at `emulator` and show what the proxy does.
pub fn faults(proxy: &str, emulator: SocketAddr) -> Vec<(&'static str, String)> {
    let fill = |commands: &str| {
        commands
            .replace("ACME", &format!("http://{proxy}/a/acme"))
            .replace("GLOBEX", &format!("http://{proxy}/a/globex"))
            .replace("SWITCH", &format!("curl -so /dev/null -X POST 'http://{emulator}/_sandbox"))
    };
    FAULTS.map(|(title, commands)| (title, fill(commands))).into()
}

/// Titles and command lines of the admin API, with an operator's `key`.
pub fn administration(admin: SocketAddr, key: &str) -> Vec<(&'static str, String)> {
    let fill = |commands: &str| {
        let curl = format!("curl -s -H 'X-Ads-Key: {key}'");
        commands.replace("CURL", &curl).replace("ADMIN", &format!("http://{admin}"))
    };
    ADMINISTRATION.map(|(title, commands)| (title, fill(commands))).into()
}

pub(super) fn banner(
    proxy: &str,
    admin: SocketAddr,
    key: &str,
    emulator: SocketAddr,
    lifetime_secs: u64,
    config: &Path,
) -> String {
    let dashboard = match cfg!(feature = "dashboard") {
        true => format!(
            "dashboard http://localhost:{}/dashboard   sign in with the key, or run adsproxy dashboard\n",
            admin.port()
        ),
        false => String::new(),
    };
    let mut text = format!(
        "adsproxy sandbox: the real proxy in front of an emulated Amazon\n\n\
         proxy     http://{proxy}   point an SDK's base URL here\n\
         admin     http://{admin}   /readyz, /metrics; with a key /status, /api/v1\n\
         {dashboard}\
         key       {key}   an operator's, until the sandbox ends\n\
         emulator  http://{emulator}   token endpoint and API; switches at /_sandbox\n\
         accounts  acme (na), globex (eu); access tokens live {lifetime_secs} s\n"
    );
    let sections = [requests(proxy), administration(admin, key), faults(proxy, emulator)];
    for (title, commands) in sections.concat() {
        text += &format!("\n# {title}\n{commands}\n");
    }
    text += &format!("\nSwitches (curl -X POST 'http://{emulator}…')\n");
    for (what, why) in control::HELP {
        text += &format!("  {what:<50} {why}\n");
    }
    text + &format!(
        "\nCtrl-C stops it.\n\n\
         # In another shell: curl, token, exec, login, account, audit, hooks, key, doctor, status\n\
         export ADSPROXY_CONFIG='{}'",
        config.display()
    )
}
