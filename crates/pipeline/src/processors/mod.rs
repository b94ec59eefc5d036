//! What stands between receivers and exporters: a folder each, and what they share.

mod memory_limiter;

use crate::component::{Factory, ProcessorFactory};

/// `memory_limiter`: shuts receivers out while memory is short.
pub const MEMORY_LIMITER: ProcessorFactory =
    Factory::processor::<memory_limiter::MemoryLimiterSettings>("memory_limiter");

/// Every processor of this crate.
pub const ALL: &[ProcessorFactory] = &[MEMORY_LIMITER];
