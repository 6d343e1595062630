//! Where the configuration comes from, and what is made of it. What the other files need, too.

#[path = "load_dashboard_tests.rs"]
mod dashboard;
#[path = "load_mistakes_tests.rs"]
mod mistakes;
#[path = "load_secrets_tests.rs"]
mod secrets;
#[path = "load_values_tests.rs"]
mod values;
#[path = "load_variables_tests.rs"]
mod variables;

use super::*;
use crate::{
    config::{ListenAddress, StoreKind, admin_text},
    id::Region,
};
use std::fs;

/// Enough for a configuration without errors.
const MINIMAL: &str = "\
[lwa]
client_id = \"amzn1.application-oa2-client.test\"
client_secret = { env = \"TEST_SECRET\" }
[store]
kind = \"memory\"
[accounts.acme]
region = \"na\"
refresh_token = { env = \"TEST_TOKEN\" }
";

const SECRETS: [(&str, &str); 2] =
    [("TEST_SECRET", "CANARY-secret"), ("TEST_TOKEN", "CANARY-token")];

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    fs::write(&path, text).unwrap();
    load(&Options { path: Some(path), environment: environment(variables), overrides: Vec::new() })
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let all = SECRETS.iter().chain(variables).map(|&(k, v)| (k.to_owned(), v.to_owned()));
    all.collect()
}

/// The errors in `text`, with the directory of the file taken out of them.
fn errors(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match load_with(text, variables) {
        Ok(_) => Vec::new(),
        Err(LoadError::Invalid(problems)) => problems
            .iter()
            .map(|problem| {
                let text = problem.to_string();
                text.find("p.toml").map_or(text.clone(), |at| text[at..].to_owned())
            })
            .collect(),
        Err(other) => panic!("{other}"),
    }
}

/// The one error in `MINIMAL` with `more` behind it.
fn error(more: &str) -> String {
    let found = errors(&format!("{MINIMAL}{more}"), &[]);
    let [error] = &found[..] else { panic!("{found:#?}") };
    error.clone()
}

#[test]
fn minimal_file_is_enough_and_the_rest_is_default() {
    let loaded = load_with(MINIMAL, &[]).unwrap();
    let config = loaded.config;
    assert_eq!(config.listen.proxy[0], ListenAddress::Tcp("127.0.0.1:8787".parse().unwrap()));
    assert_eq!(admin_text(&config.listen.admin), "127.0.0.1:8788");
    assert!(config.proxy.workers >= 1);
    assert_eq!(config.store.kind, StoreKind::Memory);
    let lwa = &config.applications["default"];
    assert_eq!(lwa.client_secrets[0].expose(), "CANARY-secret");
    assert_eq!(lwa.fallback_token_urls.len(), 2);
    assert_eq!(*config.upstream.api()[2], "https://advertising-api-fe.amazon.com");
    assert_eq!(config.upstream.mcp()[0].host(), Some("advertising-ai.amazon.com"));
    let acme = &config.accounts["acme"];
    assert_eq!((acme.region, acme.application.as_str()), (Region::Na, "default"));
    assert_eq!(acme.refresh_token.as_ref().unwrap().expose(), "CANARY-token");
    assert!(config.source.is_some());
}

#[test]
fn no_configuration_anywhere_lists_where_it_was_looked_for() {
    let environment = environment(&[("HOME", "/home/nobody-here")]);
    let Err(LoadError::NotFound { searched }) =
        load(&Options { environment, ..Options::default() })
    else {
        panic!()
    };
    let searched: Vec<_> = searched.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(
        searched,
        ["/home/nobody-here/.config/adsproxy/proxy.toml", "/etc/adsproxy/proxy.toml"],
    );
}

#[test]
fn a_named_file_must_be_there() {
    let options = Options { path: Some("/none/p.toml".into()), ..Options::default() };
    assert!(matches!(load(&options), Err(LoadError::Unreadable { .. })));
    let environment = environment(&[("ADSPROXY_CONFIG", "/none/p.toml")]);
    let options = Options { environment, ..Options::default() };
    assert!(matches!(load(&options), Err(LoadError::Unreadable { .. })));
}

#[test]
fn effective_values_are_complete_and_masked_and_load_again() {
    let loaded = load_with(MINIMAL, &[("ADSPROXY_PROXY__WORKERS", "2")]).unwrap();
    let text = &loaded.effective;
    assert!(!text.contains("CANARY"), "{text}");
    for line in [
        "workers = 2",
        "client_secret = \"***\"",
        "refresh_token = \"***\"",
        "kind = \"memory\"",
        "region = \"na\"",
        "idle_timeout_secs = 75",
        "fallback_token_urls = [",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let text = text
        .replace("client_secret = \"***\"", "client_secret = { env = \"TEST_SECRET\" }")
        .replace("refresh_token = \"***\"", "refresh_token = { env = \"TEST_TOKEN\" }");
    let again = load_with(&text, &[]).unwrap();
    assert_eq!(again.effective, loaded.effective);
}

#[test]
fn addresses_are_read_without_the_secrets() {
    let text =
        "[listen]\nadmin = \"127.0.0.1:9\"\n[lwa]\nclient_secret = { env = \"NONE\" }\nx = 1\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    let asked = |text: &str| {
        fs::write(&path, text).unwrap();
        addresses(&Options { path: Some(path.clone()), ..Options::default() })
    };
    let found = asked(text).unwrap().listen;
    assert_eq!((admin_text(&found.admin).as_str(), found.health), ("127.0.0.1:9", None));
    for wrong in [
        "[listen]\nadmin = \"x\"\n",
        "[listen]\nadmin = 1\n",
        "[listen]\nadmni = 1\n",
        "[listne]\nadmin = \"127.0.0.1:9\"\n",
        "[",
    ] {
        match asked(wrong) {
            Err(LoadError::Invalid(problems)) => assert!(!problems.is_empty(), "{wrong}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn addresses_without_any_configuration_are_the_defaults() {
    let found = addresses(&Options::default()).unwrap().listen;
    assert_eq!((admin_text(&found.admin).as_str(), found.health), ("127.0.0.1:8788", None));
}

#[test]
fn a_pipe_with_a_name_is_refused_without_waiting_and_a_symlink_to_a_file_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let [pipe, file, link] = ["pipe", "file", "link"].map(|name| directory.path().join(name));
    let asked = |path: &PathBuf| {
        let options =
            Options { path: Some(path.clone()), environment: environment(&[]), ..<_>::default() };
        let (done, loaded) = std::sync::mpsc::channel();
        std::thread::spawn(move || drop(done.send(Box::new(load(&options)))));
        *loaded.recv_timeout(std::time::Duration::from_secs(20)).expect("it waits for the pipe")
    };
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
    for path in [&pipe, &directory.path().to_owned()] {
        match asked(path) {
            Err(LoadError::Unreadable { source, .. }) => {
                assert!(source.to_string().contains("no regular file"), "{source}");
            }
            other => panic!("{other:?}"),
        }
    }
    fs::write(&file, MINIMAL).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(asked(&link).unwrap().config.source, Some(link));
}
