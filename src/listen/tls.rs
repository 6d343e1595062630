//! The server side of TLS: certificate and key from PEM files, read again when they change.
//!
//! The files are compared by content every few seconds. Notifications are not used: they die
//! silently when Kubernetes swaps the `..data` link of a mounted secret.

use super::client_certificate;
use crate::config::ListenTls;
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{NoClientAuth, VerifierBuilderError},
};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use zeroize::Zeroizing;

pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// A certificate chain or key is far smaller; more is a wrong path.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// Attempts to read a pair that is not being replaced meanwhile.
const READ_ATTEMPTS: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is larger than 1 MiB", path = .0.display())]
    TooLarge(PathBuf),
    /// A file holds no PEM section of the kind wanted, or a broken one.
    #[error("{path} holds no usable PEM section", path = path.display())]
    Pem { path: PathBuf, source: pem::Error },
    /// For instance because they do not belong together.
    #[error("certificate and key cannot be used")]
    Rejected(#[from] rustls::Error),
    #[error("the CAs of client certificates cannot be used")]
    ClientAuthorities(#[from] VerifierBuilderError),
}

/// The certificate in use, and where it comes from.
pub struct ServerTls {
    files: ArcSwap<ListenTls>,
    current: ArcSwap<ServerConfig>,
    /// When the certificate in use ends, in seconds since 1970; 0 if that cannot be read.
    expiry: Arc<AtomicU64>,
    seen: Mutex<Seen>,
}

/// A certificate that is good and not in use yet.
pub struct PreparedTls {
    files: ListenTls,
    config: Arc<ServerConfig>,
    expiry: u64,
    digest: Digest,
}

/// What the last look found; digests, so that no second copy of the key is kept.
struct Seen {
    loaded: Digest,
    /// The content, or failure to read it, that was reported.
    rejected: Option<Digest>,
}

impl ServerTls {
    pub fn load(files: &ListenTls) -> Result<Arc<Self>, Error> {
        let pair = Pair::read(files)?;
        Ok(Arc::new(Self {
            files: ArcSwap::from_pointee(files.clone()),
            current: ArcSwap::new(pair.server_config(files)?),
            expiry: Arc::new(AtomicU64::new(pair.expiry())),
            seen: Mutex::new(Seen { loaded: pair.digest(), rejected: None }),
        }))
    }

    /// Says that every user may read the key: that is the default of Kubernetes' volumes and of
    /// many renewal scripts, and no reason to go without a certificate. Of the first key, the
    /// configuration's check has said so.
    fn warn_if_exposed(&self) {
        let path = &self.files.load().key_file;
        if fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o007 != 0) {
            let file = path.display();
            tracing::warn!(%file, "the private key is open to every user of this machine");
        }
    }

    /// What new connections are to use: HTTP/2 or HTTP/1.1 by ALPN.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// When the certificate in use ends, now and later: in seconds since 1970, 0 if that cannot be read.
    pub fn expiry(&self) -> Arc<AtomicU64> {
        self.expiry.clone()
    }

    /// Reads `files`, to be used by [`Self::install`].
    pub fn prepare(&self, files: &ListenTls) -> Result<PreparedTls, Error> {
        let pair = Pair::read(files)?;
        let (config, digest) = (pair.server_config(files)?, pair.digest());
        Ok(PreparedTls { files: files.clone(), config, expiry: pair.expiry(), digest })
    }

    /// Uses what was read from now on.
    pub fn install(&self, prepared: PreparedTls) {
        let mut seen = self.seen.lock();
        self.files.store(Arc::new(prepared.files));
        self.current.store(prepared.config);
        self.expiry.store(prepared.expiry, Ordering::Relaxed);
        *seen = Seen { loaded: prepared.digest, rejected: None };
    }

    /// Looks at the files; says whether a new certificate is in use.
    pub fn reload_if_changed(&self) -> Result<bool, Error> {
        let (mut seen, files) = (self.seen.lock(), self.files.load_full());
        let (content, result) = match Pair::read(&files) {
            Ok(pair) if pair.digest().as_ref() == seen.loaded.as_ref() => {
                seen.rejected = None;
                return Ok(false);
            }
            Ok(pair) => {
                let config = pair.server_config(&files);
                (pair.digest(), config.map(|config| (config, pair.expiry())))
            }
            Err(error) => (digest(&SHA256, format!("{error:?}").as_bytes()), Err(error)),
        };
        match result {
            Ok((config, expiry)) => {
                self.warn_if_exposed();
                self.current.store(config);
                self.expiry.store(expiry, Ordering::Relaxed);
                *seen = Seen { loaded: content, rejected: None };
                Ok(true)
            }
            Err(_) if seen.rejected.is_some_and(|old| old.as_ref() == content.as_ref()) => {
                Ok(false)
            }
            Err(error) => {
                seen.rejected = Some(content);
                Err(error)
            }
        }
    }
}

