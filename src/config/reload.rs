//! What another reading of the configuration changes in a running process: what takes effect, and
//! what waits for a restart.

use super::{
    Config, Listen,
    load::Loaded,
    sections::{Limits, LogConfig, Proxy, Replay},
    value::Displayed as _,
};
use std::collections::BTreeSet;
use toml::Value;

/// The tables whose secrets may change at run time.
const RELOADED_SECRETS: [&str; 4] = ["lwa", "applications", "accounts", "dashboard"];

/// What `[lwa]` is once loaded, and how users know it.
const DEFAULT: (&str, &str) = ("applications.default", "lwa");

/// What a newer configuration changes.
#[derive(Debug)]
pub struct ReloadPlan {
    /// To be in force: the newer one, but for what waits for a restart.
    pub loaded: Loaded,
    /// The keys whose values take effect, those of secrets too.
    pub applied: BTreeSet<String>,
    /// The keys whose values wait for a restart, also those that an earlier plan has named.
    pub restart: BTreeSet<String>,
}

impl Loaded {
    /// What `newer` changes where this one is in force.
    pub fn plan(&self, newer: Self) -> ReloadPlan {
        let config = self.merged(&newer.config);
        let [before, during, after] =
            [&self.config, &config, &newer.config].map(|config| config.shown());
        let (mut applied, mut restart) = (BTreeSet::new(), BTreeSet::new());
        compare(before.as_ref(), during.as_ref(), "", &mut applied);
        compare(during.as_ref(), after.as_ref(), "", &mut restart);
        let mut referred = newer.referred.clone();
        for key in self.referred.keys().chain(newer.referred.keys()) {
            let running = self.referred.get(key);
            if running == newer.referred.get(key) {
                continue;
            }
            let table = key.split('.').next().unwrap_or_default();
            if RELOADED_SECRETS.contains(&table) {
                insert(&mut applied, key);
                continue;
            }
            insert(&mut restart, key);
            // Compared again at the next time.
            match running {
                Some(running) => drop(referred.insert(key.clone(), running.clone())),
                None => drop(referred.remove(key)),
            }
        }
        for (name, application) in &config.applications {
            if !self.redirect_uris.contains(&application.redirect_uri) {
                insert(&mut restart, &named(&format!("applications.{name}.redirect_uri")));
            }
        }
        let redirect_uris = self.redirect_uris.clone();
        let loaded = Self { config, referred, redirect_uris, ..newer };
        ReloadPlan { loaded, applied, restart }
    }

    /// `newer` as far as it can take effect in this process, the rest as it is.
    fn merged(&self, newer: &Config) -> Config {
        let (old, new) = (self.config.clone(), newer.clone());
        let mut applications = new.applications;
        for (name, application) in &mut applications {
            let is_served = self.redirect_uris.contains(&application.redirect_uri);
            if let Some(running) = old.applications.get(name).filter(|_| !is_served) {
                application.redirect_uri.clone_from(&running.redirect_uri);
            }
        }
        // Other files serve; whether there is TLS at all is the listener's.
        let tls = old.listen.tls.map(|running| new.listen.tls.unwrap_or(running));
        Config {
            listen: Listen { tls, ..old.listen },
            proxy: Proxy { workers: old.proxy.workers, ..new.proxy },
            auth: new.auth,
            applications,
            replay: Replay { total_max_bytes: old.replay.total_max_bytes, ..new.replay },
            limits: Limits { connections_max: old.limits.connections_max, ..new.limits },
            accounts: new.accounts,
            callers: new.callers,
            issuers: new.issuers,
            tenants: new.tenants,
            login: new.login,
            dashboard: new.dashboard,
            log: LogConfig { filter: new.log.filter, ..old.log },
            ..old
        }
    }
}

/// Adds `key` unless a table that it is in is there.
fn insert(keys: &mut BTreeSet<String>, key: &str) {
    let mut parents = key.match_indices('.').map(|(at, _)| &key[..at]);
    if !parents.any(|parent| keys.contains(parent)) {
        keys.insert(key.to_owned());
    }
}

/// `key` as users know it.
fn named(key: &str) -> String {
    match key.strip_prefix(DEFAULT.0) {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => DEFAULT.1.to_owned() + rest,
        _ => key.to_owned(),
    }
}

/// Adds the keys below `key` at which the two differ.
fn compare(before: Option<&Value>, after: Option<&Value>, key: &str, found: &mut BTreeSet<String>) {
    let (Some(Value::Table(old)), Some(Value::Table(new))) = (before, after) else {
        if before != after {
            found.insert(named(key));
        }
        return;
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        compare(old.get(name), new.get(name), &inner, found);
    }
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
