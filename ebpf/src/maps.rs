//! Every map and global, and who writes and who reads it.

use crate::iov::Buffer;
use crate::sock::SockCopy;
use crate::task::Arguments;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use ebpf_common::{
    Capture, ConnectionId, Counter, Goroutine, MAX_PAYLOAD, Offsets, SYSCALL_TABLE, Settings,
    SocketRecord, Target,
};

/// Records. Kernel writes, user space reads. The loader sets the size.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

/// Traced processes by tgid. User space writes; the kernel adds children at fork.
#[map]
pub static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(16_384, 0);

/// Capture mode of a connection. The kernel adds an entry with the defaults and
/// the role, user space changes the limits, the kernel removes it at CLOSE.
#[map]
pub static CONNECTIONS: LruHashMap<ConnectionId, Capture> = LruHashMap::with_max_entries(65_536, 0);

/// Which sequence numbers the counters of a known connection begin at, sent and received, by the
/// address of its `sock`: tells a torn copy of the counters from a new connection. Kernel only.
#[map]
pub static BASES: LruHashMap<u64, [u32; 2]> = LruHashMap::with_max_entries(65_536, 0);

/// Stream positions (read, written) of unix sockets, which the kernel does not
/// count, by address and inode: addresses are used again. Kernel only.
#[map]
pub static UNIX_POSITIONS: LruHashMap<[u64; 2], [u64; 2]> = LruHashMap::with_max_entries(16_384, 0);

/// [`Counter`]s. Kernel writes, user space reads.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// The waits of each thread, at its id modulo the number of entries. An array, so that
/// `waking`, which runs under a lock of the scheduler, takes no other lock. Kernel only.
#[map]
pub static WAKES: Array<Wakes> = Array::with_max_entries(WAKE_ENTRIES, 0);

/// Entries of [`WAKES`]; a power of two.
const WAKE_ENTRIES: u32 = 1 << 16;

/// Where a record is put together: one entry a CPU (a per-CPU array allows
/// 32 KiB an entry). Kernel only. The loader sets the number of entries.
#[map]
pub static SCRATCH: Array<Scratch> = Array::with_max_entries(1, 0);

/// Where `tcp_state` (entries 0 and 1) and `tcp_state_again` (2 and 3) put their records
/// together. Not in [`SCRATCH`]: they run in interrupts too, in the middle of another
/// program and from Linux 7.0 on of themselves, hence two entries each. Kernel only.
#[map]
pub static STATE_SCRATCH: PerCpuArray<StateScratch> = PerCpuArray::with_max_entries(4, 0);

/// The programs that `sys_exit` continues in, by [`Stage`]. User space writes.
#[map]
pub static STAGES: ProgramArray = ProgramArray::with_max_entries(4, 0);

/// Index into [`STAGES`].
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Stage {
    Message = 0,
    Lengths = 1,
    Messages = 2,
    NextMessage = 3,
}

/// A call under work and its record under construction.
///
/// What one stage finds out it leaves here and not on its stack: the verifier
/// does not follow values through maps, so it checks each stage once and not
/// once for every way that leads to it.
#[repr(C)]
pub struct Scratch {
    pub arguments: Arguments,
    pub sock: SockCopy,
    pub work: Work,
    pub record: SocketRecord,
    /// Twice the limit, so that the verifier sees that any start below
    /// `MAX_PAYLOAD` plus any length up to `MAX_PAYLOAD` stays inside.
    pub payload: [u8; 2 * MAX_PAYLOAD as usize],
}

/// The same for `tcp_state`.
#[repr(C)]
pub struct StateScratch {
    /// Not 0: in use.
    pub busy: u64,
    /// In entries 0 and 1: what `tcp_state` was run for, until `tcp_state_again` sees it.
    pub seen: u64,
    pub sock: SockCopy,
    pub record: SocketRecord,
}

/// What is known of the call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Work {
    /// Where the bytes lie; for the mmsg calls the array of `mmsghdr`.
    pub buffer: Buffer,
    /// Address of the peer's `sockaddr`, or 0.
    pub peer: u64,
    /// Bytes that moved; messages for the mmsg calls.
    pub moved: u64,
    /// Bytes that moved, for the mmsg calls.
    pub total: u64,
    /// Payload bytes wanted.
    pub limit: u32,
    pub tgid: u32,
    pub tid: u32,
    pub fd: i32,
    pub goroutine: Goroutine,
    /// A [`ebpf_common::Call`]
    pub call: u32,
    /// Not 0: the bytes flow out of the process.
    pub writing: u32,
    /// Not 0: `MSG_TRUNC` was given; TCP throws the bytes away instead of copying them.
    pub discarded: u32,
    /// Not 0: the datagram was longer than the buffer.
    pub cut: u32,
    /// A [`crate::sock::Transport`]
    pub transport: u32,
    reserved: u32,
    /// Messages that end at or before this offset carry no payload.
    pub skip_until: u64,
    pub messages: Messages,
}

