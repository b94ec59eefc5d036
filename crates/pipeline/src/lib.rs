//! What both binaries are made of: configuration, components, queues, OTLP.

mod batch;
pub mod otlp;

pub use batch::Batch;
pub use opentelemetry_proto::tonic as proto;
