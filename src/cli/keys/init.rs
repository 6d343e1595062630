//! `adsproxy key init`: makes a key in a file, of a passphrase or in the system's keyring.

use super::{Context, print};
use crate::{
    audit::{self, Action, Actor, Audit, Entry},
    cli::note,
    clock::{Clock, SystemClock},
    config::{EncryptionKey, Material, StoreKind},
    durable_file,
    hooks::rfc3339,
    store::{self, Store},
};
use anyhow::{Context as _, bail};
use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

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

fn key_id(text: &str) -> Result<String, &'static str> {
    let is_id = crate::id::AccountId::is_alias(text);
    is_id.then(|| text.to_owned()).ok_or("must be 1 to 64 letters, digits, '.', '_' or '-'")
}

impl Init {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        if self.passphrase {
            return prepare_passphrases(context);
        }
        // Without a configuration, or with one that lacks this very key, no key is taken.
        let keys = context.load().map(|loaded| loaded.config.encryption.keys).unwrap_or_default();
        let id = match &self.id {
            Some(id) if !self.keyring && keys.iter().any(|key| key.id == *id) => {
                bail!("key {id} is in the configuration already: choose another with --id")
            }
            Some(id) => id.clone(),
            None => free_id(&keys),
        };
        recorded(context, &id, || {
            if self.keyring { in_keyring(&id) } else { self.in_file(context, &id) }?;
            Ok(true)
        })?;
        if keys.iter().any(|key| key.id != id) {
            print(
                "Put it in front of the keys that are there, on every server of this store; \
                 `adsproxy key\nrotate --help` says how to go on.\n",
            )?;
        }
        Ok(())
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
        let home = context.environment.expand("~").unwrap_or_default();
        let path = path.strip_prefix(home).map_or(path.clone(), |rest| Path::new("~").join(rest));
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

/// Makes a key between two entries of the audit log; `make` says whether there was need for it.
/// Without a configuration, or a key that could protect the log, there is no log to write.
fn recorded(
    context: &Context,
    id: &str,
    make: impl FnOnce() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    // Opened each time: with the first key made, the log can be protected.
    let record = |entry: &Entry| -> Result<(), audit::Error> {
        let Ok(loaded) = context.load() else { return Ok(()) };
        let Ok(audit) = Audit::new(&loaded.config, Arc::new(SystemClock)) else { return Ok(()) };
        audit.record(entry)
    };
    let entry = Entry::new(Actor::cli(), Action::KeyInit).about(id);
    record(&entry.clone().attempt()).context("no key was made")?;
    let is_made = make()?;
    if is_made {
        record(&entry)
            .context("the key was made, but that could not be written into the audit log")?;
    }
    Ok(is_made)
}

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
    let loaded = context.load().inspect_err(|_| note(format_args!("{PASSPHRASE_LINES}\n")));
    let config = loaded?.config;
    if config.store.kind == StoreKind::Memory {
        bail!("store.kind = \"memory\" seals nothing and needs no key");
    }
    let mut done = String::new();
    for key in &config.encryption.keys {
        let Material::Passphrase(passphrase) = &key.material else { continue };
        let id = &key.id;
        let make = || Ok(Store::prepare_passphrase(&config.store, id, passphrase)?);
        done += &match recorded(context, id, make)? {
            true => format!("key {id} is ready: its salt is in keys/{id}.json of the store\n"),
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

/// This month, which orders keys by age when they are rotated, with a number where it is taken.
fn free_id(taken: &[EncryptionKey]) -> String {
    let month = rfc3339(SystemClock.now().unix())[..7].to_owned();
    let is_free = |id: &String| taken.iter().all(|key| key.id != *id);
    let numbered = (2..).map(|number| format!("{month}-{number}"));
    let found = std::iter::once(month.clone()).chain(numbered).find(is_free);
    found.expect("there is always another number")
}

fn write_new_key(path: &Path) -> anyhow::Result<()> {
    let directory = durable_file::parent(path);
    durable_file::make_directory(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    let text = Zeroizing::new(format!("{}\n", store::generate_key()?.expose()));
    // Fails for anything that is there, a dangling link included.
    let mut file = match durable_file::create_private(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
            "{} exists already and was left as it is: a key that still seals credentials must not \
             be lost; choose another file with --path",
            path.display(),
        ),
        created => created.with_context(|| format!("cannot create {}", path.display()))?,
    };
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| durable_file::sync_whole(&file, text.len()))
        .and_then(|()| durable_file::sync_directory(directory));
    if written.is_err() {
        // A key that was cut off would be in the way of the next attempt; this file is new.
        let _ = std::fs::remove_file(path);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}
