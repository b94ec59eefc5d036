//! Settings of the `otlp` receiver, named as in the Collector.

use super::cors::CorsSettings;
use crate::component::{Check, Settings};
use crate::config::duration;
use crate::tls::ServerTlsSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// Largest request, in MiB, as the OTLP specification recommends.
const MAX_REQUEST_MIB: usize = 64;
/// No setting allows more: sizes of gRPC messages have 32 bits.
const LARGEST_REQUEST_MIB: usize = 1024;

/// `receivers::otlp`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OtlpReceiverSettings {
    /// What is listened for; one at least.
    pub protocols: Protocols,
}

/// `protocols`: a key without a value takes the defaults, one that is not there is off.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Protocols {
    /// OTLP over gRPC.
    #[serde(deserialize_with = "present")]
    pub grpc: Option<GrpcSettings>,
    /// OTLP over HTTP/1.1 and HTTP/2, protobuf and JSON.
    #[serde(deserialize_with = "present")]
    pub http: Option<HttpSettings>,
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::<T>::deserialize(deserializer).map(|section| Some(section.unwrap_or_default()))
}

/// `protocols::grpc`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GrpcSettings {
    /// Off with its settings in place.
    pub enabled: bool,
    /// `host:port` to listen on.
    pub endpoint: String,
    /// Largest message in MiB, also after decompression.
    pub max_recv_msg_size_mib: usize,
    /// Requests under way at the same time on one connection.
    pub max_concurrent_streams: u32,
    /// Connections at the same time; what comes beyond is hung up on.
    pub max_connections: usize,
    /// Time that a request may take to arrive.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub read_timeout: Duration,
    /// When idle or dead connections end.
    pub keepalive: Keepalive,
    /// Off if it is not there.
    pub tls: Option<ServerTlsSettings>,
}

/// `protocols::grpc::keepalive`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Keepalive {
    /// What the server does by itself.
    pub server_parameters: ServerParameters,
}

/// `protocols::grpc::keepalive::server_parameters`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerParameters {
    /// A connection without a request for so long ends; 0 = never.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub max_connection_idle: Duration,
    /// A silent client is asked for a sign of life after this time.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub time: Duration,
    /// A client that gives no sign of life in this time is hung up on.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub timeout: Duration,
}

/// `protocols::http`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HttpSettings {
    /// Off with its settings in place.
    pub enabled: bool,
    /// `host:port` to listen on.
    pub endpoint: String,
    /// Path that takes spans.
    pub traces_url_path: String,
    /// Largest body in bytes, also after decompression.
    pub max_request_body_size: usize,
    /// Connections at the same time; what comes beyond is hung up on.
    pub max_connections: usize,
    /// Time that a request's header may take to arrive.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub read_header_timeout: Duration,
    /// Time that a request's body may take to arrive.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub read_timeout: Duration,
    /// A connection without a request for so long ends.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub idle_timeout: Duration,
    /// Pages of which origins may send spans from a browser.
    pub cors: CorsSettings,
    /// Off if it is not there.
    pub tls: Option<ServerTlsSettings>,
}

const MAX_CONNECTIONS: usize = 1024;
const MINUTE: Duration = Duration::from_mins(1);

impl Default for GrpcSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            endpoint: "localhost:4317".to_owned(),
            max_recv_msg_size_mib: MAX_REQUEST_MIB,
            max_concurrent_streams: 100,
            max_connections: MAX_CONNECTIONS,
            read_timeout: MINUTE,
            keepalive: Keepalive::default(),
            tls: None,
        }
    }
}

impl Default for ServerParameters {
    fn default() -> Self {
        Self {
            max_connection_idle: Duration::ZERO,
            time: Duration::from_mins(2),
            timeout: Duration::from_secs(20),
        }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            endpoint: "localhost:4318".to_owned(),
            traces_url_path: "/v1/traces".to_owned(),
            max_request_body_size: MAX_REQUEST_MIB << 20,
            max_connections: MAX_CONNECTIONS,
            read_header_timeout: MINUTE,
            read_timeout: MINUTE,
            idle_timeout: MINUTE,
            cors: CorsSettings::default(),
            tls: None,
        }
    }
}

impl Protocols {
    /// The gRPC section, if it is on.
    pub fn grpc(&self) -> Option<&GrpcSettings> {
        self.grpc.as_ref().filter(|grpc| grpc.enabled)
    }

    /// The HTTP section, if it is on.
    pub fn http(&self) -> Option<&HttpSettings> {
        self.http.as_ref().filter(|http| http.enabled)
    }
}

impl Settings for OtlpReceiverSettings {
    fn check(&self, check: &mut Check<'_>) {
        if self.protocols.grpc().is_none() && self.protocols.http().is_none() {
            let message = "must name grpc or http (a key without a value takes the defaults)";
            check.error("protocols", message);
        }
        if let Some(grpc) = &self.protocols.grpc {
            grpc.check(&mut check.below("protocols::grpc"));
        }
        if let Some(http) = &self.protocols.http {
            http.check(&mut check.below("protocols::http"));
        }
    }
}

impl GrpcSettings {
    fn check(&self, check: &mut Check<'_>) {
        check_endpoint(&self.endpoint, check);
        if !(1..=LARGEST_REQUEST_MIB).contains(&self.max_recv_msg_size_mib) {
            check.error("max_recv_msg_size_mib", "must be from 1 to 1024");
        }
        if self.max_concurrent_streams == 0 {
            check.error("max_concurrent_streams", "must be above 0");
        }
        if self.max_connections == 0 {
            check.error("max_connections", "must be above 0");
        }
        let parameters = &self.keepalive.server_parameters;
        for (key, value) in [
            ("read_timeout", self.read_timeout),
            ("keepalive::server_parameters::time", parameters.time),
            ("keepalive::server_parameters::timeout", parameters.timeout),
        ] {
            check_positive(key, value, check);
        }
        if let Some(tls) = &self.tls {
            tls.check(&mut check.below("tls"));
        }
    }
}

impl HttpSettings {
    fn check(&self, check: &mut Check<'_>) {
        check_endpoint(&self.endpoint, check);
        if !self.traces_url_path.starts_with('/') {
            check.error("traces_url_path", "must begin with /");
        }
        if !(1..=LARGEST_REQUEST_MIB << 20).contains(&self.max_request_body_size) {
            check.error("max_request_body_size", "must be from 1 to 1073741824");
        }
        if self.max_connections == 0 {
            check.error("max_connections", "must be above 0");
        }
        for (key, value) in [
            ("read_header_timeout", self.read_header_timeout),
            ("read_timeout", self.read_timeout),
            ("idle_timeout", self.idle_timeout),
        ] {
            check_positive(key, value, check);
        }
        self.cors.check(&mut check.below("cors"));
        if let Some(tls) = &self.tls {
            tls.check(&mut check.below("tls"));
        }
    }
}

fn check_positive(key: &str, value: Duration, check: &mut Check<'_>) {
    if value.is_zero() {
        check.error(key, "must be above 0");
    }
}

fn check_endpoint(endpoint: &str, check: &mut Check<'_>) {
    if let Err(message) = crate::serve::host_and_port(endpoint) {
        check.error("endpoint", message);
    }
}
