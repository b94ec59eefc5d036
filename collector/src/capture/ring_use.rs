//! How full the ring buffer is: its two positions, which the kernel shows in the first two pages.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The positions of consumer and producer, one at the start of a page each
/// (`Documentation/bpf/ringbuf.rst`).
pub(super) struct RingUse {
    pages: *mut c_void,
    page_bytes: usize,
}

// SAFETY: the mapping belongs to this value alone and is only read.
unsafe impl Send for RingUse {}

impl RingUse {
    /// Of the ring buffer behind this map.
    pub fn new(map: impl AsFd) -> std::io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let pages = unsafe {
            let (read, shared) = (ProtFlags::READ, MapFlags::SHARED);
            mmap(ptr::null_mut(), 2 * page_bytes, read, shared, map, 0)?
        };
        Ok(Self { pages, page_bytes })
    }

    /// Bytes of records that have not been read.
    pub fn waiting_bytes(&self) -> u64 {
        let consumer = self.position(0);
        self.position(self.page_bytes).saturating_sub(consumer)
    }

    fn position(&self, offset: usize) -> u64 {
        // SAFETY: both pages are mapped as long as this value lives, and begin with an aligned
        // position that the kernel writes as a whole.
        let position = unsafe { &*self.pages.byte_add(offset).cast::<AtomicU64>() };
        position.load(Ordering::Acquire)
    }
}

impl Drop for RingUse {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and no reference into it outlives a call.
        let _ = unsafe { munmap(self.pages, 2 * self.page_bytes) };
    }
}
