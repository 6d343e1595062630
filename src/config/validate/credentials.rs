//! Whose grants we hold and what opens them: applications, accounts, encryption keys.

use super::Validation;
use crate::{
    config::{
        AccountConfig, ApplicationConfig, CALLBACK_PATH, Config, DEFAULT_APPLICATION, Encryption,
        EncryptionKey, Material, StoreKind, is_callback_path,
        secret_ref::{SecretRef, SecretRefs},
    },
    id::{AccountId, placeholder_alias},
    secret::{RefreshToken, Secret},
};
use base64::{Engine, engine::general_purpose};
use http::Uri;
use std::collections::HashSet;
use zeroize::Zeroizing;

/// The key size of XChaCha20-Poly1305.
const KEY_BYTES: usize = 32;

/// A stolen copy of the store allows any number of guesses.
const PASSPHRASE_MIN_CHARS: usize = 12;

/// What a name may be.
pub(super) const NAME: &str = "must be 1 to 64 letters, digits, '.', '_' or '-'";

impl Validation<'_> {
    /// `[lwa]` becomes the application of the default name.
    pub(super) fn applications(&mut self, config: &mut Config) {
        if config.lwa.is_none() && config.applications.is_empty() {
            let help = "add [lwa] with client_id and client_secret, \
                        or set AMAZON_CLIENT_ID and AMAZON_CLIENT_SECRET";
            self.lacks(&["lwa"], "there is no LWA application", Some(help));
        }
        for (name, application) in &mut config.applications {
            let key = ["applications", name.as_str()];
            if !AccountId::is_alias(name) {
                self.fail(&key, NAME);
            }
            if name == DEFAULT_APPLICATION && config.lwa.is_some() {
                self.fail(&key, "is the same application as [lwa]; keep one of them");
            }
            self.application(&key, application);
        }
        if let Some(mut lwa) = config.lwa.take() {
            self.application(&["lwa"], &mut lwa);
            config.applications.insert(DEFAULT_APPLICATION.to_owned(), lwa);
        }
    }

    fn application(&mut self, at: &[&str], application: &mut ApplicationConfig) {
        let key = |name| [at, &[name]].concat();
        self.require(&key("client_id"), "is missing", None);
        let help = "write client_secret = { env = \"AMAZON_CLIENT_SECRET\" } \
                    or client_secret = { file = \"/path\" }";
        self.require(&key("client_secret"), "is missing", Some(help));
        application.client_secrets =
            self.secrets(&key("client_secret"), &application.client_secret);
        if application.scopes.is_empty() {
            self.lacks(&key("scopes"), "needs at least one scope", None);
        }
        let uri: Uri = application.redirect_uri.parse().unwrap_or_default();
        let is_here = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if is_here && !is_callback_path(uri.path()) {
            let path = uri.path();
            let message = format!(
                "{path} is another page of adsproxy, so no login comes back: use {CALLBACK_PATH}"
            );
            self.warn(&key("redirect_uri"), message);
        }
    }

    /// All of the secrets that can be had.
    pub(super) fn secrets(&mut self, key: &[&str], secrets: &SecretRefs) -> Vec<Secret> {
        if secrets.listed && secrets.refs.is_empty() {
            self.lacks(key, "the list is empty", None);
        }
        let mut found = Vec::new();
        for (index, reference) in secrets.refs.iter().enumerate() {
            if let SecretRef::Env(name) = reference {
                self.secret_variables.insert(name.clone());
            }
            match reference.resolve(self.environment) {
                Ok(fetched) => {
                    found.push(fetched.secret);
                    match fetched.exposed {
                        // It opens the whole store, and adsproxy makes it with the right mode.
                        Some(exposed) if key[0] == "encryption" => self.fail(key, exposed),
                        Some(exposed) => self.warn(key, exposed),
                        None => {}
                    }
                }
                Err(error) if secrets.listed => {
                    self.fail(&[key, &[&index.to_string()]].concat(), error);
                }
                Err(error) => {
                    let is_key = key[0] == "encryption" && key.ends_with(&["secret"]);
                    let help = "`adsproxy key init` makes a key";
                    let help = (is_key && error.is_absence()).then_some(help);
                    self.fail_with(key, error, help);
                }
            }
        }
        if !found.is_empty() {
            self.secrets.insert(key.join("."), found.clone());
        }
        found
    }

    /// One secret where a list makes no sense.
    fn secret(&mut self, key: &[&str], secrets: &SecretRefs) -> Option<Secret> {
        if secrets.listed {
            self.fail(key, "takes one secret, not a list");
            return None;
        }
        self.secrets(key, secrets).pop()
    }

    pub(super) fn accounts(&mut self, config: &mut Config) {
        for alias in self.document.names("accounts") {
            if let Err(error) = alias.parse::<AccountId>() {
                self.fail(&["accounts", alias], error);
            }
        }
        let known: Vec<&str> = config.applications.keys().map(String::as_str).collect();
        for (id, account) in &mut config.accounts {
            self.account(&id.to_string(), account, &known);
        }
    }

    fn account(&mut self, alias: &str, account: &mut AccountConfig, applications: &[&str]) {
        let key = |name| ["accounts", alias, name];
        self.require(&key("region"), "is missing: \"na\", \"eu\" or \"fe\"", None);
        let application = account.application.as_str();
        if !applications.contains(&application) {
            let message = format!(
                "there is no application {application:?}; configured: {}",
                if applications.is_empty() { "none".to_owned() } else { applications.join(", ") },
            );
            self.fail(&key("application"), message);
        }
        if account.refresh_token_ref.refs.is_empty() && !account.refresh_token_ref.listed {
            return;
        }
        let key = key("refresh_token");
        let Some(secret) = self.secret(&key, &account.refresh_token_ref) else { return };
        match RefreshToken::parse(&secret) {
            Ok(token) => {
                if !token.is_usual {
                    self.warn(&key, RefreshToken::UNUSUAL);
                }
                // Taken for a new one, it would replace the real one in the store.
                let named = placeholder_alias(token.secret.expose(), "Atzr");
                if named.is_some_and(|named| self.document.contains(&["accounts", named])) {
                    let message = "holds a placeholder of adsproxy's own, which `adsproxy exec` \
                                   and `env` set: start from a shell without it";
                    self.fail(&key, message);
                }
                account.refresh_token = Some(token.secret);
            }
            Err(error) => self.fail(&key, error),
        }
    }

    pub(super) fn encryption(&mut self, encryption: &mut Encryption, kind: StoreKind) {
        if encryption.keys.is_empty() && kind.seals() {
            let init = if kind == StoreKind::Keyring { "key init --keyring" } else { "key init" };
            let help = format!(
                "run `adsproxy {init}`, which makes a key and prints the lines to add here"
            );
            let message = "is empty, and the store seals what it keeps";
            self.lacks(&["encryption", "keys"], message, Some(&help));
        }
        let mut ids = HashSet::new();
        for (index, key) in encryption.keys.iter_mut().enumerate() {
            let index = index.to_string();
            let at = ["encryption", "keys", index.as_str(), "id"];
            if !AccountId::is_alias(&key.id) {
                self.fail(&at, NAME);
            }
            if !ids.insert(key.id.clone()) {
                let id = &key.id;
                self.fail(&at, format_args!("{id:?} is the id of an earlier key too"));
            }
            self.material(&index, key, kind);
        }
    }

    /// Fetches what a key is made of.
    fn material(&mut self, index: &str, key: &mut EncryptionKey, kind: StoreKind) {
        let at = |name| ["encryption", "keys", index, name];
        let has = |name| self.document.contains(&at(name));
        match (has("secret"), has("passphrase")) {
            (true, true) => {
                self.fail(&at("passphrase"), "a key has a secret or a passphrase, not both");
            }
            (true, false) => {
                let Some(secret) = self.secret(&at("secret"), &key.secret) else { return };
                match canonical_key(&secret) {
                    Some(secret) => key.material = Material::Secret(secret),
                    None => {
                        let help =
                            "`adsproxy key init` makes one; so does `openssl rand -base64 32`";
                        let message = "is not the base64 of 32 bytes";
                        self.fail_with(&at("secret"), message, Some(help));
                    }
                }
            }
            (false, true) => {
                let passphrase = self.secret(&at("passphrase"), &key.passphrase);
                let Some(passphrase) = passphrase else { return };
                if passphrase.expose().chars().count() < PASSPHRASE_MIN_CHARS {
                    let message = format!("is shorter than {PASSPHRASE_MIN_CHARS} characters");
                    self.fail(&at("passphrase"), message);
                }
                key.material = Material::Passphrase(passphrase);
            }
            (false, false) if kind == StoreKind::Keyring => {}
            (false, false) => self.lacks(&at("secret"), "is missing", None),
        }
    }
}

/// `secret` in standard base64 with padding, if it is 32 bytes in any usual base64.
fn canonical_key(secret: &Secret) -> Option<Secret> {
    let text = secret.expose().trim_end_matches('=');
    let engine = if text.contains(['-', '_']) {
        general_purpose::URL_SAFE_NO_PAD
    } else {
        general_purpose::STANDARD_NO_PAD
    };
    let bytes = Zeroizing::new(engine.decode(text).ok()?);
    (bytes.len() == KEY_BYTES).then(|| Secret::new(general_purpose::STANDARD.encode(&*bytes)))
}
