//! The spans that a collector gets of requests, attempts and refreshes, and what Amazon sees of a trace.

use crate::support::{
    otlp::{Collector, attribute, attributes},
    proxy::{Answer, Proxy, Setup, amazon, eventually},
};
use adsproxy::sandbox::{ApiFault, Emulator, Surface, Times};
use http::Method;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use std::collections::BTreeSet;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is(kind: SpanKind) -> impl Fn(&Span) -> bool {
    move |span| span.kind() == kind
}

/// The server span of the request `id`.
fn is_of(id: &'static str) -> impl Fn(&Span) -> bool {
    move |span| is(SpanKind::Server)(span) && attribute(span, "adsproxy.request_id") == id
}

fn is_failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

/// A request for `acme` with an id and further fields.
async fn send(proxy: &Proxy, id: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let request = proxy.request(Method::GET, path).header("X-Ads-Account", "acme");
    let request = request.header("X-Request-Id", id);
    let request = fields.iter().fold(request, |it, (name, value)| it.header(*name, *value));
    proxy.send(request).await
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// The field `name` as Amazon saw it in the requests for `path`.
fn seen(amazon: &Emulator, path: &str, name: &str) -> Vec<String> {
    let requests = amazon.state().record.requests_for(Surface::Api);
    let ours = requests.iter().filter(|request| request.target.starts_with(path));
    ours.flat_map(|it| it.values(name)).map(str::to_owned).collect()
}

/// The client spans of `server`, the first first.
async fn attempts(collector: &Collector, server: &Span, count: usize) -> Vec<Span> {
    let of_server = || {
        let mut spans = collector.spans();
        spans.retain(|span| span.parent_span_id == server.span_id);
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    };
    eventually("all attempts", || of_server().len() >= count).await;
    let spans = of_server();
    assert_eq!(spans.len(), count, "{spans:?}");
    assert!(
        spans.iter().all(is(SpanKind::Client))
            && spans.iter().all(|it| it.trace_id == server.trace_id)
    );
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_request_is_one_server_span_and_a_client_span_for_each_attempt() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let proxy = Proxy::with(&amazon, collector.setup(&[("OTEL_SERVICE_NAME", "ads")]));
    assert_eq!(send(&proxy, "first", "/v2/profiles", &[]).await.status, 200);
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    let answer = proxy
        .send(
            proxy
                .request(Method::POST, "/a/acme/v2/profiles?canary=QUERY-CANARY")
                .header("X-Request-Id", "second")
                .header("X-Canary", "HEADER-CANARY")
                .body("BODY-CANARY"),
        )
        .await;
    assert_eq!(answer.status.as_u16() / 100, 4, "no such call, and no 401: {}", answer.text());
    let server = collector.span("the server span", is_of("second")).await;
    assert!(server.parent_span_id.is_empty(), "its own trace");
    let said = attributes(&server.attributes);
    let status = answer.status.as_u16().to_string();
    for (key, value) in [
        ("http.request.method", "POST"),
        ("url.path", "/a/acme/v2/profiles"),
        ("http.response.status_code", status.as_str()),
        ("http.request.body.size", "11"),
        ("adsproxy.account", "acme"),
        ("adsproxy.region", "na"),
        ("adsproxy.replays", "1"),
    ] {
        assert_eq!(said[key], value, "{key}");
    }
    assert!(said.contains_key("aws.request_id"), "{said:?}");
    assert!(!is_failed(&server), "a 4xx is the caller's");
    let [first, second] = &attempts(&collector, &server, 2).await[..] else { panic!() };
    assert_eq!(attribute(first, "http.response.status_code"), "401");
    assert_eq!(attribute(first, "adsproxy.unauthorized"), "expired");
    assert_eq!(attribute(first, "error.type"), "401");
    assert_eq!(attribute(first, "http.request.resend_count"), "");
    assert_eq!(attribute(second, "http.request.resend_count"), "1");
    assert_eq!(attribute(second, "http.response.status_code"), status);
    assert_eq!(attribute(second, "adsproxy.unauthorized"), "");
    assert_eq!(attribute(second, "url.full"), format!("http://{}/v2/profiles", amazon.addr()));
    assert_eq!(attribute(second, "server.address"), "127.0.0.1");
    assert_eq!(attribute(second, "server.port"), amazon.addr().port().to_string());
    assert!(is_failed(first) && is_failed(second));
    let times = [
        server.start_time_unix_nano,
        first.start_time_unix_nano,
        first.end_time_unix_nano,
        second.start_time_unix_nano,
        second.end_time_unix_nano,
        server.end_time_unix_nano,
    ];
    assert!(times.is_sorted(), "{times:?}");
    let is_its_refresh = |span: &Span| span.links.iter().any(|it| it.span_id == server.span_id);
    let refresh = collector.span("the refresh", is_its_refresh).await;
    assert_eq!(refresh.name, "refresh token");
    assert_eq!(refresh.kind(), SpanKind::Internal);
    assert_ne!(refresh.trace_id, server.trace_id, "it belongs to no request");
    assert_eq!(refresh.links[0].trace_id, server.trace_id);
    let said = attributes(&refresh.attributes);
    assert_eq!(said["adsproxy.refresh.trigger"], "forced");
    assert_eq!(said["adsproxy.refresh.outcome"], "succeeded");
    assert_eq!(said["adsproxy.account"], "acme");
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "ads");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    for batch in collector.all() {
        let text = String::from_utf8_lossy(&batch.body).into_owned();
        assert!(!text.contains("CANARY"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_the_caller_goes_on_with_each_attempt_as_the_parent() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let proxy = Proxy::with(&amazon, collector.setup(&[]));
    let ours = traceparent("01");
    let fields = [("traceparent", ours.as_str()), ("tracestate", "vendor=1,other=2")];
    amazon.state().api.faults.add(ApiFault::SpuriousUnauthorized, Times::Next(1));
    assert_eq!(send(&proxy, "one", "/v2/profiles", &fields).await.status, 200);
    let server = collector.span("the server span", is_of("one")).await;
    assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.into(), PARENT.into()));
    let attempts = attempts(&collector, &server, 2).await;
    let expected = attempts.iter().map(|it| format!("00-{TRACE}-{}-01", hex(&it.span_id)));
    assert_eq!(seen(&amazon, "/v2/profiles", "traceparent"), expected.collect::<Vec<_>>());
    assert_eq!(seen(&amazon, "/v2/profiles", "tracestate"), ["vendor=1,other=2"; 2]);
    let ids: BTreeSet<_> = attempts.iter().map(|it| it.span_id.clone()).collect();
    assert!(ids.len() == 2 && !ids.contains(&server.span_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_or_not_recorded_goes_on_as_it_came_and_nothing_is_added() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let proxy = Proxy::with(&amazon, collector.setup(&[]));
    let good = traceparent("01");
    let unsampled = traceparent("00");
    let malformed = format!("00-{}-{PARENT}-01", TRACE.to_uppercase());
    for (id, path, value) in [
        ("unsampled", "/v2/profiles?unsampled", unsampled.as_str()),
        ("malformed", "/v2/profiles?malformed", malformed.as_str()),
        ("nonsense", "/v2/profiles?nonsense", "a b c"),
    ] {
        let fields = [("traceparent", value), ("tracestate", "x")];
        assert_eq!(send(&proxy, id, path, &fields).await.status, 200);
        assert_eq!(seen(&amazon, path, "traceparent"), [value]);
        assert_eq!(seen(&amazon, path, "tracestate"), ["x"]);
    }
    let twice = [("traceparent", good.as_str()), ("traceparent", good.as_str())];
    assert_eq!(send(&proxy, "twice", "/v2/profiles?twice", &twice).await.status, 200);
    assert_eq!(seen(&amazon, "/v2/profiles?twice", "traceparent"), [good.as_str(); 2]);
    assert_eq!(send(&proxy, "none", "/v2/profiles?none", &[]).await.status, 200);
    assert!(seen(&amazon, "/v2/profiles?none", "traceparent").is_empty());
    for id in ["malformed", "nonsense", "twice", "none"] {
        let server = collector.span(id, is_of(id)).await;
        assert!(server.parent_span_id.is_empty() && hex(&server.trace_id) != TRACE, "{id}");
    }
    assert!(!collector.spans().iter().any(is_of("unsampled")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_the_fields_of_a_trace_go_on_as_they_came() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let ours = traceparent("01");
    let fields = [("traceparent", ours.as_str()), ("tracestate", "x")];
    assert_eq!(send(&proxy, "one", "/v2/profiles", &fields).await.status, 200);
    assert_eq!(seen(&amazon, "/v2/profiles", "traceparent"), [ours.as_str()]);
    assert_eq!(seen(&amazon, "/v2/profiles", "tracestate"), ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_links_to_every_request_that_waited_for_it() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    amazon.state().lwa.gate.hold();
    // None is begun ahead of the requests.
    let toml = "[token]\nbackground_lead_secs = 0".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..collector.setup(&[]) });
    let ids = ["a", "b", "c", "d", "e"];
    let all = ids.map(|id| {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
        tokio::spawn(request.header("X-Request-Id", id).send())
    });
    eventually("all wait", || proxy.metric("adsproxy_in_flight_requests") >= 5.0).await;
    amazon.state().lwa.gate.until_waiting(1).await;
    // One that waits for nothing is linked to nothing.
    amazon.state().lwa.gate.release();
    for one in all {
        assert_eq!(one.await.expect("no panic").expect("a response").status(), 200);
    }
    assert_eq!(send(&proxy, "late", "/v2/profiles", &[]).await.status, 200);
    collector.span("the last", is_of("late")).await;
    let refresh = collector.span("the refresh", is(SpanKind::Internal)).await;
    let linked: BTreeSet<_> = refresh.links.iter().map(|link| link.span_id.clone()).collect();
    let mut waited = BTreeSet::new();
    for id in ids {
        let server = collector.span(id, is_of(id)).await;
        assert!(server.start_time_unix_nano <= refresh.end_time_unix_nano);
        waited.insert(server.span_id);
    }
    assert!(waited.is_subset(&linked), "all who waited");
    let late = collector.span("the last", is_of("late")).await;
    assert!(!linked.contains(&late.span_id));
    assert_eq!(attribute(&refresh, "adsproxy.refresh.trigger"), "request");
    assert_eq!(refresh.dropped_links_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_refresh_and_a_failed_attempt_are_failed_spans() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let proxy = Proxy::with(&amazon, collector.setup(&[]));
    assert_eq!(send(&proxy, "good", "/v2/profiles", &[]).await.status, 200);
    amazon.state().api.faults.add(ApiFault::Drop, Times::Next(1));
    let request = proxy.request(Method::POST, "/v2/profiles").header("X-Ads-Account", "acme");
    let answer = proxy.send(request.header("X-Request-Id", "dropped").body("x")).await;
    assert_eq!(answer.error(), Some("upstream_unreachable"));
    let server = collector.span("the server span", is_of("dropped")).await;
    assert_eq!(attribute(&server, "error.type"), "upstream_unreachable");
    assert!(is_failed(&server));
    let attempts = attempts(&collector, &server, 1).await;
    assert_eq!(attribute(&attempts[0], "error.type"), "upstream_unreachable");
    assert_eq!(attribute(&attempts[0], "http.response.status_code"), "");
    assert!(is_failed(&attempts[0]));

    amazon.state().lwa.revoke("acme");
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    let answer = send(&proxy, "dead", "/v2/profiles", &[]).await;
    assert_eq!(answer.error(), Some("reauthorization_required"));
    let is_dead =
        |span: &Span| attribute(span, "adsproxy.refresh.outcome") == "reauthorization_required";
    let refresh = collector.span("the failed refresh", is_dead).await;
    assert!(is_failed(&refresh));
    assert_eq!(attribute(&refresh, "error.type"), "invalid_grant");
    // What never reached Amazon is a server span alone.
    assert_eq!(send(&proxy, "reserved", "/.well-known/x", &[]).await.status, 404);
    let reserved = collector.span("a reserved path", is_of("reserved")).await;
    assert_eq!(attribute(&reserved, "error.type"), "not_found");
    assert!(!is_failed(&reserved));
    assert!(!collector.spans().iter().any(|span| span.parent_span_id == reserved.span_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sampler_decides_for_traces_that_begin_here_and_the_caller_for_its_own() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let proxy = Proxy::with(&amazon, collector.setup(&[sampler]));
    let recorded = traceparent("01");
    assert_eq!(send(&proxy, "root", "/v2/profiles", &[]).await.status, 200);
    let fields = [("traceparent", recorded.as_str())];
    assert_eq!(send(&proxy, "child", "/v2/profiles", &fields).await.status, 200);
    collector.span("the recorded one", is_of("child")).await;
    assert!(!collector.spans().iter().any(is_of("root")));
    assert!(!collector.spans().iter().any(is(SpanKind::Internal)), "no refresh was for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_a_key_in_a_path_is_masked_in_each_span() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let proxy = Proxy::with(&amazon, collector.setup(&[]));
    send(&proxy, "masked", "/k/SECRET-CANARY/v2/profiles", &[]).await;
    let server = collector.span("the server span", is_of("masked")).await;
    assert_eq!(attribute(&server, "url.path"), "/k/[masked]/v2/profiles");
    let [attempt] = &attempts(&collector, &server, 1).await[..] else { panic!() };
    let url = format!("http://{}/k/[masked]/v2/profiles", amazon.addr());
    assert_eq!(attribute(attempt, "url.full"), url);
    let seen = amazon.state().record.requests_for(Surface::Api);
    assert!(seen.iter().any(|it| it.target.contains("SECRET-CANARY")), "as it was: {seen:?}");
}
