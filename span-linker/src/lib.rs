//! The linking engine: finds parents and joins spans into traces.
//!
//! ```text
//! OTLP spans + openings --> window --> evidence --> decode --> assemble --> OTLP spans
//!                           what is    who could    which      which
//!                           known      be parent    parent     trace
//! ```
//! Owns everything between "this span was seen" and "this is its parent". It
//! knows no protocol, no socket and no clock: times come in as arguments.
//!
//! # What it promises
//! - A parent is never guessed: below the confidence floor a span stays a root
//!   and says why (`deeptrace.link.reason`).
//! - All spans of a trace leave with the same trace id, also when the root is
//!   still open; if a caller turns up too late for that, its span carries a
//!   link to the callee.
//! - Within the decision delay the order of arrival does not matter.

pub mod app;
pub mod assemble;
mod clock;
mod component;
pub mod config;
pub mod decode;
pub mod evaluate;
pub mod evidence;
mod hash;
mod hops;
mod learned;
mod openings;
mod otlp;
pub mod processor;
mod queue;
mod sequence;
mod sets;
mod stats;
pub mod window;

pub use component::{FACTORY, PROCESSORS};
pub use config::Config;
pub use openings::{FACTORY as OPENINGS, OpeningsSettings};
pub use processor::SpanLinker;
pub use stats::Stats;
