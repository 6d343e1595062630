//! `adsproxy curl`: one request for an account, in the manner of curl.
//!
//! It goes through a private data plane of this process, so that it is treated exactly as an app's
//! request: default headers, regions, MCP hosts, and the replay after a 401. The client is our
//! own: no curl need be installed, and no token or key is ever in a process list.

mod data;
mod output;
mod unsupported;

use super::{
    CommandFailure, Context, duration, exit_code, note, print, private::PrivateProxy, region,
    wire::block_on, write,
};
use crate::{
    audit::Action,
    id::{AccountId, Region},
    provider::ads,
};
use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use data::Data;
use flate2::write::GzDecoder;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, REFERER,
        USER_AGENT,
    },
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use unsupported::Unsupported;

/// A problem document of ours has a few hundred bytes.
const PROBLEM_MAX_BYTES: usize = 64 * 1024;

/// Send one request for an account, in the manner of curl
#[derive(Debug, clap::Args)]
pub(super) struct Curl {
    /// Its alias
    alias: AccountId,
    /// What is asked for, such as /v2/profiles; also as the whole URL at one of Amazon's hosts
    #[arg(value_name = "PATH", required_unless_present = "url")]
    path: Option<String>,
    /// As PATH
    #[arg(long, hide = true, conflicts_with = "path")]
    url: Option<String>,
    /// The method [default: GET, or POST with data]
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<Method>,
    /// A header, such as 'Accept: application/json'; 'Accept:' sends none
    #[arg(short = 'H', long, value_name = "LINE")]
    header: Vec<String>,
    #[command(flatten)]
    data: Data,
    /// Show the status and the headers of the response too
    #[arg(short, long)]
    include: bool,
    /// Show both heads on standard error
    #[arg(short, long)]
    verbose: bool,
    /// Ask for a compressed response, and decompress it
    #[arg(long)]
    compressed: bool,
    /// No effect: a redirect would take the account's token along
    #[arg(short = 'L', long)]
    location: bool,
    /// The User-Agent
    #[arg(short = 'A', long, value_name = "TEXT")]
    user_agent: Option<HeaderValue>,
    /// The Referer
    #[arg(short = 'e', long, value_name = "URL")]
    referer: Option<HeaderValue>,
    /// Ask for the headers alone
    #[arg(short = 'I', long)]
    head: bool,
    /// Write the response to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// At the end print this; knows %{http_code}, %{size_download}, …
    #[arg(short, long, value_name = "FORMAT")]
    write_out: Option<String>,
    /// Print no errors
    #[arg(short, long)]
    silent: bool,
    /// With --silent: print errors all the same
    #[arg(short = 'S', long)]
    show_error: bool,
    /// Exit with 22, without the response, if its status is 400 or higher
    #[arg(short, long)]
    fail: bool,
    /// As --fail, but with the response
    #[arg(long)]
    fail_with_body: bool,
    /// Give up after this long
    #[arg(short, long, value_name = "DURATION", value_parser = duration::parse)]
    max_time: Option<Duration>,
    /// Another region than the account's: na, eu, fe or a marketplace
    #[arg(long, value_parser = region::flag)]
    region: Option<Region>,
    #[command(flatten)]
    unsupported: Unsupported,
}

