//! The table of `adsproxy status`: as many columns as the terminal has room for.

use crate::cli::table::{cell, line, plain, span};
use serde_json::Value;
use std::cmp::Reverse;

/// What the reader's terminal can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) coloured: bool,
    /// Characters in a line; none if there is no end to it.
    pub(super) width: Option<usize>,
    /// Lines of the window; none if there is none.
    pub(super) height: Option<usize>,
}

/// Headings, fields, and which go first when there is no room: those with the highest number, and
/// never those with 0. The last column is wrapped.
const COLUMNS: [(&str, &str, u8); 8] = [
    ("ACCOUNT", "account", 0),
    ("STATE", "state", 0),
    ("REGION", "region", 2),
    ("APPLICATION", "application", 4),
    ("EXPIRES IN", "expires_in_secs", 0),
    ("GENERATION", "generation", 3),
    ("CONSENT DAYS LEFT", "consent_days_left", 1),
    ("LAST ERROR", "last_error", 0),
];

/// The whole text for the server's response, the worst account first.
pub(super) fn text(said: &Value, look: &Look) -> String {
    let mut accounts: Vec<&Value> =
        said["accounts"].as_array().map(|all| all.iter().collect()).unwrap_or_default();
    let mut text = heading(said, &accounts) + &restart(said) + &throttled(said);
    if accounts.is_empty() {
        return text + "no accounts\n";
    }
    accounts.sort_by_key(|account| (Reverse(badness(account)), cell(&account["account"])));
    let (rows, widths) = fitting(&accounts, look);
    let mut lines = text.lines().count() + 2;
    for (row, cells) in rows.iter().enumerate() {
        let mut shown = line(cells, &widths, look.width.unwrap_or(usize::MAX));
        if look.coloured && row > 0 {
            // No alias has spaces in it: what is first behind two of them is the state.
            let state = &cells[1];
            let coloured = format!("  {}{state}\x1b[0m", colour(state));
            shown = shown.replacen(&format!("  {state}"), &coloured, 1);
        }
        lines += shown.lines().count();
        if row > 1 && look.height.is_some_and(|height| lines > height) {
            let more = rows.len() - row;
            return text + &format!("and {more} more; name an account, or send this to a file\n");
        }
        text.push_str(&shown);
    }
    text
}

/// The keys whose values wait for a restart.
fn restart(said: &Value) -> String {
    let keys = said["restart_required"].as_array().into_iter().flatten();
    let keys: Vec<_> = keys.filter_map(Value::as_str).map(plain).collect();
    match keys.is_empty() {
        true => String::new(),
        false => format!("restart the server to apply: {}\n", keys.join(", ")),
    }
}

/// What needs a person comes first.
fn badness(account: &Value) -> usize {
    const BEST_FIRST: [&str; 5] = ["fresh", "idle", "due", "refreshing", "expired"];
    let is_state = |known: &&str| account["state"] == **known;
    match BEST_FIRST.iter().position(is_state) {
        Some(place) if account["unsaved"] != true => place,
        _ => BEST_FIRST.len(),
    }
}

fn heading(said: &Value, accounts: &[&Value]) -> String {
    let heading = format!("adsproxy {}\n", plain(&cell(&said["version"])));
    let unsaved = accounts.iter().filter(|account| account["unsaved"] == true);
    let names: Vec<String> = unsaved.map(|account| plain(&cell(&account["account"]))).collect();
    if names.is_empty() && said["store"] != "degraded" {
        return heading;
    }
    let which = match names.is_empty() {
        true => String::new(),
        false => format!(": kept in memory only: {}", names.join(", ")),
    };
    format!("{heading}the store does not take every record{which}\n")
}

/// The most lines about what Amazon throttles now.
const THROTTLED_MAX: usize = 5;

fn throttled(said: &Value) -> String {
    let all = said["throttled"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = String::new();
    for one in &all[..all.len().min(THROTTLED_MAX)] {
        let [region, api, class] = ["region", "api", "class"].map(|field| cell(&one[field]));
        let profile = match one["profile"].as_str() {
            Some(profile) => format!(", profile {profile}"),
            None => String::new(),
        };
        let accounts = one["accounts"].as_array().into_iter().flatten();
        let accounts = accounts.map(cell).collect::<Vec<_>>().join(", ");
        let left = one["cooldown_left_secs"].as_u64().unwrap_or(0);
        let left = span(left);
        let line =
            format!("Amazon throttles {region} {api} {class}{profile} ({accounts}): {left} left");
        text.push_str(&(plain(&line) + "\n"));
    }
    if all.len() > THROTTLED_MAX {
        text.push_str(&format!("and {} more throttled\n", all.len() - THROTTLED_MAX));
    }
    text
}

/// A row for the heading and each account, with as many columns as there is room for, and how wide
/// those are. The last one is wrapped: it needs no more than its heading.
fn fitting(accounts: &[&Value], look: &Look) -> (Vec<Vec<String>>, Vec<usize>) {
    let mut columns = COLUMNS.to_vec();
    loop {
        let heading = columns.iter().map(|(heading, ..)| (*heading).to_owned()).collect();
        let cells = accounts.iter().map(|account| {
            columns.iter().map(|(_, field, _)| plain(&shown(account, field))).collect()
        });
        let rows: Vec<Vec<String>> = std::iter::once(heading).chain(cells).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let mut widths: Vec<usize> = (0..columns.len()).filter_map(width).collect();
        *widths.last_mut().expect("there is a last error") = "LAST ERROR".len();
        let least = columns.iter().map(|(.., dispensable)| *dispensable).max().unwrap_or(0);
        let needed = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
        if least == 0 || look.width.is_none_or(|width| needed <= width) {
            return (rows, widths);
        }
        columns.retain(|(.., dispensable)| *dispensable != least);
    }
}

fn colour(state: &str) -> &'static str {
    match state {
        "fresh" => "\x1b[32m",
        "due" | "refreshing" | "expired" | "idle" => "\x1b[33m",
        _ => "\x1b[31m",
    }
}

