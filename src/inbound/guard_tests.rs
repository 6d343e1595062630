//! Which hosts, pages and links the guard accepts.

use super::*;
use http::{HeaderMap, HeaderName, Request};

fn head(version: Version, target: &str, headers: HeaderMap) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    (head.version, head.uri, head.headers) = (version, target.parse().unwrap(), headers);
    head
}

fn check(version: Version, target: &str, lines: &[(&str, &str)]) -> Result<(), GuardRejection> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    let config = config::GuardConfig {
        allowed_hosts: ["ads.internal", "10.0.0.5", "[fd00::1]"].map(String::from).to_vec(),
        allowed_origins: vec!["https://app.example.com".to_owned()],
    };
    let head = head(version, target, headers);
    Guard::new(&config).check(&head, &Fields::of(&head.headers))
}

fn host(host: &str) -> Result<(), GuardRejection> {
    check(Version::HTTP_11, "/", &[("host", host)])
}

#[test]
fn answers_loopback_names_and_configured_hosts() {
    for name in [
        "localhost",
        "LocalHost:8787",
        "localhost.",
        "localhost.:1",
        "127.0.0.1",
        "127.9.8.7:65535",
        "[::1]",
        "[::1]:8787",
        "[0:0:0:0:0:0:0:1]",
        "ads.internal",
        "ADS.internal.:80",
        "10.0.0.5:8787",
        "[FD00:0::1]:1",
    ] {
        assert_eq!(host(name), Ok(()), "{name}");
    }
}

#[test]
fn accepts_the_pages_of_configured_origins_and_of_no_other() {
    let from = |origin: &str| {
        let lines = [("host", "localhost"), ("origin", origin), ("sec-fetch-site", "cross-site")];
        check(Version::HTTP_11, "/", &lines)
    };
    assert_eq!(from("https://app.example.com"), Ok(()));
    for other in [
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.test",
        "null",
    ] {
        assert_eq!(from(other), Err(GuardRejection::ForeignOrigin), "{other}");
    }
}

#[test]
fn refuses_every_other_host() {
    for name in [
        "evil.test",
        "localhost.evil.test",
        "a.localhost",
        "localhosts",
        "127.0.0.1.evil.test",
        "128.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",
        "x.ads.internal",
        "10.0.0.6",
        "[::2]",
        "[::ffff:127.0.0.1]",
        "[::]",
    ] {
        assert_eq!(host(name), Err(GuardRejection::ForeignHost), "{name}");
    }
}

#[test]
fn refuses_what_is_no_host() {
    for name in [
        "",
        ".",
        ":80",
        "localhost:",
        "localhost:65536",
        "localhost:+1",
        "localhost:80:80",
        "localhost:8o",
        "user@localhost",
        "localhost/",
        "local host",
        "localhost,evil.test",
        "[::1",
        "[::1]x",
        "[localhost]",
        "::1",
        "localhost..:1/",
        "löcalhost",
    ] {
        assert_eq!(host(name), Err(GuardRejection::MalformedHost), "{name}");
    }
}

#[test]
fn wants_exactly_one_host() {
    use GuardRejection::{DuplicateHost, MissingHost};
    let (one, two) = (("host", "localhost"), ("host", "evil.test"));
    assert_eq!(check(Version::HTTP_11, "/", &[]), Err(MissingHost));
    assert_eq!(check(Version::HTTP_10, "/", &[]), Err(MissingHost));
    assert_eq!(check(Version::HTTP_11, "http://localhost/", &[]), Err(MissingHost));
    assert_eq!(check(Version::HTTP_11, "/", &[one, one]), Err(DuplicateHost));
    assert_eq!(check(Version::HTTP_11, "/", &[one, two]), Err(DuplicateHost));
    assert_eq!(check(Version::HTTP_11, "http://evil.test/", &[one]), Err(DuplicateHost));
}

#[test]
fn http_2_names_its_host_in_the_authority() {
    let h2 = |target, lines: &[_]| check(Version::HTTP_2, target, lines);
    assert_eq!(h2("http://localhost:1/", &[]), Ok(()));
    assert_eq!(h2("http://localhost:1/", &[("host", "LOCALHOST:1")]), Ok(()));
    assert_eq!(h2("/", &[("host", "localhost:1")]), Ok(()));
    assert_eq!(h2("/", &[]), Err(GuardRejection::MissingHost));
    assert_eq!(h2("http://evil.test/", &[]), Err(GuardRejection::ForeignHost));
    let disagreeing = h2("http://localhost:1/", &[("host", "localhost:2")]);
    assert_eq!(disagreeing, Err(GuardRejection::DuplicateHost));
}

fn page(host: &str, lines: &[(&str, &str)]) -> Result<(), GuardRejection> {
    check(Version::HTTP_11, "/", &[&[("host", host)], lines].concat())
}

