//! What both binaries are made of: configuration, components, queues, OTLP.
//!
//! A binary names its component types in [`component::Factories`], loads a
//! [`config::Config`], builds a [`service::Service`] and runs it.

mod batch;
pub mod cli;
pub mod clock;
pub mod component;
pub mod config;
pub mod exporters;
pub mod extensions;
mod gate;
mod graph;
pub mod otlp;
pub mod otlp_json;
pub mod processors;
mod queue;
mod receipt;
pub mod receiver;
pub mod receivers;
mod serve;
pub mod service;
pub mod telemetry;
mod tls;
mod wire;

pub use batch::Batch;
pub use component::{
    BoxError, Check, Context, Exporter, ExporterSettings, ExtensionSettings, Factories, Factory,
    Processor, ProcessorSettings, Receiver, ReceiverSettings, Settings,
};
pub use config::{Config, ConfigError, Sources};
pub use extensions::{Extension, Extensions};
pub use gate::Gate;
pub use opentelemetry_proto::tonic as proto;
pub use receipt::{NotTaken, Outcome, Receipt};
pub use receiver::{BatchSender, Input, Running, Undelivered};
pub use service::{Service, ServiceError, Summary};
pub use wire::{Malformed, count_spans};
