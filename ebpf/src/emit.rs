//! Puts records together and submits them; the only file that copies user bytes.

use crate::iov::{Buffer, Iovec};
use crate::maps::{RECORDS, SCRATCH, Scratch, count, settings};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_ringbuf_output};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use core::hint::black_box;
use ebpf_common::{
    Counter, Flags, Goroutine, MAX_IOVECS, MAX_PAYLOAD, ProcessRecord, RecordKind, SocketRecord,
};

const PAGE: u64 = 4096;
const MAX_PAGES: u32 = MAX_PAYLOAD / PAGE as u32 + 1;

/// This CPU's working space. There is one call under work in it at a time: programs on raw
/// tracepoints are preempted from Linux 7.0 on, but then the kernel does not run them again.
#[inline(always)]
pub fn scratch() -> Result<&'static mut Scratch, Counter> {
    // SAFETY: always callable.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: a live map entry, used by one call at a time.
    SCRATCH
        .get_ptr_mut(cpu)
        .map(|scratch| unsafe { &mut *scratch })
        .ok_or(Counter::NoScratch)
}

/// Fills what every record of the current task has, and clears the rest of its state.
#[inline(always)]
pub fn begin(record: &mut SocketRecord, call: u8, tgid: u32, tid: u32, fd: i32) {
    record.kind = RecordKind::Socket as u8;
    record.call = call;
    record.flags = 0;
    record.role = 0;
    record.reserved = 0;
    record.protocol = 0;
    // SAFETY: always callable.
    record.exit_ns = unsafe { bpf_ktime_get_ns() };
    record.tgid = tgid;
    record.tid = tid;
    record.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    record.offset = 0;
    record.other_offset = 0;
    record.local_isn = 0;
    record.remote_isn = 0;
    record.fd = fd;
    record.total_len = 0;
    record.captured_len = 0;
    record.result = 0;
    record.waker_tid = 0;
    record.polls = 0;
    record.woken_ns = 0;
    record.goroutine = Goroutine::NONE;
}

/// Copies up to `work.limit` bytes of the message and submits the record.
#[inline(always)]
pub fn submit(scratch: &mut Scratch) -> Result<(), Counter> {
    let captured = gather(scratch);
    let record = &mut scratch.record;
    let explained = Flags::FAULT | Flags::SKIPPED | Flags::UNSEEN;
    if captured < record.total_len && record.flags & explained == 0 {
        record.flags |= Flags::TRUNCATED;
    }
    record.captured_len = captured;
    output(
        (&raw const scratch.record).cast(),
        size_of::<SocketRecord>() as u32,
        captured,
    )
}

/// Submits a record that has no payload.
#[inline(always)]
pub fn submit_bare(record: &SocketRecord) -> Result<(), Counter> {
    output(
        (&raw const *record).cast(),
        size_of::<SocketRecord>() as u32,
        0,
    )
}

/// Submits a process event.
#[inline(always)]
pub fn submit_process(record: &ProcessRecord) -> Result<(), Counter> {
    output(
        (&raw const *record).cast(),
        size_of::<ProcessRecord>() as u32,
        0,
    )
}

#[inline(always)]
fn output(record: *const u8, header: u32, payload: u32) -> Result<(), Counter> {
    let size = u64::from(header) + u64::from(at_most(payload, MAX_PAYLOAD));
    let waiting = RECORDS.query(u64::from(BPF_RB_AVAIL_DATA));
    // The reader polls; waking it for every record would cost more than the record.
    let flags = if waiting >= u64::from(settings().wakeup_bytes) {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    // SAFETY: `record` points to at least `size` readable bytes: a whole header, and
    // `MAX_PAYLOAD` bytes of payload behind it when `payload` is not 0.
    let result = unsafe {
        bpf_ringbuf_output(
            (&raw const RECORDS).cast_mut().cast(),
            record.cast_mut().cast(),
            size,
            u64::from(flags),
        )
    };
    if result < 0 {
        return Err(Counter::RingFull);
    }
    count(Counter::Submitted);
    Ok(())
}

/// Copies the wanted bytes from the buffer's parts, and tells how many they are.
#[inline(never)]
fn gather(scratch: &mut Scratch) -> u32 {
    let want = scratch
        .work
        .limit
        .min(scratch.record.total_len)
        .min(MAX_PAYLOAD);
    let buffer = scratch.work.buffer;
    let payload = scratch.payload.as_mut_ptr();
    let mut at = 0u32;
    let mut failed = Iovec { base: 0, len: 0 };
    let mut index = 0u64;
    while index < u64::from(MAX_IOVECS) && index < buffer.parts() && at < want {
        let Some(part) = buffer.part(index) else {
            scratch.record.flags |= Flags::FAULT;
            break;
        };
        let len = part.len.min(u64::from(want - at)) as u32;
        if !read_into(payload, at, part.base, len) {
            failed = Iovec {
                base: part.base,
                len: u64::from(len),
            };
            break;
        }
        at = mask(at + len);
        index += 1;
    }
    if failed.len != 0 {
        scratch.record.flags |= Flags::FAULT;
        at += copy_pages(payload, at, failed.base, failed.len as u32);
    }
    at
}

/// What can be read of a part that spans a page that cannot.
#[inline(never)]
fn copy_pages(payload: *mut u8, at: u32, base: u64, len: u32) -> u32 {
    let mut done = 0u32;
    for _ in 0..MAX_PAGES {
        if done >= len {
            break;
        }
        let base = base + u64::from(done);
        let page = ((PAGE - (base & (PAGE - 1))) as u32).min(len - done);
        if !read_into(payload, at + done, base, page) {
            break;
        }
        done = mask(done + page);
    }
    done
}

#[inline(always)]
fn read_into(payload: *mut u8, at: u32, base: u64, len: u32) -> bool {
    let at = at_most(at, MAX_PAYLOAD - 1) as usize;
    let len = at_most(len, MAX_PAYLOAD);
    // SAFETY: `payload` has `2 * MAX_PAYLOAD` bytes, and `at + len` stays below that.
    unsafe { bpf_probe_read_user(payload.add(at).cast(), len, base as *const _) == 0 }
}

/// A bound that the compiler cannot prove away, so that the verifier sees it.
#[inline(always)]
fn at_most(value: u32, limit: u32) -> u32 {
    let value = black_box(value);
    if value > limit { limit } else { value }
}

/// No change for positions, which are at most `MAX_PAYLOAD`: gives every turn of a loop
/// the same range, so that the verifier does not follow each turn anew.
#[inline(always)]
fn mask(position: u32) -> u32 {
    black_box(position) & (2 * MAX_PAYLOAD - 1)
}
