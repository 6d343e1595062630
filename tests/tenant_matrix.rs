//! Another tenant's account beside one that is not there: the same bytes in the same time, on every
//! route that takes an account and by every selector of the data plane. Also where both tenants have
//! an account of the same name.

use crate::support::{
    callers::TestCaller,
    proxy::amazon,
    world::{KINDS_OF_TENANTS, World, send},
};
use adsproxy::{sandbox::Surface, testing::ROUTES};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    iter,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// What a route says to a tenant of an account that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// That it is unknown.
    Unknown,
    /// A login for it begins; for one that is named by a whole id, that it is unknown.
    Begins,
    /// An empty list.
    Nothing,
    /// That it is for operators, whatever the account.
    Refused,
}

/// Every operation that takes an account.
const TAKE_AN_ACCOUNT: [(&str, Says); 9] = [
    ("beginLogin", Says::Begins),
    ("createLogin", Says::Begins),
    ("logout", Says::Unknown),
    ("refreshToken", Says::Unknown),
    ("getTokenStatus", Says::Unknown),
    ("getAccount", Says::Unknown),
    ("deleteAccount", Says::Unknown),
    ("listRequests", Says::Nothing),
    ("listAuditEntries", Says::Refused),
];

/// Operations whose `{id}` is not an account's.
const OTHER_IDS: [&str; 4] = ["getLogin", "revokeKey", "getSession", "endSession"];

/// Names of accounts of tenant `b`, each beside one of the same length that is not there.
const NAMES: [[&str; 2]; 3] = [["other", "absen"], ["b~other", "b~absen"], ["b~shop", "b~shoq"]];

/// Where a request names the account.
#[derive(Debug, Clone, Copy)]
enum Place {
    Path,
    Query,
    Json,
    Form,
}

/// One place of one route.
#[derive(Debug, Clone, Copy)]
struct Asked {
    operation: &'static str,
    method: &'static str,
    path: &'static str,
    place: Place,
    writes: bool,
}

/// How a request to the data plane names the account.
#[derive(Debug, Clone, Copy)]
enum Selector {
    Header,
    Prefix,
    /// `Atza|<alias>`: one that is unknown is no selector.
    Bearer,
    ShimPrefix,
    /// `Atzr|<alias>`.
    ShimToken,
}

const SELECTORS: [Selector; 5] = [
    Selector::Header,
    Selector::Prefix,
    Selector::Bearer,
    Selector::ShimPrefix,
    Selector::ShimToken,
];

/// Whether a program has the route: it is neither one of the control socket nor of the dashboard.
fn is_documented(audience: &str, path: &str) -> bool {
    audience != "local" && !path.starts_with("/dashboard")
}

/// Every place in which a route takes an account, as the document says that is made from the table.
fn places(world: &World) -> Vec<Asked> {
    let document = send(world.proxy.admin, "GET", "/openapi.json", "").1;
    let (_, document) = document.split_once("\n\n").expect("a body");
    let document: Value = serde_json::from_str(document).expect("JSON");
    let mut all = Vec::new();
    for route in ROUTES.iter().filter(|it| is_documented(it.audience.as_str(), it.path)) {
        let method = route.method.as_str();
        let operation = &document["paths"][route.path][method.to_ascii_lowercase()];
        assert_eq!(operation["operationId"], route.operation);
        let is_account = |one: &Value| one["name"] == "account";
        let in_query =
            operation["parameters"].as_array().is_some_and(|all| all.iter().any(is_account));
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        let body = body["$ref"].as_str().and_then(|name| document.pointer(name.strip_prefix('#')?));
        let in_body = body.is_some_and(|body| body["properties"]["account"].is_object());
        let found = [
            (route.path.contains("/accounts/{id}"), Place::Path),
            (in_query, Place::Query),
            (in_body, Place::Json),
            (in_body, Place::Form),
        ];
        let found = found.into_iter().filter(|(is_taken, _)| *is_taken);
        all.extend(found.map(|(_, place)| Asked {
            operation: route.operation,
            method,
            path: route.path,
            place,
            writes: method != "GET" || route.operation == "beginLogin",
        }));
    }
    all
}

fn says(asked: Asked) -> Says {
    TAKE_AN_ACCOUNT.into_iter().find(|(name, _)| *name == asked.operation).expect("a line").1
}

