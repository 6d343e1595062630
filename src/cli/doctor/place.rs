//! The configuration: its warnings, the modes of its files, and where consent returns to.

use super::Finding;
use crate::config::{CALLBACK_PATH, Config, load::Loaded};
use http::Uri;
use rustix::{
    fs::{Access, access},
    process::getuid,
};
use std::{fs, net::IpAddr, os::unix::fs::MetadataExt, path::Path};

pub(super) fn config(loaded: &Loaded) -> Vec<Finding> {
    let from = loaded.config.source.as_deref().map(|path| path.display().to_string());
    let from = from.unwrap_or_else(|| "the environment".to_owned());
    let accounts = loaded.config.accounts.len();
    let mut findings =
        vec![Finding::ok("config", format!("{from}: no mistakes, {accounts} accounts"))];
    findings.extend(loaded.warnings.iter().map(|warning| {
        let fix = "do what it says; `adsproxy check-config` shows where";
        Finding::warning("config", warning.message.clone(), fix)
    }));
    let tls_key = loaded.config.listen.tls.as_ref().map(|tls| tls.key_file.as_path());
    let secret = tls_key.into_iter().chain(loaded.config.audit.path.as_deref());
    findings.extend(secret.filter_map(exposed));
    findings
}

/// Complains of a file or directory that others may read, or that belongs to another user.
pub(super) fn exposed(path: &Path) -> Option<Finding> {
    let metadata = fs::metadata(path).ok().filter(|found| found.is_file() || found.is_dir())?;
    let (mode, path) = (metadata.mode() & 0o7777, path.display());
    if mode & 0o077 != 0 {
        let text = format!("{path} is open to other users of this machine (mode {mode:04o})");
        return Some(Finding::error("modes", text, format!("chmod {:04o} {path}", mode & !0o077)));
    }
    let (owner, user) = (metadata.uid(), getuid().as_raw());
    (owner != user && owner != 0 && user != 0).then(|| {
        let text =
            format!("{path} belongs to user {owner}, who can change it; this is user {user}");
        Finding::warning("modes", text, format!("chown {user} {path}"))
    })
}

/// Whether this user can make files in `directory`, for `what`.
pub(super) fn writable(check: &'static str, what: &str, directory: &Path) -> Finding {
    let shown = directory.display();
    match access(directory, Access::WRITE_OK) {
        Ok(()) => Finding::ok(check, format!("{what}: {shown} is writable")),
        Err(error) => {
            let fix = format!("give the user that runs adsproxy the right to write {shown}");
            Finding::error(check, format!("{what}: cannot write in {shown}: {error}"), fix)
        }
    }
}

/// The address that consent returns to must be one that the admin listener serves.
pub(super) fn redirects(config: &Config) -> Vec<Finding> {
    let admin = config.listen.admin_tcp().map_or(0, |admin| admin.port());
    let all = config.applications.iter();
    all.map(|(name, one)| judge_redirect(name, &one.redirect_uri, admin)).collect()
}

fn judge_redirect(application: &str, redirect_uri: &str, admin: u16) -> Finding {
    let uri: Uri = redirect_uri.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    let text = format!("{redirect_uri} (application {application})");
    if !is_loopback {
        return Finding::ok("redirect", format!("{text}: {host} must pass it on to listen.admin"));
    }
    if uri.scheme_str() == Some("http") && uri.port_u16().unwrap_or(80) == admin {
        return Finding::ok("redirect", text);
    }
    // A warning: without logins it does not matter.
    Finding::warning(
        "redirect",
        format!("{text} is not where this server listens for it: logins will not come back"),
        format!(
            "set redirect_uri = \"http://localhost:{admin}{CALLBACK_PATH}\" here and among the \
             allowed return URLs of the security profile, or change listen.admin"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn redirects_must_lead_to_the_admin_listener() {
        for (uri, level) in [
            ("http://localhost:8788/api/auth/amazon/callback", Level::Ok),
            ("http://127.0.0.1:8788/api/auth/amazon/callback", Level::Ok),
            ("http://[::1]:8788/api/auth/amazon/callback", Level::Ok),
            ("https://ads.example.com/api/auth/amazon/callback", Level::Ok),
            ("http://localhost:8789/api/auth/amazon/callback", Level::Warning),
            ("http://localhost/api/auth/amazon/callback", Level::Warning),
            ("https://localhost:8788/api/auth/amazon/callback", Level::Warning),
        ] {
            let finding = judge_redirect("default", uri, 8788);
            assert_eq!(finding.level, level, "{finding:?}");
            assert_eq!(finding.fix.is_some(), level != Level::Ok, "{uri}");
        }
    }
}
