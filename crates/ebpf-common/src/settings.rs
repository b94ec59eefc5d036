//! What user space tells the kernel side, and what the kernel side counts.

/// Most payload bytes of one message; what is longer is cut and marked. A header
/// block of 64 KiB that comes in one read still fits.
pub const MAX_PAYLOAD: u32 = 64 * 1024;
/// Most parts of one scattered buffer that are followed; bytes beyond are marked.
pub const MAX_IOVECS: u32 = 32;
/// Most messages of one recvmmsg or sendmmsg; those beyond are counted.
pub const MAX_MESSAGES: u32 = 16;
/// Entries of the table from system call number to [`crate::Call`]; no network
/// call has a higher number on x86-64 or arm64.
pub const SYSCALL_TABLE: usize = 512;

/// Bit of a table entry beside the [`crate::Call`]: in the 32-bit table, this number is a
/// call that may move a socket's bytes.
pub const COMPAT_CALL: u8 = 0x80;

/// Table entry of `futex`: no [`crate::Call`], for it makes no record.
pub const FUTEX_CALL: u8 = 0x40;

/// Table entry of the calls that wait for descriptors, likewise.
pub const POLL_CALL: u8 = 0x41;

/// Offsets of the kernel's struct fields in bytes, from the running kernel's BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "named struct_field after the kernel's own names"
)]
pub struct Offsets {
    pub task_files: u32,
    pub task_pid: u32,
    pub task_tgid: u32,
    /// `thread_info.status` on x86-64 (tells system calls of the 32-bit table); 0 = no such field.
    pub task_status: u32,
    pub files_fdt: u32,
    pub fdtable_fd: u32,
    pub fdtable_max_fds: u32,
    pub file_inode: u32,
    pub file_private_data: u32,
    pub inode_mode: u32,
    pub inode_ino: u32,
    pub socket_sk: u32,
    pub socket_file: u32,
    pub sock_family: u32,
    pub sock_state: u32,
    pub sock_daddr: u32,
    pub sock_rcv_saddr: u32,
    pub sock_dport: u32,
    pub sock_flags: u32,
    pub sock_v6_daddr: u32,
    pub sock_v6_rcv_saddr: u32,
    pub sock_net: u32,
    pub sock_protocol: u32,
    pub sock_type: u32,
    pub sock_socket: u32,
    pub inet_sport: u32,
    pub net_inum: u32,
    pub tcp_snd_una: u32,
    pub tcp_snd_nxt: u32,
    pub tcp_write_seq: u32,
    pub tcp_bytes_acked: u32,
    pub tcp_bytes_sent: u32,
    pub tcp_bytes_retrans: u32,
    pub tcp_rcv_nxt: u32,
    pub tcp_copied_seq: u32,
    pub tcp_bytes_received: u32,
    pub unix_peer: u32,
    /// System call number in the saved registers.
    pub regs_number: u32,
    /// Arguments in the saved registers.
    pub regs_args: [u32; 6],
    /// The register that holds Go's current goroutine (R14, X28).
    pub regs_goroutine: u32,
    /// Bytes from the first argument in the saved registers to the end of the last.
    pub regs: Extent,
    /// Bytes of `sock_common` that hold all of its fields above.
    pub sock_common: Extent,
    /// Bytes of `tcp_sock` that hold the fields of a connection's position.
    pub tcp: Extent,
}

/// A part of a struct that is copied in one go, because each copy costs as much as its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Extent {
    /// Where it begins in the struct; a multiple of 8.
    pub first: u32,
    /// Its length; a multiple of 8.
    pub bytes: u32,
}

impl Extent {
    /// Most bytes between the arguments in the saved registers (arm64: 280).
    pub const MAX_REGS: usize = 288;
    /// Most bytes of `sock_common` (x86-64: 136 in all).
    pub const MAX_SOCK_COMMON: usize = 160;
    /// Most bytes between the fields of a connection's position.
    pub const MAX_TCP: usize = 768;

    /// The smallest that holds at least 8 bytes from each of these offsets on, and 16 from the last.
    pub fn of(offsets: &[u32]) -> Self {
        let first = offsets.iter().min().map_or(0, |first| first & !7);
        let end = offsets.iter().max().map_or(0, |last| (last & !7) + 16);
        Self {
            first,
            bytes: end - first,
        }
    }
}

/// Switches of the whole capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Not 0: unix stream sockets are captured.
    pub unix_sockets: u32,
    /// Not 0: every `connect` on the host makes a [`crate::ProcessRecord`].
    pub report_connects: u32,
    /// Payload bytes of a message on a connection that user space has not judged.
    pub default_limit: u32,
    /// The reader is woken when this many bytes wait in the ring buffer.
    pub wakeup_bytes: u32,
    /// The collector's own process: never traced.
    pub own_tgid: u32,
    /// Always 0
    pub reserved: u32,
}

/// Value of the map of traced processes, keyed by tgid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    /// Always 1: presence is what counts.
    pub traced: u32,
    /// What its runtime is doing; all 0 if it is not Go's, or not known.
    pub go: GoLayout,
}

