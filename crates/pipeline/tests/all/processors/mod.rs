//! The processors, each built from YAML as a binary does and fed with spans.

mod attributes;
mod batch;
mod bench;
mod filter;
mod memory_limiter;
mod probabilistic_sampler;
mod redaction;
mod tail_sampling;
