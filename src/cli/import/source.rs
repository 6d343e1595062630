//! Finds a source, recognises its kind where that is certain, and reads its records.

use super::{
    fernet, formats,
    record::{Raw, field},
};
use crate::{
    config::{
        environment::Environment,
        secret_ref::{Exposed, SecretRef},
    },
    id::Region,
    provider::ads,
};
use anyhow::{Context as _, bail};
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
const FIRST_BYTES: usize = 64 * 1024;

/// What the variables of the usual clients begin with: python-amazon-ad-api's, Amazon's own, those
/// of other clients, and in a file none at all.
const PREFIXES: [&str; 6] =
    ["AD_API_", "AMAZON_", "AMAZON_ADS_", "AMAZON_ADVERTISING_", "ADS_API_", "LWA_"];
const SUFFIXES: [&str; 6] =
    ["REFRESH_TOKEN", "CLIENT_ID", "CLIENT_SECRET", "PROFILE_ID", "REGION", "MARKETPLACE"];
/// What python-amazon-ad-api takes for a marketplace if its caller names none.
const MARKETPLACE: &str = "AD_API_DEFAULT_MARKETPLACE";

/// The kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Source {
    Env,
    PythonAdApi,
    Csv,
    Json,
    Legacy,
}

impl Source {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::PythonAdApi => "python-ad-api",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Legacy => "legacy",
        }
    }
}

/// What a source holds.
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) raws: Vec<Raw>,
    /// What the names of the variables begin with that it was read from.
    pub(super) prefix: Option<&'static str>,
    /// The region that the source's own client would take.
    pub(super) region: Option<Region>,
}

/// Reads the environment, or the file at `path`; for python-amazon-ad-api it may be left out.
pub(super) fn find(
    source: Option<Source>,
    path: Option<&Path>,
    environment: &Environment,
) -> anyhow::Result<Found> {
    let default_path;
    let path = match (source, path) {
        (Some(Source::Env), None) => {
            let (raw, prefix) = account(|name| environment.get(name), &[])?;
            let region = marketplace(environment.get(MARKETPLACE))?;
            return Ok(Found {
                source: Source::Env,
                raws: vec![raw],
                prefix: Some(prefix),
                region,
            });
        }
        (_, Some(path)) => path,
        (_, None) => {
            default_path = credentials_path(environment)?;
            &default_path
        }
    };
    let text = read(path)?;
    let source = source.or_else(|| by_name(path));
    let mut region = None;
    let raws = match source {
        Some(Source::Csv) => formats::table(&text),
        Some(Source::PythonAdApi) => {
            region = marketplace(environment.get(MARKETPLACE))?;
            formats::credentials_yml(&text)
        }
        Some(Source::Env) => formats::variables(&text).and_then(|variables| {
            let get = |name: &str| variables.get(name).map(|value| value.as_str());
            region = marketplace(get(MARKETPLACE))?;
            Ok(vec![account(get, &variables.keys().map(String::as_str).collect::<Vec<_>>())?.0])
        }),
        _ => formats::json(&text),
    };
    let raws = raws.with_context(|| match source {
        Some(source) => format!("cannot read {} as {}", path.display(), source.as_str()),
        None => format!("cannot tell what {} is: say --from", path.display()),
    })?;
    if raws.is_empty() {
        bail!("there is no account in {}", path.display());
    }
    let source = source.or_else(|| by_tokens(&raws)).context(
        "some of its tokens are Fernet-encrypted and some are not: say --from json or --from legacy",
    )?;
    Ok(Found { source, raws, prefix: None, region })
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
) -> anyhow::Result<fernet::Keys> {
    let place = match file {
        Some(path) => SecretRef::File(path.to_str().context("the path is not UTF-8")?.to_owned()),
        None => SecretRef::Env(FERNET_KEY.to_owned()),
    };
    let found = place.resolve(environment).context(
        "the tokens of the legacy store need their key in $FERNET_KEY or --fernet-key-file",
    )?;
    warn_of_exposed(found.exposed);
    Ok(fernet::Keys::parse(&found.secret)?)
}

fn warn_of_exposed(exposed: Option<Exposed>) {
    if let Some(exposed) = exposed {
        eprintln!("warning: {exposed}");
    }
}

