//! What brings batches into the process: a folder each.

mod otlp;

use crate::component::{Factory, ReceiverFactory};

/// `otlp`: OTLP over gRPC and HTTP.
pub const OTLP: ReceiverFactory = Factory::receiver::<otlp::OtlpReceiverSettings>("otlp");

/// Every receiver of this crate.
pub const ALL: &[ReceiverFactory] = &[OTLP];