/// The messages of one recvmmsg or sendmmsg that are still to do.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Messages {
    /// Address of the next `mmsghdr`
    pub array: u64,
    pub left: u32,
    /// What every message of the call starts with.
    pub limit: u32,
    pub flags: u16,
    pub remote_port: u16,
    pub reserved: u32,
    pub remote_addr: [u32; 4],
}

/// How one thread waited and was woken, and whom it woke.
#[repr(C)]
pub struct Wakes {
    /// The last wake-up of the thread, whatever it waits for.
    pub begun: Wake,
    /// The one that ended its last wait for another thread, until its next message.
    pub confirmed: Wake,
    /// Threads of its process that it woke since its last message.
    pub made: u64,
    /// How often it waited for descriptors.
    pub polls: Polls,
}

/// A thread and how often it waited for descriptors.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Polls {
    thread: u32,
    count: u32,
}

impl Polls {
    /// How often this thread did, modulo 2^32; 0: never, or another one has the entry.
    #[inline(always)]
    pub fn of(self, thread: u32) -> u32 {
        if self.thread == thread { self.count } else { 0 }
    }

    /// The same, once more.
    #[inline(always)]
    pub fn add(&mut self, thread: u32) {
        self.count = self.of(thread).wrapping_add(1);
        self.thread = thread;
    }
}

/// Who woke whom. In one word, so that it is never made of two wake-ups at once.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Wake {
    /// Thread in the upper half, waker in the lower with [`Wake::LATER`]; 0: none
    pair: u64,
    pub time_ns: u64,
}

impl Wake {
    /// The waker had woken others since its last message; above all thread ids (2^22).
    pub const LATER: u32 = 1 << 31;

    pub const NONE: Self = Self {
        pair: 0,
        time_ns: 0,
    };

    #[inline(always)]
    pub fn new(thread: u32, waker: u32, time_ns: u64) -> Self {
        Self {
            pair: u64::from(thread) << 32 | u64::from(waker),
            time_ns,
        }
    }

    /// It is this thread's, and not one's that shares the entry.
    #[inline(always)]
    pub fn is_of(self, thread: u32) -> bool {
        (self.pair >> 32) as u32 == thread
    }

    #[inline(always)]
    pub fn is_of_another(self, thread: u32) -> bool {
        self.pair != 0 && !self.is_of(thread)
    }

    /// With [`Wake::LATER`]; 0: not known.
    #[inline(always)]
    pub fn waker(self) -> u32 {
        self.pair as u32
    }
}

/// The entry of this thread, which another one may share.
#[inline(always)]
pub fn wakes_of(tid: u32) -> Option<&'static mut Wakes> {
    // SAFETY: a live map entry; who writes it meanwhile is told from the pair.
    WAKES
        .get_ptr_mut(tid & (WAKE_ENTRIES - 1))
        .map(|wakes| unsafe { &mut *wakes })
}

#[unsafe(no_mangle)]
static OFFSETS: Offsets = zeroed_offsets();
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    unix_sockets: 0,
    report_connects: 0,
    default_limit: 0,
    wakeup_bytes: 0,
    own_tgid: 0,
    reserved: 0,
};
#[unsafe(no_mangle)]
static SYSCALLS: [u8; SYSCALL_TABLE] = [0; SYSCALL_TABLE];

/// The running kernel's struct offsets; set by the loader.
#[inline(always)]
pub fn offsets() -> &'static Offsets {
    // SAFETY: a read-only global that the loader fills before the program is
    // verified; black_box keeps the compiler from taking the zeros below for it.
    unsafe { &*core::hint::black_box(&raw const OFFSETS) }
}

/// Switches of the whole capture; set by the loader.
#[inline(always)]
pub fn settings() -> &'static Settings {
    // SAFETY: as for `offsets`.
    unsafe { &*core::hint::black_box(&raw const SETTINGS) }
}

/// The [`ebpf_common::Call`] of a system call number, with [`ebpf_common::COMPAT_CALL`];
/// 0 = not ours.
#[inline(always)]
pub fn call_of(number: u64) -> u8 {
    if number >= SYSCALL_TABLE as u64 {
        return 0;
    }
    let index = number as usize & (SYSCALL_TABLE - 1);
    // SAFETY: the index is below the table's length; volatile as the loader fills it.
    unsafe { core::ptr::read_volatile((&raw const SYSCALLS).cast::<u8>().add(index)) }
}

const fn zeroed_offsets() -> Offsets {
    // SAFETY: all fields are integers.
    unsafe { core::mem::zeroed() }
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a live entry of this CPU's array; programs do not migrate.
        unsafe { *value += 1 };
    }
}