/// Offsets in structs of Go's runtime (`runtime2.go`), in bytes, that differ between its versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GoLayout {
    /// `m.curg`
    pub m_curg: u32,
    /// `m.p`; `m.nextp` and `m.oldp` follow.
    pub m_p: u32,
    /// `g.goid`
    pub g_goid: u32,
    /// `g.parentGoid`
    pub g_parent: u32,
    /// `p.runqhead`; `p.runqtail` and `p.runq` follow.
    pub p_runqhead: u32,
}

/// Key of the map of capture modes: a TCP connection as one of its ends sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ConnectionId {
    /// Address of the `struct sock`
    pub sock: u64,
    /// `snd_una - bytes_acked`: constant while the connection lives
    pub send_base: u32,
    /// `rcv_nxt - bytes_received`: constant while the connection lives
    pub receive_base: u32,
}

/// How much of a connection is captured. Written by user space (limits) and by
/// the kernel side (the role, once).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Capture {
    /// Not 0: user space wants nothing of this connection, not even headers.
    pub off: u32,
    /// A [`crate::Role`]
    pub role: u32,
    /// Most payload bytes of a message that is read
    pub read_limit: u32,
    /// Most payload bytes of a message that is written
    pub write_limit: u32,
    /// Messages read that end at or before this offset carry no payload
    pub read_skip_until: u64,
    /// Messages written that end at or before this offset carry no payload
    pub write_skip_until: u64,
}

/// Why the kernel side returned without a record, or with less than the message.
/// Index into the per-CPU array of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Records put into the ring buffer (not a loss).
    Submitted = 0,
    /// The ring buffer was full: a record was lost.
    RingFull = 1,
    /// The process is not selected (not a loss).
    NotSelected = 2,
    /// The descriptor is no socket (not a loss).
    NotASocket = 3,
    /// A socket of a family or type that is not captured (not a loss).
    OtherSocket = 4,
    /// The call returned an error or EAGAIN, or had no room for a byte: nothing moved (not a loss).
    CallFailed = 5,
    /// `MSG_PEEK`, `MSG_OOB`, `MSG_ERRQUEUE`: nothing of the stream moved (not a loss).
    Peeked = 6,
    /// User space switched the connection off (not a loss).
    SwitchedOff = 7,
    /// A kernel struct could not be read: a record was lost.
    KernelRead = 8,
    /// The call's arguments could not be read: a record was lost or has no payload.
    UserRead = 9,
    /// The counters of the connection changed while they were read, and kept changing.
    Unstable = 10,
    /// More messages than `MAX_MESSAGES` in one call: records were lost.
    TooManyMessages = 11,
    /// A call of the 32-bit table that may have moved a socket's bytes: it is not looked at.
    Compat = 12,
    /// The map of traced processes was full: a child is not traced.
    TargetsFull = 13,
    /// The per-CPU working space was missing: a record was lost.
    NoScratch = 14,
    /// The connection is not open yet (not a loss).
    NotConnected = 15,
    /// A program that this one continues in was not there: a record was lost.
    NoStage = 16,
    /// A change of state that `tcp_state` was not run for: `tcp_state_again` did its work (not a
    /// loss).
    Preempted = 17,
    /// Two threads share an entry of the map of wake-ups: what was known of one is gone (no record
    /// was lost).
    WakeDisplaced = 18,
}

impl Counter {
    /// Every counter, in the order of its number.
    pub const ALL: [Self; 19] = [
        Self::Submitted,
        Self::RingFull,
        Self::NotSelected,
        Self::NotASocket,
        Self::OtherSocket,
        Self::CallFailed,
        Self::Peeked,
        Self::SwitchedOff,
        Self::KernelRead,
        Self::UserRead,
        Self::Unstable,
        Self::TooManyMessages,
        Self::Compat,
        Self::TargetsFull,
        Self::NoScratch,
        Self::NotConnected,
        Self::NoStage,
        Self::Preempted,
        Self::WakeDisplaced,
    ];

    /// Metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::RingFull => "ring_full",
            Self::NotSelected => "not_selected",
            Self::NotASocket => "not_a_socket",
            Self::OtherSocket => "other_socket",
            Self::CallFailed => "call_failed",
            Self::Peeked => "peeked",
            Self::SwitchedOff => "switched_off",
            Self::KernelRead => "kernel_read",
            Self::UserRead => "user_read",
            Self::Unstable => "unstable",
            Self::TooManyMessages => "too_many_messages",
            Self::Compat => "compat",
            Self::TargetsFull => "targets_full",
            Self::NoScratch => "no_scratch",
            Self::NotConnected => "not_connected",
            Self::NoStage => "no_stage",
            Self::Preempted => "preempted",
            Self::WakeDisplaced => "wake_displaced",
        }
    }

    /// A record, or a part of one, was lost.
    pub fn is_loss(self) -> bool {
        matches!(
            self,
            Self::RingFull
                | Self::KernelRead
                | Self::UserRead
                | Self::Unstable
                | Self::TooManyMessages
                | Self::Compat
                | Self::TargetsFull
                | Self::NoScratch
                | Self::NoStage
        )
    }
}

#[cfg(feature = "user")]
mod user {
    //! SAFETY of all: `repr(C)`, `Copy`, no padding, every bit pattern is valid.

    macro_rules! pod {
        ($($name:ident),*) => {
            $(
                // SAFETY: see the module's first line.
                unsafe impl aya::Pod for super::$name {}
            )*
        };
    }
    pod!(Offsets, Settings, Target, ConnectionId, Capture);
}