impl Curl {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let outcome = self.send(context);
        if self.silent && !self.show_error {
            return outcome.map_err(|error| CommandFailure::new(exit_code(&error), "").into());
        }
        outcome
    }

    fn send(&self, context: &Context) -> anyhow::Result<()> {
        self.unsupported.refuse()?;
        let body = self.data.read()?;
        let (target, region) = self.target(body.as_deref())?;
        let request = self.request(body.filter(|_| !self.data.get))?;
        let proxy = PrivateProxy::start(context, &self.alias, false)?;
        proxy.record(&self.alias, Action::TokenDisclose, "curl")?;
        let limit = self.max_time.unwrap_or(Duration::MAX);
        let outcome = block_on(async {
            let exchange = self.exchange(&proxy, request, &target, region);
            timeout(limit, exchange).await.unwrap_or_else(|_| {
                let text = format!("the response was not complete within {limit:?}");
                bail!(CommandFailure::unavailable(text))
            })
        })?;
        // The connection is gone with its runtime: the drain would wait for its next request.
        // A token that was fetched for this is kept for the next.
        let _ = proxy.app.drain();
        outcome
    }

    /// Path and query, and the region that a whole URL names.
    fn target(&self, body: Option<&[u8]>) -> anyhow::Result<(String, Option<Region>)> {
        let given = self.path.as_ref().or(self.url.as_ref()).map_or("", String::as_str);
        let (path, region) = match given.strip_prefix("https://") {
            None => (given, None),
            Some(rest) => {
                let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                let region = ads::region_of_host(host).with_context(|| {
                    format!("{given:?} is not at one of Amazon's hosts: give a path such as /v2/profiles")
                })?;
                (if path.is_empty() { "/" } else { path }, Some(region))
            }
        };
        if !path.starts_with('/') {
            bail!("{given:?} is no path: write what follows the host, such as /v2/profiles");
        }
        let mut target = path.split('#').next().unwrap_or_default().to_owned();
        if let Some(query) = body.filter(|_| self.data.get) {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&String::from_utf8_lossy(query));
        }
        Ok((target, self.region.or(region)))
    }

    fn request(&self, body: Option<Vec<u8>>) -> anyhow::Result<Request<Full<Bytes>>> {
        let headers = self.headers(body.is_some())?;
        let usual = match &body {
            _ if self.head => Method::HEAD,
            Some(_) => Method::POST,
            None => Method::GET,
        };
        let mut request = Request::new(Full::from(body.unwrap_or_default()));
        *request.method_mut() = self.request.clone().unwrap_or(usual);
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// curl's own headers, changed by flags.
    fn headers(&self, has_body: bool) -> anyhow::Result<HeaderMap> {
        let fixed = HeaderValue::from_static;
        let agent = fixed(concat!("adsproxy/", env!("CARGO_PKG_VERSION")));
        let own = [
            (USER_AGENT, Some(self.user_agent.clone().unwrap_or(agent))),
            (ACCEPT, Some(fixed("*/*"))),
            (REFERER, self.referer.clone()),
            (CONTENT_TYPE, has_body.then(|| fixed(self.data.content_type()))),
            (ACCEPT_ENCODING, self.compressed.then(|| fixed("gzip"))),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let mut headers: HeaderMap = own.collect();
        let mut given = HeaderMap::new();
        for line in &self.header {
            let (name, value) = split(line)
                .with_context(|| format!("{line:?} is no header; write it as 'Name: value'"))?;
            headers.remove(&name);
            match value {
                Some(value) => drop(given.append(name, value)),
                None => drop(given.remove(name)),
            }
        }
        headers.extend(given);
        // An exported line may have the length of another body.
        headers.remove(CONTENT_LENGTH);
        headers.insert(HOST, fixed("localhost"));
        Ok(headers)
    }

    async fn exchange(
        &self,
        proxy: &PrivateProxy,
        mut request: Request<Full<Bytes>>,
        target: &str,
        region: Option<Region>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        if self.verbose {
            note(output::request_head(&request, target).trim_end());
        }
        let region = region.map(|region| format!("@{region}")).unwrap_or_default();
        let uri = format!("{}/a/{}{region}{target}", proxy.mount(), self.alias);
        // Not the parser's words: they would quote the key.
        *request.uri_mut() = uri.parse().map_err(|_| anyhow!("{target:?} is no path of a URL"))?;
        let response = proxy.send(request).await?;
        if self.verbose {
            note(output::response_head(&response, "< ").trim_end());
        }
        if response.headers().contains_key("x-ads-proxy-error") {
            return Err(own_problem(&self.alias, response).await);
        }
        let status = response.status();
        if self.location && status.is_redirection() {
            note(
                "note: the redirect is not followed, it would take the account's token along; ask \
                 for its Location yourself (-i shows it)",
            );
        }
        let failed = status.is_client_error() || status.is_server_error();
        let content_type = response.headers().get(CONTENT_TYPE).cloned();
        let size = if failed && self.fail { Some(0) } else { self.write(response).await? };
        // The reader went away.
        let Some(size) = size else { return Ok(()) };
        if let Some(format) = &self.write_out {
            let content_type = content_type.as_ref().and_then(|value| value.to_str().ok());
            let time = format!("{:.6}", started.elapsed().as_secs_f64());
            print(output::fill_in(
                format,
                &[
                    ("%{http_code}", status.as_str()),
                    ("%{response_code}", status.as_str()),
                    ("%{content_type}", content_type.unwrap_or_default()),
                    ("%{size_download}", &size.to_string()),
                    ("%{time_total}", &time),
                ],
            ))?;
        }
        if failed && (self.fail || self.fail_with_body) {
            bail!(CommandFailure::new(22, format!("the response has status {status}")));
        }
        Ok(())
    }

    /// Writes the response; returns how long its body is, or none if the reader went away.
    async fn write(&self, response: Response<Incoming>) -> anyhow::Result<Option<usize>> {
        let mut to: Box<dyn Write> = match self.output.as_deref() {
            Some(path) if path != Path::new("-") => {
                let file = File::create(path);
                Box::new(file.with_context(|| format!("cannot write {}", path.display()))?)
            }
            _ => Box::new(io::stdout().lock()),
        };
        if self.include || self.head {
            write(&mut to, output::response_head(&response, "").as_bytes())?;
        }
        let encoding = response.headers().get(CONTENT_ENCODING);
        if self.compressed && encoding.is_some_and(|encoding| encoding == "gzip") {
            to = Box::new(GzDecoder::new(to));
        }
        let mut body = response.into_body();
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.context("the response broke off")?.into_data() {
                size += data.len();
                if !write(&mut to, &data).context("cannot write the response")? {
                    return Ok(None);
                }
            }
        }
        Ok(Some(size))
    }
}

