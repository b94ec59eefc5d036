//! What Go's scheduler is doing when a goroutine makes a system call.
//!
//! A goroutine that wakes another one and then waits is followed by it at once, on the same processor
//! of the scheduler (`P`) and in what is left of its time slice; whoever comes from a queue begins a new
//! one (`runtime.execute`: `schedtick` grows unless the time is inherited). So what is done in
//! one time slice was all caused by what its first goroutine was woken for. Only what a timer wakes
//! inherits time from a goroutine that has nothing to do with it.

use crate::iov::read_user;
use crate::maps::offsets;
use crate::task::read;
use ebpf_common::{Counter, GoLayout, Goroutine};

/// `g.m`
const G_M: u64 = 48;
/// `_Psyscall`; not used from Go 1.26 on, where `m.p` stays set in system calls.
const PSYSCALL: u32 = 2;
/// `p.runq`: its place after `p.runqhead` and `p.runqtail`, and how many it holds.
const QUEUE_OFFSET: u64 = 8;
const QUEUE_LENGTH: u64 = 256;

/// `m.p` and what follows it.
#[repr(C)]
struct Processors {
    p: u64,
    nextp: u64,
    oldp: u64,
}

/// The first fields of `p`.
#[repr(C)]
struct Processor {
    id: i32,
    status: u32,
    link: u64,
    schedtick: u32,
    syscalltick: u32,
}

/// The goroutine that makes the call.
#[inline(always)]
pub fn current_goroutine(regs: u64, go: &GoLayout) -> Goroutine {
    if go.m_curg == 0 {
        return Goroutine::NONE;
    }
    read_goroutine(regs, go).unwrap_or(Goroutine::NONE)
}

#[inline(always)]
fn read_goroutine(regs: u64, go: &GoLayout) -> Result<Goroutine, Counter> {
    let g: u64 = read(regs, offsets().regs_goroutine)?;
    let m: u64 = read_user(g + G_M)?;
    let current: u64 = read_user(m + u64::from(go.m_curg))?;
    if current != g {
        // Not in Go code: the register holds something else.
        return Ok(Goroutine::NONE);
    }
    let mut goroutine = Goroutine {
        number: read_user(g + u64::from(go.g_goid))?,
        parent: read_user(g + u64::from(go.g_parent))?,
        ..Goroutine::NONE
    };
    let address = processor_of(m, go)?;
    if address != 0 {
        let processor: Processor = read_user(address)?;
        let number = u64::from(processor.id as u32) + 1;
        goroutine.time_slice = number << 32 | u64::from(processor.schedtick);
        fill_dequeued(&mut goroutine, address, go)?;
    }
    Ok(goroutine)
}

/// The scheduler's processor; 0 = not known.
#[inline(always)]
fn processor_of(m: u64, go: &GoLayout) -> Result<u64, Counter> {
    let processors: Processors = read_user(m + u64::from(go.m_p))?;
    if processors.p != 0 {
        return Ok(processors.p);
    }
    // Before Go 1.26 the call has given it away, and others may have taken it.
    let processor: Processor = read_user(processors.oldp)?;
    let waits = processor.status == PSYSCALL;
    Ok(if waits { processors.oldp } else { 0 })
}

/// Who was last taken from the processor's queue; none if it has not been used.
#[inline(always)]
fn fill_dequeued(goroutine: &mut Goroutine, processor: u64, go: &GoLayout) -> Result<(), Counter> {
    let queue = processor + u64::from(go.p_runqhead);
    goroutine.queue_head = read_user(queue)?;
    let place = u64::from(goroutine.queue_head.wrapping_sub(1)) % QUEUE_LENGTH;
    let g: u64 = read_user(queue + QUEUE_OFFSET + place * 8)?;
    if g != 0 {
        goroutine.dequeued = read_user(g + u64::from(go.g_goid))?;
        goroutine.dequeued_parent = read_user(g + u64::from(go.g_parent))?;
    }
    Ok(())
}
