//! `adsproxy curl`: one request for an account, in the manner of curl.
//!
//! It goes through a private data plane of this process, so that it is treated exactly as an app's
//! request: default headers, regions, MCP hosts, and the replay after a 401. The client is our
//! own: no curl need be installed, and no token or key ever stands in a process list.

mod data;
mod output;

use super::{Context, Failure, duration, private::PrivateProxy, region};
use crate::{
    audit::Action,
    id::{AccountId, Region},
};
use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use data::Data;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response,
    header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use output::Output;
use std::{path::PathBuf, time::Duration};

/// A problem document of ours has a few hundred bytes.
const PROBLEM_MAX_BYTES: usize = 64 * 1024;

/// Send one request for an account, in the manner of curl
#[derive(Debug, clap::Args)]
pub(super) struct Curl {
    /// Its alias
    alias: AccountId,
    /// What is asked for, such as /v2/profiles
    path: String,
    /// The method [default: GET, or POST with data]
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<Method>,
    /// A header, such as 'Accept: application/json'; 'Accept:' sends none
    #[arg(short = 'H', long, value_name = "LINE")]
    header: Vec<String>,
    #[command(flatten)]
    data: Data,
    /// Show the status and the headers of the answer too
    #[arg(short, long)]
    include: bool,
    /// Ask for the headers alone
    #[arg(short = 'I', long)]
    head: bool,
    /// Write the answer to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Do not say what went wrong
    #[arg(short, long)]
    silent: bool,
    /// With --silent: say it all the same
    #[arg(short = 'S', long)]
    show_error: bool,
    /// Exit with 22, and without the answer, if its status is 400 or higher
    #[arg(short, long)]
    fail: bool,
    /// As --fail, but with the answer
    #[arg(long)]
    fail_with_body: bool,
    /// Give up after this long
    #[arg(short, long, value_name = "DURATION", value_parser = duration::parse)]
    max_time: Option<Duration>,
    /// Another region than the account's: na, eu, fe or a marketplace
    #[arg(long, value_parser = region::flag)]
    region: Option<Region>,
}

impl Curl {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let outcome = self.run_aloud(context);
        if self.silent && !self.show_error {
            return outcome.map_err(|error| Failure::Silent(super::exit_code(&error)).into());
        }
        outcome
    }

    fn run_aloud(&self, context: &Context) -> anyhow::Result<()> {
        if !self.path.starts_with('/') {
            bail!(
                "{:?} is no path: say what stands behind the host, such as /v2/profiles",
                self.path
            );
        }
        let body = self.data.read()?;
        let proxy = PrivateProxy::start(context, Some(&self.alias))?;
        let request = self.request(&proxy, body)?;
        proxy.record(&self.alias, Action::TokenDisclose, "curl")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(async {
            let exchange = self.exchange(&proxy, request);
            match self.max_time {
                None => exchange.await,
                Some(time) => tokio::time::timeout(time, exchange).await.unwrap_or_else(|_| {
                    let what = format!("the answer was not complete within {time:?}");
                    Err(Failure::Unavailable(what).into())
                }),
            }
        });
        // Closes the connection, which the drain would wait for.
        drop(runtime);
        // A token that was fetched for this is kept for the next.
        let _ = proxy.app.drain();
        outcome
    }

    fn request(
        &self,
        proxy: &PrivateProxy,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let region = self.region.map(|region| format!("@{region}")).unwrap_or_default();
        let target = format!("{}/a/{}{region}{}", proxy.key.path_prefix(), self.alias, self.path);
        let method = match &self.request {
            Some(method) => method.clone(),
            None if self.head => Method::HEAD,
            None if body.is_some() => Method::POST,
            None => Method::GET,
        };
        let mut request = Request::new(Full::from(body.unwrap_or_default()));
        *request.method_mut() = method;
        // Not the parser's words: they would quote the key.
        *request.uri_mut() =
            target.parse().map_err(|_| anyhow!("{:?} is no path of a URL", self.path))?;
        *request.headers_mut() = self.headers()?;
        Ok(request)
    }

    /// curl's own headers, changed as told.
    fn headers(&self) -> anyhow::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let agent = concat!("adsproxy/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if self.data.is_any() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut told = HeaderMap::new();
        for line in &self.header {
            let (name, value) = split(line)
                .with_context(|| format!("{line:?} is no header; write it as 'Name: value'"))?;
            headers.remove(&name);
            match value {
                Some(value) => drop(told.append(name, value)),
                None => drop(told.remove(name)),
            }
        }
        headers.extend(told);
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        Ok(headers)
    }

    async fn exchange(
        &self,
        proxy: &PrivateProxy,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<()> {
        let response = proxy.send(request).await?;
        if response.headers().contains_key("x-ads-proxy-error") {
            return Err(own_problem(&self.alias, response).await);
        }
        let status = response.status();
        let failed = status.is_client_error() || status.is_server_error();
        if failed && self.fail {
            return Err(Failure::HttpStatus(status).into());
        }
        let mut output = Output::open(self.output.as_deref())?;
        if self.include || self.head {
            output.head(&response)?;
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the answer broke off")?;
            if let Some(data) = frame.data_ref()
                && !output.write(data)?
            {
                // Nobody reads on.
                return Ok(());
            }
        }
        if failed && self.fail_with_body {
            return Err(Failure::HttpStatus(status).into());
        }
        Ok(())
    }
}

/// What the data plane itself says, as the command line says it.
async fn own_problem(alias: &AccountId, response: Response<Incoming>) -> anyhow::Error {
    let code = response.headers()["x-ads-proxy-error"].to_str().unwrap_or_default().to_owned();
    let body = Limited::new(response.into_body(), PROBLEM_MAX_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("the proxy refused the request");
    let text = format!("{detail} ({code})");
    match code.as_str() {
        "reauthorization_required" => {
            Failure::ReauthorizationRequired(vec![alias.to_string()]).into()
        }
        "token_unavailable" | "overloaded" | "upstream_unreachable" | "upstream_timeout" => {
            Failure::Unavailable(text).into()
        }
        _ => anyhow!(text),
    }
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
