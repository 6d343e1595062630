//! What is written to standard error: events of the program and one access line per request.
//!
//! All lines go through one bounded queue to one writer thread. A full queue drops lines and
//! counts them ([`Log::dropped`]): a slow terminal or a stuck pipe never holds up a request.
//! Text from outside is escaped in both formats, so that no caller writes to an operator's terminal
//! or forges a line. Query strings, header values and bodies are never logged.

mod access;
mod escape;
mod fields;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod sink;

pub use access::{AccessLine, AccessLog};

use crate::{
    clock::{Clock, SystemClock},
    config::{self, LogFormat, log_filter},
};
use access::Stamp;
use arc_swap::ArcSwapOption;
use fields::TextFields;
use sink::{Sink, Writer};
use std::{
    fmt,
    io::{self, IsTerminal},
    sync::{Arc, OnceLock, atomic::AtomicU64},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{format, time::FormatTime},
    layer::SubscriberExt,
    reload,
};

/// The filter used when neither `RUST_LOG` nor `log.filter` can be read.
const FALLBACK_FILTER: &str = "info";

/// What no filter can make louder: at `debug` and `trace` h2 logs the path (with its query
/// string), the authority and the `TE` of requests that it refuses.
const PINNED: [&str; 2] = ["h2::server=warn", "h2::frame::headers=warn"];

/// Where events go now. The subscriber is installed once per process and looks here, so that a
/// later `init` takes over.
static CURRENT: ArcSwapOption<Sink> = ArcSwapOption::const_empty();

/// The filter of the installed subscriber.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Keeps the writer thread running. Dropped, it writes what is queued and ends the thread; it gives
/// up on a stuck output after 2 s.
#[derive(Debug)]
pub struct Log {
    sink: Arc<Sink>,
    writer: Writer,
    access: bool,
}

/// Starts logging to standard error: text on a terminal, JSON otherwise, unless configured.
///
/// `RUST_LOG` takes precedence over `log.filter`. A later call in the same process moves the output but
/// keeps the first call's filter and event format.
///
/// # Errors
/// When the writer thread cannot be started.
pub fn init(config: &config::LogConfig) -> io::Result<Log> {
    let terminal = io::stderr().is_terminal();
    let format = config.format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    start(config, io::stderr(), format, terminal && !no_color)
}

fn start(
    config: &config::LogConfig,
    out: impl io::Write + Send + 'static,
    format: LogFormat,
    color: bool,
) -> io::Result<Log> {
    let (sink, writer) = sink::spawn(out, format)?;
    CURRENT.store(Some(Arc::clone(&sink)));
    let (filter, complaint) = filter(config);
    let (filter, handle) = reload::Layer::new(filter);
    let layer = events_layer(format, color).with_filter(filter);
    // Fails when a subscriber is there already: that one writes to `CURRENT` too.
    if tracing::subscriber::set_global_default(Registry::default().with(layer)).is_ok() {
        let _ = FILTER.set(handle);
        if let Some(error) = complaint {
            tracing::warn!("RUST_LOG is ignored: {error}");
        }
    }
    Ok(Log { sink, writer, access: config.access })
}

impl Log {
    /// A handle for one worker. It writes nothing when `log.access` is off.
    pub fn access(&self) -> AccessLog {
        AccessLog::new(self.access.then(|| Arc::clone(&self.sink)))
    }

    /// Counts the lines that were lost to a full queue or a failed write.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sink.dropped)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let last = CURRENT.load();
        if last.as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.sink)) {
            CURRENT.store(None);
        }
        self.writer.stop(&self.sink);
    }
}

/// Makes the filter of `config` that of the running process.
pub fn set_filter(config: &config::LogConfig) {
    if let Some(handle) = FILTER.get() {
        // Fails once the subscriber is gone, with the process.
        let _ = handle.reload(filter(config).0);
    }
}

/// The filter, and why `RUST_LOG` was not used although it is set.
fn filter(config: &config::LogConfig) -> (EnvFilter, Option<String>) {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let checked = variable.as_ref().map(|text| log_filter::check(text));
    let (text, complaint) = match (&variable, checked) {
        (Some(text), Some(Ok(()))) => (text, None),
        (_, checked) => (&config.filter, checked.and_then(Result::err)),
    };
    let filter = EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new(FALLBACK_FILTER));
    let filter = PINNED.iter().fold(filter, |filter, directive| {
        filter.add_directive(directive.parse().expect("a constant that a test parses"))
    });
    (filter, complaint)
}

fn events_layer(format: LogFormat, color: bool) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(|| ToCurrent).with_timer(Milliseconds);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text => layer.with_ansi(color).fmt_fields(TextFields).boxed(),
    }
}

/// Times as the access lines have them.
struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, out: &mut format::Writer<'_>) -> fmt::Result {
        let mut text = Vec::new();
        Stamp::default().push(&mut text, SystemClock.now().wall);
        out.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Hands each event to whatever sink is current.
struct ToCurrent;

impl io::Write for ToCurrent {
    /// Called once per event, with the whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(sink) = CURRENT.load().as_ref() {
            sink.event(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
