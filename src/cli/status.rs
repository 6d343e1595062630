//! `adsproxy status`: the accounts of the running server and their tokens.

use super::{
    Context, Failure, print,
    table::{plain, span, table},
    wire,
};
use crate::config::load;
use anyhow::{Context as _, bail};
use serde_json::Value;

/// Show the accounts of the running server and their tokens
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let address = load::addresses(&context.options()).map_err(Failure::from)?.admin;
        let (status, body) = wire::get(address, "/status")
            .map_err(|source| Failure::NoServer { address, source })?;
        if status != 200 {
            bail!("adsproxy at {address} answered {status}");
        }
        let answer: Value = serde_json::from_str(&body)
            .with_context(|| format!("{address} answered something that is no status"))?;
        print(if self.json { format!("{answer:#}\n") } else { show(&answer) })?;
        let dead = dead(&answer);
        if dead.is_empty() { Ok(()) } else { Err(Failure::ReauthorizationRequired(dead).into()) }
    }
}

fn accounts(answer: &Value) -> &[Value] {
    answer["accounts"].as_array().map_or(&[], Vec::as_slice)
}

/// The accounts whose grants are dead.
fn dead(answer: &Value) -> Vec<String> {
    let accounts = accounts(answer).iter();
    let dead = accounts.filter(|account| account["reauthorization_required"] == true);
    dead.map(|account| plain(&cell(&account["account"]))).collect()
}

fn show(answer: &Value) -> String {
    let accounts = accounts(answer);
    let mut text = format!("adsproxy {}\n", plain(&cell(&answer["version"])));
    if accounts.is_empty() {
        return text + "no accounts\n";
    }
    let heading = [
        "ACCOUNT",
        "STATE",
        "REGION",
        "APPLICATION",
        "EXPIRES IN",
        "GENERATION",
        "CONSENT DAYS LEFT",
        "LAST ERROR",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    rows.extend(accounts.iter().map(|account| {
        let expires = account["expires_in_secs"].as_u64();
        [
            cell(&account["account"]),
            cell(&account["state"]),
            cell(&account["region"]),
            cell(&account["application"]),
            expires.map(span).unwrap_or_default(),
            cell(&account["generation"]),
            cell(&account["consent_days_left"]),
            cell(&account["last_error"]),
        ]
    }));
    text.push_str(&table(&rows));
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn accounts_stand_in_columns() {
        let answer = json!({ "version": "1.2.3", "accounts": [
            { "account": "acme", "state": "fresh", "region": "na", "application": "default",
              "expires_in_secs": 3300, "generation": 7, "last_error": null,
              "reauthorization_required": false, "consent_days_left": 28 },
            { "account": "globex", "state": "reauthorization_required", "region": "eu",
              "application": "default", "expires_in_secs": null, "generation": 0,
              "last_error": "invalid_grant", "reauthorization_required": true },
        ] });
        let expected = "\
adsproxy 1.2.3
ACCOUNT  STATE                     REGION  APPLICATION  EXPIRES IN  GENERATION  CONSENT DAYS LEFT  LAST ERROR
acme     fresh                     na      default      55m 0s      7           28                 -
globex   reauthorization_required  eu      default      -           0           -                  invalid_grant
";
        assert_eq!(show(&answer), expected);
        assert_eq!(
            Failure::ReauthorizationRequired(dead(&answer)).to_string(),
            "not connected, or no longer: globex; get a new refresh token, then set it as \
             accounts.<alias>.refresh_token and restart the server, or, unless store.kind is \
             \"memory\",\n  adsproxy account add globex --replace < refresh-token"
        );
    }

    #[test]
    fn an_answer_without_accounts_says_so() {
        for answer in [json!({ "version": "1", "accounts": [] }), json!({}), json!(7)] {
            assert!(show(&answer).ends_with("no accounts\n"));
            assert!(dead(&answer).is_empty());
        }
    }
}
