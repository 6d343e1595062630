//! A receiver of webhooks: checks every signature by itself, and is as bad as it is told to be.

use super::recorder::{Post, Record, Recorder, write_huge};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{collections::BTreeMap, ops::Deref, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// What the receiver and the proxy share.
pub const SECRET: &str = "whsec_aG9va3MtYXJlLXRlc3RlZC13aXRoLXRoaXMta2V5";

/// How it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    /// With this status.
    Status(u16),
    /// With this head.
    Head(String),
    /// Never.
    Hang,
    /// A byte of the head now and then, for ever.
    Drip,
    /// 200, and then 64 MiB.
    Huge,
    /// By closing the connection at once.
    Close,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// What it was answered with.
    pub manner: Manner,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().expect("a type").to_owned()
    }

    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }
}

/// A running receiver; it ends when dropped.
pub struct Receiver(Recorder<Manner, Received>);

impl Deref for Receiver {
    type Target = Recorder<Manner, Received>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Receiver {
    pub async fn start() -> Self {
        Self(Recorder::start(Manner::Status(204), serve).await)
    }

    /// What came and was answered with success.
    pub fn taken(&self) -> Vec<Received> {
        let mut all = self.all();
        all.retain(|one| one.manner == Manner::Status(204));
        all
    }

    /// The types of what was taken.
    pub fn kinds(&self) -> Vec<String> {
        self.taken().iter().map(Received::kind).collect()
    }

    /// `[[hooks]]` for it, further keys at the end.
    pub fn hook(&self, name: &str, keys: &str) -> String {
        format!(
            "[[hooks]]\nname = \"{name}\"\nurl = \"http://{}/{name}\"\n\
             secret = {{ env = \"HOOK_SECRET\" }}\nunsafe_allow_private_addresses = true\n{keys}\n",
            self.addr
        )
    }
}

/// Fails unless the signature is one of `SECRET` over exactly what came.
pub fn verify(received: &Received) {
    let header = |name: &str| received.headers.get(name).unwrap_or_else(|| panic!("no {name}"));
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").expect("a prefix")).expect("base64");
    let mut signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp"));
    signed.push_str(std::str::from_utf8(&received.body).expect("text"));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(tag));
    let signatures = header("webhook-signature");
    assert!(signatures.split(' ').any(|one| one == expected), "{signatures} is not {expected}");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(received.json()["id"], *header("webhook-id"));
}

async fn serve(mut stream: TcpStream, record: Arc<Record<Manner, Received>>) {
    let manner = record.manner();
    if manner == Manner::Close {
        return;
    }
    let Some(Post { headers, body, .. }) = Post::read(&mut stream).await else { return };
    let received = Received { headers, body, manner: manner.clone() };
    verify(&received);
    record.push(received);
    let head = match &manner {
        Manner::Status(status) => format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"),
        Manner::Head(head) => head.clone(),
        Manner::Huge => return drop(write_huge(&mut stream).await),
        Manner::Hang | Manner::Close => String::new(),
        Manner::Drip => "HTTP/1.1 200 x\r\nx: ".to_owned(),
    };
    let _ = stream.write_all(head.as_bytes()).await;
    match manner {
        Manner::Hang => std::future::pending().await,
        Manner::Drip => {
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        _ => {}
    }
}
