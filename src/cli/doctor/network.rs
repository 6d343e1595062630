//! The way to Amazon: names, connections, TLS, the egress proxy, and Amazon's clock.

use super::{Finding, finding::errors, joined, store::Known};
use crate::{
    clock::{Clock, SystemClock},
    config::{Config, load::Environment},
    error_chain::chain,
    forward::connect::Connector,
    https::{self, Egress, LwaHttp},
};
use http::{Uri, header::DATE};
use rustls::ClientConfig;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::{net::lookup_host, time::timeout};

const DNS_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Clocks that differ less are as good as equal.
const SKEW_OK: Duration = Duration::from_secs(30);
/// Beyond this, certificates and codes are taken for old or not yet valid.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// The variables that name an egress proxy.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Also returns what the API is called with, if that can be set up.
pub(super) async fn check(
    config: &Config,
    known: &[Known],
    environment: &Environment,
) -> (Vec<Finding>, Option<LwaHttp>) {
    let egress = match Egress::from_env() {
        Ok(egress) => egress,
        Err(error) => {
            let fix = "correct the variable, or unset it where no proxy is needed";
            return (vec![Finding::error("egress", error.to_string(), fix)], None);
        }
    };
    let client = |roots| {
        let tls = https::client_config(roots, true)?;
        let (connect, total) = (config.token.lwa_connect_timeout, config.token.lwa_timeout);
        LwaHttp::new(&tls, connect, total).map(|http| (tls, http))
    };
    let api = client(config.upstream_roots());
    let clients = api.and_then(|api| Ok((api, client(config.other_roots())?)));
    let ((api_tls, api), (lwa_tls, lwa)) = match clients {
        Ok(clients) => clients,
        Err(error) => {
            let fix = "look at upstream.ca_file and tls.ca_file: PEM files with certificates";
            return (vec![Finding::error("tls", chain(&error), fix)], None);
        }
    };
    let hosts = hosts(config, known);
    let mut findings = judge_egress(hosts.values(), &egress, environment);
    let checks = hosts.into_iter().map(|(host, uri)| {
        let is_api = config.upstream.api().contains(&&uri);
        let tls = if is_api { &api_tls } else { &lwa_tls };
        let over_proxy = egress.proxy_for(&uri).is_some();
        tokio::spawn(reach(host, uri, over_proxy, tls.clone()))
    });
    let (reached, clock) = tokio::join!(joined(checks.collect()), clock(config, &lwa));
    findings.extend(reached);
    findings.push(clock);
    (findings, Some(api))
}

/// Every host that the accounts need, once: not those of other regions, nor the ones that are only
/// asked when these cannot be reached.
fn hosts(config: &Config, known: &[Known]) -> BTreeMap<String, Uri> {
    let is_used = |name: &String| {
        known.is_empty() || known.iter().any(|account| account.application == *name)
    };
    let applications = config.applications.iter().filter(|(name, _)| is_used(name));
    let lwa = applications.map(|(_, application)| &application.token_url);
    let api = known.iter().map(|account| config.upstream.api()[account.region as usize]);
    let all = lwa.chain(api);
    all.filter_map(|uri| Some((uri.authority()?.to_string(), uri.clone()))).collect()
}

/// Which egress proxy is used. Its credentials are not shown.
fn judge_egress<'a>(
    hosts: impl Iterator<Item = &'a Uri>,
    egress: &Egress,
    environment: &Environment,
) -> Vec<Finding> {
    let https: Vec<&Uri> = hosts.filter(|uri| uri.scheme_str() == Some("https")).collect();
    let used = https.iter().filter_map(|uri| egress.proxy_for(uri)).map(|proxy| {
        let port = proxy.uri().port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        format!("over proxy {}{port}", proxy.uri().host().unwrap_or_default())
    });
    let used: BTreeSet<String> = used.collect();
    let set = VARIABLES.iter().find(|name| environment.non_empty(name).is_some());
    match set.filter(|_| used.is_empty() && !https.is_empty()) {
        Some(name) => vec![Finding::warning(
            "egress",
            format!("{name} is set, but used for none of Amazon's hosts"),
            format!("write it as http://host:port and look at NO_PROXY, or unset {name}"),
        )],
        None if used.is_empty() => vec![Finding::ok("egress", "no egress proxy")],
        None => used.into_iter().map(|used| Finding::ok("egress", used)).collect(),
    }
}

