//! What lies on this machine: configuration, file modes, the store and its key.

use super::Finding;
use crate::{
    config::{CALLBACK_PATH, Config, StoreKind, is_callback_path, load::Loaded},
    error_chain::chain,
    store::{self, CredentialStore},
};
use http::Uri;
use rustix::{fs::statvfs, process::getuid};
use std::{
    fs::{self, Metadata},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// Ten thousand records are read in a second or two.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Records are small: this is room for thousands.
const SPACE_LOW: u64 = 64 << 20;
const SPACE_OUT: u64 = 1 << 20;

pub(super) fn config(loaded: &Loaded) -> Vec<Finding> {
    let mut findings = Vec::new();
    let from = match &loaded.source {
        Some(path) => path.display().to_string(),
        None => "the environment".to_owned(),
    };
    let accounts = loaded.config.accounts.len();
    findings.push(Finding::ok("config", format!("{from}: no mistakes, {accounts} accounts")));
    for warning in &loaded.warnings {
        let fix = "do what it says; `adsproxy check-config` shows where";
        findings.push(Finding::warning("config", warning.message.clone()).fix(fix));
    }
    findings.extend(loaded.source.as_deref().and_then(|path| file_of_ours(path, 0o022)));
    if let Some(tls) = &loaded.config.listen.tls {
        findings.extend(file_of_ours(&tls.key_file, 0o077));
    }
    findings.extend(loaded.config.audit.path.as_deref().and_then(|path| file_of_ours(path, 0o077)));
    findings
}

/// Complains of a file or directory that has one of the bits `forbidden`, or belongs to others.
fn file_of_ours(path: &Path, forbidden: u32) -> Option<Finding> {
    let metadata = fs::metadata(path).ok()?;
    judge_mode(path, &metadata, forbidden)
}

fn judge_mode(path: &Path, metadata: &Metadata, forbidden: u32) -> Option<Finding> {
    let (mode, path) = (metadata.mode() & 0o7777, path.display());
    if !metadata.is_file() && !metadata.is_dir() {
        return None;
    }
    if mode & forbidden != 0 {
        let right = mode & !forbidden;
        let text = format!("{path} is open to other users of this machine (mode {mode:04o})");
        return Some(Finding::error("modes", text).fix(format!("chmod {right:04o} {path}")));
    }
    let (owner, user) = (metadata.uid(), getuid().as_raw());
    if owner != user && owner != 0 && user != 0 {
        let text =
            format!("{path} belongs to user {owner}, who can change it; this is user {user}");
        return Some(Finding::warning("modes", text).fix(format!("chown {user} {path}")));
    }
    None
}

/// The address that consent returns to must be one that we answer.
pub(super) fn redirects(config: &Config) -> Vec<Finding> {
    let admin = config.listen.admin.port();
    let judge = |(name, application): (&String, &crate::config::Application)| {
        judge_redirect(name, &application.redirect_uri, admin)
    };
    config.applications.iter().map(judge).collect()
}

fn judge_redirect(application: &str, redirect_uri: &str, admin: u16) -> Finding {
    let uri: Option<Uri> = redirect_uri.parse().ok();
    let Some((uri, host)) = uri.as_ref().and_then(|uri| Some((uri, uri.scheme().and(uri.host())?)))
    else {
        let text =
            format!("redirect_uri of application {application} is no address: {redirect_uri}");
        let fix = format!("write it as http://localhost:{admin}{CALLBACK_PATH}");
        return Finding::error("redirect", text).fix(fix);
    };
    let bare = host.trim_matches(['[', ']']);
    let loopback = bare.eq_ignore_ascii_case("localhost")
        || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if !loopback {
        let text = format!(
            "{redirect_uri} (application {application}): {host} must pass it on to listen.admin"
        );
        return Finding::ok("redirect", text);
    }
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    if port == admin && is_callback_path(uri.path()) && !https {
        return Finding::ok("redirect", format!("{redirect_uri} (application {application})"));
    }
    let text = format!(
        "{redirect_uri} (application {application}) is not where this server listens for it: \
         logins will not come back"
    );
    let fix = format!(
        "set redirect_uri = \"http://localhost:{admin}{CALLBACK_PATH}\" here and among the allowed \
         return URLs of the security profile, or change listen.admin"
    );
    // Whoever never logs in here does not miss it.
    Finding::warning("redirect", text).fix(fix)
}

/// The store: there, ours, writable, with room, and its key opens what is in it.
pub(super) async fn store(config: &Config) -> Vec<Finding> {
    if config.store.kind == StoreKind::Memory {
        let text = "store.kind = \"memory\": refresh tokens come from the configuration, and no \
                    key is needed";
        return vec![Finding::ok("store", text)];
    }
    let path = config.store.path.as_path();
    if !path.exists() {
        return vec![not_made_yet(path)];
    }
    let mut findings: Vec<Finding> = file_of_ours(path, 0o077).into_iter().collect();
    findings.extend(open_below(path, 2));
    findings.push(writable(path));
    findings.extend(space(path));
    let opened = match store::open(&config.store, &config.encryption) {
        Ok(store) => {
            let opening = tokio::time::timeout(STORE_TIMEOUT, records(&store)).await;
            opening.unwrap_or_else(|_| {
                let text = format!("not all records were read within {STORE_TIMEOUT:?}");
                vec![Finding::warning("key", text).fix("look at the disk, or run it again")]
            })
        }
        Err(error) => {
            let fix = "look at [encryption] and [store]; `adsproxy key init` makes a key";
            vec![Finding::error("key", chain(&error)).fix(fix)]
        }
    };
    findings.extend(opened);
    findings
}

fn not_made_yet(path: &Path) -> Finding {
    let nearest = path.ancestors().find(|directory| directory.exists()).unwrap_or(Path::new("/"));
    let shown = path.display();
    if rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK).is_ok() {
        return Finding::ok("store", format!("{shown} is not there yet; the server will make it"));
    }
    let text = format!("{shown} is not there, and {} cannot be written", nearest.display());
    let fix = format!("mkdir -p -m 700 {shown}, for the user that runs adsproxy");
    Finding::error("store", text).fix(fix)
}

