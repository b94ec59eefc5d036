//! Settings of `otlp_grpc`, named as in the Collector.

use crate::component::{Check, Settings};
use crate::config::duration;
use crate::exporters::peer::{Compression, Headers, check_headers, check_timeout};
use crate::queue::{QueueSettings, RetrySettings};
use crate::tls::ClientTlsSettings;
use hyper::Uri;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// `exporters::otlp_grpc`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OtlpGrpcSettings {
    /// `host:port`, which means TLS unless it is insecure, or `http://` or `https://` in front.
    pub endpoint: String,
    pub tls: ClientTlsSettings,
    /// Of one attempt.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub timeout: Duration,
    /// Sent as metadata.
    pub headers: Headers,
    pub compression: Compression,
    pub keepalive: Keepalive,
    pub retry_on_failure: RetrySettings,
    pub sending_queue: QueueSettings,
}

/// `keepalive`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Keepalive {
    /// A silent backend is asked for a sign of life after this time; 0 = never.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub time: Duration,
    /// A backend that gives no sign of life in this time is hung up on.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub timeout: Duration,
    /// Also while no request is under way.
    pub permit_without_stream: bool,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            timeout: Duration::from_secs(20),
            permit_without_stream: false,
        }
    }
}

impl Default for OtlpGrpcSettings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            tls: ClientTlsSettings::default(),
            timeout: Duration::from_secs(5),
            headers: Headers::new(),
            compression: Compression::Gzip,
            keepalive: Keepalive::default(),
            retry_on_failure: RetrySettings::default(),
            sending_queue: QueueSettings::default(),
        }
    }
}

impl OtlpGrpcSettings {
    /// The endpoint as a URI, or what is wrong with it.
    pub fn uri(&self) -> Result<Uri, String> {
        let endpoint = self.endpoint.trim();
        let example = "expected host:port such as localhost:4317";
        if endpoint.is_empty() {
            return Err(format!("must be set, {example}"));
        }
        let (scheme, rest) = match endpoint.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
            Some(_) => return Err(example.to_owned()),
            None if self.tls.insecure => ("http", endpoint),
            None => ("https", endpoint),
        };
        let uri: Uri = format!("{scheme}://{}", rest.trim_end_matches('/'))
            .parse()
            .map_err(|_| example.to_owned())?;
        match (uri.host(), uri.port_u16(), uri.path()) {
            (Some(host), Some(_), "/" | "") if !host.is_empty() => Ok(uri),
            _ => Err(example.to_owned()),
        }
    }
}

impl Settings for OtlpGrpcSettings {
    fn check(&self, check: &mut Check<'_>) {
        if let Err(message) = self.uri() {
            check.error("endpoint", message);
        }
        for name in self.headers.keys().filter(|name| name.ends_with("-bin")) {
            check.error(
                &format!("headers::{name}"),
                "binary metadata is not supported",
            );
        }
        self.tls.check(&mut check.below("tls"));
        if !self.keepalive.time.is_zero() && self.keepalive.timeout.is_zero() {
            check.error("keepalive::timeout", "must be above 0");
        }
        check_timeout(self.timeout, check);
        check_headers(&self.headers, check);
        self.retry_on_failure
            .check(&mut check.below("retry_on_failure"));
        self.sending_queue.check(&mut check.below("sending_queue"));
    }
}
