//! A receiver of webhooks: checks every signature by itself, and is as bad as it is told to be.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

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
pub struct Receiver {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    manner: Mutex<Manner>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Status(204)),
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let server = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, server.clone()));
            }
        });
        Self { addr, shared, task }
    }

    pub fn be(&self, manner: Manner) {
        *self.shared.manner.lock().expect("no panic") = manner;
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Everything that came, in order.
    pub fn all(&self) -> Vec<Received> {
        self.shared.received.lock().expect("no panic").clone()
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

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
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

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let manner = shared.manner.lock().expect("no panic").clone();
    if manner == Manner::Close {
        return;
    }
    let Some((headers, body)) = read(&mut stream).await else { return };
    let received = Received { headers, body, manner: manner.clone() };
    verify(&received);
    shared.received.lock().expect("no panic").push(received);
    let head = match manner.clone() {
        Manner::Status(status) => format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"),
        Manner::Head(head) => head,
        Manner::Huge => "HTTP/1.1 200 x\r\ncontent-length: 67108864\r\n\r\n".to_owned(),
        Manner::Hang | Manner::Close => String::new(),
        Manner::Drip => "HTTP/1.1 200 x\r\nx: ".to_owned(),
    };
    let _ = stream.write_all(head.as_bytes()).await;
    match manner {
        Manner::Huge => {
            let block = vec![b'x'; 1 << 20];
            for _ in 0..64 {
                if stream.write_all(&block).await.is_err() {
                    return;
                }
            }
        }
        Manner::Hang | Manner::Drip => loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if manner == Manner::Drip && stream.write_all(b"x").await.is_err() {
                return;
            }
        },
        Manner::Status(_) | Manner::Head(_) | Manner::Close => {}
    }
}

async fn read(stream: &mut TcpStream) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = std::str::from_utf8(&bytes[..end]).expect("an ASCII head");
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<String, String> =
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let length: usize = headers["content-length"].parse().expect("a length");
    let mut body = bytes.split_off(end);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((headers, body))
}
