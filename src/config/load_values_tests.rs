//! What the keys of listeners, guard, hosts, accounts, store and audit log accept.

use super::*;

#[test]
fn listeners_beyond_loopback_need_permission() {
    for (key, value) in [
        ("admin", "\"0.0.0.0:8788\""),
        ("proxy", "[\"10.1.2.3:80\"]"),
        ("proxy", "[\"127.0.0.1:1\", \"[::]:8787\"]"),
    ] {
        let text = error(&format!("[listen]\n{key} = {value}\n"));
        for line in ["[listen]\n", "unsafe_allow_unauthenticated = true\n", "[guard]\n"] {
            assert!(text.contains(line), "{text}");
        }
        let allowed = format!("[listen]\n{key} = {value}\nunsafe_allow_unauthenticated = true\n");
        assert!(load_with(&format!("{MINIMAL}{allowed}"), &[]).is_ok());
    }
}

#[test]
fn an_admin_listener_that_other_machines_reach_is_warned_of_where_it_takes_keys() {
    let warnings = |listen: &str, who: &str| {
        let text = format!("{MINIMAL}[listen]\n{listen}\n{who}");
        let warnings = load_with(&text, &[]).unwrap().warnings.into_iter().map(|it| it.message);
        warnings.filter(|text| text.contains("in clear")).collect::<Vec<_>>()
    };
    let caller = "[[callers]]\nname = \"ops\"\nunix_uids = [1]\noperator = true\n";
    for admin in ["0.0.0.0:8788", "[::]:8788", "10.1.2.3:8788"] {
        let found = warnings(&format!("admin = \"{admin}\""), caller);
        let [text] = &found[..] else { panic!("{admin}: {found:?}") };
        for part in [admin, "listen.tls is for listen.proxy only", "reverse proxy that ends TLS"] {
            assert!(text.contains(part), "{text}");
        }
    }
    for admin in ["127.0.0.1:8788", "[::1]:0", "unix:/run/admin.sock", "off"] {
        assert_eq!(warnings(&format!("admin = \"{admin}\""), caller), [""; 0], "{admin}");
    }
    // The twin: without callers there are no keys, and another warning says what is wrong.
    let open = "admin = \"0.0.0.0:8788\"\nunsafe_allow_unauthenticated = true";
    assert_eq!(warnings(open, ""), [""; 0]);
}

#[test]
fn loopback_unix_and_health_listeners_need_none() {
    let listen = "[listen]\nproxy = [\"127.9.9.9:0\", \"[::1]:0\", \"[::ffff:127.0.0.1]:0\", \"unix:/run/a.sock\"]\n\
                  admin = \"[::1]:0\"\nhealth = \"0.0.0.0:0\"\n";
    let config = load_with(&format!("{MINIMAL}{listen}"), &[]).unwrap().config;
    assert_eq!(config.listen.proxy[3], ListenAddress::Unix("/run/a.sock".into()));
}

#[test]
fn hosts_and_origins_are_compared_whole_so_patterns_are_refused() {
    for (wrong, part) in [
        ("allowed_hosts = [\"*.example.com\"]", "no patterns, list every host"),
        ("allowed_hosts = [\"https://a.example\"]", "without scheme"),
        ("allowed_origins = [\"https://*.example.com\"]", "a pattern: list every origin"),
        ("allowed_origins = [\"app.example.com\"]", "no origin such as"),
        ("allowed_origins = [\"null\"]", "no origin such as"),
        ("allowed_origins = [\"https://a.example/\"]", "without a path"),
        ("allowed_origins = [\"https://me@a.example\"]", "without a path"),
    ] {
        let text = error(&format!("[guard]\n{wrong}\n"));
        assert!(text.contains(part), "{text}");
    }
    let good =
        "[guard]\nallowed_origins = [\"https://App.example.com:443\", \"http://[::1]:3000\"]\n";
    let config = load_with(&format!("{MINIMAL}{good}"), &[]).unwrap().config;
    assert_eq!(config.guard.allowed_origins, ["https://app.example.com", "http://[::1]:3000"]);
}

