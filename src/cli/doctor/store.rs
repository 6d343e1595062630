//! The store: there, private, writable, with room, and its keys open every record.

use super::{
    Finding,
    place::{exposed, writable},
};
use crate::{
    config::{Config, StoreKind},
    error_chain::chain,
    id::{AccountId, Region},
    store::{self, Credential, Store, backend::Schema},
};
use rustix::fs::statvfs;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;

/// Ten thousand records are read in a second or two.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Records are small: this is room for thousands.
const SPACE_LOW: u64 = 64 << 20;
const SPACE_OUT: u64 = 1 << 20;

/// One account as configuration and store know it.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) id: AccountId,
    pub(super) region: Region,
    pub(super) application: String,
    /// The profile in the configured default header.
    pub(super) scope: Option<String>,
    /// Seconds since 1970.
    pub(super) consented_at: Option<u64>,
}

/// Also returns the store, unless it keeps nothing, is not there yet, or cannot be opened; and all
/// accounts but those whose records cannot be read.
pub(super) async fn check(config: &Config) -> (Vec<Finding>, Option<Store>, Vec<Known>) {
    let (mut findings, mut store) = (Vec::new(), None);
    let directory = config.store.directory();
    if config.store.kind == StoreKind::Memory {
        let text = "store.kind = \"memory\": refresh tokens come from the configuration, and no \
                    key is needed";
        findings.push(Finding::ok("store", text));
    } else if let Some(path) = directory.filter(|path| !path.exists()) {
        let nearest = path.ancestors().find(|directory| directory.exists());
        let what = format!("{} is made by the server", path.display());
        findings.push(writable("store", &what, nearest.unwrap_or(Path::new("/"))));
    } else {
        if let Some(path) = directory {
            findings.extend(exposed(path).or_else(|| exposed_below(path, 2)));
            findings.push(writable("store", "store.path", path));
            findings.extend(space(path));
        }
        match Store::examine(&config.store, &config.encryption) {
            Ok((opened, found)) => {
                findings.extend(found.as_ref().map(schema));
                findings.extend(hints(&opened).await);
                store = Some(opened);
            }
            Err(error) if error.is_away() => {
                let fix = "look whether the database of store.url runs, and lets this machine in";
                findings.push(Finding::error("store", chain(&error), fix).code(69));
            }
            Err(error) if error.is_configuration() => {
                let fix = "look at [store]";
                findings.push(Finding::error("store", chain(&error), fix).code(78));
            }
            Err(error) => {
                let fix = "look at [encryption] and [store]; `adsproxy key init` makes a key";
                findings.push(Finding::error("key", chain(&error), fix));
            }
        }
    }
    let read = timeout(STORE_TIMEOUT, read(config, store.as_ref())).await;
    let (read, known) = read.unwrap_or_else(|_| {
        let text = format!("not all records were read within {STORE_TIMEOUT:?}");
        (
            vec![Finding::error("key", text, "look at the disk or the database, or run it again")],
            Vec::new(),
        )
    });
    findings.extend(read);
    (findings, store, known)
}

/// Opens every record.
async fn read(config: &Config, store: Option<&Store>) -> (Vec<Finding>, Vec<Known>) {
    let (mut findings, mut known, mut records) = (Vec::new(), Vec::new(), 0);
    let mut ids: BTreeSet<AccountId> = config.accounts.keys().cloned().collect();
    if let Some(store) = store {
        match store.grants().await {
            Ok(stored) => ids.extend(stored),
            Err(error) => {
                let fix = "look at the directory or the database of the store";
                findings.push(Finding::error("store", chain(&error), fix));
            }
        }
    }
    let marks = match store {
        Some(store) => store.find_marks(None).await.unwrap_or_default(),
        None => store::FoundMarks::default(),
    };
    findings.extend(unopened(&marks.unopened));
    let marks = marks.marks;
    for id in ids {
        let record = match store {
            Some(store) => store.load(&id).await,
            None => Ok(None),
        };
        match record {
            Ok(record) => {
                let mark = marks.get(&id).zip(record.as_ref());
                if mark.is_some_and(|(mark, record)| mark.is_ahead_of(record)) {
                    let text = chain(&store::Error::set_back(&id));
                    let fix = "connect the account again, or run `adsproxy store accept`";
                    findings.push(Finding::error("store", text, fix));
                }
                records += usize::from(record.is_some());
                known.extend(Known::of(config, id, record));
            }
            Err(error) => {
                let fix = if error.is_sealed() {
                    "put the key back under its id in encryption.keys; the record is kept until then"
                } else if matches!(
                    error,
                    store::Error::OtherStore { .. } | store::Error::Identity(_)
                ) {
                    "restore meta/store.json from a backup of the store"
                } else {
                    "restore the record from a backup, or connect the account again"
                };
                findings.push(Finding::error("key", chain(&error), fix));
            }
        }
    }
    if store.is_some() && findings.is_empty() {
        let text = match records {
            0 => "the key can be used; the store is empty".to_owned(),
            count => format!("the key opens the store: {count} records"),
        };
        findings.push(Finding::ok("key", text));
    }
    (findings, known)
}

