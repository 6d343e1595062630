//! Pages of other origins in a real browser, which try all that a page can on every address of ours:
//! nothing comes of it, and they read nothing.

use crate::support::{
    browser::Browser,
    callers::{OPERATOR, TestCaller},
    load::TEST_TIMEOUT,
    login::{free_address, login_setup},
    proxy::{Proxy, Setup, amazon, ask, eventually},
    reverse_proxy::{HostField, ReverseProxy},
};
use adsproxy::{
    sandbox::{Emulator, SeenRequest},
    testing::ROUTES,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The attacker's page: `attack` and `operate` try everything, and return what they could read.
const PAGE: &str = include_str!("tools/attacker.html");

/// What a page may send to the data plane beside what [`PAGE`] sends to a path of its own.
const DATA: [(&str, &str); 8] = [
    ("GET", "/a/acme/v2/profiles"),
    ("POST", "/a/acme/sp/campaigns"),
    ("DELETE", "/a/acme/_sink"),
    ("POST", "/auth/o2/token"),
    ("POST", "/a/acme/auth/o2/token"),
    ("GET", "/mcp"),
    ("POST", "/mcp"),
    ("POST", "/a/acme/mcp"),
];

/// Another web server, which has the attacker's page under every name. Ends when dropped.
struct Site {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Site {
    async fn start(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(show(stream));
            }
        });
        Self { addr, task }
    }

    /// Ends it, so that another server may have its address.
    async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the page; below `/sandboxed` as one without an origin.
async fn show(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let sandbox = "content-security-policy: sandbox allow-scripts allow-forms allow-popups\r\n";
    let policy = if head.starts_with(b"GET /sandboxed ") { sandbox } else { "" };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n{policy}\
         content-length: {}\r\n\r\n",
        PAGE.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(PAGE.as_bytes()).await
}

/// A server of ours, and pages in a browser that would like to use it.
struct World {
    amazon: Emulator,
    proxy: Proxy,
    site: Site,
    /// Replaces the Host of what it forwards to the data plane.
    front: ReverseProxy,
    /// The one caller with a key; none is asked for it if there is no such caller.
    caller: Option<TestCaller>,
}

/// Pages that a name led to before it led to us: the browser takes them for ours.
const REBOUND: [(&str, &str); 2] = [("rebound", "rebind.test"), ("rebound-sub", "x.localhost")];

