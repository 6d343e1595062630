//! Where accounts come from: finds the source, guesses its kind where that is certain, reads it.

use super::{
    csv, document, env, fernet,
    fields::{Draft, Field},
    input, python_ad_api,
};
use crate::{
    cli::region,
    config::{environment::Environment, secret_ref::SecretRef},
    id::Region,
    secret::Secret,
};
use anyhow::{Context as _, bail};
use std::path::Path;

const FERNET_KEY: &str = "FERNET_KEY";

/// Where accounts come from.
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

/// What stands in a source.
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) drafts: Vec<Draft>,
    /// The variables it was read from.
    pub(super) family: Option<&'static env::Family>,
}

/// Reads the environment, or the file at `path`; for python-amazon-ad-api it may be left out.
pub(super) fn find(
    source: Option<Source>,
    path: Option<&Path>,
    environment: &Environment,
) -> anyhow::Result<Found> {
    if source == Some(Source::Env) {
        let family = env::family(environment)?;
        let drafts = vec![env::draft(environment, family)];
        return Ok(Found { source: Source::Env, drafts, family: Some(family) });
    }
    let path = match path {
        Some(path) => path,
        None => &python_ad_api::default_path(environment)?,
    };
    let input = input::read(path)?;
    if let Some(warning) = &input.warning {
        eprintln!("warning: {warning}");
    }
    let source = source.or_else(|| by_name(path));
    let drafts = match source {
        Some(Source::Csv) => csv::drafts(&input.text),
        Some(Source::PythonAdApi) => python_ad_api::drafts(&input.text),
        _ => document::drafts(&input.text),
    };
    let drafts = drafts.with_context(|| match source {
        Some(source) => format!("cannot read {} as {}", path.display(), source.as_str()),
        None => format!("cannot tell what {} is: say --from", path.display()),
    })?;
    if drafts.is_empty() {
        bail!("there is no account in {}", path.display());
    }
    let source = source.or_else(|| by_tokens(&drafts)).context(
        "some of its tokens are Fernet-encrypted and some are not: say --from json or --from legacy",
    )?;
    Ok(Found { source, drafts, family: None })
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
    if let Some(exposed) = found.exposed {
        eprintln!("warning: {exposed}");
    }
    Ok(fernet::Keys::parse(&found.secret)?)
}

/// The region that python-amazon-ad-api would take, for its own sources.
pub(super) fn marketplace(
    source: Source,
    environment: &Environment,
) -> anyhow::Result<Option<Region>> {
    if !matches!(source, Source::Env | Source::PythonAdApi) {
        return Ok(None);
    }
    let Some(name) = environment.non_empty(env::MARKETPLACE) else { return Ok(None) };
    let region = region::parse(name);
    region.map(Some).with_context(|| format!("${} names no marketplace", env::MARKETPLACE))
}

/// The source whose files are called so, where that is certain.
fn by_name(path: &Path) -> Option<Source> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" | "tsv" => Some(Source::Csv),
        "yml" | "yaml" => Some(Source::PythonAdApi),
        _ => None,
    }
}

/// JSON or the legacy store, by the look of every token.
fn by_tokens(drafts: &[Draft]) -> Option<Source> {
    let tokens = drafts.iter().filter_map(|draft| draft.values.as_ref().ok());
    let tokens = tokens.filter_map(|values| values.get(&Field::RefreshToken));
    let is_fernet = |token: &Secret| token.expose().starts_with(fernet::PREFIX);
    let (legacy, plain): (Vec<_>, Vec<_>) = tokens.partition(|token| is_fernet(token));
    match (legacy.is_empty(), plain.is_empty()) {
        (true, _) => Some(Source::Json),
        (false, true) => Some(Source::Legacy),
        (false, false) => None,
    }
}
