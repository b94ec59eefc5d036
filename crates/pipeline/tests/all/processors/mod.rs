//! The processors, each built from YAML as a binary does and fed with spans.

mod attributes;
mod bench;
mod filter;
mod memory_limiter;
mod redaction;