#[test]
fn a_port_may_be_that_of_the_platform_and_a_socket_that_of_the_service_manager() {
    let listen = "[listen]\nproxy = [\"127.0.0.1:$PORT\", \"systemd:web\"]\nadmin = \"systemd:a b\"\n\
                  health = \"[::]:$PORT\"\npublic = \"systemd:pages\"\n";
    let load = |environment: &[(&str, &str)]| load_with(&format!("{MINIMAL}{listen}"), environment);
    let config = load(&[("PORT", "4711")]).unwrap().config.listen;
    let proxy: Vec<String> = config.proxy.iter().map(ListenAddress::to_string).collect();
    assert_eq!(proxy, ["127.0.0.1:4711", "systemd:web"]);
    assert_eq!(config.admin, Some(ListenAddress::Inherited("a b".into())));
    assert_eq!(config.health, Some(ListenAddress::Tcp("[::]:4711".parse().unwrap())));
    assert_eq!(config.public, Some(ListenAddress::Inherited("pages".into())));
    let text = load(&[]).unwrap_err().to_string();
    assert!(text.contains("the environment variable PORT is not set"), "{text}");
    assert!(load(&[("PORT", "web")]).is_err() && load(&[("PORT", "")]).is_err());
    for wrong in ["systemd:", "systemd:a:b", "systemd:\\u0007", "127.0.0.1:$PORTS"] {
        assert!(!error(&format!("[listen]\nproxy = [\"{wrong}\"]\n")).is_empty(), "{wrong}");
    }
    assert!(!error("[listen]\nhealth = \"unix:/run/health\"\n").is_empty());
}

#[test]
fn localhost_is_both_loopback_addresses() {
    let tcp = |text: &str| ListenAddress::Tcp(text.parse().unwrap());
    let ipv6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
    let listen = |text: &str| load_with(&format!("{MINIMAL}{text}"), &[]).unwrap().config.listen;
    let proxy = listen("[listen]\nproxy = [\"localhost:9999\", \"127.0.0.1:1\"]\n").proxy;
    let second = ipv6.then(|| tcp("[::1]:9999"));
    let expected = [tcp("127.0.0.1:9999")].into_iter().chain(second).chain([tcp("127.0.0.1:1")]);
    assert!(proxy.iter().cloned().eq(expected), "{proxy:?}");
    assert_eq!(listen("").proxy.len(), 1 + usize::from(ipv6), "so is the default");
    assert_eq!(listen("[listen]\nproxy = [\"localhost:0\"]\n").proxy, [tcp("127.0.0.1:0")]);
    assert_eq!(admin_text(&listen("[listen]\nadmin = \"localhost:8\"\n").admin), "127.0.0.1:8");
}

