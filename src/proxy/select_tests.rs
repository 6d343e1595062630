//! Table tests of the selectors.

use super::*;
use http::{HeaderMap, Request};

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: http::HeaderName = name.parse().expect("a name");
        headers.append(name, value.parse().expect("a value"));
    }
    headers
}

/// The alias chosen from path and headers, or the code of the refusal.
fn chosen(
    path: &str,
    lines: &[(&str, &str)],
    default: Option<&str>,
) -> Result<String, &'static str> {
    let (uri, headers) = (path.parse().expect("a uri"), headers(lines));
    let known = |alias: &str| ["acme", "globex"].contains(&alias);
    Prefix::of(&uri)
        .and_then(|prefix| {
            let chosen = choose(&headers, &Fields::of(&headers), prefix.as_ref(), known)?;
            let chosen = chosen.or(default).ok_or(Error::Rejected(Code::AccountRequired))?;
            Ok(chosen.to_owned())
        })
        .map_err(|error| error.code().row().code)
}

#[test]
fn each_selector_alone_names_the_account() {
    for (path, lines) in [
        ("/v2/profiles", &[("x-ads-account", "acme")][..]),
        ("/a/acme/v2/profiles", &[]),
        ("/a/acme@eu/v2/profiles", &[]),
        ("/a/acme", &[]),
        ("/a/acme?x=1", &[]),
        ("/v2/profiles", &[("authorization", "Bearer Atza|acme")]),
        ("/v2/profiles", &[("authorization", "bearer Atza%7Cacme")]),
    ] {
        assert_eq!(chosen(path, lines, Some("globex")).as_deref(), Ok("acme"), "{path}");
    }
    assert_eq!(chosen("/x", &[], Some("globex")).as_deref(), Ok("globex"));
}

#[test]
fn none_at_all_is_refused() {
    assert_eq!(chosen("/v2/profiles", &[], None), Err("account_required"));
}

#[test]
fn selectors_that_agree_are_one_and_others_conflict() {
    let both = [("x-ads-account", "acme"), ("authorization", "Bearer Atza|acme")];
    assert_eq!(chosen("/a/acme/x", &both, None).as_deref(), Ok("acme"));
    for (path, lines) in [
        ("/a/globex/x", &[("x-ads-account", "acme")][..]),
        ("/x", &[("x-ads-account", "acme"), ("authorization", "Bearer Atza|globex")]),
        ("/a/acme/x", &[("authorization", "Bearer Atza|globex")]),
        ("/x", &[("authorization", "Bearer Atza|acme"), ("authorization", "Bearer Atza|globex")]),
    ] {
        assert_eq!(chosen(path, lines, None), Err("account_conflict"), "{path}");
    }
}

#[test]
fn a_bearer_of_the_sdks_own_selects_nothing() {
    for token in [
        "Bearer Atza|nobody",
        "Bearer Atza|IwEBIA",
        "Bearer adsk_x",
        "Bearer Atza|adss_x",
        "Basic acme",
        "Bearer acme",
        "Bearer",
    ] {
        let lines = [("x-ads-account", "acme"), ("authorization", token)];
        assert_eq!(chosen("/x", &lines, None).as_deref(), Ok("acme"), "{token}");
        assert_eq!(chosen("/x", &lines[1..], None), Err("account_required"), "{token}");
        let beside = [("authorization", token), ("authorization", "Bearer Atza|acme")];
        assert_eq!(chosen("/x", &beside, None).as_deref(), Ok("acme"), "{token}");
    }
}