/// The one account in the variables that `get` knows; a file has further `names`.
fn account<'a>(
    get: impl Fn(&str) -> Option<&'a str>,
    names: &[&str],
) -> anyhow::Result<(Raw, &'static str)> {
    let non_empty = |name: &str| get(name).filter(|value| !value.is_empty());
    let token = |prefix: &str| non_empty(&format!("{prefix}REFRESH_TOKEN"));
    let bare = (!names.is_empty()).then_some("");
    let prefixes = PREFIXES.into_iter().chain(bare).filter(|prefix| token(prefix).is_some());
    let prefixes: Vec<&str> = prefixes.collect();
    let Some(prefix) = prefixes.first().copied() else { bail!(no_account(non_empty)) };
    if let Some(other) = prefixes.iter().find(|other| token(other) != token(prefix)) {
        bail!(
            "both {prefix}REFRESH_TOKEN and {other}REFRESH_TOKEN are set: unset the one that is not \
             to be imported"
        );
    }
    let mut raw = Raw::default();
    // What belongs to the token first; the client id may stand under another tool's name.
    for prefix in prefixes.iter().chain(&PREFIXES) {
        for suffix in SUFFIXES {
            let known = field(suffix).is_some_and(|field| raw.text(field).is_some());
            if let Some(value) = non_empty(&format!("{prefix}{suffix}")).filter(|_| !known) {
                raw.add(suffix, value);
            }
        }
    }
    // Of a file that holds more than this account, the rest is of no interest.
    let is_ours = |name: &&&str| {
        let suffix = prefixes.iter().filter(|p| !p.is_empty()).find_map(|p| name.strip_prefix(p));
        **name != MARKETPLACE && suffix.is_some_and(|suffix| field(suffix).is_none())
    };
    raw.unused.extend(names.iter().filter(is_ours).map(|name| (*name).to_owned()));
    Ok((raw, prefix))
}

fn no_account<'a>(non_empty: impl Fn(&str) -> Option<&'a str>) -> String {
    let names = PREFIXES.map(|prefix| format!("{prefix}REFRESH_TOKEN")).join(", ");
    let application = PREFIXES.iter().map(|prefix| format!("{prefix}CLIENT_SECRET"));
    let application = application.filter(|name| non_empty(name).is_some());
    let hints = application.map(|secret| {
        format!(
            "; ${secret} belongs to an application and to no account: it is configured with \
             client_secret = {{ env = \"{secret}\" }} under [lwa]"
        )
    });
    format!("there is no account to import, none of {names} is set{}", hints.collect::<String>())
}

fn marketplace(name: Option<&str>) -> anyhow::Result<Option<Region>> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    ads::region(name).map(Some).with_context(|| format!("${MARKETPLACE} names no marketplace"))
}

/// The source whose files are called so, where that is certain.
fn by_name(path: &Path) -> Option<Source> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    if name == ".env" || name.starts_with(".env.") || name.ends_with(".env") {
        return Some(Source::Env);
    }
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" | "tsv" => Some(Source::Csv),
        "yml" | "yaml" => Some(Source::PythonAdApi),
        _ => None,
    }
}

/// JSON or the legacy store, by the look of every token.
fn by_tokens(raws: &[Raw]) -> Option<Source> {
    let tokens = raws.iter().filter_map(|raw| raw.text("refresh_token"));
    let (legacy, plain): (Vec<_>, Vec<_>) = tokens.partition(|t| t.starts_with(fernet::PREFIX));
    match (legacy.is_empty(), plain.is_empty()) {
        (true, _) => Some(Source::Json),
        (false, true) => Some(Source::Legacy),
        (false, false) => None,
    }
}

