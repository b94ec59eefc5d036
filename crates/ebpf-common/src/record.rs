//! What the kernel side puts into the ring buffer.

/// First byte of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A [`SocketRecord`], followed by `captured_len` bytes of payload.
    Socket = 1,
    /// A [`ProcessRecord`].
    Process = 2,
}

/// The system call, or the socket event, that made a [`SocketRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "named like the system calls")]
pub enum Call {
    Read = 1,
    Readv = 2,
    Recvfrom = 3,
    Recvmsg = 4,
    Recvmmsg = 5,
    Write = 6,
    Writev = 7,
    Sendto = 8,
    Sendmsg = 9,
    Sendmmsg = 10,
    /// File to socket: the stream moves on, the bytes are not seen.
    Sendfile = 11,
    /// Pipe to socket or socket to pipe: the stream moves on, the bytes are not seen.
    Splice = 12,
    Connect = 13,
    Accept = 14,
    Accept4 = 15,
    /// The local end will send no more (TCP state FIN_WAIT1 or LAST_ACK: close or shutdown).
    LocalClose = 16,
    /// The connection is gone (TCP state CLOSE).
    Closed = 17,
}

impl Call {
    /// Every call, in the order of its number.
    pub const ALL: [Self; 17] = [
        Self::Read,
        Self::Readv,
        Self::Recvfrom,
        Self::Recvmsg,
        Self::Recvmmsg,
        Self::Write,
        Self::Writev,
        Self::Sendto,
        Self::Sendmsg,
        Self::Sendmmsg,
        Self::Sendfile,
        Self::Splice,
        Self::Connect,
        Self::Accept,
        Self::Accept4,
        Self::LocalClose,
        Self::Closed,
    ];

    /// The call with this number in [`crate::SYSCALL_TABLE`] or a record.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// `sk_family` of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// `AF_UNIX`
    Unix = 1,
    /// `AF_INET`
    Inet = 2,
    /// `AF_INET6`, also with v4-mapped addresses
    Inet6 = 10,
}

/// Which end of the connection the socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Not known yet: `local_isn` may be one too high.
    Unknown = 0,
    /// This end called `connect`.
    Connector = 1,
    /// This end accepted.
    Acceptor = 2,
}

/// Bits of [`SocketRecord::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags;

impl Flags {
    /// The bytes flow out of the process; else into it.
    pub const WRITE: u16 = 1;
    /// Fewer bytes are here than the message has: over the limit.
    pub const TRUNCATED: u16 = 1 << 1;
    /// Fewer bytes are here than the message has: a page of the buffer could not be read.
    pub const FAULT: u16 = 1 << 2;
    /// No bytes are here because user space asked to skip this part of the stream.
    pub const SKIPPED: u16 = 1 << 3;
    /// The call moved the stream without showing bytes (sendfile, splice, MSG_TRUNC on TCP).
    pub const UNSEEN: u16 = 1 << 4;
    /// A read returned 0 on a stream: the peer sends no more.
    pub const END: u16 = 1 << 5;
    /// A datagram was longer than the reader's buffer, as far as the call tells: recvmsg and
    /// recvmmsg do, recvfrom with MSG_TRUNC too; read, readv and a plain recvfrom do not.
    pub const DATAGRAM_CUT: u16 = 1 << 6;
    /// `offset`, `other_offset` and the sequence numbers are not to be trusted: the counters
    /// changed while they were read.
    pub const UNSTABLE: u16 = 1 << 7;
    /// `waker_tid` had woken others of its process before, since its own last message.
    pub const WOKEN_LATER: u16 = 1 << 8;
}

