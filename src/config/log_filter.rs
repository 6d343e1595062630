//! Which events are logged: checks the directives of a filter, which `tracing` takes on trust.
//!
//! To `tracing` a misspelt level is the name of a target, and everything else is then silent.

use super::document::most_alike;

/// Where the modules of this crate are listed.
const LIB: &str = include_str!("../lib.rs");

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Crates below us that log.
const CRATES: [&str; 8] = [
    "h2",
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "rustls_platform_verifier",
    "tokio",
    "tokio_rustls",
];

/// Says what is wrong with the directives in `text`, and what may have been meant.
///
/// # Errors
/// For the first directive that is neither a level nor about a target that there is.
pub fn check(text: &str) -> Result<(), String> {
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(text) {
        return Err(format!("{text:?}: {error}"));
    }
    text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).try_for_each(directive)
}

fn directive(directive: &str) -> Result<(), String> {
    let end = directive.find(['=', '[']).unwrap_or(directive.len());
    let target = &directive[..end];
    let is_level = |text: &str| {
        LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text)) || text.parse::<u8>().is_ok()
    };
    if target.is_empty() || is_level(directive) || is_known(target) {
        return Ok(());
    }
    let targets: Vec<String> = modules().map(|module| format!("adsproxy::{module}")).collect();
    let known = LEVELS.iter().chain(&CRATES).chain(&["adsproxy"]).copied();
    let likely = most_alike(target, known.chain(targets.iter().map(String::as_str)));
    let help = match likely {
        Some(name) => format!("did you mean `{name}`?"),
        None => "write a level such as `info`, or `adsproxy::token=debug`".to_owned(),
    };
    Err(format!("`{target}` is neither a level nor a target that adsproxy logs: {help}"))
}

/// Says whether something logs under `target`.
fn is_known(target: &str) -> bool {
    let mut parts = target.split("::");
    match parts.next() {
        Some("adsproxy") => {
            parts.next().is_none_or(|part| part == "access" || modules().any(|name| name == part))
        }
        Some(name) => CRATES.contains(&name),
        None => false,
    }
}

/// The modules of this crate.
fn modules() -> impl Iterator<Item = &'static str> {
    let lines = LIB.lines().map(|line| line.strip_prefix("pub ").unwrap_or(line));
    lines.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets_that_log_are_accepted() {
        for text in [
            "",
            "info",
            "WARN",
            "3",
            "info,adsproxy::token=debug",
            "adsproxy=trace,h2=off",
            "adsproxy::store::file",
            "adsproxy::access=off",
            "warn,hyper_util::client=debug",
            "info,adsproxy[{account}]=debug",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_would_silence_the_log_is_refused_with_a_suggestion() {
        for (text, part) in [
            ("inof", "did you mean `info`?"),
            ("info,adsprxy=debug", "did you mean `adsproxy`?"),
            ("info,adsproxy::tokn=debug", "did you mean `adsproxy::token`?"),
            ("info,rusttls=debug", "did you mean `rustls`?"),
            ("info,mycrate=debug", "adsproxy::token=debug"),
            ("info=loud", "loud"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
