//! The table of `adsproxy status`: as many columns as the terminal has room for.

use crate::cli::table::{plain, span};
use serde_json::Value;

/// What the reader's terminal can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) coloured: bool,
    /// Characters in a line; none if there is no end to it.
    pub(super) width: Option<usize>,
    /// Lines of the window; none if there is none.
    pub(super) height: Option<usize>,
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
/// With less room than this an error goes below its row.
const ERROR_WIDTH_MIN: usize = 24;

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

/// The state's rank: what needs a person comes first.
fn rank(account: &Value) -> usize {
    const BEST_LAST: [&str; 5] = ["expired", "refreshing", "due", "idle", "fresh"];
    let state = account["state"].as_str().unwrap_or_default();
    let place = BEST_LAST.iter().position(|known| *known == state);
    let is_unsaved = account["unsaved"] == true;
    if is_unsaved { 0 } else { place.map_or(0, |place| place + 1) }
}

/// The whole text for the server's response, the worst account first.
pub(super) fn text(answer: &Value, look: &Look) -> String {
    let mut accounts: Vec<&Value> =
        answer["accounts"].as_array().map(|all| all.iter().collect()).unwrap_or_default();
    let heading = heading(answer, &accounts);
    if accounts.is_empty() {
        return format!("{heading}no accounts\n");
    }
    accounts.sort_by_key(|account| (rank(account), cell(&account["account"])));
    let columns = fitting(&accounts, look);
    let mut text = heading;
    let lines_max = look.height.unwrap_or(usize::MAX);
    let mut lines = text.lines().count() + 2;
    for row in 0..=accounts.len() {
        let shown = line(&columns, row, look);
        lines += shown.lines().count();
        if lines > lines_max && row > 1 {
            let more = accounts.len() + 1 - row;
            text.push_str(&format!("and {more} more; name an account, or send this to a file\n"));
            break;
        }
        text.push_str(&shown);
    }
    text
}

fn heading(answer: &Value, accounts: &[&Value]) -> String {
    let mut heading = format!("adsproxy {}\n", plain(&cell(&answer["version"])));
    let unsaved: Vec<String> = accounts
        .iter()
        .filter(|account| account["unsaved"] == true)
        .map(|account| plain(&cell(&account["account"])))
        .collect();
    if !unsaved.is_empty() || answer["store"] == "degraded" {
        let which = match unsaved.as_slice() {
            [] => String::new(),
            names => format!(": kept in memory only: {}", names.join(", ")),
        };
        heading.push_str(&format!("the store does not take every record{which}\n"));
    }
    heading
}

/// As many columns as there is room for, with their headings and cells.
fn fitting(accounts: &[&Value], look: &Look) -> Vec<(&'static Column, Vec<String>)> {
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
    columns
}

/// One row; its error goes on in further lines where it is longer than the room beside the rest.
fn line(columns: &[(&Column, Vec<String>)], row: usize, look: &Look) -> String {
    let mut line = String::new();
    let mut start = 0;
    let Some(((_, errors), columns)) = columns.split_last() else { return line };
    for (column, cells) in columns {
        let width = widest(cells);
        let padded = format!("{:width$}", cells[row]);
        start += width + GAP;
        match colour(column, &cells[row]).filter(|_| look.coloured && row > 0) {
            Some(colour) => line.push_str(&format!("{colour}{padded}\x1b[0m  ")),
            None => line.push_str(&format!("{padded}  ")),
        }
    }
    let width = look.width.unwrap_or(usize::MAX);
    let (indent, room) = match width.saturating_sub(start) {
        room if room >= ERROR_WIDTH_MIN || errors[row].chars().count() <= room => (start, room),
        // Below the row, where there is no room beside it.
        _ => {
            line.truncate(line.trim_end().len());
            line.push_str("\n    ");
            (4, width.saturating_sub(4).max(1))
        }
    };
    let wrapped = wrap(&errors[row], room).join(&format!("\n{:indent$}", ""));
    line.push_str(&wrapped);
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// Breaks `text` between words into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        let line = lines.last_mut().expect("one at least");
        if line.is_empty() || line.chars().count() + 1 + rest.len() <= width {
            if !line.is_empty() {
                line.push(' ');
            }
        } else {
            lines.push(String::new());
        }
        while rest.len() > width {
            let tail = rest.split_off(width);
            lines.last_mut().expect("one at least").extend(rest);
            lines.push(String::new());
            rest = tail;
        }
        lines.last_mut().expect("one at least").extend(rest);
    }
    lines
}

fn colour(column: &Column, cell: &str) -> Option<&'static str> {
    match cell {
        _ if column.heading != STATE => None,
        "fresh" => Some("\x1b[32m"),
        "due" | "refreshing" | "expired" | "idle" => Some("\x1b[33m"),
        _ => Some("\x1b[31m"),
    }
}

/// The last column is wrapped: it needs no more than its heading.
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

    const PLAIN: Look = Look { coloured: false, width: None, height: None };

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
    fn the_worst_account_comes_first() {
        let expected = "\
adsproxy 1.2.3
ACCOUNT  STATE                     REGION  APPLICATION  EXPIRES IN  GENERATION  CONSENT DAYS LEFT  LAST ERROR
globex   reauthorization_required  eu      default      -           0           -                  invalid_grant\u{fffd}[2J
acme     fresh                     na      default      55m 0s      7           28                 -
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
    fn an_error_is_wrapped_and_none_of_it_is_lost() {
        let words = (0..40).map(|number| format!("word{number}")).collect::<Vec<_>>();
        let mut answer = answer();
        answer["accounts"][0]["last_error"] = words.join(" ").into();
        for width in [60, 80, 100, 160] {
            let text = text(&answer, &Look { width: Some(width), ..PLAIN });
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{width}:\n{text}");
        }
    }

    #[test]
    fn a_degraded_store_is_shown_with_the_accounts_it_did_not_take() {
        let mut answer = answer();
        answer["store"] = "degraded".into();
        answer["accounts"][1]["unsaved"] = true.into();
        let text = text(&answer, &PLAIN);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line, "the store does not take every record: kept in memory only: acme");
        assert!(text.lines().nth(3).unwrap().starts_with("acme"), "it is among the worst: {text}");
    }

    #[test]
    fn sixty_accounts_fit_the_window_and_the_dead_one_is_in_it() {
        let mut answer = answer();
        let accounts = answer["accounts"].as_array_mut().unwrap();
        for number in 0..58 {
            let mut one = accounts[1].clone();
            one["account"] = format!("a{number}").into();
            accounts.push(one);
        }
        let text = text(&answer, &Look { width: Some(100), height: Some(24), ..PLAIN });
        assert!(text.lines().count() < 24, "{text}");
        assert!(text.contains("globex") && text.contains("more; name an account"), "{text}");
    }

    #[test]
    fn only_states_are_coloured_and_only_where_they_may_be() {
        let coloured = text(&answer(), &Look { coloured: true, ..PLAIN });
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
