//! Where keys are fetched from, with an issuer on this machine.

use super::*;
use crate::https;
use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A server of fixed responses by path; what was asked for.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `{here}` in a response is the URL of the server.
    async fn start(responses: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let responses: HashMap<_, _> = responses
            .iter()
            .map(|(path, response)| ((*path).to_owned(), response.replace("{here}", &url)))
            .collect();
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let seen = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let response = responses.get(&path).cloned();
                let response = response.unwrap_or_else(|| "404\r\n\r\n".to_owned());
                seen.lock().unwrap().push(path);
                let _ = stream.write_all(format!("HTTP/1.0 {response}").as_bytes()).await;
            }
        });
        Self { url, asked }
    }

    async fn read(&self, source: &KeySource) -> Result<Vec<u8>, SourceError> {
        let tls = https::client_config([], true).unwrap();
        let second = Duration::from_secs(10);
        source.read(&LwaHttp::new(&tls, second, second).unwrap()).await
    }

    async fn discover(&self, issuer: &str) -> Result<Vec<u8>, SourceError> {
        self.read(&KeySource::Discovery(issuer.to_owned())).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

const DISCOVERY: &str = "/.well-known/openid-configuration";

#[tokio::test]
async fn the_discovery_document_says_where_the_keys_are() {
    let document = "200 x\r\n\r\n{\"issuer\":\"{here}\",\"jwks_uri\":\"{here}/keys\"}";
    let server = Server::start(&[(DISCOVERY, document), ("/keys", "200 x\r\n\r\nkeys")]).await;
    assert_eq!(server.discover(&server.url.clone()).await.unwrap(), b"keys");
    assert_eq!(server.asked(), [DISCOVERY, "/keys"]);
}

#[tokio::test]
async fn without_a_discovery_document_the_keys_are_at_the_usual_place() {
    let server = Server::start(&[("/.well-known/jwks.json", "200 x\r\n\r\nkeys")]).await;
    assert_eq!(server.discover(&format!("{}/", server.url)).await.unwrap(), b"keys");
    assert_eq!(server.asked(), [DISCOVERY, "/.well-known/jwks.json"]);
}

#[tokio::test]
async fn the_discovery_document_of_another_issuer_is_refused() {
    let document = "200 x\r\n\r\n{\"issuer\":\"https://b\",\"jwks_uri\":\"{here}/keys\"}";
    let server = Server::start(&[(DISCOVERY, document), ("/keys", "200 x\r\n\r\nkeys")]).await;
    let error = server.discover(&server.url.clone()).await.unwrap_err();
    assert!(matches!(error, SourceError::OtherIssuer { .. }), "{error}");
    assert_eq!(server.asked(), [DISCOVERY]);
}

#[tokio::test]
async fn an_outage_of_the_issuer_is_no_reason_to_look_elsewhere() {
    let responses = [(DISCOVERY, "503\r\n\r\n"), ("/.well-known/jwks.json", "200 x\r\n\r\nkeys")];
    let server = Server::start(&responses).await;
    let error = server.discover(&server.url.clone()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}{DISCOVERY} responds 503 Service Unavailable", server.url)
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_large_document_not_read() {
    let large = format!("200 x\r\n\r\n{}", "x".repeat(DOCUMENT_MAX_BYTES + 1));
    let fits = format!("200 x\r\n\r\n{}", "x".repeat(DOCUMENT_MAX_BYTES));
    let redirect = "302 x\r\nlocation: {here}/fits\r\n\r\n";
    let server = Server::start(&[("/to", redirect), ("/large", &large), ("/fits", &fits)]).await;
    let at = |path: &str| KeySource::Url(format!("{}{path}", server.url));
    let error = server.read(&at("/to")).await.unwrap_err().to_string();
    assert!(error.ends_with("redirects are not followed: set `jwks_url`"), "{error}");
    let error = server.read(&at("/large")).await.unwrap_err();
    assert!(matches!(error, SourceError::TooLarge(_)), "{error}");
    assert_eq!(server.read(&at("/fits")).await.unwrap().len(), DOCUMENT_MAX_BYTES);
    assert_eq!(server.asked(), ["/to", "/large", "/fits"]);
}

#[tokio::test]
async fn a_remote_issuer_cannot_send_us_to_this_machine() {
    // What a discovery document says is checked before it is fetched.
    assert!(allowed("http://127.0.0.1:1/keys", "https://clerk.example.com").is_err());
    assert!(allowed("https://keys.example.com/", "https://clerk.example.com").is_ok());
    assert!(allowed("http://127.0.0.1:1/keys", "http://127.0.0.1:1").is_ok());
    assert!(allowed("file:///etc/passwd", "http://127.0.0.1:1").is_err());
    assert!(allowed("http://clerk.example.com/", "http://127.0.0.1:1").is_err());
}

#[tokio::test]
async fn a_file_is_read_as_far_as_it_may_reach() {
    let server = Server::start(&[]).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let source = KeySource::File(file.path().to_owned());
    file.write_all(b"keys").unwrap();
    assert_eq!(server.read(&source).await.unwrap(), b"keys");
    file.write_all(&vec![b'x'; DOCUMENT_MAX_BYTES]).unwrap();
    assert!(matches!(server.read(&source).await, Err(SourceError::TooLarge(_))));
    let missing = KeySource::File("/nonexistent/jwks.json".into());
    assert!(matches!(server.read(&missing).await, Err(SourceError::File { .. })));
}
