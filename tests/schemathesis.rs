//! The admin API as a property-based tester sees it: requests made from `/openapi.json`, right ones
//! and wrong ones, with and without a credential.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    extras,
    proxy::{Proxy, Setup, amazon},
};
use std::{env, path::Path, process::Command};

/// Beside them schemathesis has these. `negative_data_rejection`: the fields of a JSON body may be
/// texts as in a form. `positive_data_acceptance`: the document does not say which aliases, cursors
/// and states there are. `unsupported_method`: who may not know which routes there are is told 401.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      allow_header_conformance,use_after_free,missing_required_header";

/// Whether a route asks for a credential. It tries a wrong one on each, and of those one address has
/// twenty: so these routes are tried apart.
const ASKS: &str = "ignored_auth";
const APART: [&str; 3] = [
    "^/api/v1/accounts",
    "^/api/v1/(callers|sessions)",
    "^/(?!api/v1/(accounts|callers|sessions))",
];

/// For one kind of caller, seconds: requests that are the same each time, which end by themselves, and
/// random ones.
const PHASES: [(&str, &str); 2] = [("coverage", "300"), ("fuzzing", "30")];

/// How many operations it tested.
fn tested(said: &str) -> usize {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("Tested:"));
    line.unwrap_or_else(|| panic!("it says no number: {said}")).trim().parse().expect("a number")
}

/// How many operations it can test: those of the document, but that which it read the document by.
fn testable(proxy: &Proxy) -> usize {
    let response = proxy.ask_admin("/openapi.json");
    let (_, body) = response.split_once("\r\n\r\n").expect("a body");
    let document: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.values().map(|methods| methods.as_object().expect("methods").len());
    operations.sum::<usize>() - 1
}

fn run(
    proxy: &Proxy,
    key: Option<&str>,
    (phase, time): (&str, &str),
    arguments: &[&str],
) -> (bool, String) {
    let python = env::var_os("ADSPROXY_PYTHON").expect("it was there");
    let mut tester = Command::new(Path::new(&python).with_file_name("st"));
    let document = format!("http://{}/openapi.json", proxy.admin);
    let directory = tempfile::tempdir().expect("a directory");
    tester.current_dir(directory.path()).env("NO_PROXY", "127.0.0.1").env("NO_COLOR", "1");
    tester.args(["run", &document, "--seed", "1", "--max-examples", "20"]).args(arguments);
    tester.args(["--phases", phase, "--max-time", time, "--request-timeout", "20"]);
    tester.args(["--continue-on-failure", "--warnings", "off"]);
    if let Some(key) = key {
        tester.args(["--header", &format!("X-Ads-Key: {key}")]);
    }
    let output = tester.output().expect("a program that is here");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_made_from_the_document_gets_what_the_document_does_not_say() {
    let Some(_) = extras::python() else { return };
    let amazon = amazon().await;
    let tenant = TestCaller::new("tenant", "tenant = \"t1\"");
    for key in [Some(OPERATOR.key.as_str()), Some(&tenant.key), None] {
        for phase in PHASES {
            // Another one for each: an operator may end its own key.
            let setup = Setup { toml: tenant.toml.clone(), ..Setup::default() };
            let proxy = Proxy::with(&amazon, setup);
            let (is_good, said) = run(&proxy, key, phase, &["--checks", CHECKS]);
            let is_whole = phase.0 != "coverage" || tested(&said) == testable(&proxy);
            assert!(is_whole, "all are tested: {said}");
            assert!(is_good, "{said}");
            let response = proxy.ask_admin("/livez");
            assert!(response.starts_with("HTTP/1.1 200 "), "it still serves: {response}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_serves_a_wrong_credential_where_it_asks_for_one() {
    let Some(_) = extras::python() else { return };
    let amazon = amazon().await;
    let tenant = TestCaller::new("tenant", "tenant = \"t1\"");
    let (mut sum, mut all) = (0, 0);
    for routes in APART {
        for key in [OPERATOR.key.as_str(), &tenant.key] {
            let setup = Setup { toml: tenant.toml.clone(), ..Setup::default() };
            let proxy = Proxy::with(&amazon, setup);
            let arguments = ["--include-path-regex", routes, "--checks", ASKS];
            let (is_good, said) = run(&proxy, Some(key), PHASES[0], &arguments);
            assert!(is_good, "{routes}: {said}");
            (sum, all) = (sum + tested(&said), testable(&proxy));
        }
    }
    assert_eq!(sum, 2 * all, "each operation by each key");
}
