//! The flags of curl that `adsproxy curl` knows and does not take, and those that change nothing.

use anyhow::bail;

/// Hidden in the help: they come with lines that other programs export.
#[derive(Debug, clap::Args)]
pub(super) struct Refused {
    #[arg(short = 'k', long, hide = true)]
    insecure: bool,
    #[arg(short = 'u', long, hide = true)]
    user: Option<String>,
    #[arg(long, hide = true)]
    oauth2_bearer: Option<String>,
    #[arg(short = 'x', long, hide = true)]
    proxy: Option<String>,
    #[arg(short = 'b', long, hide = true)]
    cookie: Option<String>,
    #[arg(short = 'c', long, hide = true)]
    cookie_jar: Option<String>,
    #[arg(short = 'F', long, hide = true)]
    form: Vec<String>,
    #[arg(short = 'T', long, hide = true)]
    upload_file: Option<String>,
    /// Without effect: responses are never buffered, there is no bar, patterns are not expanded.
    #[arg(short = 'N', long, hide = true)]
    no_buffer: bool,
    #[arg(short = '#', long, hide = true)]
    progress_bar: bool,
    #[arg(short = 'g', long, hide = true)]
    globoff: bool,
    #[arg(long, hide = true)]
    max_redirs: Option<u32>,
    #[arg(long = "http1.1", hide = true)]
    http1_1: bool,
    #[arg(long, hide = true)]
    http2: bool,
}

impl Refused {
    /// # Errors
    /// Names the first flag that must not be obeyed, and what to do in its place.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let why = if self.insecure {
            "--insecure: certificates are always verified, because the account's token goes along; \
             put a private authority into the configuration"
        } else if self.user.is_some() || self.oauth2_bearer.is_some() {
            "--user and --oauth2-bearer: adsproxy puts in the account's own token; leave them out"
        } else if self.proxy.is_some() {
            "--proxy: set HTTPS_PROXY in the environment"
        } else if self.cookie.is_some() || self.cookie_jar.is_some() {
            "--cookie and --cookie-jar: cookies are not passed on to Amazon; leave them out"
        } else if !self.form.is_empty() {
            "--form: Amazon's API takes no forms of files; send JSON with --data"
        } else if self.upload_file.is_some() {
            "--upload-file: say --request PUT --data-binary @FILE"
        } else {
            return Ok(());
        };
        bail!("not taken: {why}")
    }
}
