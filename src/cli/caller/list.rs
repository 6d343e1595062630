//! `caller list`: who may call, by which keys, and the sessions that are open.

use super::admin;
use crate::{
    cli::{
        Context, print,
        table::{span, table_of},
    },
    clock::{Clock as _, SystemClock},
};
use serde_json::{Value, json};

/// Of the JSON; it goes up when a member changes its meaning or goes away.
const VERSION: u32 = 1;

pub(super) fn run(context: &Context, as_json: bool) -> anyhow::Result<()> {
    let server = admin(context, context.load()?.config)?;
    let callers = server.entries("/api/v1/callers", "callers")?;
    let sessions = server.entries("/api/v1/sessions", "sessions")?;
    if as_json {
        let document = json!({ "version": VERSION, "callers": callers, "sessions": sessions });
        return print(format!("{document:#}\n"));
    }
    let now = SystemClock.now().unix();
    let mut rows = Vec::new();
    for caller in &callers {
        let keys: Vec<Value> = members(&caller["keys"]).map(|key| row(caller, key, now)).collect();
        // Known by something else than a key, or by nothing.
        let without = keys
            .is_empty()
            .then(|| json!({ "caller": caller["name"], "tenant": caller["tenant"] }));
        rows.extend(keys.into_iter().chain(without));
    }
    if rows.is_empty() && sessions.is_empty() {
        return print("no callers: `adsproxy caller add NAME` makes one\n");
    }
    let mut tables = Vec::new();
    if !rows.is_empty() {
        let columns = ["caller", "tenant", "key", "age", "expires", "last_used"];
        tables.push(table_of(columns, &rows));
    }
    let rows: Vec<Value> = sessions.iter().map(|session| session_row(session, now)).collect();
    if !rows.is_empty() {
        let columns =
            ["session", "caller", "user", "accounts", "read_only", "ends", "last_used", "note"];
        tables.push(table_of(columns, &rows));
    }
    print(tables.join("\n"))
}

fn members(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn row(caller: &Value, key: &Value, now: u64) -> Value {
    let expires = match key["state"].as_str() {
        Some("active") => ahead(&key["expires"], now),
        state => state.map(str::to_owned),
    };
    json!({
        "caller": caller["name"],
        "tenant": caller["tenant"],
        "key": key["id"],
        "age": ago(&key["created"], now),
        "expires": expires,
        "last_used": ago(&key["last_used"], now).map(|ago| format!("{ago} ago")),
    })
}

fn session_row(session: &Value, now: u64) -> Value {
    let accounts: Vec<&str> = members(&session["accounts"]).filter_map(Value::as_str).collect();
    json!({
        "session": session["id"],
        "caller": session["caller"],
        "user": session["subject"],
        "accounts": accounts.join(" "),
        "read_only": session["read_only"],
        "ends": ahead(&session["expires"], now),
        "last_used": ago(&session["last_used"], now).map(|ago| format!("{ago} ago")),
        "note": session["note"],
    })
}

fn seconds(at: &Value) -> Option<u64> {
    let at: jiff::Timestamp = at.as_str()?.parse().ok()?;
    u64::try_from(at.as_second()).ok()
}

fn ago(at: &Value, now: u64) -> Option<String> {
    seconds(at).map(|at| span(now.saturating_sub(at)))
}

fn ahead(at: &Value, now: u64) -> Option<String> {
    seconds(at).map(|at| format!("in {}", span(at.saturating_sub(now))))
}
