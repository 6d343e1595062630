//! What another reading of the configuration would change.

use super::load::{LoadError, Loaded, Options, load};
use std::collections::BTreeSet;
use toml::{Table, Value};

impl Loaded {
    /// Reads the configuration again; what it says now, and the keys whose values changed: those of
    /// secrets too, whether their reference or what is there.
    ///
    /// # Errors
    /// As [`load`]: the running configuration stays in force.
    pub fn reload(&self, options: &Options) -> Result<(Self, BTreeSet<String>), LoadError> {
        let newer = load(options)?;
        let mut changed = BTreeSet::new();
        let [before, after] =
            [self, &newer].map(|loaded| loaded.effective.parse::<Table>().unwrap_or_default());
        compare(&Value::Table(before), &Value::Table(after), String::new(), &mut changed);
        let secrets = self.secrets.keys().chain(newer.secrets.keys());
        changed.extend(
            secrets.filter(|key| self.secrets.get(*key) != newer.secrets.get(*key)).cloned(),
        );
        Ok((newer, changed))
    }
}

/// Adds the keys below `key` at which the two differ.
fn compare(before: &Value, after: &Value, key: String, changed: &mut BTreeSet<String>) {
    let (Value::Table(old), Value::Table(new)) = (before, after) else {
        if before != after {
            changed.insert(key);
        }
        return;
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => compare(old, new, inner, changed),
            _ => {
                changed.insert(inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn names_the_keys_whose_values_changed_and_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.toml");
        let secret = directory.path().join("secret");
        let write = |more: &str, value: &str| {
            let text = format!(
                "[lwa]\nclient_id = \"id\"\nclient_secret = {{ file = {secret:?} }}\n\
                 [store]\nkind = \"memory\"\n{more}"
            );
            fs::write(&path, text).unwrap();
            fs::write(&secret, value).unwrap();
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let options = Options { path: Some(path.clone()), ..Options::default() };
        write("", "CANARY-1");
        let running = load(&options).unwrap();
        let changed = || running.reload(&options).unwrap().1.into_iter().collect::<Vec<_>>();
        assert_eq!(changed(), Vec::<String>::new());
        write("[log]\nfilter = \"debug\"\n[accounts.b]\nregion = \"eu\"\n", "CANARY-2");
        let expected = ["accounts.b", "log.filter", "lwa.client_secret"];
        assert_eq!(changed(), expected);
        write("[log]\nfilter = \"inof\"\n", "CANARY-2");
        let error = running.reload(&options).unwrap_err();
        assert!(matches!(error, LoadError::Invalid(_)) && !error.to_string().contains("CANARY"));
    }
}
