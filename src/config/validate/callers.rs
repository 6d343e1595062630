//! Who may call: complete entries, and no two with the same name, key or user.

use crate::config::{CallerConfig, Config, McpPins, RulesConfig, reader::ConfigReader};
use std::collections::BTreeSet;

impl ConfigReader<'_> {
    pub(super) fn callers(&mut self, config: &Config) {
        let mut seen = BTreeSet::new();
        for (index, caller) in config.callers.iter().enumerate() {
            let index = index.to_string();
            self.require(
                &["callers", &index, "name"],
                "is missing",
                Some("`adsproxy caller add NAME` prints a whole entry"),
            );
            for (at, _) in caller.keys.iter().enumerate() {
                for part in ["id", "sha256"] {
                    let key = ["callers", &index, "keys", &at.to_string(), part];
                    self.require(&key, "is missing: `adsproxy caller add` prints it", None);
                }
            }
            self.mcp_pins(&["callers", &index, "mcp"], &caller.rules);
            self.rules("callers", &index, &caller.rules, caller.tenant.is_some());
            let marks = marks(caller);
            if marks.len() == 1 {
                let message = "has no keys, unix_uids, unix_gids or mtls_san to be known by";
                self.warn(&["callers", &index], message);
            }
            for (key, mark) in marks {
                if !seen.insert((key, mark.clone())) {
                    let message = format!("{mark:?} is that of another entry too");
                    self.fail(&["callers", &index, key], message);
                }
            }
        }
        for (index, issuer) in config.issuers.iter().enumerate() {
            let index = index.to_string();
            self.mcp_pins(&["issuers", &index, "mcp"], &issuer.rules);
            self.rules("issuers", &index, &issuer.rules, !issuer.tenant_claim.is_empty());
            let key = ["issuers", index.as_str(), "name"];
            self.require(&key, "is missing", Some("the log calls the issuer by it"));
            if !seen.insert(("name", issuer.name.clone())) {
                self.fail(&key, "is the name of another caller or issuer too");
            }
        }
    }

    /// Warns where callers are known, and a request that names none is served all the same.
    pub(super) fn optional_credentials(&mut self, config: &Config) {
        let is_chosen = self.document.contains(&["auth", "required"]);
        if is_chosen || config.auth.required || !config.has_callers() {
            return;
        }
        let mut private = config.listen.proxy.iter().filter(|address| address.is_private());
        if let Some(address) = private.next() {
            let message = format!(
                "is not set: a program of this machine that sends no credential to {address} may use \
                 every account; true asks everybody, false leaves it so"
            );
            self.warn(&["auth", "required"], message);
        }
    }

    /// Rules that allow something.
    fn rules(&mut self, table: &str, index: &str, rules: &RulesConfig, has_tenant: bool) {
        let RulesConfig { accounts, methods, paths, profiles, .. } = rules;
        let lists = [
            ("accounts", accounts),
            ("methods", methods),
            ("paths", paths),
            ("profiles", profiles),
        ];
        for (name, list) in lists {
            let key = [table, index, name];
            if list.as_ref().is_some_and(Vec::is_empty) && !self.lost(&key) {
                self.fail(&key, "is empty, and allows nothing: leave it out to allow all");
            }
        }
        for (at, glob) in accounts.iter().flatten().enumerate() {
            if has_tenant && glob.contains('~') {
                let message = format!("{glob:?} names a tenant: callers of a tenant say aliases");
                self.fail(&[table, index, "accounts", &at.to_string()], message);
            }
        }
    }

    fn mcp_pins(&mut self, key: &[&str], rules: &RulesConfig) {
        // Amazon rejects the mode without an id.
        if let Some(McpPins { profile: None, account: None, manager: None }) = rules.mcp
            && !self.lost(key)
        {
            self.fail(key, "pins nothing: give a profile, an account or a manager");
        }
    }
}

/// What a caller is known by, with the keys under which it stands; its name is first.
fn marks(caller: &CallerConfig) -> Vec<(&'static str, String)> {
    let name = [("name", caller.name.clone())].into_iter();
    let keys = caller.keys.iter().map(|key| ("keys", key.id.clone()));
    let uids = caller.unix_uids.iter().map(|uid| ("unix_uids", uid.to_string()));
    let gids = caller.unix_gids.iter().map(|gid| ("unix_gids", gid.to_string()));
    let names = caller.mtls_san.iter().map(|name| ("mtls_san", name.clone()));
    name.chain(keys).chain(uids).chain(gids).chain(names).collect()
}
