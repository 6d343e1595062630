//! The configuration as a user meets it: `adsproxy check-config`.

use crate::support::program::{Home, Said, said};

const LWA: &str = "\
[lwa]
client_id = \"amzn1.application-oa2-client.test\"
client_secret = { env = \"TEST_SECRET\" }
";

const MEMORY: &str = "[store]\nkind = \"memory\"\n";

/// Checks `text` with the secret it needs and `variables`.
fn check(text: &str, variables: &[(&str, &str)]) -> Said {
    let home = Home::new();
    home.write("proxy.toml", text, 0o644);
    said(
        home.command("check-config --print-effective")
            .env("TEST_SECRET", "CANARY-secret")
            .envs(variables.iter().copied()),
    )
}

fn refused(text: &str) -> String {
    let said = check(text, &[]);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(said.out.is_empty() && !said.err.contains("CANARY"), "{said:?}");
    said.err
}

#[test]
fn a_good_file_is_accepted_in_few_words() {
    let home = Home::new();
    home.write("proxy.toml", &format!("{LWA}{MEMORY}"), 0o644);
    let said = said(home.command("check-config").env("TEST_SECRET", "x"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.out, "./proxy.toml: no mistakes found (1 application and 0 accounts)\n");
}

/// Its twin, a pipe with a name, is refused: nothing says when another program opens it.
#[test]
fn a_pipe_on_standard_input_is_read() {
    let file = format!("{LWA}{MEMORY}").replace("TEST_SECRET", "HOME");
    let said = Home::new().run_with_input("check-config --config /dev/stdin", &file);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with("/dev/stdin: no mistakes found"), "{said:?}");
}

#[test]
fn all_mistakes_are_shown_at_once_with_line_and_column() {
    let error = refused(
        "[listen]\nadmn = \"127.0.0.1:1\"\n[lwa]\nclient_id = 5\n[accounts.acme]\nregion = \"xx\"\n\
         [token]\nlwa_attempts_max = 0\n[store]\nkind = \"memory\"\n",
    );
    for part in [
        "5 errors in the configuration",
        "./proxy.toml:2:1: unknown key `listen.admn`",
        "2 | admn = \"127.0.0.1:1\"\n  | ^^^^\n  = did you mean `listen.admin`?",
        "./proxy.toml:3:2: lwa.client_secret: is missing",
        "./proxy.toml:4:13: lwa.client_id: expected a string",
        "./proxy.toml:6:10: accounts.acme.region",
        "./proxy.toml:8:20: token.lwa_attempts_max: 0 is not between 1 and 100",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
}

#[test]
fn secrets_are_masked_in_what_is_printed() {
    let said = check(
        &format!(
            "{LWA}{MEMORY}[accounts.acme]\nregion = \"na\"\nrefresh_token = {{ env = \"T\" }}\n"
        ),
        &[("T", "CANARY-token"), ("ADSPROXY_ENCRYPTION__KEYS", &"A".repeat(43))],
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!said.out.contains("CANARY") && !said.out.contains("AAAA"), "{said:?}");
    assert_eq!(said.out.matches("\"***\"").count(), 3, "{said:?}");
    assert!(said.out.contains("response_header_timeout_secs = 75\n"), "{said:?}");
}

#[test]
fn an_inline_secret_is_refused_and_not_shown() {
    let error = refused(&LWA.replace("{ env = \"TEST_SECRET\" }", "\"CANARY\""));
    assert!(error.contains("write a reference such as { env = \"NAME\" }"), "{error}");
    assert!(error.contains("client_secret = ***"), "{error}");
}

#[test]
fn variables_beat_the_file_and_flags_beat_variables() {
    let home = Home::new();
    home.write(
        "proxy.toml",
        &format!("{LWA}{MEMORY}[log]\nformat = \"text\"\naccess = true\n"),
        0o644,
    )
    .write("secret", "CANARY", 0o600);
    let said = said(
        home.command("check-config --print-effective --log-format json")
            .env("ADSPROXY_LWA__CLIENT_SECRET_FILE", home.path("secret"))
            .env("ADSPROXY_LOG__ACCESS", "false")
            .env("ADSPROXY_LISTEN__PROXY", "127.0.0.1:1,unix:/run/a")
            .env("ADSPROXY_LOG__FORMAT", "text"),
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    for line in
        ["format = \"json\"", "access = false", "proxy = [\"127.0.0.1:1\", \"unix:/run/a\"]"]
    {
        assert!(said.out.contains(line), "{said:?}");
    }
}

#[test]
fn a_misspelt_variable_is_named_with_the_right_one() {
    let said = check(&format!("{LWA}{MEMORY}"), &[("ADSPROXY_LIMITS__HEADER_MAX", "1")]);
    assert_eq!(said.code, Some(78));
    assert!(said.err.contains("did you mean ADSPROXY_LIMITS__HEADER"), "{said:?}");
}

#[test]
fn a_filter_that_would_silence_the_log_is_refused_wherever_it_comes_from() {
    let error = refused(&format!("{LWA}{MEMORY}[log]\nfilter = \"inof\"\n"));
    assert!(error.contains(":7:10: log.filter: ") && error.contains("`info`?"), "{error}");
    for name in ["ADSPROXY_LOG", "ADSPROXY_LOG__FILTER"] {
        let said = check(&format!("{LWA}{MEMORY}"), &[(name, "inof")]);
        assert!(said.code == Some(78) && said.err.contains("`info`?"), "{said:?}");
        assert!(said.err.contains(&format!("environment variable {name}: log.filter")), "{said:?}");
        let said = check(&format!("{LWA}{MEMORY}"), &[(name, "warn,adsproxy::token=debug")]);
        assert!(said.out.contains("filter = \"warn,adsproxy::token=debug\""), "{said:?}");
    }
}

#[test]
fn a_variable_that_means_nothing_is_a_warning() {
    let home = Home::new();
    home.write("proxy.toml", &format!("{LWA}{MEMORY}"), 0o644);
    let check =
        |name: &str| said(home.command("check-config").env("TEST_SECRET", "x").env(name, "x")).err;
    for name in ["ADSPROXY_LISTEN", "ADSPROXY_LOG_FILTER", "ADSPROXY_CONFIGURATION"] {
        let warned = check(name);
        assert!(warned.contains(&format!("{name} is unknown and not used")), "{warned}");
    }
    // Kubernetes sets them for a service called adsproxy.
    for name in ["ADSPROXY_SERVICE_HOST", "ADSPROXY_PORT_8787_TCP", "ADSPROXY_EVENT"] {
        assert_eq!(check(name), "", "{name}");
    }
}

#[test]
fn the_environment_alone_is_enough() {
    let variables = [
        ("AMAZON_CLIENT_ID", "amzn1.application-oa2-client.test"),
        ("AMAZON_CLIENT_SECRET", "CANARY"),
        ("ADSPROXY_STORE__KIND", "memory"),
        ("ADSPROXY_ACCOUNTS__ACME__REGION", "eu"),
        ("ADSPROXY_ACCOUNTS__ACME__REFRESH_TOKEN", "Atzr|CANARY"),
    ];
    let said = said(Home::new().command("check-config").envs(variables));
    assert_eq!(said.out, "the environment: no mistakes found (1 application and 1 account)\n");
}

#[test]
fn a_listener_beyond_loopback_is_refused_with_the_lines_that_permit_it() {
    for listen in ["proxy = [\"0.0.0.0:8787\"]", "admin = \"[::]:8788\""] {
        let text = format!("{LWA}{MEMORY}[listen]\n{listen}\n");
        let error = refused(&text);
        let lines =
            "[listen]\n    unsafe_allow_unauthenticated = true\n    [guard]\n    allowed_hosts = [";
        assert!(error.contains(lines), "{error}");
        let permitted = format!("{text}unsafe_allow_unauthenticated = true\n");
        assert_eq!(check(&permitted, &[]).code, Some(0));
    }
}

#[test]
fn a_key_that_everybody_can_read_is_refused() {
    let text =
        format!("{LWA}[encryption]\nkeys = [{{ id = \"a\", secret = {{ file = \"~/key\" }} }}]\n");
    for (mode, code) in [(0o600, 0), (0o440, 0), (0o644, 78), (0o604, 78)] {
        let home = Home::new();
        home.write("proxy.toml", &text, 0o644).write("key", &"A".repeat(43), mode);
        let said = said(home.command("check-config").env("TEST_SECRET", "x"));
        assert_eq!(said.code, Some(code), "{mode:o} {said:?}");
        assert_eq!(said.err.contains("chmod 600"), code == 78, "{said:?}");
        assert!(!said.err.contains("AAAA"));
    }
}

#[test]
fn a_return_address_that_is_another_page_is_a_warning() {
    for (path, warnings) in [("/status", 1), ("/", 1), ("/api/callback", 1), ("/connected", 0)] {
        let uri = format!("redirect_uri = \"http://localhost:8788{path}\"\n");
        let home = Home::new();
        home.write(
            "proxy.toml",
            &format!("{}{uri}{MEMORY}", LWA.replace("env = \"TEST_SECRET\"", "file = \"~/s\"")),
            0o600,
        )
        .write("s", "secret", 0o600);
        let said = home.run("check-config");
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(said.err.matches("no login comes back").count(), warnings, "{path}: {said:?}");
    }
}

#[test]
fn other_secrets_that_everybody_can_read_are_a_warning() {
    let lwa = LWA.replace("env = \"TEST_SECRET\"", "file = \"~/client\"");
    let tls = "[listen.tls]\ncert_file = \"/dev/null\"\nkey_file = \"tls.key\"\n";
    let acme = "[accounts.acme]\nregion = \"na\"\nrefresh_token = { file = \"token\" }\n";
    for (mode, warnings) in [(0o600, 0), (0o440, 0), (0o644, 3), (0o604, 3)] {
        let home = Home::new();
        home.write("proxy.toml", &format!("{lwa}{MEMORY}{tls}{acme}"), 0o644)
            .write("client", "CANARY", mode)
            .write("token", "Atzr|CANARY", mode)
            .write("tls.key", "CANARY", mode);
        let said = home.run("check-config");
        assert_eq!(said.code, Some(0), "{mode:o} {said:?}");
        assert!(said.out.contains("no mistakes found"), "{said:?}");
        assert_eq!(said.err.matches("warning: ./proxy.toml:").count(), warnings, "{said:?}");
        assert_eq!(said.err.matches("chmod 600").count() > 0, warnings > 0, "{said:?}");
        assert!(!said.err.contains("CANARY"), "{said:?}");
        // A program that reads the values is not disturbed.
        let effective = home.run("check-config --print-effective");
        assert!(!effective.out.contains("warning"), "{effective:?}");
    }
}

#[test]
fn a_file_store_without_a_key_says_how_to_make_one() {
    let error = refused(LWA);
    assert!(error.contains("run `adsproxy key init`"), "{error}");
}

#[test]
fn stores_that_do_not_exist_are_refused_by_name() {
    let error = refused(&format!("{LWA}{}", MEMORY.replace("memory", "redis")));
    assert!(
        error.contains("none of \"memory\", \"file\", \"keyring\" and \"postgres\""),
        "{error}"
    );
}

#[test]
fn a_store_in_the_keyring_needs_a_key_or_the_feature() {
    let error = refused(&format!("{LWA}{}", MEMORY.replace("memory", "keyring")));
    let expected = match cfg!(feature = "keyring") {
        true => "run `adsproxy key init --keyring`",
        false => "built without the feature \"keyring\"",
    };
    assert!(error.contains(expected), "{error}");
}

#[test]
fn files_are_looked_for_in_the_documented_order() {
    let home = Home::new();
    let named = |kind: &str| format!("{LWA}{MEMORY}[log]\nfilter = \"{kind}\"\n");
    let effective = |arguments: &str, variables: &[(&str, &str)]| {
        let mut command = home.command(&format!("check-config --print-effective {arguments}"));
        command.env_remove("ADSPROXY_CONFIG");
        let said = said(command.env("TEST_SECRET", "x").envs(variables.iter().copied()));
        let filter = said.out.split_once("filter = \"").map(|(_, rest)| rest.to_owned());
        filter.and_then(|rest| Some(rest.split_once('"')?.0.to_owned())).unwrap_or(said.err)
    };
    home.write(".config/adsproxy/proxy.toml", &named("error"), 0o644);
    assert_eq!(effective("", &[]), "error");
    home.write("xdg/adsproxy/proxy.toml", &named("warn"), 0o644);
    assert_eq!(effective("", &[("XDG_CONFIG_HOME", "xdg")]), "warn");
    home.write("proxy.toml", &named("off"), 0o644);
    assert_eq!(effective("", &[]), "error", "the current directory is not searched");
    home.write("env.toml", &named("debug"), 0o644);
    assert_eq!(effective("", &[("ADSPROXY_CONFIG", "env.toml")]), "debug");
    home.write("flag.toml", &named("trace"), 0o644);
    assert_eq!(effective("--config flag.toml", &[("ADSPROXY_CONFIG", "env.toml")]), "trace");
    let missing = effective("--config none.toml", &[]);
    assert!(missing.contains("cannot read the configuration file none.toml"), "{missing}");
}

#[test]
fn the_example_as_it_stands_lacks_only_what_has_no_default() {
    let error = refused(include_str!("../proxy.example.toml"));
    for part in [
        "3 errors in the configuration",
        "lwa.client_id: is missing",
        "lwa.client_secret: is missing",
        "encryption.keys: is empty",
        " | [lwa]\n",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
}

#[test]
fn an_encryption_key_that_is_not_there_yet_can_be_made() {
    let text =
        format!("{LWA}[encryption]\nkeys = [{{ id = \"a\", secret = {{ file = \"~/key\" }} }}]\n");
    assert!(refused(&text).contains("`adsproxy key init` makes a key"));
    let lwa = LWA.replace("env = \"TEST_SECRET\"", "file = \"nowhere\"");
    let error = refused(&format!("{lwa}{MEMORY}"));
    assert!(!error.contains("makes a key"), "{error}");
}

#[test]
fn the_example_is_accepted_once_it_has_what_has_no_default() {
    let home = Home::new();
    let example = include_str!("../proxy.example.toml")
        .replacen("# client_id = ", "client_id = ", 1)
        .replacen("# client_secret = ", "client_secret = ", 1)
        .replacen("# keys = ", "keys = ", 1)
        .replace("# [accounts.acme]", "[accounts.acme]")
        .replace("# region = ", "region = ");
    home.write("proxy.toml", &example, 0o644).write(".config/adsproxy/key", &"A".repeat(43), 0o600);
    let said = said(home.command("check-config").env("AMAZON_CLIENT_SECRET", "x"));
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn callers_that_need_not_say_who_they_are_are_a_warning_until_that_is_decided() {
    let caller = "[[callers]]\nname = \"job\"\nunix_uids = [1000]\n";
    let beyond = "[listen]\nproxy = [\"0.0.0.0:8787\"]\n";
    for (toml, warnings) in [
        (caller.to_owned(), 1),
        (String::new(), 0),
        (format!("[auth]\nrequired = true\n{caller}"), 0),
        (format!("[auth]\nrequired = false\n{caller}"), 0),
        (format!("{beyond}{caller}"), 0),
    ] {
        let home = Home::new();
        home.write("proxy.toml", &format!("{LWA}{MEMORY}{toml}"), 0o600);
        let said = said(home.command("check-config").env("TEST_SECRET", "x"));
        assert_eq!(said.code, Some(0), "{toml}: {said:?}");
        assert_eq!(said.err.matches("sends no credential").count(), warnings, "{toml}: {said:?}");
    }
}
