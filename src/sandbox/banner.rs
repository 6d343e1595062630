//! What `adsproxy sandbox` prints: addresses, command lines that work, switches.

use super::{
    ACCOUNTS, control,
    text::{DATE, days_ago, spelled},
};
use crate::clock::{Clock, SystemClock};
use std::{net::SocketAddr, path::Path};

/// Titles and command lines of requests through the proxy at `proxy`.
pub fn requests(proxy: &str) -> Vec<(&'static str, String)> {
    let acme = format!("http://{proxy}/a/acme");
    let scope = format!("-H 'Amazon-Advertising-API-Scope: {}'", ACCOUNTS[0].2);
    let campaigns = format!("{scope} -H 'Content-Type: application/vnd.spCampaign.v3+json'");
    let report =
        format!("{scope} -H 'Content-Type: application/vnd.createasyncreportrequest.v3+json'");
    let mcp = "-H 'Content-Type: application/json' \
         -H 'Accept: application/json, text/event-stream'";
    let now = SystemClock.now();
    let (start, end) = (spelled(days_ago(now, 10), DATE), spelled(days_ago(now, 1), DATE));
    vec![
        (
            "Profiles, the account named by a header, by the path, by a placeholder token",
            format!(
                "curl -s -H 'X-Ads-Account: acme' http://{proxy}/v2/profiles\n\
                 curl -s {acme}/v2/profiles\n\
                 curl -s -H 'Authorization: Bearer Atza|acme' http://{proxy}/v2/profiles"
            ),
        ),
        (
            "Campaigns: list and create",
            format!(
                "curl -s {acme}/sp/campaigns/list {campaigns} -d '{{}}'\n\
                 curl -s {acme}/sp/campaigns {campaigns} \
                 -d '{{\"campaigns\":[{{\"name\":\"Mine\",\"state\":\"PAUSED\"}}]}}'"
            ),
        ),
        (
            "A report from request to download (PENDING at the first look, then COMPLETED)",
            format!(
                "id=$(curl -s {acme}/reporting/reports {report} -d '{{\"name\":\"mine '$(date +%s%N)'\",\
                 \"startDate\":\"{start}\",\"endDate\":\"{end}\",\"configuration\":{{\
                 \"reportTypeId\":\"spCampaigns\",\"format\":\"GZIP_JSON\"}}}}' \
                 | sed 's/.*\"reportId\":\"\\([^\"]*\\).*/\\1/')\n\
                 curl -s {acme}/reporting/reports/$id {scope}\n\
                 curl -sL {acme}/v2/reports/$id/download | gunzip"
            ),
        ),
        (
            "MCP: a call whose response is an event stream",
            format!(
                "curl -sN {acme}/mcp {mcp} -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\
                 \"tools/call\",\"params\":{{\"name\":\"campaign_management-query_campaign\",\
                 \"_meta\":{{\"progressToken\":\"mine\"}}}}}}'"
            ),
        ),
    ]
}

/// Titles and command lines that switch a fault on at `emulator` and show what the proxy does.
pub fn faults(proxy: &str, emulator: SocketAddr) -> Vec<(&'static str, String)> {
    let switch =
        |what: &str| format!("curl -so /dev/null -X POST 'http://{emulator}/_sandbox/{what}'");
    let (acme, globex) = (format!("http://{proxy}/a/acme"), format!("http://{proxy}/a/globex"));
    vec![
        (
            "All access tokens die; the next call still returns 200",
            format!("{} && curl -si {acme}/v2/profiles", switch("expire")),
        ),
        (
            "The advertiser takes the grant back: 403 reauthorization_required until a new login",
            format!("{} && curl -si {globex}/v2/profiles", switch("revoke?account=globex")),
        ),
        (
            "LWA is down: requests go on while the token lives",
            format!(
                "{} && curl -si {acme}/v2/profiles\n{}",
                switch("lwa?fault=down&times=forever"),
                switch("clear"),
            ),
        ),
    ]
}

/// What the command prints once everything listens.
pub(super) fn banner(
    proxy: &str,
    admin: SocketAddr,
    emulator: SocketAddr,
    lifetime_secs: u64,
    config: &Path,
) -> String {
    let mut text = format!(
        "adsproxy sandbox: the real proxy in front of an emulated Amazon\n\n\
         proxy     http://{proxy}   point an SDK's base URL here\n\
         admin     http://{admin}   /status, /readyz, /metrics\n\
         emulator  http://{emulator}   token endpoint and API; switches at /_sandbox\n\
         accounts  acme (na), globex (eu); access tokens live {lifetime_secs} s\n"
    );
    for (title, commands) in requests(proxy).into_iter().chain(faults(proxy, emulator)) {
        text += &format!("\n# {title}\n{commands}\n");
    }
    text += &format!(
        "\n# A login: open this in a browser, and choose one of the two advertisers\n\
         http://localhost:{}/api/auth/amazon/login?account=initech\n\n\
         Switches (curl -X POST 'http://{emulator}…')\n",
        admin.port()
    );
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