fn shown(account: &Value, field: &str) -> String {
    match account[field].as_u64().filter(|_| field.ends_with("_secs")) {
        Some(seconds) => span(seconds),
        None => cell(&account[field]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAIN: Look = Look { coloured: false, width: None, height: None };

    fn response() -> Value {
        json!({ "version": "1.2.3", "accounts": [
            { "account": "globex", "state": "reauthorization_required", "region": "eu",
              "application": "default", "expires_in_secs": null, "generation": 0,
              "last_error": "invalid_grant\u{1b}[2J", "reauthorization_required": true },
            { "account": "acme", "state": "fresh", "region": "na", "application": "default",
              "expires_in_secs": 3300, "generation": 7, "last_error": null,
              "reauthorization_required": false, "consent_days_left": 28 },
        ] })
    }

    #[test]
    fn the_worst_account_comes_first() {
        let expected = "\
adsproxy 1.2.3
ACCOUNT  STATE                     REGION  APPLICATION  EXPIRES IN  GENERATION  CONSENT DAYS LEFT  LAST ERROR
globex   reauthorization_required  eu      default      -           0           -                  invalid_grant\u{fffd}[2J
acme     fresh                     na      default      55m 0s      7           28                 -
";
        assert_eq!(text(&response(), &PLAIN), expected);
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_important_first_and_no_line_is_broken() {
        let heading = |width| {
            let look = Look { width: Some(width), ..PLAIN };
            let text = text(&response(), &look);
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(longest <= width.max(60), "{text}");
            text.lines().nth(1).unwrap_or_default().to_owned()
        };
        assert!(heading(110).contains("APPLICATION"));
        assert!(!heading(100).contains("APPLICATION") && heading(100).contains("GENERATION"));
        assert!(!heading(80).contains("GENERATION") && heading(80).contains("CONSENT"));
        let least = heading(50);
        for column in ["ACCOUNT", "STATE", "EXPIRES IN"] {
            assert!(least.contains(column), "{least}");
        }
        assert!(!least.contains("CONSENT"), "{least}");
    }

    #[test]
    fn an_error_is_wrapped_and_none_of_it_is_lost() {
        let words = (0..40).map(|number| format!("word{number}")).collect::<Vec<_>>();
        let mut said = response();
        said["accounts"][0]["last_error"] = words.join(" ").into();
        for width in [60, 80, 100, 160] {
            let text = text(&said, &Look { width: Some(width), ..PLAIN });
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{width}:\n{text}");
        }
    }

    #[test]
    fn keys_that_wait_for_a_restart_are_shown() {
        let said = json!({ "restart_required": ["listen.proxy", "store.kind"], "accounts": [] });
        assert!(restart(&said).ends_with("apply: listen.proxy, store.kind\n"));
        assert_eq!(restart(&json!({})), "");
    }

    #[test]
    fn a_degraded_store_is_shown_with_the_accounts_it_did_not_take() {
        let mut said = response();
        said["store"] = "degraded".into();
        said["accounts"][1]["unsaved"] = true.into();
        let text = text(&said, &PLAIN);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line, "the store does not take every record: kept in memory only: acme");
        assert!(text.lines().nth(3).unwrap().starts_with("acme"), "it is among the worst: {text}");
    }

    #[test]
    fn what_amazon_throttles_now_is_above_the_table() {
        let mut said = response();
        said["throttled"] = json!([
            { "region": "na", "api": "reporting", "class": "report", "profile": "123",
              "accounts": ["acme", "globex"], "cooldown_left_secs": 12 },
            { "region": "eu", "api": "mcp", "class": "write", "profile": null,
              "accounts": ["a\u{1b}"], "cooldown_left_secs": 0 },
        ]);
        let text = text(&said, &PLAIN);
        let lines: Vec<_> = text.lines().collect();
        let expected = "Amazon throttles na reporting report, profile 123 (acme, globex): 12s left";
        assert_eq!(lines[1], expected);
        assert_eq!(lines[2], "Amazon throttles eu mcp write (a\u{fffd}): 0s left");
        assert!(lines[3].starts_with("ACCOUNT"));
    }

    #[test]
    fn sixty_accounts_fit_the_window_and_the_dead_one_is_in_it() {
        let mut said = response();
        let accounts = said["accounts"].as_array_mut().unwrap();
        for number in 0..58 {
            let mut one = accounts[1].clone();
            one["account"] = format!("a{number}").into();
            accounts.push(one);
        }
        let text = text(&said, &Look { width: Some(100), height: Some(24), ..PLAIN });
        assert!(text.lines().count() < 24, "{text}");
        assert!(text.contains("globex") && text.contains("more; name an account"), "{text}");
    }

    #[test]
    fn only_states_are_coloured_and_only_where_they_may_be() {
        let coloured = text(&response(), &Look { coloured: true, ..PLAIN });
        assert_eq!(coloured.matches("\x1b[0m").count(), 2, "{coloured:?}");
        assert!(coloured.contains("\x1b[32mfresh") && coloured.contains("\x1b[31mreauth"));
        assert!(!text(&response(), &PLAIN).contains('\x1b'));
    }

    #[test]
    fn a_response_without_accounts_says_so() {
        for said in [json!({ "version": "1", "accounts": [] }), json!({}), json!(7)] {
            assert!(text(&said, &PLAIN).ends_with("no accounts\n"));
        }
    }
}
