//! The `credentials.yml` of python-amazon-ad-api, found where that package finds it.
//!
//! Source: python-amazon-ad-api 1.2.9, `base/credential_provider.py`, and confuse 2.3.0,
//! `core.py` and `util.py`, read 2026-11-21.

use super::{
    fields::{Collector, Draft, Field, Values},
    rejection::Rejection,
    yaml::{self, Node},
};
use crate::config::environment::Environment;
use anyhow::Context as _;
use std::path::PathBuf;

const APPLICATION: &str = "python-ad-api";
const FILE: &str = "credentials.yml";
/// The directory with this file in it is preferred.
const MARKER: &str = "config.yaml";
/// Names the directory outright. No shell can set it, but `env` can.
const DIRECTORY_VARIABLE: &str = "PYTHON-AD-APIDIR";

/// Where the package would read it.
pub(super) fn default_path(environment: &Environment) -> anyhow::Result<PathBuf> {
    if let Some(directory) = environment.get(DIRECTORY_VARIABLE) {
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
    let candidates: Vec<PathBuf> = directories
        .into_iter()
        .filter_map(|directory| Some(environment.expand(directory)?.join(APPLICATION)))
        .collect();
    let marked = candidates.iter().find(|directory| directory.join(MARKER).is_file());
    let directory = marked.or(candidates.first()).context("HOME is not set: name the file")?;
    Ok(directory.join(FILE))
}

/// The accounts in `text`: every mapping below the top; others, such as `version`, are none.
pub(super) fn drafts(text: &str) -> anyhow::Result<Vec<Draft>> {
    let root = yaml::parse(text)?;
    let members = root.members().context("it is no mapping of accounts")?;
    Ok(members.into_iter().filter_map(|(name, node)| draft(name, node)).collect())
}

fn draft(name: &str, node: &Node) -> Option<Draft> {
    let members = node.members()?;
    let mut collector = Collector::default();
    let values = members
        .into_iter()
        .try_for_each(|(key, value)| add(&mut collector, key, value))
        .map(|()| -> Values { collector.finish() });
    Some(Draft { line: Some(node.line), key: Some(name.to_owned()), values })
}

fn add(collector: &mut Collector, key: &str, value: &Node) -> Result<(), Rejection> {
    match Field::of(key) {
        // The key that the account stands under is the name that its callers use.
        None | Some(Field::Account) => Ok(()),
        Some(field) if value.members().is_some() => Err(Rejection::NotAText(field.as_str())),
        Some(field) => value.text().map_or(Ok(()), |text| collector.add(field, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_file_is_sought_where_the_package_seeks_it() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |variables: &[(&str, &str)]| {
            let own = [("HOME", home.path().to_str().expect("UTF-8"))];
            let all = own.iter().chain(variables).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let path = default_path(&all.collect()).expect("a path");
            path.strip_prefix(home.path()).unwrap_or(&path).display().to_string()
        };
        let xdg = home.path().join("xdg");
        let xdg = xdg.to_str().expect("UTF-8");
        assert_eq!(at(&[]), ".config/python-ad-api/credentials.yml");
        // As odd as it is: the package follows XDG_CONFIG_HOME only to a config.yaml.
        assert_eq!(at(&[("XDG_CONFIG_HOME", xdg)]), ".config/python-ad-api/credentials.yml");
        fs::create_dir_all(home.path().join("xdg/python-ad-api")).expect("made");
        fs::write(home.path().join("xdg/python-ad-api/config.yaml"), "").expect("written");
        assert_eq!(at(&[("XDG_CONFIG_HOME", xdg)]), "xdg/python-ad-api/credentials.yml");
        assert_eq!(at(&[(DIRECTORY_VARIABLE, "~/there")]), "there/credentials.yml");
    }

    #[test]
    fn every_mapping_is_an_account() {
        let text = "version: '1.0'\n\ndefault:\n  refresh_token: Atzr|a\n  profile_id: 123\n\
                    germany:\n  <<: {client_id: x}\n  refresh_token: 'Atzr|b'\n";
        let drafts = drafts(text).expect("YAML");
        let names: Vec<_> = drafts.iter().map(|draft| draft.key.as_deref()).collect();
        assert_eq!(names, [Some("default"), Some("germany")]);
        let values = drafts[1].values.as_ref().expect("readable");
        assert_eq!(values[&Field::RefreshToken].expose(), "Atzr|b");
        assert_eq!(values[&Field::ClientId].expose(), "x");
    }
}
