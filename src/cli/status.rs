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
        if self.json {
            return print(format!("{answer:#}\n"));
        }
        print(show(&answer))
    }
}

fn show(answer: &Value) -> String {
    let accounts = answer["accounts"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = format!("adsproxy {}\n", plain(&cell(&answer["version"])));
    if accounts.is_empty() {
        return text + "no accounts\n";
    }
    let heading =
        ["ACCOUNT", "STATE", "REGION", "APPLICATION", "EXPIRES IN", "GENERATION", "LAST ERROR"];
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
            cell(&account["last_error"]),
        ]
    }));
    text.push_str(&table(&rows));
    for account in accounts.iter().filter(|account| account["reauthorization_required"] == true) {
        let alias = plain(&cell(&account["account"]));
        text.push_str(&format!(
            "\n{alias} must be connected again: get a new refresh token, then\n  \
             adsproxy account add {alias} --replace < refresh-token\n"
        ));
    }
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
              "reauthorization_required": false },
            { "account": "globex", "state": "reauthorization_required", "region": "eu",
              "application": "default", "expires_in_secs": null, "generation": 0,
              "last_error": "invalid_grant", "reauthorization_required": true },
        ] });
        let expected = "\
adsproxy 1.2.3
ACCOUNT  STATE                     REGION  APPLICATION  EXPIRES IN  GENERATION  LAST ERROR
acme     fresh                     na      default      55m 0s      7           -
globex   reauthorization_required  eu      default      -           0           invalid_grant

globex must be connected again: get a new refresh token, then
  adsproxy account add globex --replace < refresh-token
";
        assert_eq!(show(&answer), expected);
    }

    #[test]
    fn an_answer_without_accounts_says_so() {
        for answer in [json!({ "version": "1", "accounts": [] }), json!({}), json!(7)] {
            assert!(show(&answer).ends_with("no accounts\n"));
        }
    }
}