impl World {
    async fn start(browser: &mut Browser, caller: Option<TestCaller>) -> Self {
        let amazon = amazon().await;
        let site = Site::start(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let (data, admin) = (free_address(), free_address());
        let of_attacker = [Site::start(data).await, Site::start(admin).await];
        for (page, name) in REBOUND {
            browser.open(page, &format!("http://{name}:{}/", data.port()));
        }
        browser.open("rebound-admin", &format!("http://rebind.test:{}/", admin.port()));
        for site in of_attacker {
            site.stop().await;
        }
        let required = caller.as_ref().map(|it| format!("[auth]\nrequired = true\n{}", it.toml));
        let toml = format!(
            "[guard]\nallowed_hosts = [\"ads.test\"]\n\
             allowed_origins = [\"http://friend.test:{}\"]\n\
             [proxy]\ndefault_account = \"acme\"\n{}",
            site.addr.port(),
            required.unwrap_or_default()
        );
        let setup = Setup {
            toml,
            listen: Some(format!("[\"{data}\", \"[::1]:{}\"]", data.port())),
            admin: Some(admin),
            file_store: true,
            without_operator: caller.is_none(),
            ..Setup::default()
        };
        let proxy = Proxy::with(&amazon, login_setup(&amazon, setup));
        let front = ReverseProxy::start(data, HostField::Replaced).await;
        let world = Self { amazon, proxy, site, front, caller };
        // From now on nothing has to be asked of Amazon without a request.
        for account in ["acme", "globex"] {
            let line = format!("GET /a/{account}/_sink/start HTTP/1.1\r\nHost: localhost");
            assert_eq!(world.program(world.proxy.addr, &line), 200);
        }
        world
    }

    /// The data plane's origins, as a browser on this machine may name them.
    fn data(&self) -> [(&'static str, String); 5] {
        let front = format!("http://front.test:{}", self.front.addr.port());
        let [v4, v6, name, allowed] = origins(self.proxy.addr);
        [v4, v6, name, allowed, ("front", front)]
    }

    /// Each page of another origin: what it is called here, and where it is.
    fn pages(&self) -> [(&'static str, String); 4] {
        let of = |name: &str| format!("http://{name}:{}/", self.site.addr.port());
        [
            ("evil", of("evil.test")),
            ("port", of("localhost")),
            ("sub", of("x.localhost")),
            ("null", of("evil.test") + "sandboxed"),
        ]
    }

    /// The status of a program's request, with the key that it needs.
    fn program(&self, address: SocketAddr, head: &str) -> u16 {
        let key = self.caller.as_ref().map(|caller| format!("\r\nX-Ads-Key: {}", caller.key));
        let said = ask(address, &format!("{head}{}", key.unwrap_or_default()));
        said.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    /// Each path that the log names, with the statuses and codes of its responses.
    fn responses(&self) -> BTreeMap<String, BTreeSet<(u64, String)>> {
        let mut responses = BTreeMap::<_, BTreeSet<_>>::new();
        for line in self.proxy.log().lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            if let (Some(path), Some(status)) =
                (line["url.path"].as_str(), line["http.response.status_code"].as_u64())
            {
                let code = line["error.type"].as_str().unwrap_or_default().to_owned();
                responses.entry(path.to_owned()).or_default().insert((status, code));
            }
        }
        responses
    }

    /// What is kept: grants, logins under way, sessions, the audit log. Left out is what the server
    /// writes from time to time: that it lives, when keys were used, where its log ends.
    fn kept(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let store = self.proxy.dir.path().join("store");
        let mut kept = BTreeMap::new();
        collect(&store, &mut kept);
        assert!(kept.contains_key(&store.join("audit.jsonl")), "{:?}", kept.keys());
        let of_itself = ["audit.head", "instances", "uses"].map(|name| store.join(name));
        kept.retain(|path, _| !of_itself.iter().any(|own| path.starts_with(own)));
        kept
    }

    fn seen(&self) -> Vec<SeenRequest> {
        self.amazon.state().record.requests()
    }
}

fn collect(directory: &Path, kept: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            collect(&entry.path(), kept);
        } else if kind.is_file() {
            kept.insert(entry.path(), fs::read(entry.path()).unwrap_or_default());
        }
    }
}

fn origins(address: SocketAddr) -> [(&'static str, String); 4] {
    let of = |host: &str| format!("http://{host}:{}", address.port());
    [
        ("v4", of("127.0.0.1")),
        ("v6", of("[::1]")),
        ("name", of("localhost")),
        ("allowed", of("ads.test")),
    ]
}

/// Every route of the admin listener, for an account that there is.
fn routes() -> Value {
    let of = |path: &str| format!("{}?account=acme", path.replace("{id}", "acme"));
    ROUTES.iter().map(|route| json!([route.method.as_str(), of(route.path)])).collect()
}

/// What `page` could read as it tried everything on the data plane's `origin`, called `label`.
fn attack(browser: &mut Browser, page: &str, label: &str, origin: &str) -> Vec<Value> {
    let base = format!("{origin}/_sink/{page}/{label}");
    let mut read = list(browser.eval(page, &format!("attack({})", json!(base))));
    let script = format!("operate({}, {})", json!(origin), json!(DATA));
    read.extend(list(browser.eval(page, &script)));
    read
}

/// Opens a window of `page` at `url`. A page behind a window loads no film any more: this is last.
async fn open_window(browser: &mut Browser, world: &World, page: &str, origin: &str, path: &str) {
    browser.eval(page, &format!("window.open({}, 'victim'); 0", json!(format!("{origin}{path}"))));
    let is_there = || world.responses().contains_key(path);
    eventually("the window has asked", is_there).await;
}

/// The same for the routes of an admin listener.
fn operate(browser: &mut Browser, page: &str, origin: &str) -> Vec<Value> {
    list(browser.eval(page, &format!("operate({}, {})", json!(origin), routes())))
}

fn list(value: Value) -> Vec<Value> {
    value.as_array().expect("a list").clone()
}

/// Goes from `page` to `url` as somebody who clicks a link.
fn follow(browser: &mut Browser, page: &str, url: &str) {
    let link = format!("document.body.innerHTML = '<a href=\"{url}\">go</a>'; 0");
    browser.eval(page, &link);
    let shown = browser.click(page, "go");
    assert!(shown.status == 403 && shown.text.contains("caller_rejected"), "{page}: {shown:?}");
}

/// Waits until each of `expected` has been refused, and checks that nothing else has come of any.
async fn all_are_refused(world: &World, expected: &BTreeSet<String>) {
    let refused = BTreeSet::from([(403, "caller_rejected".to_owned())]);
    let mut missing = expected.clone();
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "never tried: {missing:?}");
        let seen = world.responses();
        missing.retain(|path| !seen.contains_key(path));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (path, responses) in world.responses() {
        // The two requests of the start; and a window that shows our refusal is a page of ours, whose
        // icon the browser asks for.
        let is_icon = path == "/favicon.ico" && responses.iter().all(|it| !it.1.is_empty());
        if !path.ends_with("/start") && !is_icon {
            assert_eq!(responses, refused, "{path}");
        }
    }
}

async fn everything_is_tried_in_vain(browser: &mut Browser, world: &World) {
    world.amazon.state().record.clear();
    let before = world.kept();
    let mut expected = BTreeSet::new();
    let mut expect = |page: &str, label: &str, ways: &[Value]| {
        let ways = ways.iter().filter_map(Value::as_str);
        expected.extend(ways.map(|way| format!("/_sink/{page}/{label}/{way}")));
    };
    for (page, url) in world.pages() {
        browser.open(page, &url);
        let ways = list(browser.eval(page, "Object.keys(WAYS)"));
        assert!(ways.len() > 30, "{ways:?}");
        for (label, origin) in world.data() {
            assert_eq!(attack(browser, page, label, &origin), [Value::Null; 0], "{page} {origin}");
            expect(page, label, &ways);
        }
        // One page tries all names; there, it is the page that makes a difference.
        let names = if page == "evil" { 4 } else { 2 };
        for (_, origin) in origins(world.proxy.admin).into_iter().rev().take(names) {
            assert_eq!(operate(browser, page, &origin), [Value::Null; 0], "{page} {origin}");
        }
        for (label, origin) in world.data() {
            let path = format!("/_sink/{page}/{label}/window");
            open_window(browser, world, page, &origin, &path).await;
        }
        follow(browser, page, &format!("http://ads.test:{}/v2/profiles", world.proxy.addr.port()));
    }
    for (page, name) in REBOUND {
        let ways = list(browser.eval(page, "Object.keys(WAYS)"));
        let origin = format!("http://{name}:{}", world.proxy.addr.port());
        reads_refusals_only(&attack(browser, page, "own", &origin));
        expect(page, "own", &ways);
    }
    let origin = format!("http://rebind.test:{}", world.proxy.admin.port());
    reads_refusals_only(&operate(browser, "rebound-admin", &origin));
    all_are_refused(world, &expected).await;
    assert!(world.seen().is_empty(), "Amazon saw: {:?}", world.seen());
    let after = world.kept();
    let changed: Vec<_> =
        after.iter().filter(|(path, now)| before.get(*path) != Some(now)).collect();
    assert!(changed.is_empty() && after.len() == before.len(), "was kept: {changed:?}");
    for (page, _) in world.pages() {
        assert!(browser.cookies(page).is_empty(), "{page}: no login was begun");
    }
}

/// A page of a rebound name may read what it is told, which is that it is refused.
fn reads_refusals_only(read: &[Value]) {
    assert!(read.len() > 10, "{read:?}");
    for one in read {
        let text = one["read"].as_str().expect("a text");
        let is_refusal = text.contains("caller_rejected") || text == "status 403";
        assert!(is_refusal && !text.contains("globex"), "{one}");
    }
}

/// A page that is listed gets through with what names its origin, by every name; so the others were
/// turned away for what they are.
async fn a_page_that_is_listed_gets_through(browser: &mut Browser, world: &World) {
    browser.open("friend", &format!("http://friend.test:{}/", world.site.addr.port()));
    let ways = ["fetch", "fetch-post", "form-urlencoded", "xhr", "events", "beacon", "ping"];
    let mut expected = BTreeSet::new();
    for (label, origin) in world.data() {
        attack(browser, "friend", label, &origin);
        expected.extend(ways.map(|way| format!("/_sink/friend/{label}/{way}")));
    }
    eventually("the page's requests arrive", || {
        let seen = world.seen();
        let of_acme = seen.iter().filter(|one| one.account.as_deref() == Some("acme"));
        let targets: BTreeSet<_> = of_acme.map(|one| one.target.clone()).collect();
        expected.is_subset(&targets)
    })
    .await;
}

/// What a browser sent in vain does work for programs.
fn programs_get_through(world: &World) {
    for (_, origin) in world.data() {
        let host = origin.trim_start_matches("http://");
        let lines = format!("HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8");
        let address = if host.starts_with("front") { world.front.addr } else { world.proxy.addr };
        let get = format!("GET /a/acme/v2/profiles {lines}");
        assert_eq!(world.program(address, &get), 200, "{origin}");
    }
    for (_, origin) in origins(world.proxy.admin) {
        let host = origin.trim_start_matches("http://");
        let ask = |key: &str| {
            let line = format!("GET /status HTTP/1.1\r\nHost: {host}{key}");
            ask(world.proxy.admin, &line)
        };
        assert!(ask("").starts_with("HTTP/1.1 401 "));
        let of_operator = ask(&format!("\r\nX-Ads-Key: {}", OPERATOR.key));
        let expected = if world.caller.is_some() { "HTTP/1.1 200 " } else { "HTTP/1.1 401 " };
        assert!(of_operator.starts_with(expected), "{of_operator}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_makes_nothing_happen_where_no_caller_is_asked() {
    let Some(mut browser) = Browser::start() else { return };
    let world = World::start(&mut browser, None).await;
    everything_is_tried_in_vain(&mut browser, &world).await;
    a_page_that_is_listed_gets_through(&mut browser, &world).await;
    programs_get_through(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_makes_nothing_happen_where_callers_have_keys() {
    let Some(mut browser) = Browser::start() else { return };
    let caller = TestCaller::new("app", "");
    let world = World::start(&mut browser, Some(caller)).await;
    everything_is_tried_in_vain(&mut browser, &world).await;
    programs_get_through(&world);
}
