//! The dashboard and the alerts ask for metrics that there are, in expressions that Prometheus reads, and
//! every alert has a page and a test of each kind.

use crate::support::{
    extras,
    proxy::{Proxy, amazon},
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every text that is the value of `key`, wherever it is.
fn values_of(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key).and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| values_of(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|item| values_of(item, key, found)),
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana-dashboard.json")).expect("JSON")
}

/// The expressions of the dashboard, with what Grafana puts into them.
fn expressions() -> Vec<String> {
    let mut found = Vec::new();
    values_of(&dashboard(), "expr", &mut found);
    assert!(found.len() > 30, "{found:?}");
    let filled = |text: String| {
        let text = text.replace("$__rate_interval", "5m").replace("$instance", ".*");
        text.replace("$job", ".*")
    };
    found.into_iter().map(filled).collect()
}

/// The names of ours and of the process in an expression.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("adsproxy_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// Every name under which a running server has samples, or would have.
async fn served() -> BTreeSet<String> {
    let amazon = amazon().await;
    let page = Proxy::start(&amazon).metrics();
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = families.flat_map(|line| match line.split_once(' ').expect("a type") {
        (name, "histogram") => ["bucket", "sum", "count"].map(|it| format!("{name}_{it}")).to_vec(),
        (name, _) => vec![name.to_owned()],
    });
    names.collect()
}

/// The alerts with the lines of each.
fn alerts() -> Vec<(String, String)> {
    let rules = read("deploy/alerts.yml");
    let alerts = rules.split("\n      - alert: ").skip(1).map(|rule| {
        let (name, rule) = rule.split_once('\n').expect("a rule");
        (name.to_owned(), rule.to_owned())
    });
    alerts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_and_the_alerts_use_only_metrics_that_there_are() {
    let served = served().await;
    let mut queries = Vec::new();
    values_of(&dashboard(), "definition", &mut queries);
    let rules = alerts().into_iter().map(|(_, rule)| {
        let (_, rule) = rule.split_once("expr:").expect("an expression");
        rule.split("labels:").next().expect("a part").to_owned()
    });
    let texts: Vec<String> = expressions().into_iter().chain(queries).chain(rules).collect();
    let mut used = BTreeSet::new();
    for text in &texts {
        let unknown: Vec<_> = names(text).difference(&served).cloned().collect();
        assert!(unknown.is_empty(), "{unknown:?} in {text}");
        used.extend(names(text));
    }
    assert!(used.len() > 30, "{used:?}");
    assert!(!served.contains("adsproxy_requests"), "a name must be whole");
}

#[test]
fn every_expression_of_the_dashboard_is_one_that_prometheus_reads() {
    if !extras::required("promtool") {
        return;
    }
    let check = |expressions: &[String]| {
        let rules = expressions.iter().enumerate().map(|(number, text)| {
            let text = serde_json::to_string(text).expect("a text");
            format!("      - {{record: \"dashboard:{number}\", expr: {text}}}\n")
        });
        let rules = format!("groups:\n  - name: x\n    rules:\n{}", rules.collect::<String>());
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rules.yml");
        fs::write(&file, rules).expect("written");
        let output = Command::new("promtool").args(["check", "rules"]).arg(file).output();
        let output = output.expect("promtool runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut all = expressions();
    let (is_good, said) = check(&all);
    assert!(is_good, "{said}");
    all.push("sum(rate(adsproxy_requests_total[5m])".to_owned());
    assert!(!check(&all).0, "a bracket is missing, and nobody says so");
}

#[test]
fn every_panel_asks_the_data_source_that_is_chosen_and_has_a_place_of_its_own() {
    let dashboard = dashboard();
    let mut sources = Vec::new();
    values_of(&dashboard, "uid", &mut sources);
    sources.retain(|uid| uid != "adsproxy");
    assert!(sources.len() > 30 && sources.iter().all(|uid| uid == "${datasource}"));
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> =
        panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
        assert!(x + w <= 24, "{panel}");
        let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        assert!(cells.into_iter().all(|cell| taken.insert(cell)), "{panel}");
    }
}

#[test]
fn every_alert_has_a_page_and_is_tested_to_fire_and_not_to() {
    let (page, tests) = (read("docs/alerts.md"), read("deploy/alerts_test.yml"));
    let mut headings: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    assert!(alerts.len() > 14, "{alerts:?}");
    for (name, rule) in &alerts {
        assert!(headings.remove(name.as_str()), "docs/alerts.md says nothing of {name}");
        let anchor = format!("/alerts.md#{}\n", name.to_lowercase());
        let (_, url) = rule.split_once("runbook_url: ").unwrap_or_else(|| panic!("{name}"));
        let end = url.find('\n').expect("a line") + 1;
        assert!(url[..end].starts_with("https://") && url[..end].ends_with(&anchor), "{name}");
        assert!(rule.contains("labels: {severity: ") && rule.contains("summary: "), "{name}");
        let fires = format!("        alertname: {name}\n        exp_alerts:\n          - ");
        assert!(tests.contains(&fires), "no test in which {name} fires");
        let silent = format!("alertname: {name}, exp_alerts: []}}");
        assert!(tests.contains(&silent), "no test in which {name} does not fire");
    }
    assert!(headings.is_empty(), "no alerts: {headings:?}");
}
