//! From system calls to events: loads the BPF programs, reads their ring buffer.
//!
//! The only room that uses aya. Leaves to others: what the bytes mean.

mod btf;
mod decode;
mod floor;
pub mod go;
mod loader;
mod offsets;

pub use decode::{Direction, Event, Protocol, SocketEvent, Undecodable, Woken, decode};
pub use ebpf_common::{
    Call, Capture as CaptureMode, ConnectionId, Counter, Flags, GoLayout, Goroutine, ProcessEvent,
    Role,
};
pub use floor::{Floor, Hook};
pub use loader::{Capture, CaptureError, Losses, Options};
