//! One line per request, formatted by hand: this runs for every request on the data plane.
//!
//! A line allocates nothing: it is appended to a buffer of its worker, and full buffers are
//! swapped for empty ones that the writer thread gave back.

use super::{
    escape::push_json,
    sink::{BLOCK_BYTES, Sink},
};
use crate::{config::LogFormat, id::Region};
use std::{cell::RefCell, sync::Arc, time::Duration};

/// What is said about one request. There is no query string here: it may hold secrets.
#[derive(Debug, Clone, Copy)]
pub struct AccessLine<'a> {
    /// When the request came, since 1970-01-01 UTC.
    pub wall: Duration,
    pub method: &'a str,
    /// The path without its query string.
    pub path: &'a str,
    pub status: u16,
    /// The caller, once it was known.
    pub caller: Option<&'a str>,
    /// The account, once it was known.
    pub account: Option<&'a str>,
    /// The region, once it was known.
    pub region: Option<Region>,
    pub request_id: &'a str,
    /// The server's own, where `request_id` is the caller's.
    pub server_request_id: Option<&'a str>,
    pub amazon_request_id: Option<&'a str>,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// How often the request was sent again.
    pub replays: u32,
    /// The code of our own error, if the response is ours or was cut off.
    pub error: Option<&'static str>,
}

/// A worker's access log. Flushes itself when dropped.
#[derive(Debug)]
pub struct AccessLog {
    sink: Option<Arc<Sink>>,
    state: RefCell<AccessBuffer>,
}

#[derive(Debug, Default)]
struct AccessBuffer {
    buffer: Vec<u8>,
    lines: u64,
    stamp: Stamp,
}

impl AccessLog {
    /// A log that writes to `sink`, or nowhere.
    pub(super) fn new(sink: Option<Arc<Sink>>) -> Self {
        let buffer = Vec::with_capacity(if sink.is_some() { BLOCK_BYTES * 5 / 4 } else { 0 });
        Self { sink, state: RefCell::new(AccessBuffer { buffer, ..AccessBuffer::default() }) }
    }

    pub fn write(&self, line: &AccessLine<'_>) {
        let Some(sink) = &self.sink else { return };
        let state = &mut *self.state.borrow_mut();
        match sink.format {
            LogFormat::Json => push_json_line(&mut state.buffer, &mut state.stamp, line),
            LogFormat::Text => push_text_line(&mut state.buffer, &mut state.stamp, line),
        }
        state.lines += 1;
        if state.buffer.len() > BLOCK_BYTES {
            state.hand_over(sink);
        }
    }

    /// Hands what is buffered to the writer thread; called once a second by the worker.
    pub fn flush(&self) {
        if let Some(sink) = &self.sink {
            self.state.borrow_mut().hand_over(sink);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

impl AccessBuffer {
    fn hand_over(&mut self, sink: &Sink) {
        if self.lines > 0 {
            sink.swap(&mut self.buffer, self.lines);
            self.lines = 0;
        }
    }
}

/// Renders times; the text of the current second is kept.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: Option<u64>,
    text: String,
}

impl Stamp {
    /// Appends `wall` as RFC 3339 with milliseconds, `2026-11-20T00:00:00.123Z`.
    pub(super) fn push(&mut self, out: &mut Vec<u8>, wall: Duration) {
        if self.second != Some(wall.as_secs()) {
            self.second = Some(wall.as_secs());
            let time = i64::try_from(wall.as_secs())
                .ok()
                .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
                .unwrap_or(jiff::Timestamp::MAX);
            self.text = time.to_string();
            // The first 19 characters are the date and the time to the second.
            self.text.truncate(19);
        }
        out.extend_from_slice(self.text.as_bytes());
        out.push(b'.');
        push_padded(out, wall.subsec_millis());
        out.push(b'Z');
    }
}

fn push_json_line(out: &mut Vec<u8>, stamp: &mut Stamp, line: &AccessLine<'_>) {
    out.extend_from_slice(br#"{"timestamp":""#);
    stamp.push(out, line.wall);
    out.extend_from_slice(br#"","level":"INFO","target":"adsproxy::access","message":"request""#);
    let text = |out: &mut Vec<u8>, key: &str, value: Option<&str>| {
        if let Some(value) = value {
            out.extend_from_slice(key.as_bytes());
            push_json(out, value);
            out.push(b'"');
        }
    };
    text(out, r#","http.request.method":""#, Some(line.method));
    text(out, r#","url.path":""#, Some(line.path));
    number(out, r#","http.response.status_code":"#, line.status.into());
    text(out, r#","caller":""#, line.caller);
    text(out, r#","account":""#, line.account);
    text(out, r#","region":""#, line.region.map(Region::as_str));
    text(out, r#","request_id":""#, Some(line.request_id));
    text(out, r#","server_request_id":""#, line.server_request_id);
    text(out, r#","amazon_request_id":""#, line.amazon_request_id);
    out.extend_from_slice(br#","duration_ms":"#);
    push_millis(out, line.duration);
    number(out, r#","http.request.body.size":"#, line.bytes_in);
    number(out, r#","http.response.body.size":"#, line.bytes_out);
    number(out, r#","replays":"#, line.replays.into());
    text(out, r#","error.type":""#, line.error);
    out.extend_from_slice(b"}\n");
}

fn push_text_line(out: &mut Vec<u8>, stamp: &mut Stamp, line: &AccessLine<'_>) {
    let text = |out: &mut Vec<u8>, key: &str, value: Option<&str>| {
        if let Some(value) = value {
            out.extend_from_slice(key.as_bytes());
            push_word(out, value);
        }
    };
    stamp.push(out, line.wall);
    text(out, "  INFO ", Some(line.method));
    text(out, " ", Some(line.path));
    number(out, " ", line.status.into());
    out.push(b' ');
    push_millis(out, line.duration);
    out.extend_from_slice(b"ms");
    text(out, " caller=", line.caller);
    text(out, " account=", line.account);
    text(out, " region=", line.region.map(Region::as_str));
    number(out, " in=", line.bytes_in);
    number(out, " out=", line.bytes_out);
    if line.replays > 0 {
        number(out, " replays=", line.replays.into());
    }
    text(out, " error=", line.error);
    text(out, " request_id=", Some(line.request_id));
    text(out, " server_request_id=", line.server_request_id);
    text(out, " amazon_request_id=", line.amazon_request_id);
    out.push(b'\n');
}

fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    out.extend_from_slice(key.as_bytes());
    push_number(out, value);
}

/// Appends a value of the text format: quoted if it could be taken for more than one word.
pub(super) fn push_word(out: &mut Vec<u8>, value: &str) {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if !value.is_empty() && value.bytes().all(plain) {
        out.extend_from_slice(value.as_bytes());
    } else {
        out.push(b'"');
        push_json(out, value);
        out.push(b'"');
    }
}

fn push_millis(out: &mut Vec<u8>, duration: Duration) {
    push_number(out, u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    out.push(b'.');
    push_padded(out, duration.subsec_micros() % 1000);
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a number below 1000 with three digits.
fn push_padded(out: &mut Vec<u8>, number: u32) {
    let number = u64::from(number);
    out.extend_from_slice(&[digit(number / 100), digit(number / 10 % 10), digit(number % 10)]);
}

fn digit(value: u64) -> u8 {
    b'0' + value as u8
}
