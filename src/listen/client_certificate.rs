//! Client certificates: who may connect by one, and what one says of its owner.

use super::tls::Error;
use crate::{config::ClientAuth, inbound::peer::ClientCertificate};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::{sync::Arc, time::Duration};
use webpki::{EndEntityCert, KeyUsage};

/// A verifier of certificates that one of `authorities` has signed.
pub(super) fn verifier(
    authorities: Vec<CertificateDer<'_>>,
    asked: ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    Ok(match asked {
        ClientAuth::Optional => verifier.allow_unauthenticated().build()?,
        ClientAuth::Required => verifier.build()?,
    })
}

/// Reads a certificate that the handshake has verified. None if there is nothing to know its owner
/// by.
pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    // A URI has a scheme and a DNS name has no colon, so that one is never taken for the other. A
    // pattern names no caller.
    let uris = certificate.valid_uri_names().filter(|name| name.contains(':'));
    let hosts = certificate.valid_dns_names().filter(|name| !name.contains([':', '*']));
    let names = uris.map(Box::from).chain(hosts.map(|name| name.to_ascii_lowercase().into()));
    let names: Box<[Box<str>]> = names.collect();
    Some(ClientCertificate { names, not_after: not_after(&certificate)? })
}

/// When any certificate ends, since the Unix epoch. None if it cannot be read.
pub(super) fn expiry(certificate: &CertificateDer<'_>) -> Option<Duration> {
    not_after(&EndEntityCert::try_from(certificate).ok()?)
}

/// The end of a certificate. The library keeps it to itself, but says it of one that has expired: as
/// every one has at the end of time.
fn not_after(certificate: &EndEntityCert<'_>) -> Option<Duration> {
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let usage = KeyUsage::client_auth();
    match certificate.verify_for_usage(&[], &[], &[], end_of_time, usage, None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            Some(Duration::from_secs(not_after.as_secs()))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "client_certificate_tests.rs"]
mod tests;
