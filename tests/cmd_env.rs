//! `adsproxy env`: what `eval` makes of it points at the running server, and holds no secret.

use crate::support::{
    commands::Commands,
    proxy::{Proxy, Setup, amazon, assert_no_secret},
};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_evaluates_it_reaches_the_running_server() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let commands = Commands::new(&amazon, &Setup::default());
    // The server took free ports; a person's configuration names them.
    commands.edit("127.0.0.1:0\"]", &format!("{}\"]", proxy.addr));
    commands.edit("admin = \"127.0.0.1:0\"", &format!("admin = \"{}\"", proxy.admin));
    let said = commands.run("env acme --shell posix");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert_no_secret("standard output", said.out.as_bytes());
    let shell = Command::new("sh")
        .env_clear()
        .env("NO_PROXY", ".corp")
        .args(["-c", &format!("{}\nprintf '%s\n' \"$AMAZON_ADS_API_BASE_URL\" \"$AMAZON_ADS_TOKEN_URL\" \"$AMAZON_ADS_ACCESS_TOKEN\"", said.out)])
        .output()
        .expect("a shell");
    let text = String::from_utf8(shell.stdout).expect("text");
    let [base, token_url, bearer] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!(bearer, "Atza|acme");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client.get(format!("{base}/v2/profiles")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let form = "grant_type=refresh_token&refresh_token=unused";
    let answer = client.post(token_url).body(form).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "the shim");
    let unknown = commands.run("env nobody");
    assert!(unknown.code == Some(0) && unknown.err.contains("no account nobody"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_it_warns_and_needs_no_secret() {
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &Setup::default());
    commands.edit("127.0.0.1:0\"]", "127.0.0.1:9\"]");
    commands.edit("admin = \"127.0.0.1:0\"", "admin = \"127.0.0.1:9\"");
    let mut command = commands.command("env acme --region eu --profile 42");
    let output = command.env_remove("CLIENT_SECRET").env_remove("ACME_REFRESH").output();
    let output = output.expect("it runs");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(err.contains("no adsproxy responds at 127.0.0.1:9"), "{err}");
    assert!(out.contains("export ADS_API_BASE_URL='http://127.0.0.1:9/a/acme@eu'\n"), "{out}");
    assert!(out.contains("export AD_API_PROFILE_ID='42'\n"), "{out}");
    let fish = commands.run("env acme --shell fish");
    assert!(fish.out.contains("set -gx ADSPROXY_ACCOUNT 'acme';\n"), "{}", fish.out);
    assert!(!fish.out.contains("AD_API_"), "{}", fish.out);
    let power = commands.run("env acme --shell powershell");
    assert!(power.out.contains("$Env:ADSPROXY_ACCOUNT = 'acme'\n"), "{}", power.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_a_socket_alone_has_no_base_url() {
    let amazon = amazon().await;
    let listen = Some("[\"unix:/tmp/adsproxy-test.sock\"]".to_owned());
    let commands = Commands::new(&amazon, &Setup { listen, ..Setup::default() });
    let said = commands.run("env acme");
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("listen.proxy"), "{said:?}");
}
