//! Tests of the log as a whole: what reaches the output, and what does not hold anybody up.

use super::*;
use crate::id::Region;
use parking_lot::{Condvar, Mutex};
use std::{sync::atomic::Ordering, time::Duration};

/// An output that can be read, and held.
#[derive(Clone, Default)]
struct Output(Arc<Shared>);

#[derive(Default)]
struct Shared {
    written: Mutex<Vec<u8>>,
    held: Mutex<bool>,
    changed: Condvar,
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8(self.0.written.lock().clone()).unwrap()
    }

    fn hold(&self, held: bool) {
        *self.0.held.lock() = held;
        self.0.changed.notify_all();
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.changed.wait_while(&mut self.0.held.lock(), |held| *held);
        self.0.written.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const LINE: AccessLine<'static> = AccessLine {
    wall: Duration::from_millis(1_795_132_800_007),
    method: "GET",
    path: "/v2/profiles",
    status: 200,
    caller: Some("reports"),
    account: Some("acme"),
    region: Some(Region::Eu),
    request_id: "r-1",
    server_request_id: Some("5f"),
    amazon_request_id: Some("A1"),
    duration: Duration::from_micros(12_045),
    bytes_in: 0,
    bytes_out: 1024,
    replays: 1,
    error: None,
};

/// Tests of this file share the process's subscriber, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

fn log(format: LogFormat, access: bool) -> (Log, Output) {
    let output = Output::default();
    // Off: the events of other tests, which run meanwhile, must not come here.
    let config = config::LogConfig { filter: "off".into(), format: None, access };
    (start(&config, output.clone(), format, false).unwrap(), output)
}

fn access_output(format: LogFormat, lines: &[AccessLine<'_>]) -> String {
    let _turn = TURN.lock();
    let (log, output) = log(format, true);
    let access = log.access();
    lines.iter().for_each(|line| access.write(line));
    drop(access);
    drop(log);
    output.text()
}

#[test]
fn an_access_line_is_json_with_the_documented_names() {
    let text = access_output(LogFormat::Json, &[LINE]);
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!({
        "timestamp": "2026-11-20T00:00:00.007Z", "level": "INFO", "target": "adsproxy::access",
        "message": "request", "http.request.method": "GET", "url.path": "/v2/profiles",
        "http.response.status_code": 200, "caller": "reports", "account": "acme", "region": "eu", "request_id": "r-1",
        "server_request_id": "5f",
        "amazon_request_id": "A1", "duration_ms": 12.045, "http.request.body.size": 0,
        "http.response.body.size": 1024, "replays": 1,
    });
    assert_eq!(line, expected);
}

#[test]
fn an_access_line_in_text_is_one_readable_line() {
    let line =
        AccessLine { error: Some("overloaded"), caller: None, account: None, region: None, ..LINE };
    let line = AccessLine { server_request_id: None, ..line };
    assert_eq!(
        access_output(LogFormat::Text, &[LINE, line]),
        "2026-11-20T00:00:00.007Z  INFO GET /v2/profiles 200 12.045ms caller=reports account=acme \
         region=eu in=0 out=1024 replays=1 request_id=r-1 server_request_id=5f amazon_request_id=A1\n\
         2026-11-20T00:00:00.007Z  INFO GET /v2/profiles 200 12.045ms in=0 out=1024 replays=1 \
         error=overloaded request_id=r-1 amazon_request_id=A1\n"
    );
}

#[test]
fn hostile_text_forges_neither_a_line_nor_an_escape_sequence() {
    let path = "/x\n{\"level\":\"ERROR\"}\u{1b}[2J\u{9b}31m a=b\"";
    for format in [LogFormat::Json, LogFormat::Text] {
        let text = access_output(format, &[AccessLine { path, ..LINE }]);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
    }
    let text = access_output(LogFormat::Json, &[AccessLine { path, ..LINE }]);
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["url.path"], path);
}

