//! Eleven clients as people use them: each reads the response that it is due, whatever becomes of its
//! upload, and goes on with a next request.

use crate::support::{
    extras,
    uploads::{ALL, Amazon, Uploads, assert_stops_at_once, before},
};
use std::process::Command;

const SIZES: [usize; 4] = [7, 500_000, 5_000_000, 20_000_000];

fn script(name: &str) -> String {
    format!("{}/tests/tools/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What `command` printed.
fn output(mut command: Command, what: &str) -> String {
    let output = command.output().expect("the client runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said} {complaint}");
    said
}

/// Runs the client that `command` makes of an address and a size against every upstream.
async fn assert_reads_what_it_is_due(name: &str, command: impl Fn(&str, usize) -> Command) {
    for amazon in ALL {
        let uploads = Uploads::start(amazon);
        let mut proxy = before(&uploads).await;
        for size in SIZES {
            // What Amazon does not read must fill what lies in between, or no time runs.
            let due = if amazon == Amazon::NeverReads { 504 } else { amazon.due() };
            let what = format!("{name}, {amazon:?}, {size} B");
            let said = output(command(&proxy.url("/upload"), size), &what);
            assert_eq!(said.trim(), format!("{due} 404"), "{what}");
        }
        assert_eq!(proxy.metric("adsproxy_in_flight_requests"), 0.0, "{name}, {amazon:?}");
        assert_stops_at_once(&mut proxy);
    }
}

async fn python(library: &str) {
    if extras::python().is_none() {
        return;
    }
    assert_reads_what_it_is_due(library, |url, size| {
        let mut command = extras::python().expect("it was here");
        command.args([&script("client.py"), library, url, &size.to_string()]);
        command
    })
    .await;
}

async fn node(library: &str) {
    if extras::node().is_none() {
        return;
    }
    assert_reads_what_it_is_due(library, |url, size| {
        let mut command = extras::node().expect("it was here");
        command.args([&script("client.js"), library, url, &size.to_string()]);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reads_every_response() {
    python("requests").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn httpx_reads_every_response() {
    python("httpx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urllib3_reads_every_response() {
    python("urllib3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_client_reads_every_response() {
    python("http_client").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aiohttp_reads_every_response() {
    python("aiohttp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fetch_reads_every_response() {
    node("fetch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axios_reads_every_response() {
    node("axios").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn got_reads_every_response() {
    node("got").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_reads_every_response() {
    if !extras::required("java") {
        return;
    }
    assert_reads_what_it_is_due("java", |url, size| {
        let mut command = Command::new("java");
        command.args([&script("Client.java"), url, &size.to_string()]);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn go_reads_every_response() {
    if !extras::required("go") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let client = directory.path().join("client");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&client).arg(script("client.go"));
    // Nothing of the machine's own settings is read, nothing is left behind.
    build
        .env("GOCACHE", directory.path().join("cache"))
        .env("GOENV", "off")
        .env("GO111MODULE", "off");
    output(build, "go build");
    assert_reads_what_it_is_due("go", |url, size| {
        let mut command = Command::new(&client);
        command.args([url, &size.to_string()]).env("NO_PROXY", "127.0.0.1");
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reads_every_response() {
    if !extras::required("curl") {
        return;
    }
    assert_reads_what_it_is_due("curl", |url, size| {
        let mut command = Command::new("sh");
        let upload = "head -c \"$2\" /dev/zero | curl -sS -m 20 -o /dev/null -w '%{http_code} ' \
                      -H 'X-Ads-Account: acme' -H 'Expect:' --data-binary @- \"$1\" --next -sS -m 20 \
                      -o /dev/null -w '%{http_code}' -H 'X-Ads-Account: nobody' \"$1\"";
        command.args(["-c", upload, "sh", url, &size.to_string()]);
        command
    })
    .await;
}