/// Looks the name up, connects, shakes hands.
async fn reach(host: String, uri: Uri, over_proxy: bool, tls: Arc<ClientConfig>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = uri.host().unwrap_or_default();
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if !over_proxy && !is_address {
        findings.push(resolve(name).await);
        if errors(&findings).next().is_some() {
            return findings;
        }
    }
    let how = if uri.scheme_str() == Some("https") { "TCP and TLS" } else { "TCP, plain" };
    findings.push(match Connector::new(tls, CONNECT_TIMEOUT).probe(&uri).await {
        Ok(()) => Finding::ok("tls", format!("{host}: {how}")),
        Err(error) => {
            let why = chain(&error);
            let fix = if why.contains("certificate") {
                "if a company's proxy opens TLS, put its authority into tls.ca_file; else look at \
                 the clock and the machine's certificates"
            } else if over_proxy {
                "look at HTTPS_PROXY and whether that proxy lets CONNECT to this host through"
            } else {
                "let the firewall pass TCP 443 to this host, or set HTTPS_PROXY"
            };
            Finding::error("tls", format!("{host}: {why}"), fix)
        }
    });
    findings
}

async fn resolve(name: &str) -> Finding {
    let found = timeout(DNS_TIMEOUT, lookup_host((name, 0))).await;
    let why = match found.map(|found| found.map(Iterator::count)) {
        Ok(Ok(0)) => "it has no address".to_owned(),
        Ok(Ok(count)) => return Finding::ok("dns", format!("{name}: {count} addresses")),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no response within {DNS_TIMEOUT:?}"),
    };
    let fix = "look at /etc/resolv.conf, or set HTTPS_PROXY where only a proxy knows names";
    Finding::error("dns", format!("{name} cannot be looked up: {why}"), fix)
}

/// Compares this clock with the `Date` of the first token endpoint that responds.
async fn clock(config: &Config, http: &LwaHttp) -> Finding {
    let mut why = "there is no token endpoint".to_owned();
    for application in config.applications.values() {
        let url = &application.token_url;
        let host = url.host().unwrap_or_default();
        let before = SystemClock.now().unix();
        // Without a form this asks for nothing, and gets a response all the same.
        match http.client(url).get(url.to_string()).send().await {
            Ok(response) => {
                let after = SystemClock.now().unix();
                let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
                match date.and_then(|date| httpdate::parse_http_date(date).ok()) {
                    // The response was made in between; whole seconds are cut off.
                    Some(date) => {
                        let theirs = date.duration_since(UNIX_EPOCH).unwrap_or_default();
                        return judge_skew(host, theirs.as_secs(), before, after);
                    }
                    None => why = format!("{host} sent no date that can be read"),
                }
            }
            Err(error) => why = format!("{host}: {}", chain(&error.without_url())),
        }
    }
    let fix = "repair the connection to login with amazon first";
    Finding::warning("clock", format!("cannot be compared: {why}"), fix)
}

fn judge_skew(host: &str, theirs: u64, before: u64, after: u64) -> Finding {
    let ours = theirs.clamp(before, after);
    let skew = Duration::from_secs(ours.abs_diff(theirs));
    let direction = if ours > theirs { "ahead of" } else { "behind" };
    let text = match skew {
        Duration::ZERO => format!("as {host} has it"),
        _ => format!("{} s {direction} {host}", skew.as_secs()),
    };
    let fix = "turn on time synchronisation: timedatectl set-ntp true";
    match skew {
        _ if skew <= SKEW_OK => Finding::ok("clock", text),
        _ if skew <= SKEW_MAX => Finding::warning("clock", text, fix),
        _ => Finding::error("clock", text, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

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
