//! `adsproxy dashboard`: opens the running server's dashboard in a browser, by a link that works once.

use super::{
    Context, note, print,
    server::{Server, reachable},
    wire::AdminRequest,
};
use anyhow::{Context as _, bail};
use serde_json::json;
use std::net::SocketAddr;

/// Open the dashboard of the running server in a browser
///
/// The link signs one browser in, once, within a minute. Treat it as a password.
#[derive(Debug, clap::Args)]
pub(super) struct Dashboard {
    /// Print the address only
    #[arg(long)]
    no_browser: bool,
}

impl Dashboard {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        let Some(server) = Server::find(context, &config)? else {
            bail!(
                "no running server was found by its control socket: start `adsproxy serve`, or open \
                 the address of listen.admin with /dashboard, and sign in with a key of an operator"
            );
        };
        let made = server.json(AdminRequest::post("/api/v1/dashboard/links", &json!({})))?;
        let text = |name: &str| made[name].as_str().context("the server gave no link");
        let base = match made["url"].as_str() {
            Some(url) => url.to_owned(),
            None => {
                let address: SocketAddr =
                    text("address")?.parse().context("the server gave no link")?;
                format!("http://{}", reachable(address))
            }
        };
        let url = base + text("path")?;
        if self.no_browser {
            return print(format!("{url}\n"));
        }
        note("Opening the dashboard in your browser.");
        if webbrowser::open(&url).is_err() {
            note("No browser could be opened: open this address within a minute.");
            return print(format!("{url}\n"));
        }
        Ok(())
    }
}
