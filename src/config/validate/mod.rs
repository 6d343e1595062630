//! What concerns more than one value, and what only this machine can tell: all violations at once.
//!
//! Each section has a function that completes it in place.

mod callers;
mod credentials;
mod dashboard;
mod hooks;
mod issuers;

use super::{
    AuditConfig, Config, Listen, ListenAddress, ListenTls, StoreConfig, StoreKind,
    reader::ConfigReader, secret_ref::exposed,
};
use crate::{secret::Secret, trusted_path};
use std::{num::NonZeroUsize, thread};

/// The kernel's own limit for the path of a Unix socket.
const SOCKET_PATH_MAX: usize = 107;

/// Room for some entries of the audit log: fewer would make a file of each.
const AUDIT_MIN_BYTES: u64 = 4096;

impl ConfigReader<'_> {
    /// Completes `config`, which is of use only if there are no problems then.
    pub(super) fn validate(&mut self, config: &mut Config) {
        let authenticates = config.has_callers();
        self.listen(&mut config.listen, authenticates);
        if config.proxy.workers == 0 {
            config.proxy.workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        }
        self.roots(&["upstream", "ca_file"], config.upstream.ca_file.as_mut());
        self.roots(&["tls", "ca_file"], config.tls.ca_file.as_mut());
        if let Some(path) = &mut config.replay.directory {
            let key = ["replay", "directory"];
            self.path(&key, path);
            if !path.is_dir() {
                self.fail(&key, format_args!("{} is not a directory", path.display()));
            }
        }
        if self.lost(&["store", "kind"]) {
            // The kind that needs nothing: what the one that was meant needs is unknown.
            config.store.kind = StoreKind::Memory;
        }
        self.store(&mut config.store);
        self.encryption(&mut config.encryption, config.store.kind);
        let has_keys = !config.encryption.keys.is_empty();
        self.audit(&mut config.audit, has_keys);
        if config.audit.path.is_none() {
            config.audit.path = config.store.directory().map(|path| path.join("audit.jsonl"));
        }
        self.applications(config);
        self.accounts(config);
        self.callers(config);
        self.optional_credentials(config);
        self.issuers(&mut config.issuers);
        self.dashboard(config);
        self.hooks(&mut config.hooks);
        if config.outbox.retry_max < config.outbox.retry_min {
            self.fail(&["outbox", "retry_max_secs"], "is less than outbox.retry_min_secs");
        }
    }

    pub(in crate::config) fn store(&mut self, store: &mut StoreConfig) {
        match store.directory().is_some() {
            true => self.path(&["store", "path"], &mut store.path),
            // Not used, so a missing HOME is no error.
            false => store.path = self.expanded(&store.path).unwrap_or_default(),
        }
        if store.kind != StoreKind::Postgres {
            return;
        }
        self.roots(&["store", "ca_file"], store.ca_file.as_mut());
        if store.url.is_none() {
            store.url = self.environment.non_empty("DATABASE_URL").map(Secret::from);
        }
        if store.url.is_none() && !self.lost(&["store", "url"]) {
            let hint = "set DATABASE_URL, or store.url = { env = \"...\" }";
            self.missing(&["store", "url"], "is missing", Some(hint));
        }
        if store.schema.is_empty() || store.schema.len() > 63 || store.schema.contains('\0') {
            self.fail(&["store", "schema"], "is a name of 1 to 63 bytes");
        }
    }

    fn listen(&mut self, listen: &mut Listen, authenticates: bool) {
        self.sockets(listen);
        let allowed = listen.unsafe_allow_unauthenticated;
        for (index, address) in listen.proxy.iter().enumerate() {
            if listen.proxy[..index].contains(address) && !is_any_port(address) {
                self.fail(&["listen", "proxy"], format_args!("{address} is listed twice"));
            }
            if !authenticates {
                self.stay_private(&["listen", "proxy"], address, allowed);
            }
        }
        if listen.proxy.is_empty() {
            self.missing(&["listen", "proxy"], "needs at least one address", None);
        }
        match &listen.admin {
            Some(admin) if !authenticates => {
                self.stay_private(&["listen", "admin"], admin, allowed);
            }
            Some(admin) if !admin.is_private() => self.keys_in_clear(admin),
            _ => {}
        }
        let proxy: Vec<String> = listen.proxy.iter().map(ListenAddress::to_string).collect();
        for (name, address) in
            [("admin", &listen.admin), ("health", &listen.health), ("public", &listen.public)]
        {
            let address = address.as_ref().filter(|address| !is_any_port(address));
            if address.is_some_and(|address| proxy.contains(&address.to_string())) {
                self.fail(&["listen", name], "is an address of listen.proxy too");
            }
        }
        let health = listen.health.as_ref().filter(|health| !is_any_port(health));
        if health.is_some() && health == listen.admin.as_ref() {
            self.fail(&["listen", "health"], "is the address of listen.admin too");
        }
        if let Some(tls) = &mut listen.tls {
            self.listen_tls(tls);
        }
    }

    /// Completes the paths of Unix sockets.
    pub(super) fn sockets(&mut self, listen: &mut Listen) {
        let proxy = listen.proxy.iter_mut().map(|address| (["listen", "proxy"], address));
        let admin = listen.admin.iter_mut().map(|address| (["listen", "admin"], address));
        for (key, address) in proxy.chain(admin) {
            let ListenAddress::Unix(path) = address else { continue };
            self.path(&key, path);
            if path.is_relative() {
                self.fail(&key, "the path of a Unix socket must begin with / or ~");
            } else if path.as_os_str().len() > SOCKET_PATH_MAX {
                let most = format!("the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes");
                self.fail(&key, most);
            }
        }
    }

    /// A caller that reaches these listeners uses the advertisers' grants.
    fn stay_private(&mut self, key: &[&str], address: &ListenAddress, allowed: bool) {
        if address.is_private() {
            return;
        }
        let message = format!(
            "{address} can be reached from other machines, and callers are not authenticated"
        );
        if allowed {
            return self.warn(key, message);
        }
        let help = "listen on 127.0.0.1, or add [[callers]] (`adsproxy caller add NAME` prints an \
                    entry), or, if something else keeps strangers out, add:\n\
                    [listen]\n\
                    unsafe_allow_unauthenticated = true\n\
                    [guard]\n\
                    allowed_hosts = [\"name.that.callers.use\"]";
        self.fail_with(key, message, Some(help));
    }

    /// Operators send their keys to the admin listener, which has no TLS of its own.
    fn keys_in_clear(&mut self, admin: &ListenAddress) {
        let message = format!(
            "{admin} can be reached from other machines, and keys cross the network in clear: \
             listen.tls is for listen.proxy only. Listen on 127.0.0.1 or \"unix:/path\" and put a \
             reverse proxy that ends TLS in front of it, or let only such a proxy reach {admin}"
        );
        self.warn(&["listen", "admin"], message);
    }

    fn listen_tls(&mut self, tls: &mut ListenTls) {
        for (name, path) in [("cert_file", &mut tls.cert_file), ("key_file", &mut tls.key_file)] {
            let key = ["listen", "tls", name];
            match self.document.contains(&key) {
                true => self.readable(&key, Some(path)),
                false => {
                    let message = "is missing: TLS needs a certificate and its private key";
                    self.missing(&key, message, None);
                }
            }
        }
        self.readable(&["listen", "tls", "client_ca_file"], tls.client_ca_file.as_mut());
        let client_auth = ["listen", "tls", "client_auth"];
        if tls.client_ca_file.is_none() && self.document.contains(&client_auth) {
            self.fail(&client_auth, "needs listen.tls.client_ca_file, which is missing");
        }
        let metadata = std::fs::metadata(&tls.key_file).ok();
        let exposed = metadata.and_then(|metadata| exposed(&tls.key_file, &metadata));
        if let Some(exposed) = exposed {
            self.warn(&["listen", "tls", "key_file"], exposed);
        }
    }

    fn audit(&mut self, audit: &mut AuditConfig, has_keys: bool) {
        if (1..AUDIT_MIN_BYTES).contains(&audit.max_bytes) {
            let bytes = audit.max_bytes;
            let message = format!("{bytes} is neither 0 nor at least {AUDIT_MIN_BYTES}");
            self.fail(&["audit", "max_bytes"], message);
        }
        let Some(path) = &mut audit.path else { return };
        let key = ["audit", "path"];
        self.path(&key, path);
        if path.file_name().is_none() && !path.as_os_str().is_empty() {
            self.fail(&key, "does not name a file");
        }
        if path.extension().is_some_and(|extension| extension == "head") {
            self.fail(&key, "must not end in .head, which is where the end of the log is noted");
        }
        if let Err(untrusted) = trusted_path::verify(path) {
            self.fail(&key, untrusted);
        }
        if !has_keys {
            let help = "run `adsproxy key init`, which makes a key and prints the lines to add";
            let message = "is set, and the key that protects it, encryption.keys, is missing";
            self.fail_with(&key, message, Some(help));
        }
    }
}

/// Says whether two of `address` are two ports.
fn is_any_port(address: &ListenAddress) -> bool {
    address.tcp().is_some_and(|address| address.port() == 0)
}