#[test]
fn wrong_listeners_are_named() {
    for (wrong, part) in [
        ("proxy = [\"localhost\"]", "is no address such as"),
        ("proxy = []", "at least one"),
        ("proxy = [\"unix:a.sock\"]", "must begin with /"),
        ("proxy = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "listed twice"),
        ("admin = \"127.0.0.1:8787\"", "address of listen.proxy too"),
        ("health = \"127.0.0.1:8788\"", "address of listen.admin too"),
        ("tls = { cert_file = \"/dev/null\" }", "listen.tls.key_file: is missing"),
        ("tls = { cert_file = \"/none\", key_file = \"/dev/null\" }", "cannot read /none"),
        (
            "tls = { cert_file = \"/dev/null\", key_file = \"/dev/null\", client_ca_file = \"/none\" }",
            "client_ca_file: cannot read /none",
        ),
        (
            "tls = { cert_file = \"/dev/null\", key_file = \"/dev/null\", client_auth = \"required\" }",
            "needs listen.tls.client_ca_file",
        ),
        (
            "tls = { cert_file = \"/dev/null\", key_file = \"/dev/null\", client_auth = \"always\" }",
            "neither \"optional\" nor \"required\"",
        ),
    ] {
        let text = error(&format!("[listen]\n{wrong}\n"));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn urls_are_https_or_local() {
    for good in
        ["https://a.example:8443", "http://localhost:1", "http://127.0.0.2", "http://[::1]:9/"]
    {
        assert!(
            load_with(&format!("{MINIMAL}[upstream]\neu = \"{good}\"\n"), &[]).is_ok(),
            "{good}"
        );
    }
    for (bad, part) in [
        ("http://a.example", "https://"),
        ("http://localhost.evil.example", "https://"),
        ("ftp://localhost", "https://"),
        ("advertising-api.amazon.com", "https://"),
        ("/path", "https://"),
        ("", "is no URL"),
        ("https://me@a.example", "user name"),
        ("https://a.example/path", "must not have a path"),
        ("https://a.example/?q", "must not have a path"),
        ("https://a.example/#f", "fragment"),
    ] {
        let text = error(&format!("[upstream]\neu = \"{bad}\"\n"));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn accounts_refer_to_applications_that_exist() {
    let text = error("[accounts.b]\nregion = \"eu\"\napplication = \"agency\"\n");
    assert!(text.contains("no application \"agency\"; configured: default"), "{text}");
    let only_named = MINIMAL
        .replace("[lwa]", "[applications.agency]")
        .replace("region = \"na\"", "region = \"na\"\napplication = \"agency\"");
    assert_eq!(load_with(&only_named, &[]).unwrap().config.accounts["acme"].application, "agency");
    let found = errors("[store]\nkind = \"memory\"\n", &[]);
    assert!(found[0].contains("there is no LWA application"), "{found:?}");
}

#[test]
fn default_headers_are_checked() {
    let config = load_with(
        &MINIMAL.replace("region", "headers = { \"Amazon-Advertising-API-Scope\" = 123 }\nregion"),
        &[],
    );
    let headers = config.unwrap().config.accounts["acme"].headers.clone();
    assert_eq!(headers[0].0, "amazon-advertising-api-scope");
    assert_eq!(headers[0].1, "123");
    for (wrong, part) in [
        ("\"authorization\" = \"x\"", "adsproxy itself"),
        ("\"Amazon_Ads_ClientId\" = \"x\"", "adsproxy itself"),
        ("\"X-Ads-Region\" = \"eu\"", "adsproxy itself"),
        ("\"a b\" = \"x\"", "no header name"),
        ("\"a\" = \"\"", "visible ASCII"),
        ("\"a\" = \"x\\ny\"", "visible ASCII"),
        ("\"a\" = \"x\", \"A\" = \"y\"", "twice"),
    ] {
        let text = error(&format!("[accounts.b]\nregion = \"na\"\nheaders = {{ {wrong} }}\n"));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn store_kinds_that_do_not_exist_are_refused() {
    let found = errors(&MINIMAL.replace("memory", "redis"), &[]);
    let part = "none of \"memory\", \"file\", \"keyring\" and \"postgres\"";
    assert!(found[0].contains(part), "{found:?}");
}

#[cfg(feature = "postgres")]
#[test]
fn a_database_is_named_by_the_file_or_else_by_the_usual_variable_and_never_shown() {
    let key = ("ADSPROXY_ENCRYPTION__KEYS", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let stored = MINIMAL.replace("memory", "postgres");
    let found = errors(&stored, &[key]);
    assert!(found[0].contains("store.url") && found[0].contains("is missing"), "{found:?}");
    let usual = ("DATABASE_URL", "postgres://u:CANARY@localhost/usual");
    let other = ("OTHER_URL", "postgres://u:CANARY@localhost/other");
    let named = stored.replace("\"postgres\"", "\"postgres\"\nurl = { env = \"OTHER_URL\" }");
    for (text, database) in [(&stored, "/usual"), (&named, "/other")] {
        let config = load_with(text, &[key, usual, other]).unwrap().config;
        let url = config.store.url.as_ref().expect("named");
        assert!(url.expose().ends_with(database));
        assert!(!format!("{config:?}").contains("CANARY"));
        assert_eq!(config.store.directory(), None);
        assert_eq!(config.audit.path, None, "there is no directory for it");
    }
    let file = load_with(&MINIMAL.replace("\"memory\"", "\"file\"\npath = \"/s\""), &[key, usual])
        .unwrap()
        .config;
    assert_eq!(file.store.url, None, "what a user does not use is not read");
}

#[test]
fn an_audit_log_has_a_place_a_key_and_files_of_some_size() {
    assert_eq!(load_with(MINIMAL, &[]).unwrap().config.audit.path, None);
    let key = [("ADSPROXY_ENCRYPTION__KEYS", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")];
    let stored = MINIMAL.replace("\"memory\"", "\"file\"\npath = \"/s\"");
    let audit = load_with(&stored, &key).unwrap().config.audit;
    assert_eq!(audit.path, Some("/s/audit.jsonl".into()));
    assert_eq!((audit.max_bytes, audit.keep), (16 << 20, 0));
    let elsewhere = format!("{MINIMAL}[audit]\npath = \"/a/log\"\n");
    assert_eq!(load_with(&elsewhere, &key).unwrap().config.audit.path, Some("/a/log".into()));

    assert!(error("[audit]\npath = \"/a/log\"\n").contains("encryption.keys, is missing"));
    assert!(error("[audit]\nmax_bytes = 100\n").contains("neither 0 nor at least 4096"));
    let with_key = |path: &str| errors(&format!("{MINIMAL}[audit]\npath = {path:?}\n"), &key);
    assert!(with_key("/a/log.head")[0].contains("must not end in .head"));
    assert!(with_key("/")[0].contains("does not name a file"));
    assert!(with_key("")[0].contains("is empty"));
}

#[test]
fn a_region_may_be_named_by_a_marketplace() {
    for (text, region) in [("US", Region::Na), ("DE", Region::Eu), ("jp", Region::Fe)] {
        let text = MINIMAL.replace("region = \"na\"", &format!("region = {text:?}"));
        assert_eq!(load_with(&text, &[]).expect("valid").config.accounts["acme"].region, region);
    }
}

#[test]
fn fallback_hosts_belong_to_amazons_endpoint_alone() {
    let hosts = |lwa: &str| {
        let text = MINIMAL.replace("[lwa]\n", &format!("[lwa]\n{lwa}\n"));
        let config = load_with(&text, &[]).unwrap().config;
        let hosts = config.applications["default"].fallback_token_urls.clone();
        hosts.iter().map(http::Uri::to_string).collect::<Vec<_>>()
    };
    assert_eq!(hosts(""), ads::FALLBACK_TOKEN_URLS);
    assert!(hosts("token_url = 'http://localhost:1/t'").is_empty());
    assert_eq!(hosts("fallback_token_urls = ['http://[::1]:1/t']"), ["http://[::1]:1/t"]);
}

#[test]
fn the_admin_listener_may_be_a_unix_socket_or_off() {
    let admin = |text: &str| {
        let text = format!("{MINIMAL}[listen]\nadmin = {text:?}\n");
        load_with(&text, &[("HOME", "/home/x")]).unwrap().config.listen.admin
    };
    assert_eq!(admin("unix:~/admin.sock"), Some(ListenAddress::Unix("/home/x/admin.sock".into())));
    assert_eq!(admin("off"), None);
    for (wrong, part) in [
        (
            "admin = \"on\"",
            "is no address such as localhost:8787, [::]:8787, unix:/path, systemd:NAME or \"off\"",
        ),
        ("admin = \"unix:a\"", "must begin with /"),
        ("admin = \"unix:/a\"\nproxy = [\"unix:/a\"]", "address of listen.proxy too"),
    ] {
        let text = error(&format!("[listen]\n{wrong}\n"));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn mcp_rules_of_callers_are_globs_over_tools_and_pins_to_one_account() {
    let caller = "[[callers]]\nname = \"agent\"\nunix_uids = [1000]\n";
    for (wrong, part) in [
        ("mcp = {}", "pins nothing: give a profile, an account or a manager"),
        ("mcp = { profile = \"1 2\" }", "is no id"),
        ("mcp = { profile = \"\" }", "is no id"),
        ("mcp = { profile = \"1\", mode = \"x\" }", "unknown key"),
        ("tools = [\"query campaign\"]", "is no name of an MCP tool"),
        ("deny = [\"\"]", "is no name of an MCP tool"),
    ] {
        let text = error(&format!("{caller}{wrong}\n"));
        assert!(text.contains(part), "{text}");
    }
    let good = "mcp = { profile = \"1\", account = \"amzn1.x\" }\ntools = [\"*-query_*\"]\n";
    let config = load_with(&format!("{MINIMAL}{caller}{good}"), &[]).unwrap().config;
    let rules = &config.callers[0].rules;
    assert_eq!(rules.tools.as_deref(), Some(&["*-query_*".to_owned()][..]));
    assert_eq!(rules.mcp.as_ref().unwrap().account.as_deref(), Some("amzn1.x"));
}

#[test]
fn an_issuer_must_bind_its_tokens_to_us_and_have_public_keys() {
    let issuer =
        |lines: &str| format!("[[issuers]]\nname = \"a\"\nissuer = \"https://a\"\n{lines}");
    let good = "audience = [\"adsproxy\"]\n";
    let twice = format!("{good}[[issuers]]\nname = \"b\"\nissuer = \"https://a\"\n{good}");
    for (wrong, part) in [
        ("", "audience: is empty, and so is authorized_parties"),
        (
            "audience = \"x\"\nalgorithms = [\"HS256\"]\n",
            "\"HS256\" is not accepted (it needs a secret",
        ),
        ("audience = \"x\"\nalgorithms = [\"none\"]\n", "\"none\" is not accepted; known: RS256"),
        ("audience = \"x\"\nalgorithms = []\n", "algorithms: needs at least one"),
        ("audience = \"x\"\nleeway_secs = 61\n", "leeway_secs: is more than 60 seconds"),
        ("audience = \"x\"\njwks_url = \"http://a/keys\"\n", "must begin with https://"),
        (
            "audience = \"x\"\njwks = { file = \"/nonexistent/keys\" }\n",
            "cannot read /nonexistent/keys",
        ),
        ("audience = \"x\"\njwks = {}\n", "jwks.file: is missing"),
        (
            "audience = \"x\"\njwks_url = \"https://a\"\njwks = { file = \"/dev/null\" }\n",
            "has jwks_url or jwks, not both",
        ),
        (&twice, "https://a is that of another entry too"),
    ] {
        let text = error(&issuer(wrong));
        assert!(text.contains(part), "{text}\n{part}");
    }
    let text = error(&format!("[[issuers]]\nname = \"a\"\n{good}"));
    assert!(text.contains("issuers.0.issuer: is missing"), "{text}");
    for good in
        [good, "authorized_parties = [\"https://app\"]\nalgorithms = [\"ES256\", \"EdDSA\"]\n"]
    {
        load_with(&format!("{MINIMAL}{}", issuer(good)), &[]).unwrap();
    }
}

#[test]
fn rules_that_allow_nothing_are_mistakes() {
    let caller = "[[callers]]\nname = \"reports\"\nunix_uids = [1000]\n";
    for (wrong, part) in [
        ("accounts = []", "is empty, and allows nothing"),
        ("methods = []", "is empty, and allows nothing"),
        ("accounts = [\"a b\"]", "is neither an account nor a pattern"),
        ("accounts = [\"a~b~c\"]", "is neither an account nor a pattern"),
        ("tenant = \"t1\"\naccounts = [\"t1~acme\"]", "callers of a tenant say aliases"),
        ("methods = [\"get\"]", "in upper case"),
        ("methods = [\"TRACE\"]", "is none of GET"),
        ("paths = [\"reporting/*\"]", "matches no path"),
        ("paths = [\"/a?b=*\"]", "matches no path"),
        ("paths = [\"//a\"]", "matches no path"),
        ("paths = [\"/a/../b\"]", "matches no path"),
        ("paths = [\"/ä\"]", "matches no path"),
        ("profiles = [\"ENTITY1\"]", "is no profile id"),
        ("profiles = [12]", "expected a string"),
        ("requests_per_minute = 0", "is not between 1 and"),
        ("session_ttl_max_secs = 0", "is not between 1 and 2592000"),
        ("session_ttl_max_secs = 2592001", "is not between 1 and 2592000"),
    ] {
        let text = error(&format!("{caller}{wrong}\n"));
        assert!(text.contains(part), "{wrong}: {text}");
    }
    let good = "accounts = [\"t1~*\", \"eu-?\"]\nmethods = [\"GET\"]\npaths = [\"/a/*\", \"*\"]\n\
                profiles = [\"12\"]\nrequests_per_minute = 1\n";
    let config = load_with(&format!("{MINIMAL}{caller}{good}"), &[]).unwrap().config;
    assert_eq!(config.callers[0].rules.paths.as_ref().unwrap().len(), 2);
}

#[test]
fn issuers_that_can_name_one_tenant_are_warned_of_and_not_refused() {
    let issuer = |name: &str, more: &str| {
        format!(
            "[[issuers]]\nname = \"{name}\"\nissuer = \"https://{name}\"\naudience = [\"x\"]\n{more}\n"
        )
    };
    for (one, two, is_warned) in [
        ("", "", true),
        ("tenants = [\"org_*\"]", "", true),
        ("tenants = [\"org_*\"]", "tenants = [\"a\", \"*_x\"]", true),
        ("tenants = [\"org_*\"]", "tenants = [\"user_*\"]", false),
        ("tenant_claim = []", "", false),
        ("tenant_claim = []", "tenant_claim = []", false),
    ] {
        let text = format!("{MINIMAL}{}{}", issuer("one", one), issuer("two", two));
        let warnings: Vec<_> =
            load_with(&text, &[]).unwrap().warnings.into_iter().map(|it| it.message).collect();
        let warnings: Vec<_> = warnings.iter().filter(|text| text.contains("issuers")).collect();
        assert_eq!(warnings.len(), usize::from(is_warned), "{one} {two}: {warnings:?}");
        assert!(!is_warned || warnings[0].contains("one of one can name too"), "{warnings:?}");
    }
    for (more, part) in [
        ("tenants = []", "allows nothing"),
        ("tenants = [\"a~b\"]", "neither a tenant nor a pattern"),
        ("tenants = [\"a\"]\ntenant_claim = []", "no token has one"),
        ("session_ttl_max_secs = 0", "not between 1 and 2592000"),
    ] {
        let text = error(&issuer("one", more));
        assert!(text.contains(part), "{text}");
    }
}