#[test]
fn malformed_and_doubled_selectors_are_refused() {
    for (path, lines) in [
        ("/x", &[("x-ads-account", "acme"), ("x-ads-account", "acme")][..]),
        ("/x", &[("x-ads-account", "acme, globex")]),
        ("/x", &[("x-ads-account", "")]),
        ("/x", &[("x-ads-account", "../x")]),
        ("/a//x", &[]),
        ("/a/%61cme/x", &[]),
        ("/a/acme@us/x", &[]),
        ("/a/acme@/x", &[]),
        ("/a/../x", &[]),
    ] {
        assert_eq!(chosen(path, lines, Some("acme")), Err("bad_request"), "{path} {lines:?}");
    }
    let region =
        |lines: &[(&str, &str)]| header_region(&Fields::of(&headers(lines))).map_err(|e| e.code());
    assert_eq!(region(&[("x-ads-region", "eu")]), Ok(Some(Region::Eu)));
    assert_eq!(region(&[]), Ok(None));
    for lines in [&[("x-ads-region", "EU")][..], &[("x-ads-region", "eu"), ("x-ads-region", "eu")]]
    {
        assert_eq!(region(lines), Err(crate::problem::Code::BadRequest));
    }
}

#[test]
fn the_rest_of_a_prefixed_path_stays_as_it_came() {
    for (path, rest) in [
        ("/a/acme/v2/profiles?x=%20+&y", "/v2/profiles?x=%20+&y"),
        ("/a/acme//sp/campaigns//list", "//sp/campaigns//list"),
        ("/a/acme/%2e%2e/a/../b;/c", "/%2e%2e/a/../b;/c"),
        ("/a/acme@fe/x", "/x"),
        ("/a/acme", "/"),
        ("/a/acme?q=1", "/?q=1"),
        ("/a/acme/a/globex/x", "/a/globex/x"),
    ] {
        let uri: Uri = path.parse().expect("a uri");
        let prefix = Prefix::of(&uri).expect("well formed").expect("a prefix");
        assert_eq!(prefix.target().expect("a target").to_string(), rest, "{path}");
        assert!(path.starts_with(prefix.text) && !prefix.text.ends_with('/'));
    }
    for path in ["/", "/a", "/accounts", "/ab/acme/x", "//a/acme/x"] {
        let uri = Uri::builder().path_and_query(path).build().expect("a uri");
        assert!(Prefix::of(&uri).expect("well formed").is_none(), "{path}");
    }
}

fn validated(request: http::request::Builder) -> Result<(), u16> {
    let (head, ()) = request.body(()).expect("a request").into_parts();
    validate(&head, &Fields::of(&head.headers)).map_err(|error| error.status().as_u16())
}

#[test]
fn only_paths_of_honest_methods_pass() {
    let uri = |uri: &str| Request::builder().uri(uri.parse::<Uri>().expect("a uri"));
    assert_eq!(validated(uri("/x")), Ok(()));
    assert_eq!(validated(uri("http://169.254.169.254/latest")), Err(400));
    assert_eq!(validated(uri("*").method("OPTIONS")), Err(400));
    assert_eq!(validated(uri("evil.test:443").method("CONNECT")), Err(405));
    assert_eq!(validated(uri("/x").method("TRACE")), Err(405));
    let http2 = uri("http://localhost/x").version(http::Version::HTTP_2);
    assert_eq!(validated(http2), Ok(()));
}

#[test]
fn a_body_is_framed_once() {
    let post = || Request::builder().method("POST").uri("/x");
    assert_eq!(validated(post().header("content-length", "3")), Ok(()));
    assert_eq!(validated(post().header("transfer-encoding", "Chunked")), Ok(()));
    for (name, value) in [
        ("transfer-encoding", "gzip, chunked"),
        ("transfer-encoding", "chunked, chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", ""),
    ] {
        assert_eq!(validated(post().header(name, value)), Err(400), "{value}");
    }
    let twice =
        post().header("transfer-encoding", "chunked").header("transfer-encoding", "chunked");
    assert_eq!(validated(twice), Err(400));
    let both = post().header("transfer-encoding", "chunked").header("content-length", "3");
    assert_eq!(validated(both), Err(400));
    let twice = post().header("content-length", "3").header("content-length", "3");
    assert_eq!(validated(twice), Err(400));
}
