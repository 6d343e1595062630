//! Tests of the whole page, with a small checker of the exposition format.

use super::*;
use crate::{account::State, id::Region};
use std::collections::{BTreeMap, BTreeSet};

fn account(alias: &str, expires_in: Option<u64>) -> AccountView {
    AccountView {
        account: alias.parse().unwrap(),
        state: State::Fresh,
        region: Region::Na,
        application: "default".into(),
        expires_in: expires_in.map(Duration::from_secs),
        generation: 1,
        last_error: None,
        reauthorization_required: false,
        consent_days_left: None,
        is_unsaved: false,
    }
}

fn metrics(account_labels_max: usize) -> Arc<Metrics> {
    Metrics::new(&config::MetricsConfig { account_labels_max }, Arc::new(AtomicU64::new(3)))
}

/// The samples of a page by series; panics unless the page is well formed.
fn check(page: &str) -> BTreeMap<String, f64> {
    assert!(page.ends_with('\n'));
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut helped, mut current) = ("", ("", ""));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split_once(' ').expect("help text").0;
            assert!(families.insert(helped.to_owned()), "{helped} comes twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split_once(' ').expect("a type");
            assert_eq!(current.0, helped, "TYPE follows HELP");
            assert!(["counter", "gauge", "histogram"].contains(&current.1));
            assert_eq!(current.1 == "counter", current.0.ends_with("_total"), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(current.0).expect("a sample of its family");
            let allowed: &[&str] =
                if current.1 == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(allowed.contains(&suffix), "{line}");
            let value: f64 = value.parse().expect("a number");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
        }
    }
    for family in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        if let Some(name) = family.strip_suffix(" histogram") {
            check_histogram(page, name, &samples);
        }
    }
    samples
}

fn check_histogram(page: &str, name: &str, samples: &BTreeMap<String, f64>) {
    let buckets: Vec<(f64, f64)> = page
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{name}_bucket{{le=\"")))
        .map(|rest| {
            let (bound, value) = rest.split_once("\"} ").unwrap();
            (bound.parse().unwrap(), value.parse().unwrap())
        })
        .collect();
    assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
    let (bound, count) = *buckets.last().unwrap();
    assert!(bound.is_infinite());
    assert_eq!(count, samples[&format!("{name}_count")]);
}

#[test]
fn the_page_is_well_formed_and_holds_every_documented_name() {
    let accounts = vec![account("acme", Some(60)), account("new", None)];
    let page = metrics(10).render(Some(&accounts));
    check(&page);
    for name in [
        "requests_total",
        "request_duration_seconds",
        "upstream_401_total",
        "replays_total",
        "token_refresh_total",
        "token_refresh_duration_seconds",
        "token_expiry_seconds",
        "grant_state",
        "store_write_total",
        "store_unsaved_records",
        "in_flight_requests",
        "build_info",
        "limit_hits_total",
        "connections",
        "accounts_beyond_label_cap",
        "grant_expiry_seconds",
        "log_dropped_total",
    ] {
        assert!(page.contains(&format!("# TYPE adsproxy_{name} ")), "{name}");
    }
    if cfg!(target_os = "linux") {
        for name in ["resident_memory_bytes", "open_fds", "cpu_seconds_total"] {
            assert!(page.contains(&format!("\nprocess_{name} ")), "{name}");
        }
    }
}

