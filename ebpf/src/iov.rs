//! The shapes in which user space hands buffers over (`struct iovec`, `msghdr`,
//! `mmsghdr`: stable ABI), and socket addresses.

use aya_ebpf::helpers::bpf_probe_read_user;
use ebpf_common::{Counter, Family, Flags, MAX_IOVECS, SocketRecord};

/// `struct iovec`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Iovec {
    pub base: u64,
    pub len: u64,
}

/// `struct user_msghdr`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MessageHeader {
    pub name: u64,
    pub name_len: u32,
    _pad: u32,
    pub iov: u64,
    pub iov_len: u64,
    pub control: u64,
    pub control_len: u64,
    pub flags: u32,
    _pad2: u32,
}

/// `struct mmsghdr`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MultiMessageHeader {
    pub header: MessageHeader,
    pub len: u32,
    _pad: u32,
}

/// Where a message's bytes lie in user space: one buffer, or an array of `iovec`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Buffer {
    pub address: u64,
    /// Bytes of the one buffer, or parts of the array.
    size: u64,
    /// Not 0: an array.
    scattered: u64,
}

impl Buffer {
    /// Nowhere that can be read.
    pub const UNSEEN: Self = Self {
        address: 0,
        size: 0,
        scattered: 1,
    };

    /// One buffer of `len` bytes.
    #[inline(always)]
    pub fn plain(address: u64, len: u64) -> Self {
        Self {
            address,
            size: len,
            scattered: 0,
        }
    }

    /// An array of `count` `iovec`s.
    #[inline(always)]
    pub fn scattered(address: u64, count: u64) -> Self {
        Self {
            address,
            size: count,
            scattered: 1,
        }
    }

    #[inline(always)]
    pub fn is_unseen(&self) -> bool {
        self.address == 0
    }

    /// How many parts it has.
    #[inline(always)]
    pub fn parts(&self) -> u64 {
        if self.scattered != 0 { self.size } else { 1 }
    }

    /// Part `index`; None if its description cannot be read.
    #[inline(always)]
    pub fn part(&self, index: u64) -> Option<Iovec> {
        if self.scattered != 0 {
            return read_user(self.address + index * size_of::<Iovec>() as u64).ok();
        }
        Some(Iovec {
            base: self.address,
            len: self.size,
        })
    }

    /// Whether a byte fits into it. Beyond `MAX_IOVECS` parts it is taken for granted.
    #[inline(always)]
    pub fn has_room(&self) -> bool {
        let mut index = 0;
        while index < u64::from(MAX_IOVECS) && index < self.parts() {
            if self.part(index).is_none_or(|part| part.len != 0) {
                return true;
            }
            index += 1;
        }
        index < self.parts()
    }
}

/// Reads a user-space value.
#[inline(always)]
pub fn read_user<T>(address: u64) -> Result<T, Counter> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_user(address as *const T) }.map_err(|_| Counter::UserRead)
}

/// `struct sockaddr_in6`; `sockaddr_in` is a prefix of the same size of header.
#[repr(C)]
#[derive(Clone, Copy)]
struct SocketAddress {
    family: u16,
    port: u16,
    /// `sin_addr`, or `sin6_flowinfo`
    word: u32,
    sin6_addr: [u32; 4],
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The peer of a datagram, if the call names it. A connected socket receives from
/// nobody else, but it sends to whom it is told.
#[inline(always)]
pub fn fill_peer(address: u64, record: &mut SocketRecord) {
    let writing = record.flags & Flags::WRITE != 0;
    if address == 0 || (record.remote_port != 0 && !writing) {
        return;
    }
    let Ok(head) = read_user::<[u16; 4]>(address) else {
        return;
    };
    record.remote_port = u16::from_be(head[1]);
    if head[0] == AF_INET {
        let Ok(word) = read_user::<u32>(address + 4) else {
            return;
        };
        record.remote_addr = if record.family == Family::Inet6 as u8 {
            // An IPv6 socket sends to IPv4 addresses too.
            [0, 0, 0xffff_u32.to_be(), word]
        } else {
            [word, 0, 0, 0]
        };
    } else if head[0] == AF_INET6 {
        let Ok(full) = read_user::<SocketAddress>(address) else {
            return;
        };
        record.remote_addr = full.sin6_addr;
    }
}
