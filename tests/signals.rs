//! Signals: only those that ask a server to stop stop it; HUP reads the configuration again.

use crate::support::proxy::{Proxy, Setup, amazon, eventually};
use adsproxy::sandbox::{CLIENT_ID, CLIENT_SECRET};
use std::fs;
use tempfile::NamedTempFile;

#[tokio::test(flavor = "multi_thread")]
async fn signals_that_ask_for_nothing_end_no_server() {
    let amazon = amazon().await;
    let mut proxy = Proxy::start(&amazon);
    for name in ["HUP", "USR1", "USR2", "ALRM", "IO"] {
        proxy.signal(name);
    }
    eventually("the reload is logged", || proxy.log().contains("configuration reloaded")).await;
    assert_eq!(proxy.get("/a/acme/v2/profiles").await.status, 200);
    assert!(!proxy.has_ended());
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn hup_applies_the_log_filter_and_names_what_needs_a_restart() {
    let amazon = amazon().await;
    let toml = "[log]\nfilter = \"info\"\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let path = proxy.dir.path().join("proxy.toml");
    let before = fs::read_to_string(&path).expect("a configuration");
    let with = |filter: &str, more: &str| {
        let text = before.replace("filter = \"info\"", &format!("filter = \"{filter}\""));
        fs::write(&path, text + more).expect("written");
    };

    with("inof", "");
    proxy.signal("HUP");
    eventually("a wrong file changes nothing", || {
        let log = proxy.log();
        log.contains("configuration not reloaded") && log.contains("`info`?")
    })
    .await;

    with("debug", "[token]\nwaiters_max = 7\n");
    proxy.signal("HUP");
    eventually("the change is named", || {
        let log = proxy.log();
        log.contains(r#""applied":"log.filter""#)
            && log.contains(r#""changed":"token.waiters_max""#)
    })
    .await;
    assert_eq!(proxy.get("/a/acme/v2/profiles").await.status, 200);
    eventually("debug lines", || proxy.log().contains(r#""level":"DEBUG""#)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hup_takes_over_a_rotated_client_secret() {
    let amazon = amazon().await;
    let file = NamedTempFile::new().expect("a private file");
    fs::write(file.path(), CLIENT_SECRET).expect("written");
    let name = "ADSPROXY_LWA__CLIENT_SECRET_FILE".to_owned();
    let env = vec![(name, file.path().display().to_string())];
    let proxy = Proxy::with(&amazon, Setup { env, ..Setup::default() });
    assert_eq!(proxy.get("/a/acme/v2/profiles").await.status, 200);

    amazon.state().lwa.add_application(CLIENT_ID, &["amzn1.oa2-cs.v1.rotated"]);
    fs::write(file.path(), "amzn1.oa2-cs.v1.rotated").expect("written");
    proxy.signal("HUP");
    eventually("the secret is applied", || {
        proxy.log().contains(r#""applied":"lwa.client_secret""#)
    })
    .await;
    assert!(!proxy.log().contains("restart to apply"), "{}", proxy.log());
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/a/acme/v2/profiles").await.status, 200, "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_became_a_pipe_holds_up_neither_the_reload_nor_the_stop() {
    let amazon = amazon().await;
    let file = NamedTempFile::new().expect("a private file");
    fs::write(file.path(), CLIENT_SECRET).expect("written");
    let name = "ADSPROXY_LWA__CLIENT_SECRET_FILE".to_owned();
    let env = vec![(name, file.path().display().to_string())];
    let mut proxy = Proxy::with(&amazon, Setup { env, ..Setup::default() });
    fs::remove_file(file.path()).expect("removed");
    let owner_only = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, file.path(), owner_only).expect("a pipe");
    proxy.signal("HUP");
    eventually("it is refused", || {
        let log = proxy.log();
        log.contains("configuration not reloaded") && log.contains("is not a file")
    })
    .await;
    assert_eq!(proxy.get("/a/acme/v2/profiles").await.status, 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_and_the_client_id_that_it_comes_with_are_taken_over_together() {
    let amazon = amazon().await;
    let file = NamedTempFile::new().expect("a private file");
    fs::write(file.path(), CLIENT_SECRET).expect("written");
    let name = "ADSPROXY_LWA__CLIENT_SECRET_FILE".to_owned();
    let env = vec![(name, file.path().display().to_string())];
    let proxy = Proxy::with(&amazon, Setup { env, ..Setup::default() });
    let path = proxy.dir.path().join("proxy.toml");
    let before = fs::read_to_string(&path).expect("a configuration");
    assert!(before.contains(CLIENT_ID), "{before}");
    fs::write(&path, before.replace(CLIENT_ID, "amzn1.application-oa2-client.new"))
        .expect("written");
    fs::write(file.path(), "amzn1.oa2-cs.v1.new").expect("written");
    proxy.signal("HUP");
    eventually("both are named", || {
        proxy.log().contains(r#""applied":"lwa.client_id, lwa.client_secret""#)
    })
    .await;
    assert!(!proxy.log().contains("restart to apply"), "{}", proxy.log());
}
