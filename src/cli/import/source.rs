//! Finds a source, recognises its kind where that is certain, and reads its records.

use super::{
    fernet::{self, FernetKeys},
    formats,
    record::{Raw, field},
};
use crate::{
    cli::note,
    config::{
        environment::Environment,
        secret_ref::{SecretRef, exposed},
    },
    id::Region,
    provider::ads,
};
use anyhow::{Context as _, bail};
use clap::ValueEnum;
use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

const FERNET_KEY: &str = "FERNET_KEY";

/// A hundred thousand accounts with two tokens of the longest kind each would not fit; thirty
/// thousand do.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What the variables of the usual clients begin with: python-amazon-ad-api's, Amazon's own, those
/// of other clients, and in a file none at all.
const PREFIXES: [&str; 6] =
    ["AD_API_", "AMAZON_", "AMAZON_ADS_", "AMAZON_ADVERTISING_", "ADS_API_", "LWA_"];
const SUFFIXES: [&str; 6] =
    ["REFRESH_TOKEN", "CLIENT_ID", "CLIENT_SECRET", "PROFILE_ID", "REGION", "MARKETPLACE"];
/// What python-amazon-ad-api takes for a marketplace if its caller names none.
const MARKETPLACE: &str = "AD_API_DEFAULT_MARKETPLACE";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SourceKind {
    Env,
    PythonAdApi,
    Csv,
    Json,
    Legacy,
}

