//! Settings of `otlp_grpc`, named as in the Collector.

use crate::component::{Check, Settings};
use crate::config::duration;
use crate::exporters::peer::{
    Compression, Headers, PLAIN_ONLY, TlsSettings, check_headers, check_timeout,
};
use crate::queue::{QueueSettings, RetrySettings};
use hyper::Uri;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// `exporters::otlp_grpc`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OtlpGrpcSettings {
    /// `host:port`, or with `http://` in front.
    pub endpoint: String,
    pub tls: TlsSettings,
    /// Of one attempt.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub timeout: Duration,
    /// Sent as metadata.
    pub headers: Headers,
    pub compression: Compression,
    pub retry_on_failure: RetrySettings,
    pub sending_queue: QueueSettings,
}

impl Default for OtlpGrpcSettings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            tls: TlsSettings::default(),
            timeout: Duration::from_secs(5),
            headers: Headers::new(),
            compression: Compression::Gzip,
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
        let rest = match endpoint.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(format!(
                    "asks for TLS, which is not built in yet: {PLAIN_ONLY}"
                ));
            }
            Some(_) => return Err(example.to_owned()),
            None if self.tls.insecure => endpoint,
            None => {
                return Err(format!(
                    "asks for TLS, which is not built in yet: {PLAIN_ONLY}"
                ));
            }
        };
        let uri: Uri = format!("http://{}", rest.trim_end_matches('/'))
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
        check_timeout(self.timeout, check);
        check_headers(&self.headers, check);
        self.retry_on_failure
            .check(&mut check.below("retry_on_failure"));
        self.sending_queue.check(&mut check.below("sending_queue"));
    }
}