/// Looks at the files every `interval`, for ever. Two small reads: not worth another thread.
///
/// # Cancel safety
/// Safe: nothing is half done between two looks.
pub async fn watch(tls: Arc<ServerTls>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match tls.reload_if_changed() {
            Ok(true) => {
                tracing::info!(file = %tls.files.load().cert_file.display(), "new certificate")
            }
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "new certificate or key rejected, the old one stays in use");
            }
        }
    }
}

struct Pair {
    cert: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    client_authorities: Option<Zeroizing<Vec<u8>>>,
}

impl Pair {
    /// Reads the certificate, the key, and the certificate again, until the two reads agree:
    /// otherwise a swap between the reads would look like a wrong pair.
    fn read(files: &ListenTls) -> Result<Self, Error> {
        let mut cert = read(&files.cert_file)?;
        let mut key = read(&files.key_file)?;
        for _ in 1..READ_ATTEMPTS {
            let again = read(&files.cert_file)?;
            if again == cert {
                break;
            }
            cert = again;
            key = read(&files.key_file)?;
        }
        let authorities = files.client_ca_file.as_deref().map(read);
        Ok(Self { cert, key, client_authorities: authorities.transpose()? })
    }

    fn digest(&self) -> Digest {
        let authorities = self.client_authorities.as_deref().map_or(&[][..], Vec::as_slice);
        let parts = [&self.cert, &self.key, authorities].map(|part| digest(&SHA256, part));
        digest(&SHA256, &parts.each_ref().map(AsRef::as_ref).concat())
    }

    /// When the certificate ends, in seconds since 1970; 0 if that cannot be read.
    fn expiry(&self) -> u64 {
        let own = CertificateDer::pem_slice_iter(&self.cert).next().and_then(Result::ok);
        let expiry = own.and_then(|own| client_certificate::expiry(&own));
        expiry.map_or(0, |expiry| expiry.as_secs())
    }

    fn server_config(&self, files: &ListenTls) -> Result<Arc<ServerConfig>, Error> {
        let chain = certificates(&files.cert_file, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        let key = key.map_err(|source| Error::Pem { path: files.key_file.clone(), source })?;
        let verifier = match (&files.client_ca_file, &self.client_authorities) {
            (Some(path), Some(text)) => {
                client_certificate::verifier(certificates(path, text)?, files.client_auth)?
            }
            _ => Arc::new(NoClientAuth),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The certificates of a PEM file; at least one.
fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = match found {
        Ok(found) if found.is_empty() => Err(pem::Error::NoItemsFound),
        found => found,
    };
    found.map_err(|source| Error::Pem { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Room for all of it at once: a buffer that grows leaves copies of the key behind.
    let room = file.metadata().map_err(failed)?.len().min(FILE_MAX_BYTES) + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(Error::TooLarge(path.to_owned()));
    }
    Ok(content)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
