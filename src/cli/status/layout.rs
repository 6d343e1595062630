//! The table of `adsproxy status`: as many columns as the terminal has room for.

use crate::cli::table::{plain, span};
use serde_json::Value;

/// What the reader's terminal can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) coloured: bool,
    /// Characters in a line; none if there is no end to it.
    pub(super) width: Option<usize>,
}

/// A heading and how its cells are made, in the order of the table.
struct Column {
    heading: &'static str,
    /// Those with the highest number go first when there is no room.
    dispensable: u8,
    cell: fn(&Value) -> String,
}

const STATE: &str = "STATE";
const GAP: usize = 2;

const COLUMNS: [Column; 8] = [
    Column { heading: "ACCOUNT", dispensable: 0, cell: |account| cell(&account["account"]) },
    Column { heading: STATE, dispensable: 0, cell: |account| cell(&account["state"]) },
    Column { heading: "REGION", dispensable: 2, cell: |account| cell(&account["region"]) },
    Column {
        heading: "APPLICATION",
        dispensable: 4,
        cell: |account| cell(&account["application"]),
    },
    Column {
        heading: "EXPIRES IN",
        dispensable: 0,
        cell: |account| account["expires_in_secs"].as_u64().map(span).unwrap_or_default(),
    },
    Column { heading: "GENERATION", dispensable: 3, cell: |account| cell(&account["generation"]) },
    Column {
        heading: "CONSENT DAYS LEFT",
        dispensable: 1,
        cell: |account| cell(&account["consent_days_left"]),
    },
    Column { heading: "LAST ERROR", dispensable: 0, cell: |account| cell(&account["last_error"]) },
];

/// The whole text for the server's answer, sorted by alias.
pub(super) fn text(answer: &Value, look: &Look) -> String {
    let version = plain(&cell(&answer["version"]));
    let mut accounts: Vec<&Value> =
        answer["accounts"].as_array().map(|all| all.iter().collect()).unwrap_or_default();
    if accounts.is_empty() {
        return format!("adsproxy {version}\nno accounts\n");
    }
    accounts.sort_by_key(|account| cell(&account["account"]));
    let mut columns: Vec<(&Column, Vec<String>)> = COLUMNS
        .iter()
        .map(|column| {
            let heading = std::iter::once(column.heading.to_owned());
            let cells = accounts.iter().map(|account| plain(&(column.cell)(account)));
            (column, heading.chain(cells).collect())
        })
        .collect();
    while look.width.is_some_and(|width| total(&columns) > width) {
        let last = columns.iter().map(|(column, _)| column.dispensable).max().unwrap_or(0);
        if last == 0 {
            break;
        }
        columns.retain(|(column, _)| column.dispensable != last);
    }
    let mut text = format!("adsproxy {version}\n");
    for row in 0..=accounts.len() {
        text.push_str(&line(&columns, row, look));
        text.push('\n');
    }
    text
}

fn line(columns: &[(&Column, Vec<String>)], row: usize, look: &Look) -> String {
    let mut line = String::new();
    let mut room = look.width.unwrap_or(usize::MAX);
    for (index, (column, cells)) in columns.iter().enumerate() {
        let is_last = index + 1 == columns.len();
        let width = if is_last { 0 } else { widest(cells) };
        // The error is the last one, and the only one that may be long.
        let shown: String = cells[row].chars().take(room).collect();
        let padded = format!("{shown:width$}");
        let gap = if is_last { "" } else { "  " };
        room = room.saturating_sub(padded.chars().count() + gap.len());
        match colour(column, &cells[row]).filter(|_| look.coloured && row > 0) {
            Some(colour) => line.push_str(&format!("{colour}{padded}\x1b[0m{gap}")),
            None => line.push_str(&format!("{padded}{gap}")),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

fn colour(column: &Column, cell: &str) -> Option<&'static str> {
    match cell {
        _ if column.heading != STATE => None,
        "fresh" => Some("\x1b[32m"),
        "due" | "refreshing" | "expired" => Some("\x1b[33m"),
        _ => Some("\x1b[31m"),
    }
}

/// The last column may be cut: it needs no more than its heading.
fn total(columns: &[(&Column, Vec<String>)]) -> usize {
    let widths = columns.iter().enumerate().map(|(index, (column, cells))| {
        let is_last = index + 1 == columns.len();
        if is_last { column.heading.len() } else { widest(cells) + GAP }
    });
    widths.sum()
}

fn widest(cells: &[String]) -> usize {
    cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)
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

    const PLAIN: Look = Look { coloured: false, width: None };

    fn answer() -> Value {
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
    fn accounts_stand_in_columns_in_the_order_of_their_names() {
        let expected = "\
adsproxy 1.2.3
ACCOUNT  STATE                     REGION  APPLICATION  EXPIRES IN  GENERATION  CONSENT DAYS LEFT  LAST ERROR
acme     fresh                     na      default      55m 0s      7           28                 -
globex   reauthorization_required  eu      default      -           0           -                  invalid_grant\u{fffd}[2J
";
        assert_eq!(text(&answer(), &PLAIN), expected);
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_important_first_and_no_line_is_broken() {
        let heading = |width| {
            let look = Look { width: Some(width), ..PLAIN };
            let text = text(&answer(), &look);
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
    fn only_states_are_coloured_and_only_where_they_may_be() {
        let coloured = text(&answer(), &Look { coloured: true, width: None });
        assert_eq!(coloured.matches("\x1b[0m").count(), 2, "{coloured:?}");
        assert!(coloured.contains("\x1b[32mfresh") && coloured.contains("\x1b[31mreauth"));
        assert!(!text(&answer(), &PLAIN).contains('\x1b'));
    }

    #[test]
    fn an_answer_without_accounts_says_so() {
        for answer in [json!({ "version": "1", "accounts": [] }), json!({}), json!(7)] {
            assert!(text(&answer, &PLAIN).ends_with("no accounts\n"));
        }
    }
}
