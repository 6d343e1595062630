//! What a 429 or 5xx of Amazon's says: its kind, and when to come back.

use crate::{
    metrics::ThrottleKind,
    provider::ads::{self, Service},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, DATE, RETRY_AFTER},
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The head of such a response, read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThrottleReply {
    pub(super) kind: ThrottleKind,
    pub(super) retry_after: Option<Duration>,
}

impl ThrottleReply {
    /// None for any other status. `wall` is the time since 1970.
    pub(super) fn of(
        status: StatusCode,
        headers: &HeaderMap,
        service: Service,
        wall: Duration,
    ) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let given = text(RETRY_AFTER).and_then(|value| {
            let sent = text(DATE).and_then(since_1970).unwrap_or(wall);
            retry_after(value.trim(), sent)
        });
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => {
                if headers.get(&ads::ERROR_TYPE).is_some_and(ads::is_access_denied) {
                    ThrottleKind::AccessDenied
                } else if service == Service::Mcp && text(CONTENT_TYPE).is_some_and(is_html) {
                    ThrottleKind::GatewayHtml
                } else {
                    given.map_or(ThrottleKind::NoRetryAfter, |(kind, _)| kind)
                }
            }
            status if !status.is_server_error() => return None,
            _ if given.is_some() => ThrottleKind::ServerErrorRetryAfter,
            _ => ThrottleKind::ServerError,
        };
        Some(Self { kind, retry_after: given.map(|(_, after)| after) })
    }

    /// Whether it is a throttling, which a wait may end.
    pub(super) fn is_throttling(self) -> bool {
        match self.kind {
            ThrottleKind::RetryAfterSeconds
            | ThrottleKind::RetryAfterDate
            | ThrottleKind::NoRetryAfter => true,
            ThrottleKind::AccessDenied
            | ThrottleKind::GatewayHtml
            | ThrottleKind::ServerErrorRetryAfter
            | ThrottleKind::ServerError => false,
        }
    }

    /// The wait that Amazon asks for. None of no length: then it has said nothing of use.
    pub(super) fn asked(self) -> Option<Duration> {
        self.retry_after.filter(|after| !after.is_zero())
    }
}

/// Seconds, or a date, which counts from when the response was `sent`: clocks differ.
fn retry_after(value: &str, sent: Duration) -> Option<(ThrottleKind, Duration)> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some((ThrottleKind::RetryAfterSeconds, Duration::from_secs(seconds)));
    }
    let date = since_1970(value)?;
    Some((ThrottleKind::RetryAfterDate, date.saturating_sub(sent)))
}

fn since_1970(date: &str) -> Option<Duration> {
    let date: SystemTime = httpdate::parse_http_date(date).ok()?;
    date.duration_since(UNIX_EPOCH).ok()
}

fn is_html(content_type: &str) -> bool {
    content_type.trim_start().get(..9).is_some_and(|start| start.eq_ignore_ascii_case("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20 00:00:00 UTC.
    const WALL: Duration = Duration::from_secs(1_795_132_800);

    fn reply(status: u16, service: Service, fields: &[(&'static str, &str)]) -> ThrottleReply {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        let headers = HeaderMap::from_iter(fields);
        let status = StatusCode::from_u16(status).expect("a status");
        ThrottleReply::of(status, &headers, service, WALL).expect("a 429 or 5xx")
    }

    #[test]
    fn the_time_to_come_back_is_read_in_both_forms() {
        for (value, kind, after) in [
            ("2", ThrottleKind::RetryAfterSeconds, Some(2)),
            (" 0 ", ThrottleKind::RetryAfterSeconds, Some(0)),
            ("99999999999999999999", ThrottleKind::RetryAfterSeconds, Some(u64::MAX)),
            ("Fri, 20 Nov 2026 00:00:07 GMT", ThrottleKind::RetryAfterDate, Some(7)),
            ("Thu, 19 Nov 2026 00:00:07 GMT", ThrottleKind::RetryAfterDate, Some(0)),
            ("soon", ThrottleKind::NoRetryAfter, None),
            ("-1", ThrottleKind::NoRetryAfter, None),
            ("", ThrottleKind::NoRetryAfter, None),
        ] {
            let said = reply(429, Service::Api, &[("retry-after", value)]);
            let expected = ThrottleReply { kind, retry_after: after.map(Duration::from_secs) };
            assert_eq!(said, expected, "{value}");
            assert!(said.is_throttling());
        }
        let zero = reply(429, Service::Api, &[("retry-after", "0")]);
        assert_eq!(zero.asked(), None);
    }

    #[test]
    fn a_date_counts_from_that_of_the_response() {
        let fields = [
            ("date", "Fri, 20 Nov 2026 11:00:00 GMT"),
            ("retry-after", "Fri, 20 Nov 2026 11:00:30 GMT"),
        ];
        let said = reply(429, Service::Api, &fields);
        assert_eq!(said.asked(), Some(Duration::from_secs(30)));
    }

    #[test]
    fn what_a_wait_never_clears_is_no_throttling() {
        let denied =
            [("x-amzn-errortype", "AccessDeniedException:http://x/"), ("retry-after", "2")];
        let html = [("content-type", "Text/HTML; charset=utf-8"), ("retry-after", "2")];
        for (status, service, fields, kind) in [
            (429, Service::Api, &denied[..], ThrottleKind::AccessDenied),
            (429, Service::Mcp, &html, ThrottleKind::GatewayHtml),
            (503, Service::Api, &html, ThrottleKind::ServerErrorRetryAfter),
            (500, Service::Mcp, &denied[..1], ThrottleKind::ServerError),
        ] {
            let said = reply(status, service, fields);
            assert_eq!((said.kind, said.is_throttling()), (kind, false));
        }
        assert!(reply(429, Service::Api, &html).is_throttling(), "another gateway's page");
        let other = [("x-amzn-errortype", "ThrottlingException")];
        assert!(reply(429, Service::Api, &other).is_throttling());
    }

    #[test]
    fn other_responses_say_nothing() {
        for status in [200, 207, 401, 403, 425] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(ThrottleReply::of(status, &HeaderMap::new(), Service::Api, WALL), None);
        }
    }
}
