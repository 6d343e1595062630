//! `adsproxy login`: connects an account through the browser, or by an address that is pasted.

mod paste;
mod place;
mod show;

use super::{Context, Failure, print};
use crate::id::{AccountId, Region};
use anyhow::{Context as _, bail};
use place::Place;
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, IsTerminal},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How often it is asked how the login went.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the server may take to exchange the code and to look whom one became.
const FINISH_PATIENCE: Duration = Duration::from_secs(90);

const UNFINISHED: &str = "nobody finished the login in time; nothing was changed";

/// Connect an account: an advertiser consents in the browser
#[derive(Debug, clap::Args)]
pub(super) struct Login {
    /// The account's alias
    account: AccountId,
    /// na, eu or fe [default: the account's, else where its profiles are]
    #[arg(long)]
    region: Option<Region>,
    /// The LWA application to consent to [default: the account's, else default]
    #[arg(long, value_name = "NAME")]
    application: Option<String>,
    /// Print the address only, and wait for the answer
    #[arg(long, conflicts_with = "paste")]
    no_browser: bool,
    /// The browser is elsewhere: read the address it ends at, or its code
    #[arg(long)]
    paste: bool,
    /// Replace the account even if it becomes another Amazon user's
    #[arg(long)]
    yes: bool,
}

impl Login {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        let place = Place::find(context, config, self)?;
        let outcome = if self.paste { self.paste(&place)? } else { self.browse(&place)? };
        match outcome["state"].as_str() {
            Some("connected") => print(show::connected(&outcome)),
            Some("discarded") => bail!("account {} was left as it is", self.account),
            _ => Err(failure(&outcome)),
        }
    }

    /// Through a browser on this machine, or one that reaches the return address.
    fn browse(&self, place: &Place) -> anyhow::Result<Value> {
        let wish = json!({
            "account": self.account.as_str(),
            "origin": "terminal",
            "region": self.region.map(Region::as_str),
            "application": self.application,
            "replace": self.yes.to_string(),
        });
        let begun = place.post("/api/auth/amazon/logins", &wish)?;
        let url = place.verified(&begun["url"])?;
        eprintln!(
            "To connect account {}, open this address in a browser:\n\n  {url}\n",
            self.account
        );
        eprintln!("{}\n", place.hint());
        if !self.no_browser {
            open(url);
        }
        let handle = begun["login"].as_str().context("the server gave no login")?;
        let seconds = begun["expires_in"].as_u64().unwrap_or(600);
        // So long for whoever opens it, and once more for the login itself.
        self.wait(place, handle, 2 * Duration::from_secs(seconds) + FINISH_PATIENCE)
    }

    /// Waits for the end of the login; asks if that is wanted.
    fn wait(&self, place: &Place, handle: &str, patience: Duration) -> anyhow::Result<Value> {
        let path = format!("/api/auth/amazon/logins/{handle}");
        let mut deadline = Instant::now() + patience;
        let mut question = None;
        loop {
            let outcome = match place.get(&path) {
                Ok(outcome) => outcome,
                // A server that restarts comes back, and knows the login.
                Err(error) if Instant::now() >= deadline => return Err(error),
                // What the link led to would be told: it is too old.
                Err(error) if error.downcast_ref::<Refused>().is_some() => bail!(UNFINISHED),
                Err(_) => Value::Null,
            };
            match (outcome["state"].as_str(), &question) {
                (None | Some("waiting"), _) => {}
                (Some("question"), None) => {
                    deadline = Instant::now() + place.confirm_timeout();
                    question = Some(Question::put(&self.account, &outcome));
                }
                (Some("question"), Some(asked)) => {
                    if let Some(answer) = asked.answer() {
                        return place.confirm(&outcome, answer);
                    }
                }
                _ => return Ok(outcome),
            }
            if Instant::now() >= deadline {
                bail!(UNFINISHED);
            }
            thread::sleep(ASK_INTERVAL);
        }
    }
}

/// A question that was put to the person, in the terminal beside the browser.
struct Question(mpsc::Receiver<bool>);

impl Question {
    fn put(account: &AccountId, outcome: &Value) -> Self {
        let (sender, receiver) = mpsc::channel();
        eprintln!("{}", show::question(account, outcome));
        if io::stdin().is_terminal() {
            eprint!("Replace account {account}? [y/N] ");
            // The thread ends with the process if the browser's answer comes first.
            thread::spawn(move || sender.send(read_yes()));
        } else {
            eprintln!("Answer in the browser; --yes answers beforehand.");
        }
        Self(receiver)
    }

    fn answer(&self) -> Option<bool> {
        self.0.try_recv().ok()
    }
}

/// A line from standard input: is it a yes?
pub(super) fn read_yes() -> bool {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

/// Opens the address in `$BROWSER` or what the system has, on a thread: some browsers only come
/// back when they are closed.
fn open(url: String) {
    thread::spawn(move || {
        if webbrowser::open(&url).is_err() {
            eprintln!("No browser could be opened: open the address yourself, or say --paste.");
        }
    });
}

/// The server refuses for a reason that it tells.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// What a failed login or a refusal says, with the exit code that fits.
fn failure(answer: &Value) -> anyhow::Error {
    let text = |name: &str| answer[name].as_str().map(super::table::plain);
    let what = text("message").or(text("detail")).unwrap_or_else(|| "the login failed".to_owned());
    let advice = text("advice").map(|advice| format!("\n{advice}")).unwrap_or_default();
    let message = format!("{what}{advice}");
    match answer["code"].as_str() {
        Some("lwa_timeout" | "lwa_unavailable" | "amazon_failed") => {
            Failure::unavailable(message).into()
        }
        _ => Refused(message).into(),
    }
}
