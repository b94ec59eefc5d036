//! TLS for both directions: settings as the Collector's `configtls` has them, made into rustls
//! configurations, and read again from their files when they may have changed.

mod files;
mod settings;

pub use settings::{ClientTlsSettings, ServerTlsSettings};

use crate::clock;
use files::{certificates, key, roots};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Settings that name files or certificates that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct TlsError {
    /// The key in the settings, below `tls`.
    pub key: &'static str,
    /// What is wrong with it.
    pub what: String,
}

impl TlsError {
    fn new(key: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { key, what }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// How to speak TLS as a client that offers these protocols.
pub fn client(
    settings: &ClientTlsSettings,
    alpn: &'static [&'static [u8]],
) -> Result<Reloaded<ClientConfig>, TlsError> {
    let load = {
        let settings = settings.clone();
        move || load_client(&settings, alpn)
    };
    Reloaded::new(load, settings.reload_interval)
}

fn load_client(
    settings: &ClientTlsSettings,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&settings.versions()?)
        .map_err(|error| TlsError::new("min_version", error.to_string()))?;
    let builder = if settings.insecure_skip_verify {
        let anybody = Arc::new(Anybody(provider()));
        builder
            .dangerous()
            .with_custom_certificate_verifier(anybody)
    } else {
        builder.with_root_certificates(roots(
            settings.authorities(),
            settings.include_system_ca_certs_pool,
        )?)
    };
    let mut config = match settings.identity() {
        None => builder.with_no_client_auth(),
        Some((chain, secret)) => builder
            .with_client_auth_cert(certificates(chain)?, key(secret)?)
            .map_err(|error| TlsError::new(secret.key, error.to_string()))?,
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// How to speak TLS as a server that takes these protocols.
pub fn server(
    settings: &ServerTlsSettings,
    alpn: &'static [&'static [u8]],
) -> Result<Reloaded<ServerConfig>, TlsError> {
    let load = {
        let settings = settings.clone();
        move || load_server(&settings, alpn)
    };
    Reloaded::new(load, settings.reload_interval)
}

fn load_server(
    settings: &ServerTlsSettings,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let Some((chain, secret)) = settings.identity() else {
        return Err(TlsError::new("cert_file", "must be set"));
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&settings.versions()?)
        .map_err(|error| TlsError::new("min_version", error.to_string()))?;
    let builder = match settings.client_authorities() {
        None => builder.with_no_client_auth(),
        Some(source) => {
            let roots = Arc::new(roots(Some(source), false)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| TlsError::new(source.key, error.to_string()))?,
            )
        }
    };
    let mut config = builder
        .with_single_cert(certificates(chain)?, key(secret)?)
        .map_err(|error| TlsError::new(secret.key, error.to_string()))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

type Load<C> = Box<dyn Fn() -> Result<Arc<C>, TlsError> + Send + Sync>;

/// A configuration that is read again when it is asked for and its interval is over. New files
/// that cannot be used leave the old configuration in force.
pub struct Reloaded<C> {
    load: Load<C>,
    /// Zero: never.
    interval: Duration,
    current: Mutex<(Arc<C>, Instant)>,
}

impl<C> Reloaded<C> {
    fn new(
        load: impl Fn() -> Result<Arc<C>, TlsError> + Send + Sync + 'static,
        interval: Duration,
    ) -> Result<Self, TlsError> {
        let current = Mutex::new((load()?, clock::instant()));
        Ok(Self {
            load: Box::new(load),
            interval,
            current,
        })
    }

    /// The configuration for the next connection.
    pub fn get(&self) -> Arc<C> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::instant();
        if !self.interval.is_zero() && now.duration_since(current.1) >= self.interval {
            current.1 = now;
            match (self.load)() {
                Ok(config) => current.0 = config,
                Err(error) => tracing::warn!(%error, "TLS files cannot be used, the old ones stay"),
            }
        }
        Arc::clone(&current.0)
    }
}

impl<C> fmt::Debug for Reloaded<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").finish_non_exhaustive()
    }
}

/// `insecure_skip_verify`: whoever answers is believed, as long as it holds its own key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
