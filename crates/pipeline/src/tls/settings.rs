//! `tls` as the Collector's `configtls` names it.

use super::TlsError;
use super::files::{Place, Source};
use crate::component::Check;
use crate::config::duration;
use crate::exporters::Secret;
use rustls::SupportedProtocolVersion;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `tls` of an exporter
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ClientTlsSettings {
    /// Plain text on purpose.
    pub insecure: bool,
    /// Believe whoever answers.
    pub insecure_skip_verify: bool,
    /// Name that the server's certificate must have, instead of the endpoint's.
    pub server_name_override: String,
    /// File with the certificates of the authorities that may vouch for the server, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The same, written here.
    pub ca_pem: Option<String>,
    /// The system's authorities besides those of `ca_file`.
    pub include_system_ca_certs_pool: bool,
    /// File with our certificate, for servers that ask for one, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The same, written here.
    pub cert_pem: Option<String>,
    /// File with the private key of our certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// The same, written here.
    pub key_pem: Option<Secret>,
    /// Oldest version of TLS, 1.2 or 1.3.
    pub min_version: Option<Version>,
    /// Newest version of TLS, 1.2 or 1.3.
    pub max_version: Option<Version>,
    /// How often the files are read again; 0 = never.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub reload_interval: Duration,
}

/// `tls` of a receiver
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerTlsSettings {
    /// File with the certificate to show, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The same, written here.
    pub cert_pem: Option<String>,
    /// File with the certificate's private key, in PEM.
    pub key_file: Option<PathBuf>,
    /// The same, written here.
    pub key_pem: Option<Secret>,
    /// File with the authorities that must vouch for every client, in PEM.
    pub client_ca_file: Option<PathBuf>,
    /// Oldest version of TLS, 1.2 or 1.3.
    pub min_version: Option<Version>,
    /// Newest version of TLS, 1.2 or 1.3.
    pub max_version: Option<Version>,
    /// How often the files are read again; 0 = never.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub reload_interval: Duration,
}

/// A version of TLS
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Version {
    /// RFC 5246
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446
    #[serde(rename = "1.3")]
    Tls13,
}

type Identity<'a> = Option<(Source<'a>, Source<'a>)>;
type Versions = Vec<&'static SupportedProtocolVersion>;

impl ClientTlsSettings {
    /// Notes what cannot work.
    pub fn check(&self, check: &mut Check<'_>) {
        let exclusive = [
            ("ca_pem", self.ca_file.is_some() && self.ca_pem.is_some()),
            (
                "cert_pem",
                self.cert_file.is_some() && self.cert_pem.is_some(),
            ),
            ("key_pem", self.key_file.is_some() && self.key_pem.is_some()),
        ];
        check_pairs(&exclusive, check);
        let with_certificate = self.cert_file.is_some() || self.cert_pem.is_some();
        let with_key = self.key_file.is_some() || self.key_pem.is_some();
        check_identity(with_certificate, with_key, check);
        check_versions(self.min_version, self.max_version, check);
        if self.server_name().is_err() {
            check.error("server_name_override", "is no name of a server");
        }
        if self.insecure && (self.authorities().is_some() || self.insecure_skip_verify) {
            check.warn("insecure", "the other keys have no effect on plain text");
        }
    }

    /// The name that the server must prove, if it is not the endpoint's.
    pub fn server_name(&self) -> Result<Option<ServerName<'static>>, TlsError> {
        let name = self.server_name_override.clone();
        if name.is_empty() {
            return Ok(None);
        }
        let wrong = |_| TlsError::new("server_name_override", "is no name of a server");
        ServerName::try_from(name).map(Some).map_err(wrong)
    }

    pub(super) fn authorities(&self) -> Option<Source<'_>> {
        source(
            "ca_file",
            self.ca_file.as_deref(),
            "ca_pem",
            self.ca_pem.as_deref(),
        )
    }

    pub(super) fn identity(&self) -> Identity<'_> {
        identity(
            self.cert_file.as_deref(),
            self.cert_pem.as_deref(),
            self.key_file.as_deref(),
            self.key_pem.as_ref(),
        )
    }

    pub(super) fn versions(&self) -> Result<Versions, TlsError> {
        versions(self.min_version, self.max_version)
    }
}