#[test]
fn events_of_both_formats_are_escaped_and_follow_the_latest_init() {
    let _turn = TURN.lock();
    let layers = [LogFormat::Json, LogFormat::Text].map(|format| (format, log(format, true)));
    for (format, (log, output)) in layers {
        CURRENT.store(Some(Arc::clone(&log.sink)));
        let subscriber = Registry::default().with(events_layer(format, false));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(account = %"a\u{1b}[31m\nb\u{9b}", "said \u{1b}]0;x\u{7}");
        });
        drop(log);
        let text = output.text();
        assert!(text.contains("account"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
    }
}

#[test]
fn a_field_looks_the_same_however_it_is_passed() {
    let _turn = TURN.lock();
    let (log, output) = log(LogFormat::Text, true);
    let subscriber = Registry::default().with(events_layer(LogFormat::Text, false));
    tracing::subscriber::with_default(subscriber, || {
        let (acme, path) = ("acme", std::path::Path::new("/a b"));
        tracing::info!(account = acme, again = %acme, path = %path.display(), n = 3, "said");
    });
    drop(log);
    let text = output.text();
    assert!(text.ends_with("said account=acme again=acme path=\"/a b\" n=3\n"), "{text}");
}

#[test]
fn events_and_access_lines_have_times_of_one_precision() {
    for format in [LogFormat::Json, LogFormat::Text] {
        let _turn = TURN.lock();
        let (log, output) = log(format, true);
        let subscriber = Registry::default().with(events_layer(format, false));
        tracing::subscriber::with_default(subscriber, || tracing::info!("said"));
        log.access().write(&LINE);
        drop(log);
        for line in output.text().lines() {
            let from = line.find("20").expect("a year");
            let time = &line[from..=from + line[from..].find('Z').expect("UTC")];
            assert_eq!(time.len(), "2026-11-20T00:00:00.007Z".len(), "{line}");
        }
    }
}

#[test]
fn a_second_init_takes_over_and_an_ended_one_is_silent() {
    let _turn = TURN.lock();
    let (first, first_output) = log(LogFormat::Json, true);
    let (second, second_output) = log(LogFormat::Json, true);
    let subscriber = || Registry::default().with(events_layer(LogFormat::Json, false));
    tracing::subscriber::with_default(subscriber(), || tracing::info!("for the second"));
    drop(first);
    tracing::subscriber::with_default(subscriber(), || tracing::info!("still the second"));
    drop(second);
    tracing::subscriber::with_default(subscriber(), || tracing::info!("for nobody"));
    assert_eq!(first_output.text(), "");
    let text = second_output.text();
    assert!(text.contains("for the second") && text.contains("still the second"), "{text}");
    assert!(!text.contains("nobody"));
}

#[test]
fn a_stuck_output_drops_and_counts_but_never_blocks() {
    let _turn = TURN.lock();
    let (log, output) = log(LogFormat::Json, true);
    output.hold(true);
    let (access, dropped) = (log.access(), log.dropped());
    let mut written = 0_u64;
    while dropped.load(Ordering::Relaxed) == 0 {
        access.write(&LINE);
        written += 1;
        assert!(written < 1_000_000, "the queue has no bound");
    }
    access.flush();
    output.hold(false);
    drop(access);
    drop(log);
    let arrived = output.text().lines().count() as u64;
    assert_eq!(arrived + dropped.load(Ordering::Relaxed), written);
}

#[test]
fn lines_wait_for_a_flush_and_nothing_is_lost_between_two_blocks() {
    let _turn = TURN.lock();
    let (log, output) = log(LogFormat::Text, true);
    let access = log.access();
    for _ in 0..1000 {
        access.write(&LINE);
    }
    access.flush();
    access.flush();
    drop(access);
    drop(log);
    assert_eq!(output.text().lines().count(), 1000);
}

#[test]
fn no_access_line_is_written_when_they_are_off() {
    let _turn = TURN.lock();
    let (log, output) = log(LogFormat::Json, false);
    log.access().write(&LINE);
    drop(log);
    assert_eq!(output.text(), "");
}
