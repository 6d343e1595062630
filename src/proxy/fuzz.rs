//! Fuzz targets of how a request is read: its framing, which account it selects, the path that goes on.

use super::{
    mcp::events::{EventFilter, StreamError},
    redact::{blanked, mask},
    select::{Prefix, choose, header_alias, is_reserved, validate},
};
use crate::{
    fuzz::{Target, head, text},
    id::AccountId,
    inbound::fields::Fields,
};

pub const TARGETS: &[Target] = &[
    Target { name: "request_head", run: request_head, seeds: HEADS },
    Target { name: "redact", run: redact, seeds: QUOTATIONS },
    Target { name: "event_stream", run: event_stream, seeds: STREAMS },
];

const HEADS: &[&str] = &[
    "GET /a/acme/v2/profiles?x=1 1\nhost: localhost\nx-ads-account: acme\nx-ads-region: eu",
    "POST /a/t1~acme@eu 1\nauthorization: Bearer Atza|acme\ncontent-length: 3",
    "PUT /sp/campaigns 2\nauthorization: bearer Atza%7Cacme\nauthorization: Bearer Atza|globex",
    "PATCH /a/acme@fe?x 1\ntransfer-encoding: chunked\nconnection: a, b, c",
    "GET http://localhost/v2 1\ntransfer-encoding: gzip, chunked",
    "GET /a/acme/.well-known/x 1\nconnection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q",
];

/// A body has one end; an account has one name; what goes on is the path without our prefix, byte for
/// byte.
fn request_head(input: &[u8]) {
    let Some(head) = head(input) else { return };
    let fields = Fields::of(&head.headers);
    if validate(&head, &fields).is_ok() {
        let lengths = head.headers.get_all("content-length").iter().count();
        let mut codings = head.headers.get_all("transfer-encoding").iter();
        let coding = codings.next();
        assert!(lengths + usize::from(coding.is_some()) < 2 && codings.next().is_none());
        assert!(coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")));
        assert!(head.uri.path().starts_with('/'));
    }
    let in_header = header_alias(&fields).unwrap_or_default();
    let whole = head.uri.path_and_query().map_or("/", |whole| whole.as_str());
    let Ok(prefix) = Prefix::of(&head.uri) else { return };
    for alias in prefix.iter().map(|prefix| prefix.alias).chain(in_header) {
        assert!(AccountId::is_id(alias) && alias.len() <= 129, "{alias:?}");
    }
    let chosen = choose(&head.headers, &fields, prefix.as_ref(), |_| true);
    if let Ok(chosen) = chosen {
        assert!(in_header.is_none_or(|alias| chosen == Some(alias)));
        assert!(prefix.as_ref().is_none_or(|prefix| chosen == Some(prefix.alias)));
    }
    let Some(prefix) = prefix else { return assert!(!whole.starts_with("/a/")) };
    let Ok(target) = prefix.target() else { return };
    let sent = target.path_and_query().map_or("", |sent| sent.as_str());
    let rest = whole.strip_prefix(prefix.text).expect("it is what was taken off");
    assert!(sent == rest || sent.strip_prefix('/') == Some(rest), "{rest:?} goes on as {sent:?}");
    assert_eq!(is_reserved(&head.uri), is_reserved(&target) && !target.path().starts_with("/a/"));
}

const TOKEN: &str = "Atza|IwEBIAbcdefghijklmnop-_qrstuv/WXYZ0123456789wxyz+short";

const QUOTATIONS: &[&str] = &[
    "no * here",
    "*",
    "{\"message\":\"'*' not a valid key=value pair in Authorization header: 'Bearer *'.\"}",
    "Atza|IwEBIAbcdefghijklmnop-_qrstuv&#47;WXYZ0123456789wxyz",
];

/// The token stands where the input has a star. Nothing of it is left, and a text whose length is
/// announced keeps its length.
fn redact(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let text = text.replace('*', TOKEN);
    let (text, token) = (text.as_bytes(), TOKEN.as_bytes());
    let has = |text: &[u8], part: &[u8]| text.windows(part.len()).any(|window| window == part);
    let (masked, blanked) = (mask(text, token), blanked(text, token));
    assert!(blanked.as_ref().is_none_or(|blanked| blanked.len() == text.len()));
    for clean in [masked, blanked].into_iter().map(|clean| clean.unwrap_or_else(|| text.to_vec())) {
        for part in ["IwEBIAbcdefghijklmnop-_qrstuv", "WXYZ0123456789wxyz"] {
            assert!(!has(&clean, part.as_bytes()), "{}", String::from_utf8_lossy(&clean));
        }
    }
}

const STREAMS: &[&str] = &[
    "3: ping\r\n\r\nid: 1\r\ndata:a\r\ndata\r\n\r\n",
    "1data: a\r\rdata: x\r\rdata: b",
    "7\u{feff}data: x\n\nevent: m\nid: 1\ndata: x1\nretry: 5\n\n",
];

/// The first byte chooses the length of the pieces. Pieces make no difference, and a stream that is
/// not rewritten stays as it was.
fn event_stream(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else { return };
    let piece = 1 + usize::from(*piece) % 16;
    assert_eq!(filtered(stream, piece, false).as_deref(), Ok(stream));
    assert_eq!(filtered(stream, piece, true), filtered(stream, stream.len().max(1), true));
}

/// The stream as it goes on; data that begins with `x` is rewritten if `rewrites`.
fn filtered(stream: &[u8], piece: usize, rewrites: bool) -> Result<Vec<u8>, StreamError> {
    let mut filter = EventFilter::new(Box::new(move |data| {
        Ok((rewrites && data.starts_with(b"x")).then(|| format!("new{}", data.len())))
    }));
    let mut out = Vec::new();
    for piece in stream.chunks(piece) {
        out.extend(filter.push(piece)?);
    }
    out.extend(filter.finish()?);
    Ok(out)
}
