//! The processors, each built from YAML as a binary does and fed with spans.

mod memory_limiter;
