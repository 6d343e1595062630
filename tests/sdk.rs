//! Real clients, unmodified, against the sandbox: the whole binary behind its own emulator.

use crate::support::{
    extras,
    proxy::eventually,
    sandbox::{Sandbox, get},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// One of the sandbox's demo accounts.
const ACCOUNT: &str = "acme";

/// Access tokens of this life expire while a client is at work.
const SHORT_LIFE_SECS: u32 = 2;

/// How long a client calls on: several lives of a token.
const CALL_SECS: &str = "5";

/// The client has outlived tokens, or it has shown nothing.
fn tokens_have_expired(sandbox: &Sandbox) {
    let generation = sandbox.generation(ACCOUNT);
    assert!(generation > 2, "only {generation} tokens were needed\n{}", sandbox.log_end());
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

fn ad_api_client_works(way: &str) {
    let Some(mut python) = extras::python() else { return };
    let sandbox = Sandbox::start(SHORT_LIFE_SECS);
    let arguments = [way, &sandbox.proxy.to_string(), ACCOUNT, CALL_SECS];
    let said = sandbox.run(python.arg(script("ad_api_client.py")).args(arguments));
    for line in ["profiles 2\n", "campaigns 1\n", "report rows 10\n"] {
        assert!(said.contains(line), "{said}");
    }
    tokens_have_expired(&sandbox);
}

#[test]
fn python_amazon_ad_api_works_by_path_prefix() {
    ad_api_client_works("prefix");
}

#[test]
fn python_amazon_ad_api_works_by_placeholder_token() {
    ad_api_client_works("placeholder");
}

#[test]
fn python_amazon_ad_api_works_by_the_shim() {
    ad_api_client_works("shim");
}

#[test]
fn python_amazon_ad_api_shows_our_error_for_an_unknown_account() {
    let Some(mut python) = extras::python() else { return };
    let sandbox = Sandbox::start(60);
    let proxy = sandbox.proxy.to_string();
    let output = python
        .arg(script("ad_api_client.py"))
        .args(["prefix", &proxy, "nobody", "0"])
        .output()
        .expect("a program that is here");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "an unknown account was served");
    assert!(said.contains("AdvertisingApiNotFoundException"), "{said}");
    assert!(said.contains("unknown_account"), "{said}");
}

#[test]
fn requests_and_httpx_never_meet_an_expired_token() {
    let Some(mut python) = extras::python() else { return };
    let sandbox = Sandbox::start(SHORT_LIFE_SECS);
    let proxy = sandbox.proxy.to_string();
    sandbox.run(python.arg(script("plain_clients.py")).args([&proxy, ACCOUNT, CALL_SECS]));
    tokens_have_expired(&sandbox);
}

#[test]
fn curl_needs_an_address_and_a_header_only() {
    if !extras::required("curl") {
        return;
    }
    let sandbox = Sandbox::start(SHORT_LIFE_SECS);
    let curl = |address: &str, header: &str| {
        let mut command = Command::new("curl");
        command.args(["--noproxy", "*", "-sS", "--fail-with-body", "-H", header, address]);
        command
    };
    let proxy = sandbox.proxy;
    let by_header =
        curl(&format!("http://{proxy}/v2/profiles"), &format!("X-Ads-Account: {ACCOUNT}"));
    let by_prefix = curl(&format!("http://{proxy}/a/{ACCOUNT}/v2/profiles"), "Accept: */*");
    let mut commands = [by_header, by_prefix];
    while sandbox.generation(ACCOUNT) <= 2 {
        for command in &mut commands {
            assert!(sandbox.run(command).contains("profileId"));
        }
    }
    let mut disagreeing =
        curl(&format!("http://{proxy}/a/{ACCOUNT}/v2/profiles"), "X-Ads-Account: another");
    let output = disagreeing.output().expect("a program that is here");
    assert_eq!(output.status.code(), Some(22), "two selectors that disagree are an error");
    let body = String::from_utf8_lossy(&output.stdout);
    assert!(body.contains("account_conflict"), "{body}");
}

#[test]
fn the_sandbox_needs_neither_the_egress_proxy_nor_the_variables_of_this_machine() {
    let nobody = "http://127.0.0.1:9";
    let sandbox = Sandbox::start_with(
        60,
        &[],
        &[
            ("HTTP_PROXY", nobody),
            ("http_proxy", nobody),
            ("HTTPS_PROXY", nobody),
            ("ALL_PROXY", nobody),
            ("ADSPROXY_CONFIG", "/nonexistent"),
            ("ADSPROXY_LISTEN__ADMIN", "nowhere"),
        ],
    );
    let (status, profiles) =
        get(sandbox.proxy, &format!("/a/{ACCOUNT}/v2/profiles")).expect("an answer");
    assert_eq!(status, 200, "{profiles}\n{}", sandbox.log_end());
}

#[tokio::test]
async fn the_sandbox_logs_as_told() {
    for (format, line) in [("text", " INFO "), ("json", "\"level\":\"INFO\"")] {
        let sandbox = Sandbox::start_with(60, &["--log-format", format], &[]);
        // What it prints first is on another stream.
        eventually("it is logged", || sandbox.log().contains("listening")).await;
        let log = sandbox.log();
        let listening = log.lines().find(|log| log.contains("listening")).expect("a line");
        assert!(listening.contains(line), "{format}: {listening}");
    }
}

#[test]
fn node_fetch_needs_an_address_and_a_header_only() {
    if !extras::required("node") {
        return;
    }
    let sandbox = Sandbox::start(SHORT_LIFE_SECS);
    let proxy = sandbox.proxy.to_string();
    sandbox.run(Command::new("node").arg(script("fetch.mjs")).args([&proxy, ACCOUNT, CALL_SECS]));
    tokens_have_expired(&sandbox);
}

#[test]
fn axios_and_got_need_an_address_and_a_placeholder_token_only() {
    let Some(mut node) = extras::node() else { return };
    let sandbox = Sandbox::start(SHORT_LIFE_SECS);
    let proxy = sandbox.proxy.to_string();
    let code = ["--input-type=module", "-e", include_str!("sdk/node_clients.mjs")];
    let said = node.args(code).args([&proxy, ACCOUNT, CALL_SECS]).output().expect("node");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    tokens_have_expired(&sandbox);
}

/// The blocks in `language` of a page, with the sandbox's address in place of the default one.
fn blocks(page: &str, language: &str, sandbox: &Sandbox) -> Vec<String> {
    let page = page.replace("127.0.0.1:8787", &sandbox.proxy.to_string());
    let fence = format!("```{language}\n");
    let blocks = page.split(&fence).skip(1);
    blocks.map(|rest| rest.split_once("```").expect("the block ends").0.to_owned()).collect()
}

const README: &str = include_str!("../README.md");

/// A message as a receiver gets it.
const SIGNED: &str = r#"
from datetime import datetime, timezone
from standardwebhooks.webhooks import Webhook
request_body, now = '{"type": "grant.recovered"}', datetime.now(timezone.utc)
request_headers = {
    "webhook-id": "msg_1",
    "webhook-timestamp": str(int(now.timestamp())),
    "webhook-signature": Webhook("whsec_c2VjcmV0").sign("msg_1", now, request_body),
}
"#;

#[test]
fn the_python_of_the_pages_works_as_it_stands() {
    let sandbox = Sandbox::start(60);
    for (page, check) in [
        (README, "assert response.json()[0]['profileId']"),
        (include_str!("../docs/languages.md"), "assert profiles[0]['profileId']"),
        (include_str!("../docs/hooks.md"), "assert event == {'type': 'grant.recovered'}"),
    ] {
        let snippets = blocks(page, "python", &sandbox);
        assert_eq!(snippets.len(), 1, "a new snippet needs its line here");
        let Some(mut python) = extras::python() else { return };
        let snippet = snippets[0].replace("whsec_…", "whsec_c2VjcmV0");
        sandbox.run(python.args(["-c", &format!("{SIGNED}\n{snippet}\n{check}")]));
    }
}

#[test]
fn the_readmes_javascript_works_as_it_stands() {
    if !extras::required("node") {
        return;
    }
    let sandbox = Sandbox::start(60);
    let snippets = blocks(README, "js", &sandbox);
    assert_eq!(snippets.len(), 1, "a new snippet needs its line here");
    let code =
        format!("{}\nif (!(await response.json())[0].profileId) throw response;", snippets[0]);
    sandbox.run(Command::new("node").args(["--input-type=module", "-e", &code]));
}

#[test]
fn the_readmes_java_works_as_it_stands() {
    if !extras::required("java") {
        return;
    }
    let sandbox = Sandbox::start(60);
    let snippets = blocks(README, "java", &sandbox);
    assert_eq!(snippets.len(), 1, "a new snippet needs its line here");
    let code = format!(
        "import java.net.URI;\nimport java.net.http.*;\nimport java.net.http.HttpResponse.BodyHandlers;\n\
         public class First {{\n  public static void main(String[] args) throws Exception {{\n{}\n\
         if (!response.body().contains(\"profileId\")) throw new Exception(response.body());\n}}\n}}\n",
        snippets[0]
    );
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("First.java");
    fs::write(&file, code).expect("a file");
    sandbox.run(Command::new("java").arg(file));
}

#[test]
fn the_readmes_curl_lines_work_as_they_stand() {
    if !extras::required("curl") {
        return;
    }
    let sandbox = Sandbox::start(60);
    let lines = blocks(README, "sh", &sandbox).join("\n");
    let lines: Vec<_> = lines.lines().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines {
        let said = sandbox.run(Command::new("sh").args(["-c", line]).env("NO_PROXY", "127.0.0.1"));
        assert!(said.contains("profileId"), "{line}\n{said}");
    }
}

#[test]
fn the_alerts_name_only_metrics_that_are_served() {
    let sandbox = Sandbox::start(60);
    let (status, page) = get(sandbox.admin, "/metrics").expect("an answer");
    assert_eq!(status, 200);
    let alerts =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join("alerts.yml"))
            .expect("a file of ours");
    let mut names = 0;
    for (start, _) in alerts.match_indices("adsproxy_") {
        let name: String =
            alerts[start..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        assert!(page.contains(&format!("# TYPE {name} ")), "{name} is not served:\n{page}");
        names += 1;
    }
    assert!(names > 5, "the rules name {names} metrics only");
}
