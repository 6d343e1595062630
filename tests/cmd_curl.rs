//! `adsproxy curl`: a request for an account, in the manner of curl.

use crate::support::{
    commands::Commands,
    program::said,
    proxy::{ACME_PROFILE, Setup, amazon, assert_no_secret},
};
use adsproxy::sandbox::{ApiFault, LwaFault, Scripted, Surface, Times};
use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn gets_what_an_app_would_get() {
    let amazon = amazon().await;
    let toml = "accounts.acme.headers = { X-Default = \"d\" }".to_owned();
    let commands = Commands::new(&amazon, &Setup::default());
    commands.edit("[accounts.acme]\n", &format!("[accounts.acme]\n{}\n", &toml[14..]));
    let said = commands.run("curl acme /v2/profiles");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert!(said.out.contains(&ACME_PROFILE.to_string()), "{}", said.out);
    assert_no_secret("standard output", said.out.as_bytes());
    let seen = amazon.state().record.requests_for(Surface::Api);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].target, "/v2/profiles");
    assert_eq!(seen[0].values("x-default"), ["d"]);
    assert_eq!(seen[0].values("accept"), ["*/*"]);
    let host = amazon.addr().to_string();
    assert_eq!(seen[0].values("host"), [host.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_as_soon_as_the_response_is_there() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let fastest = (0..5).map(|_| {
        let begun = std::time::Instant::now();
        assert_eq!(commands.run("curl acme /v2/profiles").code, Some(0));
        begun.elapsed()
    });
    // A drain that waits for the command's own connection takes a second.
    let fastest = fastest.min().expect("five");
    assert!(fastest < std::time::Duration::from_millis(700), "{fastest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_after_a_401_like_the_server() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    assert_eq!(commands.run("curl acme /v2/profiles").code, Some(0));
    amazon.state().lwa.expire_access_tokens(None);
    assert_eq!(commands.run("curl acme /v2/profiles --fail").code, Some(0));
    assert_eq!(amazon.state().record.counts().token_calls, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_methods_headers_and_data_as_its_flags_say() {
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &Setup::default());
    fs::write(commands.path("body"), "{\n\"a\":1}\n").expect("a file");
    let mut command = commands.command("curl acme /x//y?z=%2F -X PUT --data-binary @body -H");
    command.args(["Content-Type: application/vnd.x+json", "-H", "Accept:", "-H", "X-A: 1"]);
    command.output().expect("it runs");
    let seen = amazon.state().record.requests_for(Surface::Api);
    let seen = seen.last().expect("a request");
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/x//y?z=%2F"));
    assert_eq!(seen.values("content-type"), ["application/vnd.x+json"]);
    assert_eq!(seen.values("x-a"), ["1"]);
    assert!(seen.values("accept").is_empty());
    assert_eq!(seen.values("content-length"), ["9"]);

    let mut child = commands
        .command("curl acme /sp/campaigns/list -d @- --region eu -o answer -sS")
        .stdin(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("a pipe").write_all(b"{\n}\n").expect("written");
    child.wait().expect("it ends");
    let seen = amazon.state().record.requests_for(Surface::Api);
    let seen = seen.last().expect("a request");
    assert_eq!(seen.method.as_str(), "POST");
    assert_eq!(seen.values("content-type"), ["application/json"]);
    assert_eq!(seen.values("content-length"), ["2"]);
    assert!(fs::read(commands.path("answer")).is_ok_and(|answer| !answer.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_the_head_when_asked() {
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &Setup::default());
    let said = commands.run("curl acme /v2/profiles -i");
    let (head, body) = said.out.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/json"), "{head}");
    assert!(body.starts_with('['), "{body}");
    assert_no_secret("the head", head.as_bytes());
    let head_only = commands.run("curl acme /v2/profiles -I");
    assert!(head_only.out.ends_with("\r\n\r\n"), "{}", head_only.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_distinguish_amazons_errors_from_ours() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let faults = &amazon.state().api.faults;
    faults.add(ApiFault::ServerError, Times::Next(3));
    let plain = commands.run("curl acme /v2/profiles");
    assert!(plain.code == Some(0) && !plain.out.is_empty(), "{plain:?}");
    let fail = commands.run("curl acme /v2/profiles -f");
    assert_eq!((fail.code, fail.out.as_str()), (Some(22), ""), "{fail:?}");
    let with_body = commands.run("curl acme /v2/profiles --fail-with-body -s");
    assert_eq!((with_body.code, with_body.err.as_str()), (Some(22), ""));
    assert!(!with_body.out.is_empty());
    faults.clear();

    faults.add(ApiFault::Hang, Times::Next(1));
    let late = commands.run("curl acme /v2/profiles -m 300ms");
    assert_eq!((late.code, late.out.as_str()), (Some(69), ""), "{late:?}");
    faults.clear();
    amazon.state().lwa.faults.add(LwaFault::ServerError, Times::Forever);
    let down = commands.run("curl globex /v2/profiles");
    assert_eq!((down.code, down.out.as_str()), (Some(69), ""), "{down:?}");
    assert!(down.err.contains("token_unavailable"), "{down:?}");
    amazon.state().lwa.faults.clear();
    amazon.state().lwa.revoke("globex");
    assert_eq!(commands.run("curl globex /v2/profiles").code, Some(77));
    assert_eq!(commands.run("curl nobody /v2/profiles").code, Some(1));
    for nonsense in ["curl acme v2/profiles", "curl acme https://example.com/v2"] {
        let said = commands.run(nonsense);
        assert!(said.code == Some(1) && said.err.contains("/v2/profiles"), "{said:?}");
    }
    let conflict = said_of(commands.command("curl acme /v2 -H").arg("X-Ads-Account: globex"));
    assert!(conflict.contains("account_conflict"), "{conflict}");
}

fn said_of(command: &mut Command) -> String {
    String::from_utf8(command.output().expect("it runs").stderr).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_failure() {
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &Setup::default());
    let mut child =
        commands.command("curl acme /v2/profiles").stdout(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_as_postman_exports_it_works_after_the_alias() {
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &Setup::default());
    let mut command = commands.command("curl acme --location --request GET --compressed -g");
    command.arg("https://advertising-api-eu.amazon.com/v2/profiles?x=1#top");
    command.args(["--header", "Amazon-Advertising-API-ClientId: amzn1.application-oa2-client.x"]);
    command.args(["--header", "Authorization: Bearer Atza|of-another-time"]);
    command.args(["--header", "Content-Length: 99", "-A", "PostmanRuntime/7", "-#"]);
    let said = said(&mut command);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let seen = amazon.state().record.requests_for(Surface::Api);
    let seen = seen.last().expect("a request");
    assert_eq!(seen.target, "/v2/profiles?x=1");
    assert_eq!(seen.values("user-agent"), ["PostmanRuntime/7"]);
    assert_eq!(seen.values("accept-encoding"), ["gzip"]);
    assert!(seen.values("content-length").is_empty());
    assert!(!format!("{seen:?}").contains("of-another-time"));

    let mut command =
        commands.command("curl acme --location --url https://advertising-api.amazon.com");
    command.args(["-G", "-d", "a=1", "--data-urlencode", "b=x y"]);
    command.output().expect("it runs");
    let mut command = commands.command("curl acme /form --data-urlencode");
    command.arg("name=a&b").output().expect("it runs");
    let seen = amazon.state().record.requests_for(Surface::Api);
    let [.., query, form] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((query.method.as_str(), query.target.as_str()), ("GET", "/?a=1&b=x%20y"));
    assert_eq!(form.values("content-type"), ["application/x-www-form-urlencoded"]);
    assert_eq!((form.method.as_str(), form.values("content-length")), ("POST", vec!["10"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_response_is_decompressed_only_when_asked() {
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &Setup::default());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"as it was").expect("memory");
    let body = bytes::Bytes::from(gzip.finish().expect("memory"));
    let scripted = |status: u16, headers: &[(&str, &str)], body: bytes::Bytes| {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let status = http::StatusCode::from_u16(status).expect("a status");
        let fault = ApiFault::Respond(Scripted { status, headers, body });
        amazon.state().api.faults.add(fault, Times::Next(1));
    };
    scripted(200, &[("content-encoding", "gzip")], body.clone());
    assert_eq!(commands.run("curl acme /x --compressed").out, "as it was");
    scripted(200, &[("content-encoding", "gzip")], body.clone());
    let raw = commands.command("curl acme /x").output().expect("it runs");
    assert_eq!(raw.stdout, body);

    scripted(307, &[("location", "https://example.com/")], bytes::Bytes::new());
    let mut command = commands.command("curl acme /x -L -w");
    let said = said(command.arg("%{http_code} %{size_download}\\n"));
    assert_eq!((said.code, said.out.as_str()), (Some(0), "307 0\n"), "{said:?}");
    assert!(said.err.contains("the redirect is not followed"), "{said:?}");
    assert!(!amazon.state().record.requests_for(Surface::Api).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn verbose_shows_both_heads_and_no_secret() {
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &Setup::default());
    let mut command = commands.command("curl acme /v2/profiles -v -H");
    let said = said(command.arg("Authorization: Bearer Atza|CANARY"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.starts_with("> GET /v2/profiles HTTP/1.1\r\n"), "{}", said.err);
    assert!(said.err.contains("< HTTP/1.1 200 OK\r\n"), "{}", said.err);
    assert!(!said.err.contains("CANARY") && !said.err.contains("/k/"), "{}", said.err);
    assert_no_secret("standard error", said.err.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_passed_on_says_why_before_anything_is_sent() {
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &Setup::default());
    for (flag, why) in [
        ("-k", "always verified"),
        ("-u a:b", "own token"),
        ("-x http://p:1", "HTTPS_PROXY"),
        ("-b a=b", "cookies"),
        ("-F a=@b", "--data"),
        ("-T file", "--data-binary"),
    ] {
        let said = commands.run(&format!("curl acme /v2/profiles {flag}"));
        assert!(said.code == Some(1) && said.err.contains(why), "{flag}: {said:?}");
    }
    assert!(amazon.state().record.requests_for(Surface::Api).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_ends_when_the_response_has_ended() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let least = |arguments: &str| {
        let times = (0..5).map(|_| {
            let started = Instant::now();
            assert_eq!(commands.run(arguments).code, Some(0));
            started.elapsed()
        });
        times.min().expect("some")
    };
    let (token, curl) = (least("token acme"), least("curl acme /v2/profiles"));
    assert!(curl < token + Duration::from_millis(500), "{curl:?} beside {token:?}");
}
