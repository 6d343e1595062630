//! Fuzzes the cookies of the dashboard.

use super::cookie::{is_name, presented};
use crate::fuzz::fields;
use http::{HeaderMap, HeaderValue, header};

/// A session has the name of an entry, and no cookie that is there twice counts; what is given to a
/// browser is what it brings back.
pub fn cookie(input: &[u8]) {
    let Some(headers) = fields(input.split(|byte| *byte == b'\n')) else { return };
    for session in presented(&headers) {
        assert!(is_name(&session.name));
        assert!(!session.secret.expose().contains(';'));
        let given = session.set(&headers);
        let given = given.to_str().expect("ASCII").split("; ").next().expect("a first part");
        let host = headers.get(header::HOST).map(|host| (header::HOST, host.clone()));
        let brought = HeaderValue::from_str(given).expect("it was in a field");
        let fields = [Some((header::COOKIE, brought)), host].into_iter().flatten();
        let again = presented(&fields.collect::<HeaderMap<HeaderValue>>());
        let again: Vec<_> = again.iter().map(|it| (&it.name, &it.secret)).collect();
        assert_eq!(again, [(&session.name, &session.secret)]);
    }
}