fn request(method: &str, path: &str, lines: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: same\r\n{lines}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Asked {
    /// A request about `account` of the caller with the header `line`.
    fn request(self, account: &str, line: &str) -> String {
        let (mut path, mut body) = (self.path.to_owned(), String::new());
        let mut kind = "application/x-www-form-urlencoded";
        match self.place {
            Place::Path => path = path.replace("{id}", account),
            Place::Query => path = format!("{path}?account={account}"),
            Place::Form => body = format!("account={account}"),
            Place::Json => {
                kind = "application/json";
                body = json!({ "account": account }).to_string();
            }
        }
        request(self.method, &path, &format!("{line}Content-Type: {kind}\r\n"), &body)
    }
}

impl Selector {
    fn request(self, account: &str, line: &str) -> String {
        let form = format!("{line}Content-Type: application/x-www-form-urlencoded\r\n");
        let shim = |prefix: &str, token: &str| {
            let body = format!("grant_type=refresh_token&refresh_token={token}");
            request("POST", &format!("{prefix}/auth/o2/token"), &form, &body)
        };
        let get = |path: &str, more: &str| request("GET", path, &format!("{line}{more}"), "");
        match self {
            Self::Header => get("/v2/profiles", &format!("X-Ads-Account: {account}\r\n")),
            Self::Prefix => get(&format!("/a/{account}/v2/profiles"), ""),
            Self::Bearer => {
                get("/v2/profiles", &format!("Authorization: Bearer Atza|{account}\r\n"))
            }
            Self::ShimPrefix => shim(&format!("/a/{account}"), "x"),
            Self::ShimToken => shim("", &format!("Atzr%7C{account}")),
        }
    }
}

/// A connection that is kept.
struct Connection(TcpStream);

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("set");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        Self(stream)
    }

    /// The whole response.
    fn ask(&mut self, request: &str) -> String {
        self.0.write_all(request.as_bytes()).expect("sent");
        let (mut response, mut piece) = (Vec::new(), [0; 8192]);
        loop {
            let length = self.0.read(&mut piece).expect("a response");
            assert!(length > 0, "{request}: {}", String::from_utf8_lossy(&response));
            response.extend_from_slice(&piece[..length]);
            let text = String::from_utf8_lossy(&response);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.expect("a length").parse::<usize>().expect("a number") {
                return text.into_owned();
            }
        }
    }
}

fn status(response: &str) -> u16 {
    response.split(' ').nth(1).expect("a status").parse().expect("a number")
}

