//! Needs root: real kernel, real servers, real backends.
//!
//! The library holds what the tests, the benchmarks and `xtask demo` share: processes that leave
//! nothing behind, the demo application, and workloads that know exactly which calls they made.

pub mod backends;
pub mod collector;
pub mod compile;
pub mod demo;
pub mod exported;
pub mod live;
pub mod network;
pub mod nginx;
pub mod programs;
pub mod sandbox;
pub mod traces;
pub mod truth;
pub mod workload;