/// One message, or one event, of one socket. The payload follows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SocketRecord {
    /// [`RecordKind::Socket`]
    pub kind: u8,
    /// A [`Call`]
    pub call: u8,
    /// A [`Family`]
    pub family: u8,
    /// `IPPROTO_TCP`, `IPPROTO_UDP`, or 0 for unix sockets
    pub protocol: u8,
    /// Bits of [`Flags`]
    pub flags: u16,
    /// A [`Role`]
    pub role: u8,
    /// Always 0
    pub reserved: u8,
    /// When the call returned, `CLOCK_MONOTONIC` ns
    pub exit_ns: u64,
    /// Process id in the initial pid namespace
    pub tgid: u32,
    /// Thread id in the initial pid namespace
    pub tid: u32,
    /// Thread name, padded with zeros
    pub comm: [u8; 16],
    /// Address of the kernel's `struct sock`: tells sockets apart while they live
    pub sock: u64,
    /// Offset of the message's first byte in its direction; 0 = first byte after the SYN (TCP),
    /// first byte seen (unix), always (UDP). Too high, with a gap before and an overlap behind,
    /// where threads that share a socket without a lock move the stream before the call returns.
    pub offset: u64,
    /// Where the other direction stood when the call returned
    pub other_offset: u64,
    /// Initial sequence number of this end (TCP); inode (unix)
    pub local_isn: u32,
    /// Initial sequence number of the other end (TCP), 0 before it is known; inode (unix), 0
    /// before it accepts and after it closes
    pub remote_isn: u32,
    /// Inode of the network namespace
    pub netns: u32,
    /// File descriptor that the call used; -1 for socket events
    pub fd: i32,
    /// Bytes that the call moved
    pub total_len: u32,
    /// Bytes that follow this header
    pub captured_len: u32,
    /// Port of this end, host order
    pub local_port: u16,
    /// Port of the other end, host order
    pub remote_port: u16,
    /// Value the call returned, for connect and accept
    pub result: i32,
    /// Address of this end, as the kernel has it (network order); IPv4 in the first word
    pub local_addr: [u32; 4],
    /// Address of the other end, likewise
    pub remote_addr: [u32; 4],
    /// Thread of the same process that ended this one's last wait (futex) since its last message;
    /// 0 = it waited for nobody, or who ended it is not sure
    pub waker_tid: u32,
    /// How often the thread had waited for descriptors (epoll_wait, poll, select) before, modulo 2^32;
    /// 0 = never, or not known
    pub polls: u32,
    /// When that thread did, `CLOCK_MONOTONIC` ns
    pub woken_ns: u64,
    /// The goroutine that made the call; all 0 if it is not known, or not Go
    pub goroutine: Goroutine,
}

/// What Go's scheduler knows of a goroutine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Goroutine {
    /// Its number: never used again in its process
    pub number: u64,
    /// Number of the one that started it; 0 = the runtime
    pub parent: u64,
    /// Its time slice: goroutines that share one were each woken by the one before. Unique in a process;
    /// 0 = not known
    pub time_slice: u64,
    /// Number of the one that was last taken from the queue of the scheduler's processor, in which it
    /// stood at `queue_head - 1`: it began the time slice, unless that began otherwise; 0 = not known
    pub dequeued: u64,
    /// Number of the one that started that one
    pub dequeued_parent: u64,
    /// How many have been taken from that queue
    pub queue_head: u32,
    /// Always 0
    pub reserved: u32,
}

impl Goroutine {
    /// Not known, or not Go.
    pub const NONE: Self = Self {
        number: 0,
        parent: 0,
        time_slice: 0,
        dequeued: 0,
        dequeued_parent: 0,
        queue_head: 0,
        reserved: 0,
    };
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProcessEvent {
    /// A traced process made a child; `other` is the child.
    Fork = 1,
    /// Any process became another program.
    Exec = 2,
    /// The first thread of a traced process ended.
    Exit = 3,
    /// Any process listens; `other` is the port.
    Listen = 4,
    /// Any process connects, if [`crate::Settings::report_connects`]; `other` is the peer's port.
    Connect = 5,
}

impl ProcessEvent {
    /// The event with this number in a record.
    pub fn from_number(number: u8) -> Option<Self> {
        [
            Self::Fork,
            Self::Exec,
            Self::Exit,
            Self::Listen,
            Self::Connect,
        ]
        .get(usize::from(number).checked_sub(1)?)
        .copied()
    }
}

/// One event of one process.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ProcessRecord {
    /// [`RecordKind::Process`]
    pub kind: u8,
    /// A [`ProcessEvent`]
    pub event: u8,
    /// Always 0
    pub reserved: u16,
    /// Process id in the initial pid namespace
    pub tgid: u32,
    /// Child's process id, or port
    pub other: u32,
    /// Always 0
    pub reserved2: u32,
    /// `CLOCK_MONOTONIC` ns
    pub time_ns: u64,
}

const _: () = assert!(size_of::<SocketRecord>() == 192);
const _: () = assert!(size_of::<ProcessRecord>() == 24);

macro_rules! from_bytes {
    ($record:ident) => {
        impl $record {
            /// Copies the record from the front of `bytes`; None if they are too few.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let bytes = bytes.get(..size_of::<Self>())?;
                // SAFETY: `repr(C)` of integers without padding: every bit pattern is
                // valid, and the slice holds exactly as many bytes.
                Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
            }
        }
    };
}
from_bytes!(SocketRecord);
from_bytes!(ProcessRecord);
