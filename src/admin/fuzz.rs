//! Fuzz targets of what the admin listener reads: arguments of addresses and bodies, places in lists,
//! cookies.

#[cfg(feature = "dashboard")]
use super::dashboard::fuzz::cookie;
use super::{arguments::Arguments, paging::Paging};
use crate::{
    fuzz::{Target, text},
    recent::RequestPlace,
};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

pub const TARGETS: &[Target] = &[
    Target { name: "admin_arguments", run: arguments, seeds: BODIES },
    #[cfg(feature = "dashboard")]
    Target { name: "cookie", run: cookie, seeds: COOKIES },
];

const BODIES: &[&str] = &[
    "a=b%20c+d&name=1&name=2&limit=7&cursor=1795132800-7&empty=&%61b=%zz%4&flag",
    r#"{"a":"b","limit":7,"cursor":"1-2","flag":true,"name":["x","y"],"none":null}"#,
    r#"{"a":{"b":1},"limit":1e300,"name":[1]}"#,
];

#[cfg(feature = "dashboard")]
const COOKIES: &[&str] = &[
    "host: localhost:8788\ncookie: adsproxy_dashboard_8788=0123456789abcdef0123456789abcdef.secret; a=b",
    "cookie: __Host-adsproxy=0123456789abcdef0123456789abcdef.s\ncookie: __Host-adsproxy=x\norigin: https://a",
];

/// A value that is there twice is none, whatever it is read as; a page is within its bounds, and a place
/// reads as it is written.
fn arguments(input: &[u8]) {
    let mut json = HeaderMap::new();
    json.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let form = text(input).map(Arguments::of_form);
    let read = [Arguments::of_bytes(&json, input).ok(), form];
    for arguments in read.into_iter().flatten() {
        for name in ["a", "limit", "cursor", "flag", "name", "ab"] {
            let all = arguments.all(name);
            if let Ok(Some(one)) = arguments.one(name) {
                assert_eq!(all, [one]);
            }
            assert!(all.len() < 2 || arguments.any(name).is_none());
            if let Ok(Some(number)) = arguments.number(name) {
                assert_eq!(all[0].trim_start_matches('+').parse(), Ok(number));
            }
            if let Ok(Some(flag)) = arguments.flag(name) {
                assert_eq!(all, [flag.to_string()]);
            }
        }
        let names: Vec<_> = arguments.pairs().into_iter().map(|(name, _)| name).collect();
        let known: Vec<_> = names.iter().map(String::as_str).collect();
        assert!(arguments.only(&known).is_ok());
        let Ok(paging) = Paging::<RequestPlace>::of(&arguments, 50) else { continue };
        assert!((1..=1000).contains(&paging.limit));
        if let Some(place) = paging.after {
            assert_eq!(place.to_string().parse::<RequestPlace>().ok(), Some(place));
        }
    }
}
