//! `adsproxy key`: makes the key that seals the store. Never overwrites one.

use super::{Context, print};
use crate::clock::{Clock, SystemClock};
use anyhow::{Context as _, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Make a new key and print the lines that use it; never overwrites a file
    Init {
        /// Where to put it [default: ~/.config/adsproxy/key]
        #[arg(long, value_name = "PATH")]
        path: Option<PathBuf>,
    },
}

impl Verb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let Self::Init { path } = self;
        let path = match path {
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
            id = this_month()?,
            file = toml::Value::String(path.display().to_string()),
        ))
    }
}

/// The key's id in the snippet: tells keys apart by age when they are rotated.
fn this_month() -> anyhow::Result<String> {
    let now = i64::try_from(SystemClock.now().unix())?;
    let now = jiff::Timestamp::from_second(now)?.to_zoned(jiff::tz::TimeZone::UTC);
    Ok(now.strftime("%Y-%m").to_string())
}

fn write_new_key(path: &Path) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let cannot_make = || format!("cannot make the directory {}", directory.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(cannot_make)?;

    let mut bytes = Zeroizing::new([0; 32]);
    if aws_lc_rs::rand::fill(&mut *bytes).is_err() {
        bail!("the system's random generator failed: nothing was written");
    }
    let mut text = Zeroizing::new(STANDARD.encode(*bytes));
    text.push('\n');

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
