//! What takes batches out of the process: a folder each.

mod connect;
mod debug;
mod file;
mod nop;
mod otlp_grpc;
mod otlp_http;
mod peer;
mod writer;

pub(crate) use peer::RpcStatus;
pub use peer::Secret;

use crate::component::{ExporterFactory, Factory};

/// `debug`: to a terminal, as lines or as waterfalls of whole traces.
pub const DEBUG: ExporterFactory = Factory::exporter::<debug::DebugSettings>("debug");
/// `file`: OTLP/JSON, one request a line.
pub const FILE: ExporterFactory = Factory::exporter::<file::FileSettings>("file");
/// `nop`: nowhere.
pub const NOP: ExporterFactory = Factory::exporter::<nop::NopSettings>("nop");
/// `otlp_grpc`: OTLP over gRPC.
pub const OTLP_GRPC: ExporterFactory =
    Factory::exporter::<otlp_grpc::OtlpGrpcSettings>("otlp_grpc").formerly(&["otlp"]);
/// `otlp_http`: OTLP over HTTP with protobuf bodies.
pub const OTLP_HTTP: ExporterFactory =
    Factory::exporter::<otlp_http::OtlpHttpSettings>("otlp_http").formerly(&["otlphttp"]);

/// Every exporter of this crate.
pub const ALL: &[ExporterFactory] = &[DEBUG, FILE, NOP, OTLP_GRPC, OTLP_HTTP];
