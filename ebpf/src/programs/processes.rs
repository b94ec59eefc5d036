//! `raw_tp/sched_process_{fork,exec,exit}`: which processes come, change and go.

use crate::emit::submit_process;
use crate::maps::{TARGETS, count, offsets, settings};
use crate::task::read;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use ebpf_common::{Counter, ProcessEvent, ProcessRecord, RecordKind, Target};

/// `sched_process_fork (struct task_struct *parent, struct task_struct *child)`
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    if let Err(counter) = try_fork(ctx.arg(0), ctx.arg(1)) {
        count(counter);
    }
    0
}

/// `sched_process_exec (struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(_ctx: RawTracePointContext) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Err(counter) = report(ProcessEvent::Exec, tgid, 0) {
        count(counter);
    }
    0
}

/// `sched_process_exit (struct task_struct *p)`
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(_ctx: RawTracePointContext) -> i32 {
    let ids = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((ids >> 32) as u32, ids as u32);
    if tgid != tid || TARGETS.get_ptr(tgid).is_none() {
        return 0;
    }
    if let Err(counter) = report(ProcessEvent::Exit, tgid, 0) {
        count(counter);
    }
    0
}

#[inline(always)]
fn try_fork(parent: u64, child: u64) -> Result<(), Counter> {
    let o = offsets();
    let parent_tgid: u32 = read(parent, o.task_tgid)?;
    let target = TARGETS.get_ptr(parent_tgid);
    let Some(target) = target.filter(|_| parent_tgid != settings().own_tgid) else {
        return Ok(());
    };
    let child_tgid: u32 = read(child, o.task_tgid)?;
    if child_tgid == parent_tgid {
        // A thread of the same process.
        return Ok(());
    }
    // From here on, so that the child's first message is not missed.
    // SAFETY: a live map entry.
    let target: Target = unsafe { *target };
    TARGETS
        .insert(child_tgid, &target, 0)
        .map_err(|_| Counter::TargetsFull)?;
    report(ProcessEvent::Fork, parent_tgid, child_tgid)
}

#[inline(always)]
fn report(event: ProcessEvent, tgid: u32, other: u32) -> Result<(), Counter> {
    submit_process(&ProcessRecord {
        kind: RecordKind::Process as u8,
        event: event as u8,
        reserved: 0,
        tgid,
        other,
        reserved2: 0,
        // SAFETY: always callable.
        time_ns: unsafe { bpf_ktime_get_ns() },
    })
}