#[test]
fn a_browser_on_our_own_page_is_heard() {
    for (host, origin) in [
        ("localhost:8788", "http://localhost:8788"),
        ("localhost:8788", "https://LOCALHOST:8788"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("localhost", "https://localhost:443"),
        ("[::1]:1", "http://[::1]:1"),
    ] {
        assert_eq!(page(host, &[("origin", origin)]), Ok(()), "{host} {origin}");
    }
    for site in ["same-origin", "none"] {
        assert_eq!(page("localhost", &[("sec-fetch-site", site)]), Ok(()), "{site}");
    }
}

fn entry(lines: &[(&str, &str)]) -> [bool; 3] {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost:8788"));
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let (guard, head) = (Guard::default(), head(Version::HTTP_11, "/", headers));
    [
        guard.check(&head, &Fields::of(&head.headers)).is_ok(),
        guard.check_link(&head).is_ok(),
        guard.check_form(&head).is_ok(),
    ]
}

#[test]
fn a_link_may_come_from_another_site_but_only_as_a_persons_own_way() {
    const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");
    const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
    const DOCUMENT: (&str, &str) = ("sec-fetch-dest", "document");
    assert_eq!(entry(&[]), [true; 3]);
    assert_eq!(entry(&[CROSS, NAVIGATE, DOCUMENT]), [false, true, false]);
    assert_eq!(entry(&[CROSS, NAVIGATE, DOCUMENT, ("origin", "null")]), [false, true, false]);
    for lines in [
        &[CROSS, NAVIGATE, ("sec-fetch-dest", "iframe")][..],
        &[CROSS, ("sec-fetch-mode", "no-cors"), DOCUMENT],
        &[CROSS, NAVIGATE],
        &[CROSS],
        &[CROSS, NAVIGATE, NAVIGATE, DOCUMENT],
        &[CROSS, CROSS, NAVIGATE, DOCUMENT],
        &[CROSS, NAVIGATE, DOCUMENT, ("origin", "https://evil.test")],
        &[("origin", "https://evil.test")],
    ] {
        assert_eq!(entry(lines), [false; 3], "{lines:?}");
    }
}

#[test]
fn a_form_of_ours_that_names_no_referrer_is_heard_and_no_other() {
    let (null, own) = (("origin", "null"), ("sec-fetch-site", "same-origin"));
    assert!(entry(&[null, own])[2] && !entry(&[null, own])[0]);
    for site in ["none", "same-site", "cross-site"] {
        assert!(!entry(&[null, ("sec-fetch-site", site)])[2], "{site}");
    }
    assert!(!entry(&[null])[2] && !entry(&[null, null, own])[2] && !entry(&[null, own, own])[2]);
    let foreign = Guard::default();
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("evil.test"));
    let head = head(Version::HTTP_11, "/", headers);
    let link = foreign.check_link(&head);
    assert_eq!(link, Err(GuardRejection::ForeignHost));
    let form = foreign.check_form(&head);
    assert_eq!(form, Err(GuardRejection::ForeignHost));
}

#[test]
fn a_browser_on_any_other_page_is_refused() {
    for origin in [
        "https://evil.test",
        "null",
        "",
        "http://localhost:3000",
        "http://localhost",
        "http://127.0.0.1:8788",
        "http://localhost:8788/",
        "http://localhost:8788@evil.test",
        "http://localhost:8788.evil.test",
        "HTTP://localhost:8788",
        "file://",
        "localhost:8788",
        "chrome-extension://localhost:8788",
    ] {
        let answer = page("localhost:8788", &[("origin", origin)]);
        assert_eq!(answer, Err(GuardRejection::ForeignOrigin), "{origin}");
    }
    let own = ("origin", "http://localhost");
    assert_eq!(page("localhost", &[own, own]), Err(GuardRejection::ForeignOrigin));
    for site in ["cross-site", "same-site", "", "none, same-origin"] {
        let answer = page("localhost", &[("sec-fetch-site", site)]);
        assert_eq!(answer, Err(GuardRejection::ForeignOrigin), "{site}");
    }
    let sites = [("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")];
    assert_eq!(page("localhost", &sites), Err(GuardRejection::ForeignOrigin));
}

fn of_page(lines: &[(&'static str, &'static str)]) -> Result<(), GuardRejection> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    check_page(&Fields::of(&headers))
}

#[test]
fn a_browser_that_names_no_page_is_known_by_its_own_name() {
    const FIREFOX: (&str, &str) =
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0");
    let unnamed = Err(GuardRejection::UnnamedPage);
    assert_eq!(of_page(&[FIREFOX]), unnamed);
    assert_eq!(of_page(&[FIREFOX, ("user-agent", "curl/8")]), unnamed);
    assert_eq!(of_page(&[FIREFOX, ("authorization", "Basic bWU6bWU=")]), unnamed);
    assert_eq!(of_page(&[("user-agent", "AppleCoreMedia/1.0.0 (iPhone)")]), unnamed);
    for more in [
        ("x-ads-account", "acme"),
        ("x-ads-key", "adsk_x"),
        ("authorization", "Bearer Atza|acme"),
        // Whether these are good is another question.
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        assert_eq!(of_page(&[FIREFOX, more]), Ok(()), "{more:?}");
    }
    for program in
        ["curl/8.5.0", "python-requests/2.32", "", "mozilla", "Mozilla/5.0 PowerShell/7.4"]
    {
        assert_eq!(of_page(&[("user-agent", program)]), Ok(()), "{program}");
    }
    assert_eq!(of_page(&[]), Ok(()));
}