/// `response` without what differs from one to the next: the date, and what is random, Amazon's request
/// ids and of a login its state, challenge, link and cookie. Random is each run of 16 or more letters,
/// digits, `-` and `_` with a digit or a capital letter in it.
fn normalized(response: &str) -> String {
    let dated = |line: &&str| !line.to_ascii_lowercase().starts_with("date: ");
    let text = response.split("\r\n").filter(dated).collect::<Vec<_>>().join("\n");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut parts = Vec::new();
    for run in text.split_inclusive(|c| !is_part(c)) {
        let word = run.trim_end_matches(|c| !is_part(c));
        let is_random = word.len() >= 16
            && word.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        parts.push(if is_random { run.replacen(word, "RANDOM", 1) } else { run.to_owned() });
    }
    parts.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_takes_an_account_is_compared() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let found: BTreeSet<_> = places(&world).iter().map(|asked| asked.operation).collect();
    let known: BTreeSet<_> = TAKE_AN_ACCOUNT.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, known, "give it a line in the table");
    let documented = ROUTES.iter().filter(|it| is_documented(it.audience.as_str(), it.path));
    for route in documented.filter(|route| route.path.contains("{id}")) {
        let is_accounts = route.path.starts_with("/api/v1/accounts/{id}");
        let is_known = is_accounts || OTHER_IDS.contains(&route.operation);
        assert!(is_known, "{}: what is its `{{id}}`?", route.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_account_and_a_missing_one_are_the_same_bytes() {
    let amazon = amazon().await;
    for at in 0..KINDS_OF_TENANTS {
        let world = World::start(&amazon);
        let (kind, line) = &world.tenants()[at];
        for asked in places(&world) {
            let ask = |name: &str| {
                let response = Connection::open(world.proxy.admin).ask(&asked.request(name, line));
                // A login repeats its account.
                (status(&response), normalized(&response).replace(name, "NAME"))
            };
            for [other, missing] in NAMES {
                let (other, missing) = (ask(other), ask(missing));
                assert_eq!(other, missing, "{kind}: {asked:?}");
                let (status, text) = missing;
                let is_whole = other.1.contains("unknown_account");
                let is_as_said = match says(asked) {
                    Says::Unknown => status == 404 && text.contains("unknown_account"),
                    Says::Begins => matches!(status, 200 | 201) || is_whole && status == 404,
                    Says::Nothing => status == 200 && text.contains("\"requests\":[]"),
                    Says::Refused => status == 403 && text.contains("caller_rejected"),
                };
                assert!(is_as_said, "{kind}: {asked:?}: {status} {text}");
            }
        }
        for selector in SELECTORS {
            let ask = |name: &str| {
                let response =
                    Connection::open(world.proxy.addr).ask(&selector.request(name, line));
                (status(&response), normalized(&response))
            };
            for [other, missing] in NAMES.into_iter().chain([["acme", "acmd"]]) {
                let (other, missing) = (ask(other), ask(missing));
                assert_eq!(other, missing, "{kind}: {selector:?}");
                let expected = match selector {
                    Selector::Header | Selector::Prefix => 404,
                    // It may use one account only, and need not name it.
                    Selector::Bearer => 200,
                    Selector::ShimPrefix | Selector::ShimToken => 400,
                };
                assert_eq!(missing.0, expected, "{kind}: {selector:?}: {missing:?}");
            }
        }
    }
    let seen = amazon.state().record.requests_for(Surface::Api);
    let users: BTreeSet<_> = seen.iter().map(|seen| seen.account.clone()).collect();
    assert_eq!(users, [Some("acme".to_owned())].into(), "the tenant's own");
}

/// Pairs of requests of which the times are compared, and how many of them one party sends: fewer
/// than are limited.
const ROUNDS: usize = 100;
const ROUNDS_OF_PARTY: usize = 25;
/// How often times that differ are measured again.
const TRIES: usize = 6;

/// Compares the times of requests for two names: of the fastest tenth, which a busy machine delays
/// least. A difference is one that is there each time, and of the same sign. `lines` are those of
/// parties, one after the other.
fn assert_same_time(
    what: &str,
    address: SocketAddr,
    names: [&str; 2],
    request: impl Fn(&str, &str) -> String,
    lines: &mut dyn Iterator<Item = String>,
) {
    let mut connection = Connection::open(address);
    let mut measured = Vec::new();
    for _ in 0..TRIES {
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS / ROUNDS_OF_PARTY {
            let line = lines.next().expect("one more party");
            let requests = names.map(|name| request(name, &line));
            for round in 0..ROUNDS_OF_PARTY {
                for at in [round % 2, 1 - round % 2] {
                    let began = Instant::now();
                    let response = connection.ask(&requests[at]);
                    times[at].push(began.elapsed());
                    assert_ne!(status(&response), 429, "{what}: {response}");
                }
            }
        }
        let [other, missing] = times.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 10]
        });
        let difference = other.abs_diff(missing);
        if difference < Duration::from_micros(50) || difference < missing / 5 {
            return;
        }
        measured.push((other, missing));
        let slower = measured.iter().filter(|(other, missing)| other > missing).count();
        if slower > 0 && slower < measured.len() {
            return;
        }
    }
    panic!("{what}: {names:?} take {measured:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_account_and_a_missing_one_take_the_same_time() {
    let amazon = amazon().await;
    // What one caller changes is limited.
    let writers: Vec<_> = (0..200)
        .map(|number| TestCaller::new(&format!("writer-{number}"), "tenant = \"a\""))
        .collect();
    let tables: String = writers.iter().map(|caller| caller.toml.as_str()).collect();
    let world = World::with(&amazon, &format!("{tables}[login]\npending_max = 20000\n"));
    let places = places(&world);
    let mut writers = writers.iter().map(TestCaller::line);
    for names in NAMES {
        for asked in places.iter().filter(|asked| asked.writes) {
            let request = |name: &str, line: &str| asked.request(name, line);
            let what = format!("{asked:?}");
            assert_same_time(&what, world.proxy.admin, names, request, &mut writers);
        }
    }
    for (kind, line) in world.tenants() {
        let mut number = 0;
        // What one user reads is limited, too.
        let mut lines = iter::from_fn(|| {
            number += 1;
            Some(if kind == "tenant's JWT" {
                world.user(&format!("user_{number}"))
            } else {
                line.clone()
            })
        });
        for names in NAMES {
            for asked in places.iter().filter(|asked| !asked.writes) {
                let request = |name: &str, line: &str| asked.request(name, line);
                let what = format!("{kind}: {asked:?}");
                assert_same_time(&what, world.proxy.admin, names, request, &mut lines);
            }
            for selector in SELECTORS {
                let request = |name: &str, line: &str| selector.request(name, line);
                let what = format!("{kind}: {selector:?}");
                assert_same_time(&what, world.proxy.addr, names, request, &mut lines);
            }
        }
    }
}