#[test]
fn workers_are_summed() {
    let metrics = metrics(10);
    let (one, two) = (metrics.worker(), metrics.worker());
    one.request(200, Duration::from_micros(900));
    one.request(204, Duration::from_secs(1));
    two.request(503, Duration::from_secs(900));
    two.request(42, Duration::ZERO);
    one.in_flight_inc();
    two.in_flight_inc();
    two.in_flight_dec();
    two.in_flight_dec();
    one.upstream_401(Upstream401::Permission);
    two.replay(ReplayOutcome::NotReplayable);
    two.limit(LimitHit::HandshakeTimeout);
    one.connection_opened();
    one.connection_opened();
    one.connection_closed();
    two.upstream_connection_opened();
    let samples = check(&metrics.render(Some(&[])));
    for (series, value) in [
        ("adsproxy_requests_total{code_class=\"2xx\"}", 2.0),
        ("adsproxy_requests_total{code_class=\"5xx\"}", 1.0),
        ("adsproxy_requests_total{code_class=\"other\"}", 1.0),
        ("adsproxy_requests_total{code_class=\"4xx\"}", 0.0),
        ("adsproxy_request_duration_seconds_bucket{le=\"0.001\"}", 2.0),
        ("adsproxy_request_duration_seconds_bucket{le=\"0.5\"}", 2.0),
        ("adsproxy_request_duration_seconds_bucket{le=\"1\"}", 3.0),
        ("adsproxy_request_duration_seconds_bucket{le=\"300\"}", 3.0),
        ("adsproxy_request_duration_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("adsproxy_request_duration_seconds_sum", 901.0009),
        ("adsproxy_in_flight_requests", 1.0),
        ("adsproxy_upstream_401_total{class=\"permission\"}", 1.0),
        ("adsproxy_upstream_401_total{class=\"expired\"}", 0.0),
        ("adsproxy_replays_total{outcome=\"not_replayable\"}", 1.0),
        ("adsproxy_limit_hits_total{limit=\"handshake_timeout\"}", 1.0),
        ("adsproxy_connections", 1.0),
        ("adsproxy_upstream_connections_opened_total", 1.0),
        ("adsproxy_log_dropped_total", 3.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn refreshes_and_store_writes_are_counted_by_outcome() {
    let metrics = metrics(10);
    let second = Duration::from_secs(1);
    metrics.token_refresh(Trigger::Forced, RefreshOutcome::Transient, second, 7);
    metrics.token_refresh(Trigger::Forced, RefreshOutcome::Transient, second, 7);
    metrics.store_write(false);
    let samples = check(&metrics.render(Some(&[])));
    let forced = "adsproxy_token_refresh_total{trigger=\"forced\",outcome=\"transient\"}";
    assert_eq!(samples[forced], 2.0);
    assert_eq!(samples["adsproxy_token_refresh_duration_seconds_count"], 2.0);
    assert_eq!(samples["adsproxy_store_write_total{outcome=\"failed\"}"], 1.0);
    assert_eq!(samples["adsproxy_store_write_total{outcome=\"succeeded\"}"], 0.0);
}

#[test]
fn accounts_beyond_the_cap_have_no_series_but_are_counted() {
    let accounts = ["a", "b", "c"].map(|alias| account(alias, Some(60)));
    let page = metrics(2).render(Some(&accounts));
    let samples = check(&page);
    assert_eq!(samples["adsproxy_token_expiry_seconds{account=\"b\"}"], 60.0);
    assert_eq!(samples["adsproxy_grant_state{account=\"a\",state=\"fresh\"}"], 1.0);
    assert_eq!(samples["adsproxy_accounts_beyond_label_cap"], 1.0);
    assert!(!page.contains("account=\"c\""));
}

#[test]
fn a_grant_has_an_expiry_only_if_its_consent_is_dated() {
    let accounts = [("a", Some(30)), ("b", Some(-2)), ("c", None)];
    let accounts = accounts.map(|(alias, consent_days_left)| AccountView {
        consent_days_left,
        ..account(alias, None)
    });
    let page = metrics(9).render(Some(&accounts));
    let samples = check(&page);
    assert_eq!(samples["adsproxy_grant_expiry_seconds{account=\"a\"}"], 2_592_000.0);
    assert_eq!(samples["adsproxy_grant_expiry_seconds{account=\"b\"}"], 0.0);
    assert!(!page.contains("adsproxy_grant_expiry_seconds{account=\"c\""));
}

#[test]
fn an_account_without_a_token_has_no_expiry() {
    let page = metrics(2).render(Some(&[account("a", None)]));
    assert!(!page.contains("adsproxy_token_expiry_seconds{"));
    assert!(page.contains("adsproxy_grant_state{account=\"a\""));
}
