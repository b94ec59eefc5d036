//! Settings of `otlp_http`, named as in the Collector.

use crate::component::{Check, Settings};
use crate::config::duration;
use crate::exporters::peer::{Compression, Headers, check_headers, check_timeout};
use crate::queue::{QueueSettings, RetrySettings};
use crate::tls::ClientTlsSettings;
use hyper::Uri;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// `exporters::otlp_http`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OtlpHttpSettings {
    /// Base URL; `/v1/traces` is appended.
    pub endpoint: String,
    /// URL used as it is, instead of `endpoint`.
    pub traces_endpoint: String,
    pub tls: ClientTlsSettings,
    /// Of one attempt.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub timeout: Duration,
    pub headers: Headers,
    pub compression: Compression,
    /// Only `proto`.
    pub encoding: Encoding,
    pub retry_on_failure: RetrySettings,
    pub sending_queue: QueueSettings,
}

/// `encoding`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Protobuf bodies.
    #[default]
    Proto,
}

impl Default for OtlpHttpSettings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            traces_endpoint: String::new(),
            tls: ClientTlsSettings::default(),
            timeout: Duration::from_secs(30),
            headers: Headers::new(),
            compression: Compression::Gzip,
            encoding: Encoding::Proto,
            retry_on_failure: RetrySettings::default(),
            sending_queue: QueueSettings::default(),
        }
    }
}

impl OtlpHttpSettings {
    /// Where requests go; on error, the key that is wrong and why.
    pub fn url(&self) -> Result<Uri, (&'static str, String)> {
        let (key, url) = if self.traces_endpoint.is_empty() {
            (
                "endpoint",
                format!("{}/v1/traces", self.endpoint.trim_end_matches('/')),
            )
        } else {
            ("traces_endpoint", self.traces_endpoint.clone())
        };
        let example = "expected a URL such as http://localhost:4318";
        if key == "endpoint" && self.endpoint.is_empty() {
            return Err((key, format!("must be set, {example}")));
        }
        let uri: Uri = url.parse().map_err(|_| (key, example.to_owned()))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(uri),
            _ => Err((key, example.to_owned())),
        }
    }
}

impl Settings for OtlpHttpSettings {
    fn check(&self, check: &mut Check<'_>) {
        if let Err((key, message)) = self.url() {
            check.error(key, message);
        }
        self.tls.check(&mut check.below("tls"));
        check_timeout(self.timeout, check);
        check_headers(&self.headers, check);
        self.retry_on_failure
            .check(&mut check.below("retry_on_failure"));
        self.sending_queue.check(&mut check.below("sending_queue"));
    }
}