/// Marks that do not open: for all of them one finding.
fn unopened(marks: &[store::UnopenedMark]) -> Option<Finding> {
    let first = marks.first()?;
    let (count, account) = (marks.len(), &first.account);
    let key = first.key_id.as_deref().map(|key| format!(" (key {key:?})")).unwrap_or_default();
    let text = format!(
        "{count} marks of grants do not open, the first that of {account}{key}: whether those records \
         were restored from a backup cannot be said"
    );
    let fix = "put the key back under its id in encryption.keys, and run `adsproxy key rotate`; else \
               the next refresh of each account writes a new mark";
    Some(Finding::warning("store", text, fix))
}

impl Known {
    fn of(config: &Config, id: AccountId, record: Option<Credential>) -> Option<Self> {
        let (region, application, headers) = match (config.accounts.get(&id), &record) {
            (Some(one), _) => (one.region, one.application.clone(), &one.headers[..]),
            (None, Some(record)) => (record.region, record.application.clone(), &[][..]),
            (None, None) => return None,
        };
        let scope = headers.iter().find(|(name, _)| *name == "Amazon-Advertising-API-Scope");
        let scope = scope.and_then(|(_, value)| value.to_str().ok()).map(str::to_owned);
        let consented_at = record.and_then(|record| record.consented_at);
        Some(Self { id, region, application, scope, consented_at })
    }
}

/// The notifications of the database, if they are configured.
async fn hints(store: &Store) -> Option<Finding> {
    let store = store.clone();
    let proof = tokio::task::spawn_blocking(move || store.prove_hints()).await.ok()??;
    Some(match proof {
        Ok(()) => Finding::ok("store", "notifications arrive over store.listen_url"),
        Err(error) => {
            let fix = "servers poll without it: correct store.listen_url, or leave it out";
            Finding::warning("store", chain(&error), fix)
        }
    })
}

/// The tables in the database.
fn schema(Schema { name, version, known }: &Schema) -> Finding {
    match version {
        0 => {
            let text = format!("the schema {name:?} in the database has no tables of adsproxy yet");
            let fix = "start the server, or run `adsproxy migrate` if its role may not make them";
            Finding::warning("store", text, fix)
        }
        version if version < known => {
            let text =
                format!("the schema {name:?} in the database is of version {version} of {known}");
            let fix = "start the server, or run `adsproxy migrate` if its role may not change it";
            Finding::warning("store", text, fix)
        }
        version => {
            let text = format!("the schema {name:?} in the database is of version {version}");
            Finding::ok("store", text)
        }
    }
}

/// The first thing below `path` that others may read: the rest has the same reason.
fn exposed_below(path: &Path, depth: u32) -> Option<Finding> {
    let entries = fs::read_dir(path).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let below = |path: PathBuf| {
        let deeper = || if depth > 1 { exposed_below(&path, depth - 1) } else { None };
        exposed(&path).or_else(deeper)
    };
    entries.into_iter().find_map(below)
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
        (..SPACE_OUT, _) => Finding::error("space", text, fix),
        (_, Some(..=16)) => {
            let text = format!("no files can be made any more on the file system of {path}");
            Finding::error("space", text, fix)
        }
        (..SPACE_LOW, _) => Finding::warning("space", text, fix),
        _ => Finding::ok("space", text),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn too_little_room_is_a_warning_before_it_is_an_error() {
        let judge = |free, files| judge_space(Path::new("/s"), free, files).level;
        assert_eq!(judge(1 << 30, Some(1000)), Level::Ok);
        assert_eq!(judge(1 << 30, None), Level::Ok);
        assert_eq!(judge(SPACE_LOW - 1, Some(1000)), Level::Warning);
        assert_eq!(judge(SPACE_OUT - 1, Some(1000)), Level::Error);
        assert_eq!(judge(1 << 30, Some(3)), Level::Error);
    }
}