/// Where python-amazon-ad-api reads its file. Source: python-amazon-ad-api 1.2.9,
/// `base/credential_provider.py`, and confuse 2.3.0, `core.py` and `util.py`, read 2026-11-21.
fn credentials_path(environment: &Environment) -> anyhow::Result<PathBuf> {
    const FILE: &str = "credentials.yml";
    // No shell can set this name, but `env` can.
    if let Some(directory) = environment.get("PYTHON-AD-APIDIR") {
        let directory = environment.expand(directory).context("`~` needs HOME to be set")?;
        return Ok(directory.join(FILE));
    }
    let mut directories = vec!["~/.config"];
    if cfg!(target_os = "macos") {
        directories.push("~/Library/Application Support");
    }
    directories.extend(environment.get("XDG_CONFIG_HOME"));
    directories.extend(environment.get("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg").split(':'));
    directories.push("/etc");
    let below = |directory| Some(environment.expand(directory)?.join("python-ad-api"));
    let candidates: Vec<PathBuf> = directories.into_iter().filter_map(below).collect();
    // As odd as it is: the package prefers the directory with a config.yaml.
    let marked = candidates.iter().find(|directory| directory.join("config.yaml").is_file());
    let directory = marked.or(candidates.first()).context("HOME is not set: name the file")?;
    Ok(directory.join(FILE))
}

/// Reads `path`, `-` for standard input, without a byte order mark.
fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            bail!("standard input is a terminal, where secrets would be shown: pipe the file in");
        }
        let bytes = read_all(io::stdin().lock(), FIRST_BYTES);
        return decode(bytes.context("cannot read standard input")?);
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata()?;
    warn_of_exposed(Exposed::judge(path, &metadata));
    let size = usize::try_from(metadata.len()).unwrap_or(MAX_BYTES).min(MAX_BYTES) + 1;
    read_all(file, size).and_then(decode).with_context(|| format!("cannot read {}", path.display()))
}

/// Grows by copying into a larger buffer that it wipes, which a vector of its own would not.
fn read_all(mut from: impl Read, first: usize) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; first]);
    let mut filled = 0;
    loop {
        match from.read(&mut bytes[filled..]) {
            Ok(0) if filled < bytes.len() => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if filled > MAX_BYTES {
            bail!("it holds more than {} MiB: import it in parts", MAX_BYTES / 1024 / 1024);
        }
        if filled == bytes.len() {
            let mut larger = Zeroizing::new(vec![0; (filled * 2).min(MAX_BYTES + 1)]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn decode(bytes: Zeroizing<Vec<u8>>) -> anyhow::Result<Zeroizing<String>> {
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
    fn input_longer_than_the_first_buffer_is_read_whole_and_up_to_the_limit() {
        for (length, first) in [(0, 1), (1, 1), (5, 2), (64, 64), (65, 64), (1000, 1)] {
            let bytes = vec![b'a'; length];
            assert_eq!(*read_all(&bytes[..], first).expect("read"), bytes, "{length} {first}");
        }
        let error = read_all(io::repeat(b'a'), FIRST_BYTES).expect_err("endless");
        assert!(error.to_string().contains("64 MiB"), "{error}");
    }

    #[test]
    fn only_utf_8_is_text_and_its_mark_is_no_part_of_it() {
        let read = |bytes: &[u8]| decode(Zeroizing::new(bytes.to_vec()));
        assert_eq!(*read("\u{feff}a".as_bytes()).expect("text"), "a");
        let error = read(b"a\nCANARY\xe4\n").expect_err("no text").to_string();
        assert!(error.contains("line 2") && !error.contains("CANARY"), "{error}");
        assert!(read(b"\xff\xfea\0").expect_err("no text").to_string().contains("UTF-16"));
    }

    #[test]
    fn credentials_yml_is_looked_for_where_the_package_looks() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |variables: &[(&str, &str)]| {
            let own = [("HOME", home.path().to_str().expect("UTF-8"))];
            let all = own.iter().chain(variables).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let path = credentials_path(&all.collect()).expect("a path");
            path.strip_prefix(home.path()).unwrap_or(&path).display().to_string()
        };
        let xdg = home.path().join("xdg");
        let xdg = xdg.to_str().expect("UTF-8");
        assert_eq!(at(&[]), ".config/python-ad-api/credentials.yml");
        assert_eq!(at(&[("XDG_CONFIG_HOME", xdg)]), ".config/python-ad-api/credentials.yml");
        fs::create_dir_all(home.path().join("xdg/python-ad-api")).expect("made");
        fs::write(home.path().join("xdg/python-ad-api/config.yaml"), "").expect("written");
        assert_eq!(at(&[("XDG_CONFIG_HOME", xdg)]), "xdg/python-ad-api/credentials.yml");
        assert_eq!(at(&[("PYTHON-AD-APIDIR", "~/there")]), "there/credentials.yml");
    }
}
