//! The agent: watches network system calls with eBPF and turns them into spans.

pub mod capture;
pub mod clock;
pub mod discovery;
pub mod protocols;
pub mod spans;
pub mod streams;
