//! What stands between receivers and exporters: a folder each, and what they share.

mod action;
mod attribute;
mod attributes;
mod condition;
mod filter;
mod matching;
mod memory_limiter;
mod pattern;
mod redaction;
mod resource;
mod walk;

use crate::component::{Factory, ProcessorFactory};

/// `memory_limiter`: shuts receivers out while memory is short.
pub const MEMORY_LIMITER: ProcessorFactory =
    Factory::processor::<memory_limiter::MemoryLimiterSettings>("memory_limiter");

/// `attributes`: changes attributes of spans.
pub const ATTRIBUTES: ProcessorFactory =
    Factory::processor::<attributes::AttributesSettings>("attributes");
/// `redaction`: removes and masks attributes.
pub const REDACTION: ProcessorFactory =
    Factory::processor::<redaction::RedactionSettings>("redaction");
/// `resource`: changes attributes of resources.
pub const RESOURCE: ProcessorFactory = Factory::processor::<resource::ResourceSettings>("resource");
/// `filter`: drops what a condition names.
pub const FILTER: ProcessorFactory = Factory::processor::<filter::FilterSettings>("filter");

/// Every processor of this crate.
pub const ALL: &[ProcessorFactory] = &[ATTRIBUTES, FILTER, MEMORY_LIMITER, REDACTION, RESOURCE];
