//! Bytes in order: one [`Connection`] holds both directions of a socket, puts
//! messages of system calls in order by their stream offset, makes gaps
//! explicit, finds the protocol and runs its parser. Pure.
//!
//! Leaves to others: joining requests with responses ([`Sink`], in `spans`).

mod connection;
mod half;

pub use connection::{Connection, Ignored, Limits, Sink, StreamCounts, Wanted};
pub use half::{Mark, Piece};
