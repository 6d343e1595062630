//! `adsproxy key init`: makes a key in a file, of a passphrase or in the system's keyring.

use super::{Context, print};
use crate::{
    audit::{self, Action, Actor, Audit, Entry},
    clock::{Clock, SystemClock},
    config::{EncryptionKey, Material, StoreKind},
    secret::Secret,
    store::{self, Store},
};
use anyhow::{Context as _, bail};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Make a new key and print the lines that use it; never overwrites one
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Init {
    /// Where to put it [default: ~/.config/adsproxy/key]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["passphrase", "keyring"])]
    path: Option<PathBuf>,
    /// Put it into the keyring of the operating system (store.kind = "keyring")
    #[arg(long, conflicts_with = "passphrase")]
    keyring: bool,
    /// Make ready, in the store, the configured keys that come from a passphrase
    #[arg(long, conflicts_with = "id")]
    passphrase: bool,
    /// The key's name [default: this month]
    #[arg(long, value_name = "ID", value_parser = key_id)]
    id: Option<String>,
}

fn key_id(text: &str) -> Result<String, String> {
    match crate::id::AccountId::is_alias(text) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 64 letters, digits, '.', '_' or '-'".to_owned()),
    }
}

impl Init {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        if self.passphrase {
            return prepare_passphrases(context);
        }
        // Without a configuration, or with one that lacks this very key, there is nothing to heed.
        let keys = context.load().map(|loaded| loaded.config.encryption.keys).unwrap_or_default();
        let id = match &self.id {
            Some(id) if !self.keyring && keys.iter().any(|key| key.id == *id) => {
                bail!("key {id} is in the configuration already: choose another with --id")
            }
            Some(id) => id.clone(),
            None => free_id(&keys)?,
        };
        let entry = Entry::new(Actor::cli(), Action::KeyInit).about(&id);
        record(context, &entry.clone().attempt()).context("no key was made")?;
        if self.keyring {
            in_keyring(&id)?
        } else {
            self.in_file(context, &id)?
        }
        record(context, &entry).context(UNRECORDED)?;
        match keys.iter().all(|key| key.id == id) {
            true => Ok(()),
            false => print(
                "Put it in front of the keys that are there, on every server of this store; \
                 `adsproxy key\nrotate --help` says how to go on.\n",
            ),
        }
    }

    fn in_file(&self, context: &Context, id: &str) -> anyhow::Result<()> {
        let path = match &self.path {
            Some(path) => path.clone(),
            None => context
                .environment
                .config_directory()
                .context("there is no home directory: say --path PATH")?
                .join("key"),
        };
        // The configuration may be read from another directory than this one.
        let path = std::path::absolute(&path)
            .with_context(|| format!("cannot use the path {}", path.display()))?;
        write_new_key(&path)?;
        let home = context.environment.expand("~");
        let path = home
            .and_then(|home| path.strip_prefix(home).ok().map(|rest| Path::new("~").join(rest)))
            .unwrap_or(path);
        print(format!(
            "A new key is in {path} (mode 0600). Keep a copy of it in a safe place: without it \
             the stored\ncredentials cannot be opened. Add these lines to the configuration:\n\n\
             [encryption]\n\
             keys = [{{ id = \"{id}\", secret = {{ file = {file} }} }}]\n",
            path = path.display(),
            file = toml::Value::String(path.display().to_string()),
        ))
    }
}

/// Writes down that a key is about to be made, or was. Where there is no configuration, or no key yet that
/// could protect the audit log, there is nothing to write it into.
fn record(context: &Context, entry: &Entry) -> Result<(), audit::Error> {
    let Ok(loaded) = context.load() else { return Ok(()) };
    let Ok(audit) = Audit::new(&loaded.config, Arc::new(SystemClock)) else { return Ok(()) };
    audit.record(entry)
}

const UNRECORDED: &str = "the key was made, but that could not be written into the audit log";

fn in_keyring(id: &str) -> anyhow::Result<()> {
    let key = store::generate_key()?;
    store::keyring::add(id, &key).context("no key was made in the keyring")?;
    print(format!(
        "A new key is in the keyring of the operating system (service \"adsproxy\", user \
         \"{id}\").\nWithout it the stored credentials cannot be opened: see that the keyring is \
         backed up. Add\nthese lines to the configuration:\n\n\
         [store]\n\
         kind = \"keyring\"\n\n\
         [encryption]\n\
         keys = [{{ id = \"{id}\" }}]\n"
    ))
}

/// What the configuration needs before a passphrase can be made a key.
const PASSPHRASE_LINES: &str = "\
set $ADSPROXY_PASSPHRASE, or add these lines to the configuration, and run this again:

[encryption]
keys = [{ id = \"laptop\", passphrase = { env = \"ADSPROXY_PASSPHRASE\" } }]";

fn prepare_passphrases(context: &Context) -> anyhow::Result<()> {
    let loaded = context.load().inspect_err(|_| eprintln!("{PASSPHRASE_LINES}\n"));
    let config = loaded?.config;
    if config.store.kind == StoreKind::Memory {
        bail!("store.kind = \"memory\" seals nothing and needs no key");
    }
    let mut done = String::new();
    for key in &config.encryption.keys {
        let Material::Passphrase(passphrase) = &key.material else { continue };
        let id = &key.id;
        let entry = Entry::new(Actor::cli(), Action::KeyInit).about(id);
        record(context, &entry.clone().attempt()).context("no key was made")?;
        done += &match Store::prepare_passphrase(&config.store, id, passphrase)? {
            true => {
                // If it is the first one, the log could not be protected before.
                record(context, &entry).context(UNRECORDED)?;
                format!("key {id} is ready: its salt is in keys/{id}.json of the store\n")
            }
            false => format!("key {id} was ready before; nothing was changed\n"),
        };
    }
    if done.is_empty() {
        bail!("no key of the configuration has a passphrase: {PASSPHRASE_LINES}");
    }
    print(format!(
        "{done}Keep the passphrase in a safe place: without it the stored credentials cannot be \
         opened.\n"
    ))
}

/// The key's id in the snippet: tells keys apart by age when they are rotated.
fn free_id(taken: &[EncryptionKey]) -> anyhow::Result<String> {
    let now = i64::try_from(SystemClock.now().unix())?;
    let now = jiff::Timestamp::from_second(now)?.to_zoned(jiff::tz::TimeZone::UTC);
    let month = now.strftime("%Y-%m").to_string();
    let more = (2..).map(|number| format!("{month}-{number}"));
    let mut ids = std::iter::once(month.clone()).chain(more);
    ids.find(|id| taken.iter().all(|key| key.id != *id)).context("there is always another number")
}

fn write_new_key(path: &Path) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let cannot_make = || format!("cannot make the directory {}", directory.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(cannot_make)?;

    let key: Secret = store::generate_key()?;
    let text = Zeroizing::new(format!("{}\n", key.expose()));

    // `create_new` fails for anything that is there, a dangling link included.
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
            "{} exists already and was left as it is: a key that still seals credentials must not \
             be lost; choose another file with --path",
            path.display(),
        ),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot create {}", path.display()));
        }
    };
    // The entry in the directory must last as long as what the key will seal.
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(directory)?.sync_all());
    if written.is_err() {
        // A cut key would stand in the way of the next try; this file is ours, made just now.
        let _ = std::fs::remove_file(path);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}
