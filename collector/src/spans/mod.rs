//! From messages to spans: joins requests with responses, names the spans by the
//! semantic conventions, and notes what the linker needs to know. Pure.
//!
//! Leaves to others: parents and trace ids (`span-linker`).

mod build;
mod counts;
mod exchange;
mod goroutines;
#[cfg(test)]
mod tests;
mod threads;
mod tracker;

pub use counts::{Counts, Unpaired};
pub use tracker::{Output, Process, Surroundings, Tracker, TrackerLimits};
