//! Certificates and keys out of PEM, from a file or from the configuration itself.

use super::TlsError;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

/// Where PEM comes from, and the key of the settings that says so.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub key: &'static str,
    pub place: Place<'a>,
}

#[derive(Clone, Copy)]
pub enum Place<'a> {
    File(&'a Path),
    Text(&'a str),
}

impl Source<'_> {
    fn pem(&self) -> Result<Vec<u8>, TlsError> {
        match self.place {
            Place::Text(text) => Ok(text.as_bytes().to_vec()),
            Place::File(path) => std::fs::read(path).map_err(|error| {
                TlsError::new(self.key, format!("cannot read {}: {error}", path.display()))
            }),
        }
    }

    fn error(&self, what: &str) -> TlsError {
        match self.place {
            Place::Text(_) => TlsError::new(self.key, what),
            Place::File(path) => TlsError::new(self.key, format!("{}: {what}", path.display())),
        }
    }
}

/// All certificates in the source, one at least.
pub fn certificates(source: Source<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = source.pem()?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(source.error("has no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(error) => Err(source.error(&format!("is no PEM: {error}"))),
    }
}

/// The private key in the source (PKCS#8, PKCS#1 or SEC1).
pub fn key(source: Source<'_>) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&source.pem()?)
        .map_err(|error| source.error(&format!("has no private key in PEM: {error}")))
}

/// Who may sign the other side's certificate: the source, or else what the system trusts.
pub fn roots(source: Option<Source<'_>>, and_system: bool) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(source) = source {
        for certificate in certificates(source)? {
            roots
                .add(certificate)
                .map_err(|error| source.error(&format!("has a certificate of no use: {error}")))?;
        }
    }
    if source.is_none() || and_system {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
    }
    if roots.is_empty() {
        let what = "the system has no certificates of authorities, name a file with some";
        return Err(TlsError::new("ca_file", what));
    }
    Ok(roots)
}
