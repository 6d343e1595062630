//! A proxy with two tenants and a caller of each kind: for tests of who is served what.

use super::{
    callers::{OPERATOR, TestCaller},
    proxy::{Proxy, Setup},
    signer::TestIssuer,
};
use adsproxy::sandbox::Emulator;
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

/// Tenant `a` has `shop`, tenant `b` has `other` and one that it calls `shop`, too.
pub const ACCOUNTS: &str = r#"
[accounts."a~shop"]
region = "na"
refresh_token = { env = "ACME_REFRESH" }
[accounts."b~other"]
region = "eu"
refresh_token = { env = "GLOBEX_REFRESH" }
[accounts."b~shop"]
region = "eu"
refresh_token = { env = "GLOBEX_REFRESH" }
"#;

/// Kinds of callers, and those of them that are of a tenant.
pub const KINDS: usize = 12;
pub const KINDS_OF_TENANTS: usize = 4;

/// A proxy, and a caller of each kind.
pub struct World {
    pub proxy: Proxy,
    data: TestCaller,
    reader: TestCaller,
    pub tenant: TestCaller,
    /// Of tenant `b`.
    pub neighbour: TestCaller,
    pub wrong: TestCaller,
    /// Of operators, and of the users of tenants.
    issuers: [TestIssuer; 2],
}

impl World {
    pub fn start(amazon: &Emulator) -> Self {
        Self::with(amazon, "")
    }

    /// With `more` tables of the configuration.
    pub fn with(amazon: &Emulator, more: &str) -> Self {
        let [data, reader, tenant, neighbour, wrong] = [
            ("data", ""),
            ("reader", "read_only = true"),
            ("of-a", "tenant = \"a\""),
            ("of-b", "tenant = \"b\""),
            ("unknown", ""),
        ]
        .map(|(name, more)| TestCaller::new(name, more));
        let issuers = [
            TestIssuer::named("staff", "tenant_claim = []\noperator = true"),
            TestIssuer::named("users", "tenant_claim = [\"org_id\"]"),
        ];
        let toml = ["[auth]\nrequired = true\n", ACCOUNTS, more].concat()
            + &[&data, &reader, &tenant, &neighbour].map(|caller| caller.toml.as_str()).concat()
            + &issuers.each_ref().map(|issuer| issuer.toml.as_str()).concat();
        let proxy = Proxy::with(amazon, Setup { toml, file_store: true, ..Setup::default() });
        Self { proxy, data, reader, tenant, neighbour, wrong, issuers }
    }

    /// Each kind of caller with its header line.
    pub fn callers(&self) -> Vec<(&'static str, String)> {
        let narrowed = json!({ "caller": "tests", "ttl_secs": 600, "read_only": true });
        let mut callers = vec![
            ("nobody", String::new()),
            ("data key", self.data.line()),
            ("read-only key", self.reader.line()),
            ("operator's narrowed session", self.session(&narrowed)),
            ("operator", OPERATOR.line()),
            ("operator's session", self.session(&json!({ "caller": "tests", "ttl_secs": 600 }))),
            ("operator's JWT", bearer(&self.issuers[0].token(json!({ "sub": "boss" })))),
        ];
        callers.extend(self.tenants());
        // The last: an address that brings wrong ones is asked for no JWT any more.
        callers.push(("wrong key", self.wrong.line()));
        assert_eq!(callers.len(), KINDS);
        callers
    }

    /// Each kind of caller of tenant `a`.
    pub fn tenants(&self) -> [(&'static str, String); KINDS_OF_TENANTS] {
        let narrowed = json!({ "caller": "of-a", "ttl_secs": 600, "accounts": ["shop"] });
        [
            ("tenant's key", self.tenant.line()),
            ("tenant's session", self.session(&json!({ "caller": "of-a", "ttl_secs": 600 }))),
            ("tenant's narrowed session", self.session(&narrowed)),
            ("tenant's JWT", self.user("user_1")),
        ]
    }

    /// The header line of a user of tenant `a`.
    pub fn user(&self, subject: &str) -> String {
        bearer(&self.issuers[1].token(json!({ "sub": subject, "org_id": "a" })))
    }

    /// The header line of a new session.
    fn session(&self, what: &Value) -> String {
        let body = what.to_string();
        let head = format!(
            "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\n{}Content-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            OPERATOR.line(),
            body.len()
        );
        let mut stream = TcpStream::connect(self.proxy.admin).expect("a connection");
        stream.write_all(head.as_bytes()).expect("sent");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("a response");
        let (_, body) = said.split_once("\r\n\r\n").expect("a body");
        let session: Value = serde_json::from_str(body).expect("JSON");
        format!("X-Ads-Key: {}\r\n", session["key"].as_str().unwrap_or_else(|| panic!("{said}")))
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Status, and the whole response without its date; all requests have one id.
pub fn send(address: SocketAddr, method: &str, path: &str, line: &str) -> (u16, String) {
    send_over(TcpStream::connect(address).expect("a connection"), method, path, line)
}

pub fn send_over(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    line: &str,
) -> (u16, String) {
    let form = path.split_once('?').map_or("", |(_, query)| query);
    let form = if method == "POST" { form } else { "" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: same\r\nConnection: close\r\n\
         {line}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let status = response.split(' ').nth(1).expect("a status").parse().expect("a number");
    let lines = response.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
    (status, lines.collect::<Vec<_>>().join("\n"))
}
