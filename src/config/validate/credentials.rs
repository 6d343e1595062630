//! Whose grants we hold and what opens them: applications, accounts, encryption keys.

use crate::{
    config::{
        AccountConfig, ApplicationConfig, CALLBACK_PATH, Config, DEFAULT_APPLICATION, Encryption,
        EncryptionKey, Material, StoreKind, is_callback_path, reader::ConfigReader, text::NAME,
    },
    id::AccountId,
    secret::Secret,
};
use base64::{Engine, engine::general_purpose};
use http::Uri;
use std::collections::HashSet;
use zeroize::Zeroizing;

/// The key size of XChaCha20-Poly1305.
const KEY_BYTES: usize = 32;

/// A stolen copy of the store allows any number of guesses.
const PASSPHRASE_MIN_CHARS: usize = 12;

impl ConfigReader<'_> {
    /// `[lwa]` becomes the application of the default name.
    pub(super) fn applications(&mut self, config: &mut Config) {
        if config.lwa.is_none() && config.applications.is_empty() {
            let help = "add [lwa] with client_id and client_secret, \
                        or set AMAZON_CLIENT_ID and AMAZON_CLIENT_SECRET";
            self.missing(&["lwa"], "there is no LWA application", Some(help));
        }
        for (name, application) in &mut config.applications {
            let key = ["applications", name.as_str()];
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
        if application.scopes.is_empty() {
            self.missing(&key("scopes"), "needs at least one scope", None);
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

    pub(super) fn accounts(&mut self, config: &Config) {
        let known: Vec<&str> = config.applications.keys().map(String::as_str).collect();
        for (id, account) in &config.accounts {
            self.account(&id.to_string(), account, &known);
        }
    }

    fn account(&mut self, alias: &str, account: &AccountConfig, applications: &[&str]) {
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
    }

    pub(super) fn encryption(&mut self, encryption: &mut Encryption, kind: StoreKind) {
        if encryption.keys.is_empty() && kind.seals() {
            let init = if kind == StoreKind::Keyring { "key init --keyring" } else { "key init" };
            let help = format!(
                "run `adsproxy {init}`, which makes a key and prints the lines to add here"
            );
            let message = "is empty, and the store seals what it keeps";
            self.missing(&["encryption", "keys"], message, Some(&help));
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

    /// What a key is made of.
    fn material(&mut self, index: &str, key: &mut EncryptionKey, kind: StoreKind) {
        let at = |name| ["encryption", "keys", index, name];
        let has = |name| self.document.contains(&at(name));
        if has("secret") && has("passphrase") {
            self.fail(&at("passphrase"), "a key has a secret or a passphrase, not both");
        }
        if !has("secret") && !has("passphrase") && kind != StoreKind::Keyring {
            self.missing(&at("secret"), "is missing", None);
        }
        if let Some(secret) = key.secret.take() {
            match canonical_key(&secret) {
                Some(secret) => key.material = Material::Secret(secret),
                None => {
                    let help = "`adsproxy key init` makes one; so does `openssl rand -base64 32`";
                    let message = "is not the base64 of 32 bytes";
                    self.fail_with(&at("secret"), message, Some(help));
                }
            }
        }
        if let Some(passphrase) = key.passphrase.take() {
            if passphrase.expose().chars().count() < PASSPHRASE_MIN_CHARS {
                let message = format!("is shorter than {PASSPHRASE_MIN_CHARS} characters");
                self.fail(&at("passphrase"), message);
            }
            key.material = Material::Passphrase(passphrase);
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