impl SourceKind {
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

pub(super) struct Source {
    pub(super) kind: SourceKind,
    pub(super) raws: Vec<Raw>,
    /// The beginning of the names of the environment variables that it was read from.
    pub(super) prefix: Option<&'static str>,
    /// The region that the source's own client would take.
    pub(super) region: Option<Region>,
}

impl Source {
    /// Reads the environment, or the file at `path`; for python-amazon-ad-api it may be left out.
    pub(super) fn read(
        kind: Option<SourceKind>,
        path: Option<&Path>,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        if kind == Some(SourceKind::Env) && path.is_none() {
            let get = |name: &str| environment.non_empty(name);
            let (raw, with_token) = account(&get, &PREFIXES)?;
            let (raws, prefix) = (vec![raw], with_token.first().copied());
            return Ok(Self { kind: SourceKind::Env, raws, prefix, region: marketplace(get)? });
        }
        let path = match path {
            Some(path) => path.to_owned(),
            None => credentials_path(environment)?,
        };
        let text = read(&path)?;
        let kind = kind.or_else(|| by_name(&path));
        let read = match kind {
            Some(SourceKind::Csv) => formats::table(&text).map(|raws| (raws, None)),
            Some(SourceKind::PythonAdApi) => formats::yaml(&text)
                .and_then(|raws| Ok((raws, marketplace(|name| environment.non_empty(name))?))),
            Some(SourceKind::Env) => variables(&text),
            _ => formats::json(&text).map(|raws| (raws, None)),
        };
        let (raws, region) = read.with_context(|| match kind {
            Some(kind) => format!("cannot read {} as {}", path.display(), kind.name()),
            None => format!("the format of {} is not known: say --from", path.display()),
        })?;
        if raws.is_empty() {
            bail!("there is no account in {}", path.display());
        }
        let kind = kind.or_else(|| by_tokens(&raws)).context(
            "some of its tokens are Fernet-encrypted and some are not: say --from json or --from \
             legacy",
        )?;
        Ok(Self { kind, raws, prefix: None, region })
    }
}

/// Every variable that could hold a secret for an import.
pub(in crate::cli) fn secret_variables() -> Vec<String> {
    let secret = ["REFRESH_TOKEN", "CLIENT_SECRET"];
    let of = |prefix: &str| secret.map(|suffix| format!("{prefix}{suffix}"));
    PREFIXES.into_iter().flat_map(of).chain([FERNET_KEY.to_owned()]).collect()
}

/// The keys of the legacy store.
pub(super) fn fernet_keys(
    file: Option<&Path>,
    environment: &Environment,
) -> anyhow::Result<FernetKeys> {
    let reference = match file {
        Some(path) => SecretRef::File(path.to_str().context("the path is not UTF-8")?.to_owned()),
        None => SecretRef::Env(FERNET_KEY.to_owned()),
    };
    let found = reference.resolve(environment).context(
        "the tokens of the legacy store need their key in $FERNET_KEY or --fernet-key-file",
    )?;
    if let Some(exposed) = found.exposed {
        note(format_args!("warning: {exposed}"));
    }
    FernetKeys::parse(&found.secret)
}

/// The account of a file of variables, and the region that its client would take.
pub(super) fn variables(text: &str) -> anyhow::Result<(Vec<Raw>, Option<Region>)> {
    let variables = formats::variables(text)?;
    let get = |name: &str| {
        variables.get(name).map(|value| value.as_str()).filter(|value| !value.is_empty())
    };
    // In a file the names may begin with nothing.
    let (mut raw, with_token) = account(&get, &[&PREFIXES[..], &[""]].concat())?;
    // The rest of a file that holds more than this account is of no interest.
    let is_ours = |name: &&String| {
        let mut prefixes = with_token.iter().filter(|prefix| !prefix.is_empty());
        let suffix = prefixes.find_map(|prefix| name.strip_prefix(prefix));
        *name != MARKETPLACE && suffix.is_some_and(|suffix| field(suffix).is_none())
    };
    raw.unused.extend(variables.keys().filter(is_ours).cloned());
    Ok((vec![raw], marketplace(get)?))
}

/// The one account in variables, and those of `prefixes` that its token's name begins with.
fn account<'a>(
    get: &impl Fn(&str) -> Option<&'a str>,
    prefixes: &[&'static str],
) -> anyhow::Result<(Raw, Vec<&'static str>)> {
    let get = |prefix: &str, suffix: &str| get(&format!("{prefix}{suffix}"));
    let token = |prefix: &&str| get(prefix, "REFRESH_TOKEN");
    let mut with_token = prefixes.to_vec();
    with_token.retain(|prefix| token(prefix).is_some());
    let Some(prefix) = with_token.first() else { bail!(no_account(get)) };
    if let Some(other) = with_token.iter().find(|other| token(other) != token(prefix)) {
        bail!(
            "both {prefix}REFRESH_TOKEN and {other}REFRESH_TOKEN are set: unset the one that is not \
             to be imported"
        );
    }
    let mut raw = Raw::default();
    // What belongs to the token first; the client id may have another tool's name.
    for prefix in with_token.iter().chain(&PREFIXES) {
        for suffix in SUFFIXES {
            let is_new = field(suffix).is_some_and(|field| raw.text(field).is_none());
            if let Some(value) = get(prefix, suffix).filter(|_| is_new) {
                raw.add(suffix, value);
            }
        }
    }
    Ok((raw, with_token))
}

fn no_account<'a>(get: impl Fn(&str, &str) -> Option<&'a str>) -> String {
    let names = PREFIXES.map(|prefix| format!("{prefix}REFRESH_TOKEN")).join(", ");
    let with_secret = PREFIXES.iter().filter(|prefix| get(prefix, "CLIENT_SECRET").is_some());
    let hints = with_secret.map(|prefix| {
        format!(
            "; ${prefix}CLIENT_SECRET belongs to an application and to no account: it is configured \
             with client_secret = {{ env = \"{prefix}CLIENT_SECRET\" }} under [lwa]"
        )
    });
    format!("there is no account to import, none of {names} is set{}", hints.collect::<String>())
}

fn marketplace<'a>(get: impl Fn(&str) -> Option<&'a str>) -> anyhow::Result<Option<Region>> {
    let Some(name) = get(MARKETPLACE) else { return Ok(None) };
    ads::region(name).map(Some).with_context(|| format!("${MARKETPLACE} names no marketplace"))
}

/// The kind of source that has files of this name, where that is certain.
fn by_name(path: &Path) -> Option<SourceKind> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    match name.rsplit_once('.')?.1 {
        _ if name.starts_with(".env.") => Some(SourceKind::Env),
        "env" => Some(SourceKind::Env),
        "csv" | "tsv" => Some(SourceKind::Csv),
        "yml" | "yaml" => Some(SourceKind::PythonAdApi),
        _ => None,
    }
}

