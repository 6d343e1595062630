//! The way to Amazon: names, connections, TLS, the egress proxy, and Amazon's clock.

use super::{Finding, grants::Known};
use crate::{
    clock::{Clock, SystemClock},
    config::{Config, load::Environment},
    error_chain::chain,
    forward::connect::Connector,
    https::{self, Egress, LwaHttp},
    id::AccountId,
};
use http::{Uri, header::DATE};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::{net::lookup_host, task::JoinSet, time::timeout};

const DNS_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Clocks that differ less are as good as equal.
const SKEW_OK: Duration = Duration::from_secs(30);
/// Beyond this, certificates and codes are taken for old or not yet valid.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// The variables that name an egress proxy.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

pub(super) async fn check(
    config: &Config,
    known: &BTreeMap<AccountId, Known>,
    environment: &Environment,
) -> Vec<Finding> {
    let upstream = https::client_config(config.upstream_roots(), true);
    let other = https::client_config(config.other_roots(), true);
    let (upstream, other) = match upstream.and_then(|upstream| Ok((upstream, other?))) {
        Ok(both) => both,
        Err(error) => {
            let fix = "look at upstream.ca_file and tls.ca_file: PEM files with certificates";
            return vec![Finding::error("tls", chain(&error)).fix(fix)];
        }
    };
    let hosts = hosts(config, known);
    let mut findings = egress(hosts.values(), environment);
    let mut checks = JoinSet::new();
    for (place, (host, uri)) in hosts.into_iter().enumerate() {
        let is_upstream =
            config.upstream.api.iter().chain(&config.upstream.mcp).any(|known| *known == uri);
        let tls = if is_upstream { upstream.clone() } else { other.clone() };
        checks.spawn(async move { (place, reach(&host, &uri, tls).await) });
    }
    let (mut reached, clock) = tokio::join!(checks.join_all(), clock(config, &other));
    reached.sort_by_key(|(place, _)| *place);
    findings.extend(reached.into_iter().flat_map(|(_, found)| found));
    findings.push(clock);
    findings
}

/// Every host that the accounts need, once: not those of other regions, nor the ones that are only
/// asked when these cannot be reached.
fn hosts(config: &Config, known: &BTreeMap<AccountId, Known>) -> BTreeMap<String, Uri> {
    let is_used = |name: &String| {
        known.is_empty() || known.values().any(|account| account.application == *name)
    };
    let applications = config.applications.iter().filter(|(name, _)| is_used(name));
    let lwa = applications.map(|(_, application)| &application.token_url);
    let api = known.values().map(|account| &config.upstream.api[account.region as usize]);
    let all = lwa.chain(api);
    all.filter_map(|uri| Some((uri.authority()?.to_string(), uri.clone()))).collect()
}

/// Which egress proxy is used. Its credentials are not shown.
fn egress<'a>(
    hosts: impl Iterator<Item = &'a Uri> + Clone,
    environment: &Environment,
) -> Vec<Finding> {
    let egress = match Egress::from_env() {
        Ok(egress) => egress,
        Err(error) => return vec![Finding::error("egress", error.to_string())],
    };
    let https = hosts.filter(|uri| uri.scheme_str() == Some("https"));
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for proxy in https.clone().filter_map(|uri| egress.proxy_for(uri)) {
        let uri = proxy.uri();
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        *used.entry(format!("{}{port}", uri.host().unwrap_or_default())).or_default() += 1;
    }
    let set = VARIABLES.iter().find(|name| environment.non_empty(name).is_some());
    match (used.is_empty(), set) {
        (true, Some(name)) if https.clone().next().is_some() => {
            let text = format!("{name} is set, but used for none of Amazon's hosts");
            let fix = format!("write it as http://host:port and look at NO_PROXY, or unset {name}");
            vec![Finding::warning("egress", text).fix(fix)]
        }
        (true, _) => vec![Finding::ok("egress", "no egress proxy")],
        (false, _) => {
            let used = used.into_iter();
            used.map(|(proxy, hosts)| {
                Finding::ok("egress", format!("{hosts} of Amazon's hosts over proxy {proxy}"))
            })
            .collect()
        }
    }
}

