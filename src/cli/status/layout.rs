//! The table of `adsproxy status`: as many columns as the terminal has room for.

use crate::cli::table::{plain, span};
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

const GAP: usize = 2;
/// With less room than this an error goes below its row.
const ERROR_WIDTH_MIN: usize = 24;

/// The whole text for the server's response, the worst account first.
pub(super) fn text(said: &Value, look: &Look) -> String {
    let mut accounts: Vec<&Value> =
        said["accounts"].as_array().map(|all| all.iter().collect()).unwrap_or_default();
    let mut text = heading(said, &accounts);
    if accounts.is_empty() {
        return text + "no accounts\n";
    }
    accounts.sort_by_key(|account| (Reverse(badness(account)), cell(account, "account")));
    let columns = fitting(&accounts, look);
    let mut lines = text.lines().count() + 2;
    for row in 0..=accounts.len() {
        let shown = line(&columns, row, look);
        lines += shown.lines().count();
        if row > 1 && look.height.is_some_and(|height| lines > height) {
            let more = accounts.len() + 1 - row;
            return text + &format!("and {more} more; name an account, or send this to a file\n");
        }
        text.push_str(&shown);
    }
    text
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
    let heading = format!("adsproxy {}\n", plain(&cell(said, "version")));
    let unsaved = accounts.iter().filter(|account| account["unsaved"] == true);
    let names: Vec<String> = unsaved.map(|account| plain(&cell(account, "account"))).collect();
    if names.is_empty() && said["store"] != "degraded" {
        return heading;
    }
    let which = match names.is_empty() {
        true => String::new(),
        false => format!(": kept in memory only: {}", names.join(", ")),
    };
    format!("{heading}the store does not take every record{which}\n")
}

/// As many columns as there is room for, each with its heading and cells.
fn fitting(accounts: &[&Value], look: &Look) -> Vec<Vec<String>> {
    let mut columns: Vec<(u8, Vec<String>)> = COLUMNS
        .iter()
        .map(|(heading, field, dispensable)| {
            let cells = accounts.iter().map(|account| plain(&cell(account, field)));
            (*dispensable, std::iter::once((*heading).to_owned()).chain(cells).collect())
        })
        .collect();
    while look.width.is_some_and(|width| total(&columns) > width) {
        let first = columns.iter().map(|(dispensable, _)| *dispensable).max().unwrap_or(0);
        if first == 0 {
            break;
        }
        columns.retain(|(dispensable, _)| *dispensable != first);
    }
    columns.into_iter().map(|(_, cells)| cells).collect()
}

/// The last column is wrapped: it needs no more than its heading.
fn total(columns: &[(u8, Vec<String>)]) -> usize {
    let Some(((_, last), columns)) = columns.split_last() else { return 0 };
    last[0].len() + columns.iter().map(|(_, cells)| widest(cells) + GAP).sum::<usize>()
}

fn widest(cells: &[String]) -> usize {
    cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)
}

/// One row; its error goes on in further lines where it is longer than the room beside the rest.
fn line(columns: &[Vec<String>], row: usize, look: &Look) -> String {
    let mut line = String::new();
    let mut start = 0;
    let Some((errors, columns)) = columns.split_last() else { return line };
    for cells in columns {
        let width = widest(cells);
        start += width + GAP;
        let is_state = look.coloured && row > 0 && cells[0] == "STATE";
        let (on, off) = if is_state { (colour(&cells[row]), "\x1b[0m") } else { ("", "") };
        line.push_str(&format!("{on}{:width$}{off}  ", cells[row]));
    }
    let width = look.width.unwrap_or(usize::MAX);
    let room = width.saturating_sub(start);
    let (indent, room) = match room >= ERROR_WIDTH_MIN || errors[row].chars().count() <= room {
        true => (start, room),
        // Below the row, where there is no room beside it.
        false => {
            line.truncate(line.trim_end().len());
            line.push_str("\n    ");
            (4, width.saturating_sub(4).max(1))
        }
    };
    line.push_str(&wrap(&errors[row], room).join(&format!("\n{:indent$}", "")));
    line.truncate(line.trim_end().len());
    line + "\n"
}

/// Breaks `text` between words, and words that are longer, into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let word: Vec<char> = word.chars().collect();
        for (index, piece) in word.chunks(width).enumerate() {
            let line = lines.last_mut().expect("one at least");
            let length = line.chars().count();
            if index > 0 || (length > 0 && length + 1 + piece.len() > width) {
                lines.push(piece.iter().collect());
            } else {
                line.extend((length > 0).then_some(' ').iter().chain(piece));
            }
        }
    }
    lines
}

fn colour(state: &str) -> &'static str {
    match state {
        "fresh" => "\x1b[32m",
        "due" | "refreshing" | "expired" | "idle" => "\x1b[33m",
        _ => "\x1b[31m",
    }
}

fn cell(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(secs) if field.ends_with("_secs") => {
            secs.as_u64().map(span).unwrap_or_default()
        }
        other => other.to_string(),
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