/// JSON or the legacy store, by the look of every token.
fn by_tokens(raws: &[Raw]) -> Option<SourceKind> {
    let tokens = raws.iter().filter_map(|raw| raw.text("refresh_token"));
    let mut are_legacy = tokens.map(|token| token.starts_with(fernet::PREFIX));
    let is_legacy = are_legacy.next().unwrap_or(false);
    let kind = if is_legacy { SourceKind::Legacy } else { SourceKind::Json };
    are_legacy.all(|other| other == is_legacy).then_some(kind)
}

/// The first of the files that python-amazon-ad-api may read. Source: python-amazon-ad-api 1.2.9,
/// `base/credential_provider.py`, and confuse 2.3.0, `util.py`, read 2026-11-21.
fn credentials_path(environment: &Environment) -> anyhow::Result<PathBuf> {
    let mut directories = vec!["~/.config", "~/Library/Application Support"];
    directories.extend(environment.get("XDG_CONFIG_HOME"));
    directories.extend(environment.get("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg").split(':'));
    directories.push("/etc");
    let below = |directory| {
        Some(environment.expand(directory)?.join("python-ad-api").join("credentials.yml"))
    };
    let candidates: Vec<PathBuf> = directories.into_iter().filter_map(below).collect();
    let path = candidates.iter().find(|path| path.is_file()).or(candidates.first());
    path.cloned().context("HOME is not set: name the file")
}

/// Reads `path`, `-` for standard input, without a byte order mark.
fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            bail!("standard input is a terminal, where secrets would be shown: pipe the file in");
        }
        return read_text(io::stdin().lock()).context("cannot read standard input");
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    if let Some(exposed) = exposed(path, &file.metadata()?) {
        note(format_args!("warning: {exposed}"));
    }
    read_text(file).with_context(|| format!("cannot read {}", path.display()))
}

fn read_text(from: impl Read) -> anyhow::Result<Zeroizing<String>> {
    // At its largest from the beginning: a buffer that grows leaves copies that are not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        bail!("it holds more than {} MiB: import it in parts", MAX_BYTES / 1024 / 1024);
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        bail!("it is UTF-16: save it as UTF-8");
    }
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    match std::str::from_utf8(text) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(error) => {
            let lines = text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            bail!("line {} is not UTF-8 text: save the file as UTF-8", lines + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_utf_8_up_to_the_limit_is_text_and_its_mark_is_no_part_of_it() {
        let read = |bytes: &[u8]| read_text(bytes);
        assert_eq!(*read("\u{feff}a".as_bytes()).expect("text"), "a");
        let error = read(b"a\nCANARY\xe4\n").expect_err("no text").to_string();
        assert!(error.contains("line 2") && !error.contains("CANARY"), "{error}");
        assert!(read(b"\xff\xfea\0").expect_err("no text").to_string().contains("UTF-16"));
        let error = read_text(io::repeat(b'a')).expect_err("endless");
        assert!(error.to_string().contains("64 MiB"), "{error}");
    }

    #[test]
    fn credentials_yml_is_looked_for_where_the_package_looks() {
        let home = tempfile::tempdir().expect("a directory");
        let xdg = home.path().join("xdg");
        let variables = [("HOME", home.path()), ("XDG_CONFIG_HOME", &xdg)];
        let variables = variables.map(|(k, v)| (k.to_owned(), v.display().to_string()));
        let environment: Environment = variables.into_iter().collect();
        let found = || {
            let path = credentials_path(&environment).expect("a path");
            path.strip_prefix(home.path()).unwrap_or(&path).display().to_string()
        };
        assert_eq!(found(), ".config/python-ad-api/credentials.yml");
        fs::create_dir_all(xdg.join("python-ad-api")).expect("made");
        fs::write(xdg.join("python-ad-api/credentials.yml"), "").expect("written");
        assert_eq!(found(), "xdg/python-ad-api/credentials.yml");
    }
}
