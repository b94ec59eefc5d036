//! Settings of `health_check`, named as in the Collector.

use crate::component::{Check, Settings};
use crate::serve::host_and_port;
use schemars::JsonSchema;
use serde::Deserialize;

/// Bytes that `response_body` may have.
const MAX_BODY_BYTES: usize = 64 << 10;

/// `extensions::health_check`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HealthCheckSettings {
    /// `host:port` to listen on.
    pub endpoint: String,
    /// Path that is answered; all others are not found.
    pub path: String,
    /// What is answered instead of a JSON object with the status and the uptime.
    pub response_body: Option<ResponseBody>,
}

/// `extensions::health_check::response_body`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResponseBody {
    /// With status 200.
    pub healthy: String,
    /// With status 503.
    pub unhealthy: String,
}

impl Default for HealthCheckSettings {
    fn default() -> Self {
        Self {
            endpoint: "localhost:13133".to_owned(),
            path: "/".to_owned(),
            response_body: None,
        }
    }
}

impl Settings for HealthCheckSettings {
    fn check(&self, check: &mut Check<'_>) {
        if let Err(message) = host_and_port(&self.endpoint) {
            check.error("endpoint", message);
        }
        if !self.path.starts_with('/') {
            check.error("path", "must begin with /");
        }
        let bodies = self.response_body.iter().flat_map(|body| {
            [
                ("response_body::healthy", &body.healthy),
                ("response_body::unhealthy", &body.unhealthy),
            ]
        });
        for (key, body) in bodies {
            if body.len() > MAX_BODY_BYTES {
                check.error(key, format!("must have {MAX_BODY_BYTES} bytes at most"));
            }
        }
    }
}
