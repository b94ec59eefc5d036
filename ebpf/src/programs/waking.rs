//! `raw_tp/sched_waking (struct task_struct *p)`: which thread ended another one's wait.
//!
//! It runs in the waker's context, before the woken thread can run. But timers, and whatever else
//! an interrupt does, wake threads too, and then the current task has nothing to do with it. So a
//! wake-up counts only once the woken thread's `futex` call returns 0: a timeout or a signal gives
//! an error, and waits for anything else are no such call.
//!
//! Waits on a lock are left out: who leaves a lock hands on nothing but the lock. glibc waits for a
//! mutex by `FUTEX_WAIT`, and for a condition or a semaphore by `FUTEX_WAIT_BITSET`; C libraries
//! and runtimes that use the former for everything (musl, Go) show no hand-off.
//!
//! A waker that was itself woken since its last message works for somebody that is not known (a
//! worker that takes one task of a queue wakes the next worker), so it counts as nobody.

use crate::filter::{Task, traced_task};
use crate::maps::{Wake, count, offsets, wakes_of};
use crate::task::read;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use ebpf_common::{Counter, Flags, SocketRecord};

/// All but `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME` of the operation.
const FUTEX_CMD_MASK: u32 = !(128 | 256);
const FUTEX_WAIT_BITSET: u32 = 9;

#[raw_tracepoint(tracepoint = "sched_waking")]
pub fn waking(ctx: RawTracePointContext) -> i32 {
    // Most of the host's wake-ups are no traced process's: not counted, as they lose nothing.
    if let Ok(Task { tgid, tid, .. }) = traced_task()
        && let Err(counter) = try_waking(ctx.arg(0), tgid, tid)
    {
        count(counter);
    }
    0
}

#[inline(always)]
fn try_waking(woken: u64, tgid: u32, tid: u32) -> Result<(), Counter> {
    let o = offsets();
    let woken_tgid: u32 = read(woken, o.task_tgid)?;
    let woken_tid: u32 = read(woken, o.task_pid)?;
    if woken_tgid != tgid || woken_tid == tid {
        return Ok(());
    }
    let own = wakes_of(tid).ok_or(Counter::NoScratch)?;
    let waker = if own.confirmed.is_of(tid) {
        0
    } else if own.made > 0 {
        tid | Wake::LATER
    } else {
        tid
    };
    own.made += 1;
    let entry = wakes_of(woken_tid).ok_or(Counter::NoScratch)?;
    if entry.begun.is_of_another(woken_tid) {
        count(Counter::WakeDisplaced);
    }
    // SAFETY: always callable.
    entry.begun = Wake::new(woken_tid, waker, unsafe { bpf_ktime_get_ns() });
    Ok(())
}

/// A `futex` call of a traced thread has returned.
#[inline(always)]
pub fn after_futex(regs: u64, result: i64, tid: u32) -> Result<(), Counter> {
    let operation: u64 = read(regs, offsets().regs_args[1])?;
    if operation as u32 & FUTEX_CMD_MASK != FUTEX_WAIT_BITSET {
        return Ok(());
    }
    let entry = wakes_of(tid).ok_or(Counter::NoScratch)?;
    // What ended an earlier wait says nothing any more.
    entry.confirmed = if result == 0 && entry.begun.is_of(tid) {
        entry.begun
    } else {
        Wake::NONE
    };
    entry.begun = Wake::NONE;
    Ok(())
}

/// A call of a traced thread that waits for descriptors has returned: a loop begins its next round.
#[inline(always)]
pub fn after_poll(tid: u32) -> Result<(), Counter> {
    wakes_of(tid).ok_or(Counter::NoScratch)?.polls.add(tid);
    Ok(())
}

/// How often a thread waited for descriptors.
#[inline(always)]
pub fn polls_of(tid: u32) -> u32 {
    wakes_of(tid).map_or(0, |entry| entry.polls.of(tid))
}

/// Puts who ended the thread's last wait into the record of its next message, and no later one.
#[inline(always)]
pub fn take_wake(record: &mut SocketRecord, tid: u32) {
    let Some(entry) = wakes_of(tid) else { return };
    entry.made = 0;
    record.polls = entry.polls.of(tid);
    let wake = entry.confirmed;
    if !wake.is_of(tid) {
        return;
    }
    entry.confirmed = Wake::NONE;
    if wake.waker() & Wake::LATER != 0 {
        record.flags |= Flags::WOKEN_LATER;
    }
    record.waker_tid = wake.waker() & !Wake::LATER;
    record.woken_ns = wake.time_ns;
}