/// Looks the name up, connects, shakes hands.
async fn reach(host: &str, uri: &Uri, tls: Arc<rustls::ClientConfig>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let over_proxy = Egress::from_env().is_ok_and(|egress| egress.proxy_for(uri).is_some());
    let name = uri.host().unwrap_or_default();
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if !over_proxy && !is_address {
        let finding = resolve(name).await;
        let failed = finding.level == super::Level::Error;
        findings.push(finding);
        if failed {
            return findings;
        }
    }
    let connector = Connector::new(tls, CONNECT_TIMEOUT);
    let how = if uri.scheme_str() == Some("https") { "TCP and TLS" } else { "TCP, plain" };
    findings.push(match connector.probe(uri).await {
        Ok(()) => Finding::ok("tls", format!("{host}: {how}")),
        Err(error) => {
            let text = chain(&error);
            let fix = fix_connection(&text, over_proxy);
            Finding::error("tls", format!("{host}: {text}")).fix(fix)
        }
    });
    findings
}

fn fix_connection(error: &str, over_proxy: bool) -> &'static str {
    if error.contains("certificate") {
        "if a company's proxy opens TLS, put its authority into tls.ca_file; else look at the \
         clock and the machine's certificates"
    } else if over_proxy {
        "look at HTTPS_PROXY and whether that proxy lets CONNECT to this host through"
    } else {
        "let the firewall pass TCP 443 to this host, or set HTTPS_PROXY"
    }
}

async fn resolve(name: &str) -> Finding {
    let found = timeout(DNS_TIMEOUT, lookup_host((name, 0))).await;
    let why = match found {
        Ok(Ok(addresses)) => match addresses.count() {
            0 => "it has no address".to_owned(),
            count => return Finding::ok("dns", format!("{name}: {count} addresses")),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {DNS_TIMEOUT:?}"),
    };
    let fix = "look at /etc/resolv.conf, or set HTTPS_PROXY where only a proxy knows names";
    Finding::error("dns", format!("{name} cannot be looked up: {why}")).fix(fix)
}

/// Compares this clock with the `Date` of the first token endpoint that answers.
async fn clock(config: &Config, tls: &rustls::ClientConfig) -> Finding {
    let mut why = "there is no token endpoint".to_owned();
    let http = match LwaHttp::new(tls, CONNECT_TIMEOUT, CONNECT_TIMEOUT) {
        Ok(http) => http,
        Err(error) => return Finding::warning("clock", chain(&error)),
    };
    for application in config.applications.values() {
        let url = &application.token_url;
        let host = url.host().unwrap_or_default();
        let before = SystemClock.now();
        // Without a form this asks for nothing, and is answered all the same.
        match http.client(url).get(url.to_string()).send().await {
            Ok(answer) => {
                let after = SystemClock.now();
                let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
                match date.and_then(parse_date) {
                    // The answer was made somewhere between; whole seconds are cut off.
                    Some(theirs) => return judge_skew(host, theirs, before.unix(), after.unix()),
                    None => why = format!("{host} sent no date that can be read"),
                }
            }
            Err(error) => why = format!("{host}: {}", chain(&error.without_url())),
        }
    }
    let fix = "repair the connection to login with amazon first";
    Finding::warning("clock", format!("cannot be compared: {why}")).fix(fix)
}

fn parse_date(text: &str) -> Option<u64> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(time.as_second()).ok()
}

fn judge_skew(host: &str, theirs: u64, before: u64, after: u64) -> Finding {
    let ours = theirs.clamp(before, after);
    let skew = Duration::from_secs(ours.abs_diff(theirs));
    let direction = if ours > theirs { "ahead of" } else { "behind" };
    let text = format!("{} s {direction} {host}", skew.as_secs());
    let fix = "turn on time synchronisation: timedatectl set-ntp true";
    match skew {
        Duration::ZERO => Finding::ok("clock", format!("as {host} has it")),
        _ if skew <= SKEW_OK => Finding::ok("clock", text),
        _ if skew <= SKEW_MAX => Finding::warning("clock", text).fix(fix),
        _ => Finding::error("clock", text).fix(fix),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(parse_date("Fri, 20 Nov 2026 00:00:00 GMT"), Some(1_795_132_800));
        for wrong in ["", "yesterday", "2026-11-20"] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn clocks_are_judged_by_how_far_they_are_apart() {
        for (theirs, level, text) in [
            (1000, Level::Ok, "as lwa has it"),
            (1004, Level::Ok, "as lwa has it"),
            (1034, Level::Ok, "30 s behind lwa"),
            (970, Level::Ok, "30 s ahead of lwa"),
            (1035, Level::Warning, "31 s behind lwa"),
            (700, Level::Warning, "300 s ahead of lwa"),
            (5000, Level::Error, "3996 s behind lwa"),
            (0, Level::Error, "1000 s ahead of lwa"),
        ] {
            let finding = judge_skew("lwa", theirs, 1000, 1004);
            assert_eq!((finding.level, finding.text.as_str()), (level, text));
        }
    }
}