/// What tenant `b` sees of its account, and the record of it.
fn neighbours_shop(world: &World) -> (Value, Vec<u8>) {
    let path = "/api/v1/accounts/shop";
    let (status, said) = send(world.proxy.admin, "GET", path, &world.neighbour.line());
    assert_eq!(status, 200, "{said}");
    let (_, body) = said.split_once("\n\n").expect("a body");
    let mut shown: Value = serde_json::from_str(body).expect("JSON");
    for passes in ["expires_in", "expires_in_secs"] {
        shown[passes] = Value::Null;
    }
    let record = world.proxy.dir.path().join("store/accounts/b~shop.json");
    (shown, fs::read(record).expect("a record"))
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_tenants_use_one_name_each_has_its_own_account() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let users = || {
        let seen = amazon.state().record.requests_for(Surface::Api);
        let users: BTreeSet<_> = seen.into_iter().filter_map(|seen| seen.account).collect();
        amazon.state().record.clear();
        users.into_iter().collect::<Vec<_>>()
    };
    let neighbour = world.neighbour.line();
    let neighbours = |selector: Selector| {
        status(&Connection::open(world.proxy.addr).ask(&selector.request("shop", &neighbour)))
    };
    assert_eq!((neighbours(Selector::Prefix), users()), (200, vec!["globex".to_owned()]));
    let before = neighbours_shop(&world);
    let (mut places, kinds) = (places(&world), world.tenants());
    // What forgets the account comes last.
    let is_last = |asked: &Asked| ["logout", "deleteAccount"].contains(&asked.operation);
    let last: Vec<_> = places.extract_if(.., |asked| is_last(asked)).collect();
    for (kind, line) in &kinds {
        for asked in &places {
            let said = Connection::open(world.proxy.admin).ask(&asked.request("shop", line));
            let expected: &[u16] = if says(*asked) == Says::Refused { &[403] } else { &[200, 201] };
            assert!(expected.contains(&status(&said)), "{kind}: {asked:?}: {said}");
            assert!(!said.contains("~") && !said.contains("globex"), "{kind}: {asked:?}: {said}");
        }
        for selector in SELECTORS {
            let said = Connection::open(world.proxy.addr).ask(&selector.request("shop", line));
            assert_eq!(status(&said), 200, "{kind}: {selector:?}: {said}");
        }
        assert_eq!(users(), ["acme"], "{kind}");
        assert_eq!(neighbours_shop(&world), before, "{kind}");
    }
    let line = &kinds[0].1;
    for asked in &last {
        let said = Connection::open(world.proxy.admin).ask(&asked.request("shop", line));
        assert!(matches!(status(&said), 200 | 404), "{asked:?}: {said}");
    }
    for selector in [Selector::Header, Selector::Prefix] {
        let said = Connection::open(world.proxy.addr).ask(&selector.request("shop", line));
        assert!(matches!(status(&said), 403 | 404), "{selector:?}: {said}");
    }
    assert_eq!(users(), [""; 0], "nothing goes out with the account of the same name");
    assert_eq!(neighbours_shop(&world), before);
    assert!(SELECTORS.iter().all(|selector| neighbours(*selector) == 200), "the neighbour goes on");
    assert_eq!(users(), ["globex"]);
}