/// What the data plane itself says, as the command line says it.
async fn own_problem(alias: &AccountId, response: Response<Incoming>) -> anyhow::Error {
    let code = response.headers()["x-ads-proxy-error"].to_str().unwrap_or_default().to_owned();
    let body = Limited::new(response.into_body(), PROBLEM_MAX_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("the proxy refused the request");
    CommandFailure::of_code(&code, alias, format!("{detail} ({code})")).into()
}

/// `Name: value`, `Name;` for an empty one, `Name:` for none at all.
fn split(line: &str) -> Option<(HeaderName, Option<HeaderValue>)> {
    let trimmed = line.trim();
    if let Some(name) = trimmed.strip_suffix(';').filter(|name| !name.contains(':')) {
        return Some((name.parse().ok()?, Some(HeaderValue::from_static(""))));
    }
    let (name, value) = trimmed.split_once(':')?;
    let name = name.trim().parse().ok()?;
    match value.trim() {
        "" => Some((name, None)),
        value => Some((name, Some(value.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_are_read_as_curl_reads_them() {
        let read = |line| {
            let (name, value) = split(line)?;
            Some((name.to_string(), value.map(|value| value.to_str().unwrap().to_owned())))
        };
        let some = |name: &str, value: &str| Some((name.to_owned(), Some(value.to_owned())));
        assert_eq!(read("Accept: application/json"), some("accept", "application/json"));
        assert_eq!(read("X-A:b:c"), some("x-a", "b:c"));
        assert_eq!(read("X-Empty;"), some("x-empty", ""));
        assert_eq!(read("X-A: b;"), some("x-a", "b;"));
        assert_eq!(read("Accept:"), Some(("accept".to_owned(), None)));
        for wrong in ["", "Accept", "A b: c", ": c", "A: b\nC: d", "A: b\u{1}"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
