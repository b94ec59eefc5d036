//! The agent: watches network system calls with eBPF and turns them into spans.

pub mod app;
pub mod capture;
pub mod clock;
pub mod discovery;
pub mod doctor;
mod metrics;
pub mod protocols;
pub mod receiver;
pub mod spans;
pub mod streams;