impl ServerTlsSettings {
    /// Notes what cannot work.
    pub fn check(&self, check: &mut Check<'_>) {
        let exclusive = [
            (
                "cert_pem",
                self.cert_file.is_some() && self.cert_pem.is_some(),
            ),
            ("key_pem", self.key_file.is_some() && self.key_pem.is_some()),
        ];
        check_pairs(&exclusive, check);
        let with_certificate = self.cert_file.is_some() || self.cert_pem.is_some();
        let with_key = self.key_file.is_some() || self.key_pem.is_some();
        check_identity(with_certificate, with_key, check);
        if !with_certificate && !with_key {
            check.error(
                "cert_file",
                "must be set: a server needs a certificate and its key",
            );
        }
        check_versions(self.min_version, self.max_version, check);
    }

    pub(super) fn identity(&self) -> Identity<'_> {
        identity(
            self.cert_file.as_deref(),
            self.cert_pem.as_deref(),
            self.key_file.as_deref(),
            self.key_pem.as_ref(),
        )
    }

    pub(super) fn client_authorities(&self) -> Option<Source<'_>> {
        source("client_ca_file", self.client_ca_file.as_deref(), "", None)
    }

    pub(super) fn versions(&self) -> Result<Versions, TlsError> {
        versions(self.min_version, self.max_version)
    }
}

fn check_pairs(exclusive: &[(&str, bool)], check: &mut Check<'_>) {
    for (key, _) in exclusive.iter().filter(|(_, both)| *both) {
        check.error(key, "cannot be set beside the file for the same");
    }
}

fn check_identity(with_certificate: bool, with_key: bool, check: &mut Check<'_>) {
    match (with_certificate, with_key) {
        (true, false) => check.error("cert_file", "needs key_file (or key_pem) beside it"),
        (false, true) => check.error("key_file", "needs cert_file (or cert_pem) beside it"),
        _ => {}
    }
}

fn check_versions(min: Option<Version>, max: Option<Version>, check: &mut Check<'_>) {
    if versions(min, max).is_err() {
        check.error("max_version", "must not be below min_version");
    }
}

fn source<'a>(
    file_key: &'static str,
    file: Option<&'a Path>,
    pem_key: &'static str,
    pem: Option<&'a str>,
) -> Option<Source<'a>> {
    let (key, place) = match (file, pem) {
        (Some(path), _) => (file_key, Place::File(path)),
        (None, Some(text)) => (pem_key, Place::Text(text)),
        (None, None) => return None,
    };
    Some(Source { key, place })
}

fn identity<'a>(
    cert_file: Option<&'a Path>,
    cert_pem: Option<&'a str>,
    key_file: Option<&'a Path>,
    key_pem: Option<&'a Secret>,
) -> Identity<'a> {
    let key_pem = key_pem.map(|key| key.0.as_str());
    let chain = source("cert_file", cert_file, "cert_pem", cert_pem)?;
    let key = source("key_file", key_file, "key_pem", key_pem)?;
    Some((chain, key))
}

fn versions(min: Option<Version>, max: Option<Version>) -> Result<Versions, TlsError> {
    match (min, max) {
        (Some(Version::Tls13), Some(Version::Tls12)) => Err(TlsError::new(
            "max_version",
            "must not be below min_version",
        )),
        (Some(Version::Tls13), _) => Ok(vec![&TLS13]),
        (_, Some(Version::Tls12)) => Ok(vec![&TLS12]),
        _ => Ok(vec![&TLS13, &TLS12]),
    }
}
