#![no_std]
//! Records and map keys shared by kernel and user side.
//!
//! Every struct is `repr(C)` without hidden padding, so that both sides agree
//! on its bytes whatever compiled them.

mod record;
mod settings;

pub use record::{
    Call, Family, Flags, Goroutine, ProcessEvent, ProcessRecord, RecordKind, Role, SocketRecord,
};
pub use settings::{
    COMPAT_CALL, Capture, ConnectionId, Counter, Extent, FUTEX_CALL, GoLayout, MAX_IOVECS,
    MAX_MESSAGES, MAX_PAYLOAD, Offsets, POLL_CALL, SYSCALL_TABLE, Settings, Target,
};

/// Bytes of a record that follow its header.
pub const fn payload_offset() -> usize {
    size_of::<SocketRecord>()
}
