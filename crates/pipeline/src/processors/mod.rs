//! What stands between receivers and exporters: a folder each, and what they share.

mod action;
mod attribute;
mod attributes;
mod batch;
mod condition;
mod filter;
mod matching;
mod memory_limiter;
mod pattern;
mod probabilistic_sampler;
mod redaction;
mod resource;
mod tail_sampling;
mod walk;

use crate::component::{Factory, ProcessorFactory};

/// `memory_limiter`: shuts receivers out while memory is short.
pub const MEMORY_LIMITER: ProcessorFactory =
    Factory::processor::<memory_limiter::MemoryLimiterSettings>("memory_limiter");

/// `attributes`: changes attributes of spans.
pub const ATTRIBUTES: ProcessorFactory =
    Factory::processor::<attributes::AttributesSettings>("attributes");
/// `batch`: joins and splits batches.
pub const BATCH: ProcessorFactory = Factory::processor::<batch::BatchSettings>("batch");
/// `probabilistic_sampler`: keeps a share of the traces.
pub const PROBABILISTIC_SAMPLER: ProcessorFactory = Factory::processor::<
    probabilistic_sampler::ProbabilisticSamplerSettings,
>("probabilistic_sampler");
/// `redaction`: removes and masks attributes.
pub const REDACTION: ProcessorFactory =
    Factory::processor::<redaction::RedactionSettings>("redaction");
/// `resource`: changes attributes of resources.
pub const RESOURCE: ProcessorFactory = Factory::processor::<resource::ResourceSettings>("resource");
/// `filter`: drops what a condition names.
pub const FILTER: ProcessorFactory = Factory::processor::<filter::FilterSettings>("filter");
/// `tail_sampling`: keeps whole traces by what they are.
pub const TAIL_SAMPLING: ProcessorFactory =
    Factory::processor::<tail_sampling::TailSamplingSettings>("tail_sampling");

/// Every processor of this crate.
pub const ALL: &[ProcessorFactory] = &[
    ATTRIBUTES,
    BATCH,
    FILTER,
    MEMORY_LIMITER,
    PROBABILISTIC_SAMPLER,
    REDACTION,
    RESOURCE,
    TAIL_SAMPLING,
];
