//! A real issuer of JWTs: the certified `oidc-provider`, in a process of its own.

use super::{extras, login::client};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
};

/// A running issuer. Ends with the test.
pub struct RealIssuer {
    child: Child,
    _stdin: ChildStdin,
    pub url: String,
    client: reqwest::Client,
}

impl RealIssuer {
    /// None if the calling test is to be left out.
    pub fn start() -> Option<Self> {
        Self::with(extras::node()?)
    }

    /// One that signs people in, and sends them back to `redirect_uri`.
    pub fn for_people(redirect_uri: &str) -> Option<Self> {
        let mut node = extras::node()?;
        node.env("REDIRECT_URI", redirect_uri);
        Self::with(node)
    }

    fn with(mut node: Command) -> Option<Self> {
        node.args(["--input-type=module", "-e", include_str!("../sdk/issuer.mjs")]);
        node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = node.spawn().expect("node");
        let stdin = child.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        // Warnings of the library may come first.
        let mut lines = std::iter::from_fn(|| lines.next()?.ok());
        let url = lines.find(|line| line.starts_with("http://")).expect("the issuer starts");
        let client = client();
        Some(Self { child, _stdin: stdin, url, client })
    }

    /// `[[issuers]]` with this issuer; `more` are further keys.
    pub fn toml(&self, more: &str) -> String {
        format!("\n[[issuers]]\nname = \"op\"\nissuer = \"{}\"\n{more}\n", self.url)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> String {
        let response = request.send().await.expect("the issuer responds");
        assert!(response.status().is_success(), "{response:?}");
        response.text().await.expect("a body")
    }

    /// A token for `audience` by the client credentials grant: of `client` `rs` or `es`.
    pub async fn issue(&self, client: &str, audience: &str) -> String {
        let form = format!("grant_type=client_credentials&resource=urn:{audience}");
        let request =
            self.client.post(format!("{}/token", self.url)).basic_auth(client, Some("secret"));
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(form);
        let reply: Value = serde_json::from_str(&self.send(request).await).expect("JSON");
        reply["access_token"].as_str().expect("a token").to_owned()
    }

    /// Any header and claims, signed by its keys: `how` is `rs`, `es`, `none`, or `hs`.
    pub async fn sign(&self, how: &str, header: &str, claims: &str) -> String {
        let body = json!({ "how": how, "header": header, "claims": claims }).to_string();
        self.send(self.client.post(format!("{}/test/sign", self.url)).body(body)).await
    }

    /// The ids of its keys.
    pub async fn ids(&self) -> Value {
        self.tell("ids").await
    }

    /// What its ID tokens say from now on in place of their own claims.
    pub async fn claim(&self, claims: &Value) {
        let url = format!("{}/test/claims", self.url);
        self.send(self.client.post(url).body(claims.to_string())).await;
    }

    /// `rotate`, `down`, `hang`, `up`.
    pub async fn tell(&self, what: &str) -> Value {
        let request = self.client.post(format!("{}/test/{what}", self.url));
        serde_json::from_str(&self.send(request).await).expect("JSON")
    }

    /// How often its keys were fetched.
    pub async fn fetches(&self) -> u64 {
        self.tell("counts").await["jwks"].as_u64().expect("a count")
    }

    /// Its keys as published.
    pub async fn published(&self) -> String {
        self.send(self.client.get(format!("{}/jwks", self.url))).await
    }
}

impl Drop for RealIssuer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