/// The first thing below `path` that others may read, if there is one: the others have the same
/// reason.
fn open_below(path: &Path, depth: u32) -> Option<Finding> {
    let open = |entry: io::Result<fs::DirEntry>| {
        let (path, metadata) =
            entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))).ok()?;
        let deeper = metadata.is_dir() && depth > 1;
        let below = || if deeper { open_below(&path, depth - 1) } else { None };
        judge_mode(&path, &metadata, 0o077).or_else(below)
    };
    fs::read_dir(path).ok()?.find_map(open)
}

fn writable(path: &Path) -> Finding {
    let written =
        tempfile::Builder::new().prefix(".doctor").tempfile_in(path).and_then(|mut file| {
            file.write_all(b"x")?;
            file.as_file().sync_all()
        });
    let path = path.display();
    match written {
        Ok(()) => Finding::ok("store", format!("{path} is writable")),
        Err(error) => {
            let fix = format!("give the user that runs adsproxy the right to write {path}");
            Finding::error("store", format!("cannot write in {path}: {error}")).fix(fix)
        }
    }
}

fn space(path: &Path) -> Option<Finding> {
    let system = statvfs(path).ok()?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    // Some file systems count no files.
    let files = (system.f_files > 0).then_some(system.f_favail);
    Some(judge_space(path, free, files))
}

fn judge_space(path: &Path, free: u64, files: Option<u64>) -> Finding {
    let (path, mib) = (path.display(), free >> 20);
    let text = format!("{mib} MiB free on the file system of {path}");
    let fix = "make room: a rotated refresh token that cannot be saved may be lost";
    match (free, files) {
        (..SPACE_OUT, _) => Finding::error("space", text).fix(fix),
        (_, Some(..=16)) => {
            let text = format!("no files can be made any more on the file system of {path}");
            Finding::error("space", text).fix(fix)
        }
        (..SPACE_LOW, _) => Finding::warning("space", text).fix(fix),
        _ => Finding::ok("space", text),
    }
}

/// Opens every record.
async fn records(store: &Arc<dyn CredentialStore>) -> Vec<Finding> {
    let accounts = match store.list().await {
        Ok(accounts) => accounts,
        Err(error) => {
            let fix = "look at the directory of the store";
            return vec![Finding::error("store", chain(&error)).fix(fix)];
        }
    };
    let mut findings = Vec::new();
    for account in &accounts {
        if let Err(error) = store.load(account).await {
            let fix = if error.is_sealed() {
                "put the key back under its id in encryption.keys; the record is kept until then"
            } else {
                "restore the record from a backup, or connect the account again"
            };
            findings.push(Finding::error("key", chain(&error)).fix(fix));
        }
    }
    if findings.is_empty() {
        let text = match accounts.len() {
            0 => "the key can be used; the store is empty".to_owned(),
            count => format!("the key opens the store: {count} records"),
        };
        findings.push(Finding::ok("key", text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

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
            ("http://localhost:8788/callback", Level::Ok),
            ("http://localhost:8788/status", Level::Warning),
            ("http://localhost:8788/api/callback", Level::Warning),
            ("nonsense", Level::Error),
        ] {
            let finding = judge_redirect("default", uri, 8788);
            assert_eq!(finding.level, level, "{finding:?}");
            assert_eq!(finding.fix.is_some(), level != Level::Ok, "{uri}");
        }
    }

    #[test]
    fn too_little_room_is_told_before_it_is_none() {
        let judge = |free, files| judge_space(Path::new("/s"), free, files).level;
        assert_eq!(judge(1 << 30, Some(1000)), Level::Ok);
        assert_eq!(judge(1 << 30, None), Level::Ok);
        assert_eq!(judge(SPACE_LOW - 1, Some(1000)), Level::Warning);
        assert_eq!(judge(SPACE_OUT - 1, Some(1000)), Level::Error);
        assert_eq!(judge(1 << 30, Some(3)), Level::Error);
    }
}
