//! The agent: watches network system calls with eBPF and turns them into spans.

pub mod clock;
pub mod discovery;
pub mod doctor;
pub mod protocols;
