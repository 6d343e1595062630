//! The flags of curl that lines which other programs export may have, and that `adsproxy curl` does
//! not obey or need not.

use anyhow::bail;

/// Hidden in the help.
#[derive(Debug, clap::Args)]
pub(super) struct Unsupported {
    #[arg(short = 'k', long, hide = true)]
    insecure: bool,
    #[arg(short, long, hide = true, alias = "oauth2-bearer")]
    user: Vec<String>,
    #[arg(short = 'x', long, hide = true)]
    proxy: Vec<String>,
    #[arg(short = 'b', long, hide = true, alias = "cookie-jar", short_alias = 'c')]
    cookie: Vec<String>,
    #[arg(short = 'F', long, hide = true)]
    form: Vec<String>,
    #[arg(short = 'T', long, hide = true)]
    upload_file: Vec<String>,
    /// What these change is so anyway.
    #[arg(short = 'N', long = "no-buffer", hide = true, action = clap::ArgAction::Count,
        short_aliases = ['#', 'g'], aliases = ["progress-bar", "globoff", "http1.1", "http2"])]
    _ignored: u8,
    /// No redirect is followed.
    #[arg(long = "max-redirs", hide = true)]
    _max_redirs: Vec<String>,
}

impl Unsupported {
    /// Says why the first given flag that must not be obeyed is not.
    pub(super) fn refuse(&self) -> anyhow::Result<()> {
        let given = |values: &[String]| !values.is_empty();
        let why = match self {
            Self { insecure: true, .. } => {
                "--insecure: certificates are always verified, because the account's token goes \
                 along; put a private authority into the configuration"
            }
            Self { user, .. } if given(user) => {
                "--user and --oauth2-bearer: adsproxy puts in the account's own token; leave them \
                 out"
            }
            Self { proxy, .. } if given(proxy) => "--proxy: set HTTPS_PROXY in the environment",
            Self { cookie, .. } if given(cookie) => {
                "--cookie and --cookie-jar: cookies are not passed on to Amazon; leave them out"
            }
            Self { form, .. } if given(form) => {
                "--form: Amazon's API takes no forms of files; send JSON with --data"
            }
            Self { upload_file, .. } if given(upload_file) => {
                "--upload-file: say --request PUT --data-binary @FILE"
            }
            _ => return Ok(()),
        };
        bail!("not taken: {why}")
    }
}
